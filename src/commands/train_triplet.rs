//! `visage train-triplet`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::Context;
use super::dataset::{self, SplitBy};
use super::given_triplets;
use super::output::{count, line, percent, quoted};
use super::training::{SHARES, plan, train};
use crate::Result;
use crate::models::Backbone;
use crate::recognise::ModelCard;
use crate::train::fit_result::{FitResult, Scores};
use crate::train::objective::Objective;
use crate::train::optim::Optimizer;
use crate::train::run_folder::RunFolder;
use crate::train::settings::TripletSettings;
use crate::train::triplet::TripletTask;
use crate::train::{Prepared, build_trunk, prepare as prepare_training};
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
    let Prepared { card, objective, optimizer } = prepare_training(
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
    let data = &setup.data;
    let run = context.run_folder(&settings.out, "train-triplet", &settings)?;
    let given = settings.clone();
    settings.out = run.path().to_owned(); // of the disk cache, too
    let mut task = setup.task(&settings)?;
    data.split.write_csv(&run.split(), &data.folder)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr(), &setup.backbone);
    let outcome =
        train(context, &mut task, &mut optimizer, &plan, &run, ("train-triplet", &given))?;
    summary(&outcome, &run, data)?;
    Ok(ExitCode::SUCCESS)
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
