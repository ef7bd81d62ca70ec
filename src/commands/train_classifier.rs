//! `visage train-classifier`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::context::Context;
use super::framing;
use super::output::{count, line, percent, quoted};
use super::strangers::embed_strangers;
use super::training::train;
use super::trunk::{self, Bare, Built};
use crate::data::formats;
use crate::detect::DetectOptions;
use crate::eval::Embeddings;
use crate::models::{Architecture, Backbone};
use crate::progress::Reporter;
use crate::recognise::embedder::{BATCH, embed_batches};
use crate::recognise::runs::{Choice, ChosenBy};
use crate::recognise::{
    FaceSearch, GalleryFace, MeasuredFpir, ModelCard, ModelKind, Recogniser, Viewer, model_file,
    runs,
};
use crate::train::calibrate::OpenSetCalibration;
use crate::train::classifier::{ClassifierTask, Features};
use crate::train::dataset::{self, SplitBy, TrainingData};
use crate::train::fit_result::FitResult;
use crate::train::optim::Optimizer;
use crate::train::plan::FitConfig;
use crate::train::scoring::Labelled;
use crate::train::set_up::settings_json;
use crate::train::settings::ClassifierSettings;
use crate::train::strangers::Strangers;
use crate::weights::{Source, TensorFile, manifest, model_path};
use crate::{Error, Result};

pub fn run(context: &Context, mut settings: ClassifierSettings) -> anyhow::Result<ExitCode> {
    settings.check()?;
    let say = &context.say;
    let trunk = load_trunk(context, &mut settings)?;
    let data = open_data(&mut settings, &trunk, say)?;
    let classes = Classes::of(&data, say);
    let parts = features(&trunk.backbone, &data, &classes, settings.flip, say)?;
    let faces: Vec<GalleryFace> = data
        .parts
        .train
        .iter()
        .map(|&i| GalleryFace {
            path: data.folder.pictures[i].path.to_string_lossy().into_owned(),
            sha256: data.folder.digest(i),
        })
        .collect();
    let card = ModelCard {
        embedding_layer: trunk.card.embedding_layer,
        classes: classes.names.clone(),
        seed: settings.data.seed,
        data: data.card.clone(),
        settings: settings_json(&settings)?,
        framing: Some(framing::measure(context, &data)?),
        ..ModelCard::new(ModelKind::Classifier, &trunk.backbone, trunk.card.weights.clone())
    };
    let strangers = match &settings.strangers {
        Some(folder) => {
            // As `classify` will see them.
            let device = context.device()?;
            let viewer = Viewer::new(&card, FaceSearch::Auto, DetectOptions::default(), device)?;
            let names = &data.folder.identities;
            Some(embed_strangers(&trunk.backbone, &viewer, folder, names, say)?)
        }
        None => embedded_strangers(&trunk, &data, &parts.train, say)?,
    };
    let known = OpenSetCalibration::fit(
        &parts.train,
        &parts.validation,
        &parts.lone,
        strangers.as_ref(),
        settings.fpir.map(|percent| percent / 100.0),
    )?;
    let from = Features {
        trunk: &trunk.backbone,
        train: &parts.train,
        mirrored: parts.mirrored.as_ref(),
        validation: &parts.validation,
        faces: &faces,
        known: &known,
    };
    tch::manual_seed(settings.data.seed as i64);
    let unknown = settings.unknown.map(|percent| percent / 100.0);
    let mut task = ClassifierTask::new(from, &card, unknown, settings.batch_size);

    let run = context.run_folder(&settings.out, "train-classifier", &settings)?;
    run.write_split(data.divided(), say)?;
    let config = settings.schedule.optimizer(settings.lr);
    let mut optimizer = Optimizer::new(config, task.params.trainable())?;
    // A few seconds of work: report every tenth epoch, and write the last model once, at the end.
    let plan = settings.schedule.plan(settings.epochs, settings.lr);
    let plan = FitConfig { keep_last: false, report_every: 10, ..plan };
    let command = ("train-classifier", &settings);
    let outcome = train(context, &mut task, &mut optimizer, &plan, &run, command)?;
    let promise = known.fpir.as_ref().filter(|_| settings.unknown.is_none());
    summary(&outcome, &data, promise)?;
    Ok(ExitCode::SUCCESS)
}

/// A frozen trunk and its card.
struct FrozenTrunk {
    card: ModelCard,
    backbone: Backbone,
    /// Its weights were trained here.
    is_trained: bool,
    /// The split it was trained with, if it was trained here.
    split: Option<PathBuf>,
}

/// Loads `--trunk`: a model file, or the weights of a pretrained backbone.
fn load_trunk(context: &Context, settings: &mut ClassifierSettings) -> Result<FrozenTrunk> {
    let device = context.device()?;
    let is_model = |path: &PathBuf| {
        TensorFile::read_metadata(path).is_ok_and(|meta| meta.contains_key(model_file::CARD))
    };
    let choice = match (&settings.trunk, settings.backbone) {
        (Some(value), _) => model_path(Path::new(value))
            .ok()
            .filter(is_model)
            .map(|path| Choice { path, by: ChosenBy::Flag }),
        (None, Some(_)) => None,
        (None, None) => runs::find(context.runs(), None, &[ModelKind::Trunk])?,
    };
    if let Some(choice) = choice {
        let path = &choice.path;
        settings.trunk = Some(path.to_string_lossy().into_owned());
        let model = Recogniser::load(path, device)?;
        let found = model.card.architecture;
        if let Some(asked) = settings.backbone.filter(|asked| *asked != found) {
            return Err(Error::Config(format!(
                "--backbone {}: {} is a model file with a {} trunk; leave the flag out",
                asked.name(),
                path.display(),
                found.name()
            )));
        }
        trunk::report(context, &choice, &model.card);
        let split = Some(path.with_file_name("split.csv"));
        return Ok(FrozenTrunk {
            card: model.card,
            backbone: model.backbone,
            is_trained: true,
            split,
        });
    }
    if settings.trunk.is_none() && settings.backbone.is_none() {
        let runs = context.runs().display();
        context.say.line(&format!(
            "note: no trained trunk under {runs} (`visage train-triplet` trains one); using a \
             pretrained one"
        ));
    }
    let of_name = match &settings.trunk {
        Some(name) => manifest::architecture(name)?.unwrap_or(Architecture::OpenFace),
        None => trunk::DEFAULT,
    };
    let architecture = settings.backbone.unwrap_or(of_name);
    tch::manual_seed(settings.data.seed as i64);
    let bare = Bare {
        architecture,
        weights: settings.trunk.as_deref(),
        allow_missing: &settings.allow_missing,
        embedding_dim: None,
        input_size: settings.input_size,
    };
    let built = bare.build(device);
    let Built { backbone, source, line } = built.map_err(|error| match error {
        Error::Config(text) => Error::Config(text.replace("--weights", "--trunk")),
        other => other,
    })?;
    backbone.params.freeze_all();
    settings.backbone = Some(architecture);
    settings.trunk.get_or_insert_with(|| source.flag());
    settings.input_size.get_or_insert(backbone.input.size);
    context.say.line(&format!("trunk: {line}, pretrained and frozen"));
    let card = ModelCard::new(ModelKind::Trunk, &backbone, source.describe());
    Ok(FrozenTrunk { card, backbone, is_trained: false, split: None })
}

/// Opens the data with the split the trunk was trained with, if it fits.
fn open_data(
    settings: &mut ClassifierSettings,
    trunk: &FrozenTrunk,
    say: &Reporter,
) -> Result<TrainingData> {
    let of_trunk = PathBuf::from(&trunk.card.data.path);
    if settings.data.data.is_none() && formats::exists(&of_trunk) {
        settings.data.data = Some(of_trunk);
    }
    let inherited = trunk.split.clone();
    let is_beside = inherited.as_ref().is_some_and(|file| file.is_file());
    let data = dataset::open(
        &settings.data,
        SplitBy::Picture { inherited },
        &trunk.card,
        trunk.backbone.device(),
        say,
    )?;
    settings.data.data.get_or_insert_with(|| PathBuf::from(&data.card.path));
    settings.schedule.fill_in();
    let same = data.card.fingerprint == trunk.card.data.fingerprint;
    if same && !is_beside && settings.data.split.is_none() {
        say.warn(
            "the trunk was trained on these pictures and its split.csv is not beside it: the \
             validation set may contain pictures the trunk was trained on (use --split FILE)",
        );
    }
    Ok(data)
}

/// The strangers that are part of the program, as the trunk sees them: `None` for a trunk that does not
/// come from embedded weights, or sees its pictures or gives its embedding otherwise.
fn embedded_strangers(
    trunk: &FrozenTrunk,
    data: &TrainingData,
    train: &Labelled,
    say: &Reporter,
) -> Result<Option<Strangers>> {
    let Backbone { architecture, embedding_dim, ref input, .. } = trunk.backbone;
    let info = architecture.info();
    let weights = Source::resolve(None, architecture)?;
    if weights.describe() != trunk.card.weights
        || info.input != *input
        || info.embedding_dim != embedding_dim
    {
        return Ok(None);
    }
    let Some(strangers) = Strangers::embedded(architecture)? else { return Ok(None) };
    if !trunk.is_trained {
        return Ok(Some(strangers));
    }
    let pretrained = Bare::pretrained(architecture).build(trunk.backbone.device())?.backbone;
    let bar = say.progress("pretrained", data.parts.train.len() as u64, "pictures");
    let batches = data.parts.train.chunks(BATCH).map(|batch| {
        bar.inc(batch.len() as u64);
        Ok((0, data.folder.fitted.batch(batch, pretrained.device())?))
    });
    let embeddings = embed_batches(&pretrained, batches)?;
    bar.finish();
    let before = Labelled { embeddings, labels: train.labels.clone() };
    strangers.estimated(&before, train).map(Some)
}

/// The identities that have training pictures; the others cannot be classes.
struct Classes {
    names: Vec<String>,
    /// For each identity of the data its class index.
    number: Vec<Option<usize>>,
}

impl Classes {
    fn of(data: &TrainingData, say: &Reporter) -> Self {
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
            say.line(&format!(
                "note: {without} without a training picture: used as unknown people, not as classes"
            ));
        }
        classes
    }

    fn label(&self, data: &TrainingData, picture: usize) -> Option<usize> {
        self.number.get(*data.parts.labels.get(picture)?).copied().flatten()
    }
}

/// The embeddings of each part.
struct PartFeatures {
    train: Labelled,
    /// The horizontally flipped training pictures.
    mirrored: Option<Labelled>,
    validation: Labelled,
    /// Faces of identities that have no training picture.
    lone: Embeddings,
}

/// Embeds every picture once.
fn features(
    trunk: &Backbone,
    data: &TrainingData,
    classes: &Classes,
    flip: bool,
    say: &Reporter,
) -> Result<PartFeatures> {
    let total = data.parts.train.len() * (1 + usize::from(flip)) + data.parts.validation.len();
    let bar = say.progress("features", total as u64, "pictures");
    let embed = |indices: &[usize], mirror: bool| -> Result<Labelled> {
        let batches = indices.chunks(BATCH).map(|batch| {
            let pixels = data.folder.fitted.batch(batch, trunk.device())?;
            bar.inc(batch.len() as u64);
            Ok((0, if mirror { pixels.f_flip([3])? } else { pixels }))
        });
        Ok(Labelled {
            embeddings: embed_batches(trunk, batches)?,
            labels: indices.iter().filter_map(|&i| classes.label(data, i)).collect(),
        })
    };
    let train = embed(&data.parts.train, false)?;
    let mirrored = flip.then(|| embed(&data.parts.train, true)).transpose()?;
    let (known, lone): (Vec<usize>, Vec<usize>) =
        data.parts.validation.iter().partition(|&&i| classes.label(data, i).is_some());
    let validation = embed(&known, false)?;
    let lone = embed(&lone, false)?.embeddings;
    bar.finish();
    Ok(PartFeatures { train, mirrored, validation, lone })
}

fn summary(
    outcome: &FitResult,
    data: &TrainingData,
    promise: Option<&MeasuredFpir>,
) -> std::io::Result<()> {
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
            "UNKNOWN below a known-face probability of {}; {} of the validation faces are named",
            percent(threshold),
            percent(named)
        ))?;
    }
    if let Some(promise) = promise {
        line(&promise.to_string())?;
    }
    line(&format!("model: {}", outcome.model.display()))?;
    let example = data.parts.validation.first().or(data.parts.train.first());
    let picture = example.map(|&i| quoted(&data.folder.pictures[i].path));
    line(&format!("next: visage classify {}", picture.unwrap_or_else(|| "face.png".into())))
}
