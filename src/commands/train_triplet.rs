//! `visage train-triplet`.

use std::path::Path;
use std::process::ExitCode;

use super::context::Context;
use super::framing;
use super::given_triplets;
use super::output::{count, line, quoted};
use super::processes;
use super::training::{SHARES, plan, print_figures, train};
use crate::cli;
use crate::train::TripletTraining;
use crate::train::dataset::TrainingData;
use crate::train::fit::fit;
use crate::train::fit_result::FitResult;
use crate::train::interrupt::Interrupt;
use crate::train::log::RunLog;
use crate::train::plan::FitConfig;
use crate::train::run_folder::RunFolder;
use crate::train::settings::TripletSettings;
use crate::train::triplet::fits;
use crate::{Error, Result};

/// Prepares a training with the flags of the command.
pub(super) fn prepare(
    context: &Context,
    settings: &mut TripletSettings,
) -> Result<TripletTraining> {
    settings.check()?;
    let device = context.seed(settings.data.seed)?;
    TripletTraining::set_up(settings, device, context.common.deterministic, &context.say)
}

pub fn run(context: &Context, flags: cli::TrainTriplet) -> anyhow::Result<ExitCode> {
    let mut settings = flags.configured.settings;
    let processes = usize::from(flags.processes.unwrap_or(1));
    if settings.triplets.is_some() && (processes > 1 || context.place.is_some()) {
        let text = "--triplets: given triplets are trained in one process; leave --processes or the launcher out";
        return Err(Error::Config(text.into()).into());
    }
    match &context.place {
        None if processes > 1 => {
            settings.check()?;
            return processes::launch(context, processes);
        }
        Some(place) if processes > 1 => {
            let text = format!(
                "--processes: a launcher has started this process as one of {}; leave the flag out",
                place.size
            );
            return Err(Error::Config(text).into());
        }
        _ => {}
    }
    if let Some(path) = settings.triplets.clone() {
        settings.check()?;
        return given_triplets::run(context, settings, &path);
    }
    let mut training = prepare(context, &mut settings)?;
    let world = context.world()?;
    fits(&settings, &world, training.backbone.device())?;
    if world.is_first() {
        training.card.framing = Some(framing::measure(context, &training.data)?);
    }
    let run = context.shared_run_folder(&world, &settings.out, "train-triplet", &settings)?;
    let given = settings.clone();
    settings.out = run.path().to_owned(); // of the disk cache, too
    let plan = FitConfig {
        world: world.clone(),
        ..plan(&settings.schedule, settings.epochs, settings.lr(), &training.backbone)
    };
    if !world.is_first() {
        let plan = FitConfig { interrupt: Interrupt::watch(), ..plan };
        let (task, optimizer) = training.task(&settings)?;
        fit(&mut task.among(&world), optimizer, &plan, &run, &mut RunLog::off(), &context.say)?;
        return Ok(ExitCode::SUCCESS);
    }
    run.write_split(training.data.divided(), &context.say)?;
    let (task, optimizer) = training.task(&settings)?;
    let mut task = task.among(&world);
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
