//! `visage train-triplet`.

use std::path::Path;
use std::process::ExitCode;

use super::Context;
use super::framing;
use super::given_triplets;
use super::output::{count, line, quoted};
use super::training::{SHARES, plan, print_figures, train};
use crate::Result;
use crate::train::TripletTraining;
use crate::train::dataset::TrainingData;
use crate::train::fit_result::FitResult;
use crate::train::run_folder::RunFolder;
use crate::train::settings::TripletSettings;

/// Prepares a training with the flags of the command.
pub(super) fn prepare(
    context: &Context,
    settings: &mut TripletSettings,
) -> Result<TripletTraining> {
    settings.check()?;
    let device = context.seed(settings.data.seed)?;
    TripletTraining::set_up(settings, device, context.common.deterministic, &context.say)
}

pub fn run(context: &Context, mut settings: TripletSettings) -> anyhow::Result<ExitCode> {
    if let Some(path) = settings.triplets.clone() {
        settings.check()?;
        return given_triplets::run(context, settings, &path);
    }
    let mut training = prepare(context, &mut settings)?;
    training.card.framing = Some(framing::measure(context, &training.data)?);
    let run = context.run_folder(&settings.out, "train-triplet", &settings)?;
    let given = settings.clone();
    settings.out = run.path().to_owned(); // of the disk cache, too
    run.write_split(training.data.divided(), &context.say)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr(), &training.backbone);
    let (mut task, optimizer) = training.task(&settings)?;
    let outcome = train(context, &mut task, optimizer, &plan, &run, ("train-triplet", &given))?;
    drop(task);
    summary(&outcome, &run, &training.data)?;
    Ok(ExitCode::SUCCESS)
}

fn summary(outcome: &FitResult, run: &RunFolder, data: &TrainingData) -> std::io::Result<()> {
    print_figures("validation", &SHARES, outcome)?;
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
