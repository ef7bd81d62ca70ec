//! `visage train-classifier`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tch::Tensor;

use super::dataset::{self, Dataset};
use super::output::{count, line, percent};
use super::{Context, stream};
use crate::data::picture;
use crate::eval::Embeddings;
use crate::models::Backbone;
use crate::recognise::recogniser::{BATCH, embed_batch};
use crate::recognise::{ModelCard, ModelKind, Recogniser, model_file};
use crate::train::calibrate::Known;
use crate::train::classifier::{ClassifierTask, Features};
use crate::train::fit::{Outcome, fit};
use crate::train::log::RunLog;
use crate::train::optim::Optimizer;
use crate::train::run_folder::RunFolder;
use crate::train::scoring::Labelled;
use crate::train::settings::ClassifierSettings;
use crate::{Error, Result};

pub fn run(context: &Context, mut settings: ClassifierSettings) -> anyhow::Result<ExitCode> {
    settings.check()?;
    let say = &context.say;
    let trunk_path = match &settings.trunk {
        Some(path) => path.clone(),
        None => model_file::newest(context.runs(), ModelKind::Trunk)?,
    };
    let trunk = Recogniser::load(&trunk_path, context.device()?)?;
    say.line(&format!(
        "trunk: {} of {}, frozen",
        trunk.card.architecture.name(),
        trunk_path.display()
    ));
    settings.trunk = Some(trunk_path.clone());
    if settings.data.data.is_none() && trunk.card.data.path.is_dir() {
        settings.data.data = Some(trunk.card.data.path.clone());
    }
    let data = open_data(&mut settings, &trunk, &trunk_path, say)?;

    let classes = Classes::of(&data, say);
    let (train, mirrored, validation) =
        features(&trunk.backbone, &data, &classes, settings.flip, say)?;
    let strangers = match &settings.strangers {
        Some(folder) => {
            Some(embed_strangers(&trunk.backbone, folder, &data.folder.identities, say)?)
        }
        None => None,
    };
    let known = Known::fit(&train, &validation, strangers.as_ref());
    let paths: Vec<PathBuf> =
        data.parts.train.iter().map(|&i| data.folder.pictures[i].path.clone()).collect();
    let card = ModelCard {
        version: env!("CARGO_PKG_VERSION").into(),
        kind: ModelKind::Classifier,
        classes: classes.names.clone(),
        seed: settings.data.seed,
        epoch: 0,
        data: data.card.clone(),
        settings: super::settings_json(&settings)?,
        metrics: Default::default(),
        ..trunk.card.clone()
    };
    let from = Features {
        trunk: &trunk.backbone,
        train: &train,
        mirrored: mirrored.as_ref(),
        validation: &validation,
        paths: &paths,
        known: &known,
    };
    tch::manual_seed(settings.data.seed as i64);
    let unknown = settings.unknown.map(|percent| percent / 100.0);
    let mut task = ClassifierTask::new(from, &card, unknown, settings.batch_size);

    let run = RunFolder::create(&settings.out, "train-classifier", &settings)?;
    if let Some(moved) = &run.moved {
        say.line(&format!("note: the older run is now {}", moved.display()));
    }
    data.split.write_csv(&run.split(), &data.folder)?;
    let config = settings.schedule.optimizer(settings.lr);
    let mut optimizer = Optimizer::new(config, task.params.trainable())?;
    let plan = settings.schedule.plan(settings.epochs, settings.lr);
    let mut log = RunLog::create(run.path());
    let outcome = fit(&mut task, &mut optimizer, &plan, &run, &mut log, say)?;
    for warning in log.take_warnings() {
        say.warn(&warning);
    }
    summary(&outcome, &data)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the data with the split the trunk was trained with, wherever that fits: a picture the
/// trunk learnt from is no validation picture.
fn open_data(
    settings: &mut ClassifierSettings,
    trunk: &Recogniser,
    trunk_path: &Path,
    say: &crate::train::progress::Reporter,
) -> Result<Dataset> {
    let size = trunk.backbone.input.size;
    let beside = trunk_path.with_file_name("split.csv");
    let same_data = settings.data.data.as_ref() == Some(&trunk.card.data.path);
    if settings.data.split.is_none() && beside.is_file() && same_data {
        settings.data.split = Some(beside.clone());
        say.line(&format!("split: {}, as the trunk was trained with", beside.display()));
    }
    let data = dataset::open(&settings.data, size, say)?;
    if settings.data.split.is_none() && data.card.fingerprint == trunk.card.data.fingerprint {
        say.warn(
            "the trunk was trained on these pictures and its split.csv is not beside it: validation \
             figures may be measured on pictures the trunk has learnt from (--split FILE mends it)",
        );
    }
    Ok(data)
}

/// The identities that have training pictures: the others cannot be learnt.
struct Classes {
    names: Vec<String>,
    /// For each identity of the data its number among the classes.
    number: Vec<Option<usize>>,
}

impl Classes {
    fn of(data: &Dataset, say: &crate::train::progress::Reporter) -> Self {
        let mut has_pictures = vec![false; data.folder.identities.len()];
        for &picture in &data.parts.train {
            has_pictures[data.parts.labels[picture]] = true;
        }
        let mut classes = Self { names: Vec::new(), number: Vec::new() };
        for (name, has_pictures) in data.folder.identities.iter().zip(has_pictures) {
            classes.number.push(has_pictures.then_some(classes.names.len()));
            if has_pictures {
                classes.names.push(name.clone());
            }
        }
        let without = data.folder.identities.len() - classes.names.len();
        if without > 0 {
            let without = count(without, "folder");
            say.line(&format!("note: {without} without a training picture: not among the classes"));
        }
        classes
    }

    fn label(&self, data: &Dataset, picture: usize) -> Option<usize> {
        self.number.get(*data.parts.labels.get(picture)?).copied().flatten()
    }
}

/// Embeddings of the training part, its mirror images and the validation part: computed once.
fn features(
    trunk: &Backbone,
    data: &Dataset,
    classes: &Classes,
    flip: bool,
    say: &crate::train::progress::Reporter,
) -> Result<(Labelled, Option<Labelled>, Labelled)> {
    let total = data.parts.train.len() * (1 + usize::from(flip)) + data.parts.validation.len();
    let bar = say.progress("features", total as u64, "pictures");
    let embed = |indices: &[usize], mirror: bool| -> Result<Labelled> {
        let mut values = Vec::new();
        for batch in indices.chunks(BATCH) {
            let fitted: Vec<_> = batch.iter().map(|&i| data.folder.fitted[i].clone()).collect();
            let pixels = picture::to_tensor(&fitted)?;
            let pixels: Tensor = if mirror { pixels.flip([3]) } else { pixels };
            values.extend(embed_batch(trunk, &pixels)?);
            bar.inc(batch.len() as u64);
        }
        let dim = trunk.embedding_dim as usize;
        Ok(Labelled {
            embeddings: Embeddings::new(indices.len(), dim, values)?,
            labels: indices.iter().filter_map(|&i| classes.label(data, i)).collect(),
        })
    };
    let train = embed(&data.parts.train, false)?;
    let mirrored = flip.then(|| embed(&data.parts.train, true)).transpose()?;
    let known = data.parts.validation.iter().copied();
    let known: Vec<usize> = known.filter(|&i| classes.label(data, i).is_some()).collect();
    let validation = embed(&known, false)?;
    bar.finish();
    Ok((train, mirrored, validation))
}

/// Embeds the faces below `folder` whose own folder is not named after a known identity.
///
/// # Errors
/// None of them can be read.
fn embed_strangers(
    trunk: &Backbone,
    folder: &Path,
    identities: &[String],
    say: &crate::train::progress::Reporter,
) -> anyhow::Result<Embeddings> {
    let paths = stranger_files(folder, identities)?;
    let mut values = Vec::new();
    stream::embed_files(trunk, &paths, say, |_, row| {
        match row {
            Ok(row) => values.extend_from_slice(row),
            Err(error) => say.warn(&format!("skipped {error}")),
        }
        Ok(())
    })?;
    let rows = values.len() / trunk.embedding_dim as usize;
    if rows == 0 {
        let text = format!("--strangers {}: none of the pictures can be read", folder.display());
        return Err(Error::Data(text).into());
    }
    say.line(&format!("strangers: {} from {}", count(rows, "picture"), folder.display()));
    Ok(Embeddings::new(rows, trunk.embedding_dim as usize, values)?)
}

/// The pictures below `folder`, without folders named after one of `identities`.
///
/// # Errors
/// The folder cannot be read or holds no picture of a stranger.
pub fn stranger_files(folder: &Path, identities: &[String]) -> Result<Vec<PathBuf>> {
    let mut paths = picture::walk(folder)?;
    paths.retain(|path| {
        let owner = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        owner.is_none_or(|owner| identities.iter().all(|identity| *identity != owner))
    });
    if paths.is_empty() {
        return Err(Error::Data(format!(
            "--strangers {}: no picture of anybody the model does not know",
            folder.display()
        )));
    }
    Ok(paths)
}

fn summary(outcome: &Outcome, data: &Dataset) -> std::io::Result<()> {
    let figure = |name: &str| outcome.best.values.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    if let (Some(accuracy), Some(knn)) = (figure("accuracy"), figure("knn_gallery")) {
        line(&format!(
            "validation accuracy {} (1-NN against training: {}), epoch {}",
            percent(accuracy),
            percent(knn),
            outcome.best_epoch
        ))?;
    }
    if let (Some(threshold), Some(named)) = (figure("threshold"), figure("named")) {
        line(&format!(
            "UNKNOWN below {} probability of being one of them; {} of the validation faces are named",
            percent(threshold),
            percent(named)
        ))?;
    }
    line(&format!("model: {}", outcome.model.display()))?;
    let example = data.parts.validation.first().or(data.parts.train.first());
    let picture = example.map(|&i| data.folder.pictures[i].path.display().to_string());
    line(&format!("next: visage classify {}", picture.unwrap_or_else(|| "face.png".into())))
}
