//! `train-triplet` from its settings to its result.

use tch::Device;

use super::fit::fit;
use super::fit_result::FitResult;
use super::log::RunLog;
use super::objective::Objective;
use super::optim::Optimizer;
use super::progress::Reporter;
use super::run_folder::RunFolder;
use super::set_up::{device_summary, plan, resolve_auto, settings_json, warm_up_batchnorm};
use super::settings::TripletSettings;
use super::stages::scale_layers;
use super::triplet::{Parts, TripletTask};
use crate::data::{FaceFolder, Split};
use crate::models::Backbone;
use crate::recognise::{DataCard, ModelCard, ModelKind};
use crate::weights::{Bare, Built, Source};
use crate::{Error, Result};

/// What a training needs besides its trunk and its pictures.
pub struct Prepared {
    /// What the model files say.
    pub card: ModelCard,
    /// Loss and miner.
    pub objective: Objective,
    /// The optimiser of all that trains.
    pub optimizer: Optimizer,
}

/// Builds the trunk of the settings and freezes its blocks; resolves the settings left open.
///
/// # Errors
/// Impossible settings, weights that do not fit, or nothing left to train.
pub fn build_trunk(
    settings: &mut TripletSettings,
    device: Device,
    deterministic: bool,
    say: &Reporter,
) -> Result<(Backbone, Source)> {
    let bare = Bare {
        architecture: settings.backbone,
        weights: settings.weights.as_deref(),
        allow_missing: &settings.allow_missing,
        embedding_dim: settings.embedding_dim,
        input_size: settings.input_size,
    };
    let Built { mut backbone, source, line: trunk } = bare.build(device)?;
    resolve_auto(&mut settings.tuning, &source, &mut backbone, deterministic, say)?;
    say.line(&format!("trunk: {trunk}, {}", device_summary(device, &settings.tuning)));
    settings.blend.get_or_insert(if source == Source::Random { 1.0 } else { 0.75 });
    settings.check_pieces()?;
    backbone.params.freeze(&settings.tuning.freeze)?;
    match backbone.params.trainable().is_empty() {
        true => Err(Error::Config("--freeze: nothing left to train".into())),
        false => Ok((backbone, source)),
    }
}

/// Makes loss, optimiser and card; `data` is the card's entry about the pictures.
///
/// # Errors
/// A picture that cannot be read any more, or impossible settings of the optimiser.
pub fn prepare(
    settings: &TripletSettings,
    backbone: &mut Backbone,
    source: &Source,
    folder: &FaceFolder,
    parts: &Parts,
    data: DataCard,
) -> Result<Prepared> {
    warm_up_batchnorm(backbone, source, &settings.tuning, &folder.fitted, &parts.train)?;
    let card = ModelCard {
        embedding_layer: settings.embedding_dim.is_some(),
        classes: folder.identities.clone(),
        seed: settings.data.seed,
        data,
        settings: settings_json(settings)?,
        ..ModelCard::new(ModelKind::Trunk, backbone, source.describe())
    };
    let classes = folder.identities.len();
    let objective = Objective::new(settings, classes, backbone.embedding_dim, backbone.device());
    let mut trainable = backbone.params.trainable();
    trainable.extend(objective.parameters());
    let mut optimizer = Optimizer::new(settings.schedule.optimizer(settings.lr()), trainable)?;
    scale_layers(&mut optimizer, backbone, settings.tuning.lr_decay_by_layer);
    Ok(Prepared { card, objective, optimizer })
}

/// Fine-tunes a trunk on the training part of a folder, as `visage train-triplet` does, and writes a
/// run folder to `settings.out`: `best.safetensors`, `metrics.csv`, `config.toml`, `split.csv`,
/// `summary.json`. Seeds libtorch's generators with `settings.data.seed`; the other settings of the data
/// have no effect, since folder and split are given.
///
/// # Errors
/// Impossible settings, pictures of another size than the trunk's input, a run folder that cannot be
/// written, or a training that diverges.
pub fn train_triplet(
    mut settings: TripletSettings,
    folder: &FaceFolder,
    split: &Split,
    device: Device,
    say: &Reporter,
) -> Result<FitResult> {
    settings.check()?;
    if settings.triplets.is_some() {
        let text = "triplets: train_triplet mines its triplets; use a TupleTask for given ones";
        return Err(Error::Config(text.into()));
    }
    tch::manual_seed(settings.data.seed as i64);
    let (mut backbone, source) = build_trunk(&mut settings, device, false, say)?;
    let (found, wanted) = (folder.fitted.side(), backbone.input.size);
    if found != wanted {
        return Err(Error::Data(format!(
            "{}: its pictures were fitted to {found} pixels, but the trunk takes {wanted}; open the \
             folder at {wanted}",
            folder.root.display()
        )));
    }
    settings.fill_in(&source, wanted);
    let parts = Parts::new(folder, split);
    let data = parts.card(&folder.root, folder);
    let Prepared { card, objective, mut optimizer } =
        prepare(&settings, &mut backbone, &source, folder, &parts, data)?;
    let run = RunFolder::create(&settings.out, "train-triplet", &settings)?;
    settings.out = run.path().to_owned(); // of the disk cache, too
    let mut task = TripletTask::new(&backbone, folder, &parts, &card, &objective, &settings)?;
    split.write_csv(&run.split(), folder)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr(), &backbone);
    let mut log = RunLog::create(run.path());
    let result = fit(&mut task, &mut optimizer, &plan, &run, &mut log, say)?;
    for warning in log.take_warnings() {
        say.warn(&warning);
    }
    run.finish(&result)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::face_folder;
    use crate::recognise::Recogniser;

    #[test]
    fn one_call_trains_a_trunk_and_writes_its_run() {
        let root = tempfile::tempdir().unwrap();
        let faces = root.path().join("faces");
        face_folder(&faces, &[("ada", 4), ("bohr", 4)]);
        let mut settings = TripletSettings { epochs: 1, ..TripletSettings::default() };
        settings.pictures_per_identity = 2;
        settings.out = root.path().join("run");
        let train = |side, settings| {
            let folder = FaceFolder::open(&faces, false, side, &|_, _| {})?;
            let split = Split::stratified(&folder, &[0, 1, 2, 3, 4, 5, 6, 7], 0.25, 0)?;
            train_triplet(settings, &folder, &split, Device::Cpu, &Reporter::hidden())
        };
        let wrong = train(64, settings.clone()).unwrap_err().to_string();
        assert!(wrong.contains("64 pixels") && wrong.contains("96"), "{wrong}");
        let result = train(96, settings.clone()).unwrap();
        assert_eq!((result.epochs, result.history.len()), (1, 2));
        let model = Recogniser::load(&result.model, Device::Cpu).unwrap();
        assert_eq!(model.card.classes, ["ada", "bohr"]);
        assert_eq!((model.card.data.train, model.card.data.validation), (6, 2));
        for file in ["config.toml", "metrics.csv", "split.csv", "summary.json"] {
            assert!(settings.out.join(file).is_file(), "{file}");
        }
    }
}
