//! `visage train-triplet`.

use std::path::Path;
use std::process::ExitCode;

use super::given_triplets;
use super::output::{count, line, percent, quoted};
use super::training::{SHARES, device_summary, plan, resolve_auto, train, warm_up_batchnorm};
use super::trunk::{Bare, Built};
use super::{Context, dataset};
use crate::models::Backbone;
use crate::recognise::{ModelCard, ModelKind};
use crate::train::fit_result::{FitResult, Scores};
use crate::train::objective::Objective;
use crate::train::optim::Optimizer;
use crate::train::run_folder::RunFolder;
use crate::train::settings::TripletSettings;
use crate::train::stages::scale_layers;
use crate::train::triplet::TripletTask;
use crate::weights::Source;
use crate::{Error, Result};

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

    let bare = Bare {
        architecture: settings.backbone,
        weights: settings.weights.as_deref(),
        allow_missing: &settings.allow_missing,
        embedding_dim: settings.embedding_dim,
        input_size: settings.input_size,
    };
    let Built { mut backbone, source, line: trunk } = bare.build(device)?;
    resolve_auto(context, &mut settings.tuning, &source, &mut backbone)?;
    say.line(&format!("trunk: {trunk}, {}", device_summary(device, &settings.tuning)));
    settings.blend.get_or_insert(if source == Source::Random { 1.0 } else { 0.75 });
    settings.check_pieces()?;
    backbone.params.freeze(&settings.tuning.freeze)?;
    let mut trainable = backbone.params.trainable();
    if trainable.is_empty() {
        return Err(Error::Config("--freeze: nothing left to train".into()).into());
    }

    let inherited = match &source {
        Source::File(path) => Some(path.with_file_name("split.csv")),
        _ => None,
    };
    let data = dataset::open(&settings.data, inherited, backbone.input.size, say)?;
    let faces = &data.folder.fitted;
    warm_up_batchnorm(&mut backbone, &source, &settings.tuning, faces, &data.parts.train)?;
    let card = card(settings, &backbone, &source, &data)?;
    let lr = settings.lr();
    let classes = data.folder.identities.len();
    let objective = Objective::new(settings, classes, backbone.embedding_dim, device);
    trainable.extend(objective.parameters());
    let mut optimizer = Optimizer::new(settings.schedule.optimizer(lr), trainable)?;
    scale_layers(&mut optimizer, &backbone, settings.tuning.lr_decay_by_layer);
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
    let data = &setup.data;
    let mut task = setup.task(&settings)?;

    let run = context.run_folder(&settings.out, "train-triplet", &settings)?;
    data.split.write_csv(&run.split(), &data.folder)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr(), &setup.backbone);
    let command = ("train-triplet", &settings);
    let outcome = train(context, &mut task, &mut optimizer, &plan, &run, command)?;
    summary(&outcome, &run, data)?;
    Ok(ExitCode::SUCCESS)
}

fn card(
    settings: &TripletSettings,
    backbone: &Backbone,
    source: &Source,
    data: &dataset::Dataset,
) -> Result<ModelCard> {
    Ok(ModelCard {
        embedding_layer: settings.embedding_dim.is_some(),
        classes: data.folder.identities.clone(),
        seed: settings.data.seed,
        data: data.card.clone(),
        settings: super::settings_json(settings)?,
        ..ModelCard::new(ModelKind::Trunk, backbone, source.describe())
    })
}

fn summary(outcome: &FitResult, run: &RunFolder, data: &dataset::Dataset) -> std::io::Result<()> {
    line(&format!("{:<22}{:>12}{:>12}", "validation", "untouched", "best"))?;
    let figure = |scores: &Scores, name: &str| {
        scores.values.iter().find(|(other, _)| *other == name).map(|(_, value)| percent(*value))
    };
    for (name, label) in SHARES {
        if let (Some(before), Some(after)) =
            (figure(&outcome.untouched, name), figure(&outcome.best, name))
        {
            line(&format!("{label:<22}{before:>12}{after:>12}"))?;
        }
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
