//! `visage train` from its settings to its result.

use std::path::PathBuf;

use tch::Device;

use super::dataset::{self, SplitBy, TrainingData};
use super::fit::fit;
use super::fit_result::FitResult;
use super::log::RunLog;
use super::objective::Objective;
use super::optim::Optimizer;
use super::run_folder::RunFolder;
use super::set_up::{device_summary, plan, resolve_auto, settings_json, warm_up_batchnorm};
use super::settings::TripletSettings;
use super::stages::scale_layers;
use super::triplet::TripletTask;
use crate::models::Backbone;
use crate::progress::Reporter;
use crate::recognise::{ModelCard, ModelKind};
use crate::weights::manifest::untrained;
use crate::weights::{Bare, Built, Source};
use crate::{Error, Result};

/// A training of a trunk before its first batch.
pub struct TripletTraining {
    /// The trunk, with its initial weights.
    pub backbone: Backbone,
    /// The pictures and their split.
    pub data: TrainingData,
    /// What the model files say.
    pub card: ModelCard,
    /// Loss and miner.
    pub objective: Objective,
    /// The optimiser of all that trains.
    pub optimizer: Optimizer,
}

impl TripletTraining {
    /// Builds the trunk, opens the data, and makes loss and optimiser; resolves the settings left open.
    /// Random weights follow `tch::manual_seed`.
    ///
    /// # Errors
    /// Impossible settings, weights or data that do not fit, or nothing left to train.
    pub fn set_up(
        settings: &mut TripletSettings,
        device: Device,
        deterministic: bool,
        say: &Reporter,
    ) -> Result<Self> {
        settings.check()?;
        let (mut backbone, source) = build_trunk(settings, device, deterministic, say)?;
        let side = backbone.input.size;
        let inherited = match &source {
            Source::File(path) => Some(path.with_file_name("split.csv")),
            _ => None,
        };
        let trunk = ModelCard::of_trunk(&backbone, &source);
        let by = SplitBy::Picture { inherited };
        let data = dataset::open(&settings.data, by, &trunk, device, say)?;
        settings.data.data.get_or_insert_with(|| PathBuf::from(&data.card.path));
        settings.fill_in(&source, side);
        let faces = &data.folder.fitted;
        warm_up_batchnorm(&mut backbone, &source, &settings.tuning, faces, &data.parts.train)?;
        let card = ModelCard {
            embedding_layer: settings.embedding_dim.is_some(),
            classes: data.folder.identities.clone(),
            seed: settings.data.seed,
            data: data.card.clone(),
            settings: settings_json(settings)?,
            framing: data.framing,
            ..ModelCard::new(ModelKind::Trunk, &backbone, source.describe())
        };
        let classes = data.folder.identities.len();
        let objective = Objective::new(settings, classes, backbone.embedding_dim, device);
        say.line(&format!("loss: {}", settings.objective()));
        let mut trainable = backbone.params.trainable();
        trainable.extend(objective.parameters());
        let mut optimizer = Optimizer::new(settings.schedule.optimizer(settings.lr()), trainable)?;
        scale_layers(&mut optimizer, &backbone, settings.tuning.lr_decay_by_layer);
        Ok(Self { backbone, data, card, objective, optimizer })
    }

    /// The training task, which writes to the folder in `settings`, and its optimiser.
    ///
    /// # Errors
    /// Fewer than two identities have two training pictures.
    pub fn task(
        &mut self,
        settings: &TripletSettings,
    ) -> Result<(TripletTask<'_>, &mut Optimizer)> {
        let Self { backbone, data, card, objective, optimizer } = self;
        let task =
            TripletTask::new(backbone, &data.folder, &data.parts, card, objective, settings)?;
        Ok((task, optimizer))
    }
}

/// Builds the trunk of the settings and freezes its blocks.
fn build_trunk(
    settings: &mut TripletSettings,
    device: Device,
    deterministic: bool,
    say: &Reporter,
) -> Result<(Backbone, Source)> {
    let bare = Bare {
        architecture: settings.resolve_backbone()?,
        weights: settings.trunk.weights.as_deref(),
        allow_missing: &settings.trunk.allow_missing,
        embedding_dim: settings.embedding_dim,
        input_size: settings.trunk.input_size,
    };
    let Built { mut backbone, source, line: trunk } = bare.build(device)?;
    resolve_auto(&mut settings.tuning, &source, &mut backbone, deterministic, say)?;
    say.line(&format!("trunk: {trunk}"));
    say.line(&format!("training: {}", device_summary(device, &settings.tuning)));
    let architecture = backbone.architecture;
    let untrained = untrained(settings.trunk.weights.as_deref(), &source, architecture)?;
    untrained.iter().for_each(|warning| say.warn(warning));
    settings.blend.get_or_insert(if source == Source::Random { 1.0 } else { 0.75 });
    settings.check_pieces()?;
    backbone.params.freeze(&settings.tuning.freeze)?;
    match backbone.params.trainable().is_empty() {
        true => Err(Error::Config("--freeze: nothing left to train".into())),
        false => Ok((backbone, source)),
    }
}

/// Fine-tunes a trunk on the data set `settings.data`, as `visage train` does, and writes a run folder to
/// `settings.out` (with a number appended if it holds a run already): `best.safetensors`,
/// `metrics.csv`, `config.toml`, `split.csv`, `summary.json`. Seeds libtorch's generators.
///
/// # Errors
/// Impossible settings, data that cannot be read, a run folder that cannot be written, or a training
/// that diverges before its first epoch.
pub fn train_triplet(
    mut settings: TripletSettings,
    device: Device,
    say: &Reporter,
) -> Result<FitResult> {
    if settings.triplets.is_some() {
        let text = "triplets: train_triplet mines its triplets; use a TupleTask for given ones";
        return Err(Error::Config(text.into()));
    }
    tch::manual_seed(settings.data.seed as i64);
    let mut training = TripletTraining::set_up(&mut settings, device, false, say)?;
    let run = RunFolder::create(&settings.out, "train-triplet", &settings)?;
    settings.out = run.path().to_owned(); // of the disk cache, too
    run.write_split(training.data.divided(), say)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr(), &training.backbone);
    let mut log = RunLog::create(run.path());
    let (mut task, optimizer) = training.task(&settings)?;
    let result = fit(&mut task, optimizer, &plan, &run, &mut log, say)?;
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
        settings.data.data = Some(faces);
        let say = Reporter::hidden();
        let result = train_triplet(settings.clone(), Device::Cpu, &say).unwrap();
        assert_eq!((result.epochs, result.history.len()), (1, 2));
        let model = Recogniser::load(&result.model, Device::Cpu).unwrap();
        assert_eq!(model.card.classes, ["ada", "bohr"]);
        assert_eq!((model.card.data.train, model.card.data.validation), (6, 2));
        for file in ["config.toml", "metrics.csv", "split.csv", "summary.json"] {
            assert!(settings.out.join(file).is_file(), "{file}");
        }
        assert_eq!(result.best_of_all, None);
    }

    #[test]
    fn epochs_are_scored_on_a_sample_and_the_best_model_on_everything() {
        let root = tempfile::tempdir().unwrap();
        let faces = root.path().join("faces");
        let people: Vec<_> = (0..6).map(|n| (format!("person {n}"), 8)).collect();
        face_folder(
            &faces,
            &people.iter().map(|(name, n)| (name.as_str(), *n)).collect::<Vec<_>>(),
        );
        let train = |out: &str, val_limit| {
            let mut settings =
                TripletSettings { epochs: 1, val_limit, ..TripletSettings::default() };
            settings.backbone = Some(crate::models::Architecture::OpenFace);
            settings.out = root.path().join(out);
            settings.data.data = Some(faces.clone());
            settings.data.val_fraction = 0.5;
            settings.schedule.monitor = Some("loss".into());
            train_triplet(settings, Device::Cpu, &Reporter::hidden()).unwrap()
        };
        let (sampled, whole) = (train("sampled", 8), train("whole", 0));
        assert_eq!((sampled.best_epoch, whole.best_epoch), (1, 1));
        let all = sampled.best_of_all.unwrap();
        // What is scored does not change what is trained.
        assert_eq!(all.values, whole.best.values);
        assert_ne!(sampled.best.values, all.values);
        let [sampled, whole] = [sampled.model, whole.model].map(|model| {
            let Recogniser { card, .. } = Recogniser::load(&model, Device::Cpu).unwrap();
            card.metrics
        });
        assert_eq!(sampled, whole);
    }
}
