//! `visage train-triplet`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use image::RgbImage;

use super::Context;
use super::dataset::{self, SplitBy};
use super::given_triplets;
use super::output::{count, line, percent, quoted};
use super::training::plan;
use crate::Result;
use crate::figures::{self, Curve, Series};
use crate::models::Backbone;
use crate::recognise::{ModelCard, Recogniser, embed_stored};
use crate::train::fit::fit;
use crate::train::fit_result::FitResult;
use crate::train::log::RunLog;
use crate::train::log::projector::{Projector, Sprite};
use crate::train::objective::Objective;
use crate::train::optim::Optimizer;
use crate::train::run_folder::{RunFolder, config_text};
use crate::train::scoring::{SAME_BIAS, SAME_WEIGHT};
use crate::train::settings::TripletSettings;
use crate::train::triplet::TripletTask;
use crate::train::{self, Prepared, build_trunk};
use crate::weights::Source;

/// Everything a run needs before its first batch.
pub(super) struct Setup {
    pub backbone: Backbone,
    pub data: dataset::Dataset,
    pub card: ModelCard,
    pub objective: Objective,
}

/// Builds the trunk, opens the data and makes the optimizer; resolves the settings left open.
pub(super) fn prepare(
    context: &Context,
    settings: &mut TripletSettings,
) -> anyhow::Result<(Setup, Optimizer)> {
    settings.check()?;
    let say = &context.say;
    let device = context.seed(settings.data.seed)?;

    let deterministic = context.common.deterministic;
    let (mut backbone, source) = build_trunk(settings, device, deterministic, say)?;
    let inherited = match &source {
        Source::File(path) => Some(path.with_file_name("split.csv")),
        _ => None,
    };
    let data =
        dataset::open(&settings.data, SplitBy::Picture { inherited }, backbone.input.size, say)?;
    settings.data.data.get_or_insert_with(|| PathBuf::from(&data.card.path));
    settings.fill_in(&source, backbone.input.size);
    let Prepared { card, objective, optimizer } = train::prepare(
        settings,
        &mut backbone,
        &source,
        &data.folder,
        &data.parts,
        data.card.clone(),
    )?;
    Ok((Setup { backbone, data, card, objective }, optimizer))
}

impl Setup {
    /// The training task; it writes to the folder in `settings`.
    pub(super) fn task(&self, settings: &TripletSettings) -> Result<TripletTask<'_>> {
        let Self { backbone, data, card, objective } = self;
        TripletTask::new(backbone, &data.folder, &data.parts, card, objective, settings)
    }
}

pub fn run(context: &Context, mut settings: TripletSettings) -> anyhow::Result<ExitCode> {
    if let Some(path) = settings.triplets.clone() {
        settings.check()?;
        return given_triplets::run(context, settings, &path);
    }
    let (setup, mut optimizer) = prepare(context, &mut settings)?;
    let (say, data) = (&context.say, &setup.data);
    let run = context.run_folder(&settings.out, "train-triplet", &settings)?;
    let config = config_text("train-triplet", &settings)?;
    settings.out = run.path().to_owned(); // of the disk cache, too
    let mut task = setup.task(&settings)?;
    data.split.write_csv(&run.split(), &data.folder)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr(), &setup.backbone);
    let mut log = RunLog::create(run.path());
    log.text("config", 0, &markdown(&config));
    let outcome = fit(&mut task, &mut optimizer, &plan, &run, &mut log, say)?;

    write_projector(context, &outcome, data, &mut log)?;
    if let Err(error) = figures::save_png(&run.curves(), &learning_curves(&outcome)) {
        say.warn(&format!("no learning curves: {error}"));
    }
    for warning in log.take_warnings() {
        say.warn(&warning);
    }
    run.finish(&outcome)?;
    summary(&outcome, &run, data)?;
    Ok(ExitCode::SUCCESS)
}

/// The best model's embeddings, with thumbnails and labels, for TensorBoard's projector.
fn write_projector(
    context: &Context,
    outcome: &FitResult,
    data: &dataset::Dataset,
    log: &mut RunLog,
) -> Result<()> {
    let best = Recogniser::load(&outcome.model, context.device()?)?;
    let faces = &data.folder.fitted;
    let embeddings = embed_stored(&best.backbone, faces, &faces.all())?;
    let names: Vec<String> = data
        .parts
        .labels
        .iter()
        .map(|&label| data.folder.identities.get(label).cloned().unwrap_or_default())
        .collect();
    let parts: Vec<String> = data.split.parts.iter().map(|part| part.name().to_owned()).collect();
    let paths: Vec<String> =
        data.folder.pictures.iter().map(|face| data.folder.relative(&face.path)).collect();
    // A picture that was deleted in the meantime leaves its place empty.
    let picture = |number| faces.get(number).map_or_else(|_| RgbImage::default(), Cow::into_owned);
    let sprite = Sprite::tile(faces.all().into_iter().map(picture), (48, 48));
    log.projector(&Projector {
        embeddings: embeddings.values(),
        dim: embeddings.dim(),
        columns: &[("identity", &names), ("part", &parts), ("path", &paths)],
        sprite: Some(&sprite),
    });
    Ok(())
}

/// A text as a Markdown code block, which TensorBoard shows unchanged.
fn markdown(text: &str) -> String {
    format!("```\n{text}\n```")
}

/// Training loss and validation metrics over the epochs.
fn learning_curves(outcome: &FitResult) -> RgbImage {
    let epochs = || (0..).map(|epoch| epoch as f64);
    let figure = |name: &'static str| {
        let points = epochs().zip(&outcome.history).filter_map(|(epoch, (_, scores))| {
            let (_, value) = scores.values.iter().find(|(other, _)| *other == name)?;
            Some((epoch, *value))
        });
        Series { name: label(name).into(), points: points.collect() }
    };
    let losses =
        epochs().zip(&outcome.history).filter_map(|(epoch, (loss, _))| Some((epoch, (*loss)?)));
    let mut series = vec![Series { name: "training loss".into(), points: losses.collect() }];
    series.extend(["knn", "knn_gallery", "verification"].map(figure));
    figures::curve(&Curve {
        title: "Training loss and validation accuracy",
        x_label: "epoch",
        y_label: "loss, accuracy",
        series: &series,
        x_range: None,
        y_range: None,
        diagonal: false,
    })
}

fn summary(outcome: &FitResult, run: &RunFolder, data: &dataset::Dataset) -> std::io::Result<()> {
    line(&format!("{:<22}{:>12}{:>12}", "validation", "untouched", "best"))?;
    for (name, before) in &outcome.untouched.values {
        let after = outcome.best.values.iter().find(|(other, _)| other == name);
        let Some((_, after)) = after.filter(|_| !NO_SHARES.contains(name)) else { continue };
        line(&format!("{:<22}{:>12}{:>12}", label(name), percent(*before), percent(*after)))?;
    }
    if outcome.best.is_unmeasured() {
        line("no validation data: the best model is the one of the last epoch")?;
    } else if outcome.best_epoch == 0 {
        line("no epoch scored above the untouched trunk: the best model is that trunk")?;
    } else {
        let trained = count(outcome.epochs, "epoch");
        line(&format!("best epoch: {} of {trained}", outcome.best_epoch))?;
    }
    line(&format!("model: {}", outcome.model.display()))?;
    line(&format!(
        "curves, hardest triplets, projector: tensorboard --logdir {}",
        run.path().display()
    ))?;
    line(&format!(
        "next: visage train-classifier --data {} --trunk {}",
        quoted(Path::new(&data.card.path)),
        quoted(&outcome.model)
    ))
}

/// Values for `visage verify` that are no percentages and not in the table.
const NO_SHARES: [&str; 3] = ["threshold", SAME_WEIGHT, SAME_BIAS];

fn label(name: &str) -> &str {
    match name {
        "knn" => "1-NN, leave-one-out",
        "knn_gallery" => "1-NN against training",
        "centroid" => "nearest centroid",
        "verification" => "verification",
        "auc" => "verification AUC",
        other => other,
    }
}
