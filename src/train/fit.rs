//! The training loop: one for every kind of training.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::fit_result::{FitResult, Scores};
use super::log::RunLog;
use super::monitor::Monitor;
use super::optim::Optimizer;
use super::run_folder::RunFolder;
use super::schedule::{Better, Cycle, Plateau, PlateauConfig, Schedule, ScheduleKind};
use super::scoring::is_internal;
use super::step::{Forward, Step, Stepper, Totals};
use crate::progress::{Reporter, Whole};
use crate::{Error, Result};

/// The share of an epoch's steps that went into waiting for pictures; the one figure that is not the
/// same in each run of a seed.
pub const DATA_WAIT: &str = "data_wait";

/// A kind of training: what a batch, a loss and a score are.
pub trait Task {
    /// Prepares an epoch and gives its batches, as lists of picture indices; a function of the seed
    /// and the epoch.
    ///
    /// # Errors
    /// The data cannot fill a batch.
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>>;

    /// Takes the notes for the user that were collected since the last call.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Time spent waiting for data since the last call; `None` if the task never waits.
    fn take_wait(&mut self) -> Option<Duration> {
        None
    }

    /// Forward pass and loss of one batch.
    ///
    /// # Errors
    /// An error from libtorch.
    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>>;

    /// Called after each optimiser step.
    fn stepped(&mut self) {}

    /// Scores the model as it is; epoch 0 is the untouched start. Pictures of the state (strips,
    /// histograms) go to the log.
    ///
    /// # Errors
    /// An error from libtorch.
    fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores>;

    /// Shows the model that was scored last, the best so far, where the log shows a model.
    fn show_best(&mut self, log: &mut RunLog) {
        let _ = log;
    }

    /// Writes the model as it is.
    ///
    /// # Errors
    /// The file cannot be written.
    fn save(&self, path: &std::path::Path, epoch: usize, scores: &Scores) -> Result<()>;
}

/// Settings of the training loop: epochs, learning rate, schedule, clipping, early stopping.
#[derive(Debug, Clone)]
pub struct FitConfig {
    /// Maximum number of epochs.
    pub epochs: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning-rate schedule.
    pub schedule: ScheduleKind,
    /// Fraction of all steps used for warm-up, in schedules that do not cycle.
    pub warmup: f64,
    /// Cycle length in epochs, in schedules that cycle.
    pub cycle: f64,
    /// Maximum gradient norm over all parameters; `None`: no clipping.
    pub clip: Option<f64>,
    /// Loss scaling, for float16.
    pub scale_loss: bool,
    /// Early stopping: number of epochs without improvement; 0: never.
    pub patience: usize,
    /// Metric that decides which epoch is the best; `None`: the task's default.
    pub monitor: Option<String>,
    /// Log the metrics of every N-th step; 0: never. The host waits for the device
    /// then, and only then.
    pub log_interval: u64,
    /// Writes the last model after every epoch, so that a killed run leaves one; else at the end.
    pub keep_last: bool,
    /// Prints the line of every n-th epoch, and of the last one.
    pub report_every: usize,
}

/// Trains `task`, keeping the best and the last model in `run`.
///
/// The initial weights are scored first and saved as the best model: only a higher score
/// replaces it.
///
/// # Errors
/// An error from the task, or a model file that cannot be written. Logging never ends a run.
pub fn fit(
    task: &mut dyn Task,
    optimizer: &mut Optimizer,
    plan: &FitConfig,
    run: &RunFolder,
    log: &mut RunLog,
    say: &Reporter,
) -> Result<FitResult> {
    let untouched = task.validate(0, log)?;
    if untouched.has_diverged() {
        return Err(Error::Config(
            "the starting weights make embeddings that are not finite; start from other --weights"
                .into(),
        ));
    }
    let monitor = Monitor::new(plan.monitor.as_deref(), &untouched)?;
    let untouched = monitor.ranked(untouched, None);
    if untouched.is_unmeasured() {
        say.warn("nothing to validate on: the model of the last epoch is kept as the best");
    }
    task.save(&run.best(), 0, &untouched)?;
    task.show_best(log);
    record(log, 0, &[], &untouched);
    task.take_notes().iter().for_each(|note| say.line(&format!("note: {note}")));
    say.line(&format!("epoch 0 (untouched): {}", untouched.headline));
    let mut history = vec![(None, untouched.clone())];
    let (mut best, mut best_epoch, mut last) = (untouched.clone(), 0, None);
    // A full disk must not end the run; one warning is enough.
    let mut can_save = true;
    let mut save_last = |task: &dyn Task, epoch: usize, scores: &Scores| {
        if can_save && let Err(error) = task.save(&run.last(), epoch, scores) {
            say.warn(&format!("the last model is not kept: {error}"));
            can_save = false;
        }
    };
    let (mut schedule, mut done, mut trained) = (Schedule::Constant, 0u64, 0);
    let (mut plateau, mut lr) = (plan.plateau(monitor)?, plan.lr);
    let mut stepper = Stepper::with(optimizer, plan.clip, plan.scale_loss);
    let (run_started, mut pictures) = (Instant::now(), 0);
    for epoch in 1..=plan.epochs {
        let batches = task.batches(epoch)?;
        task.take_notes().iter().for_each(|note| say.line(&format!("note: {note}")));
        if epoch == 1 {
            schedule = plan.schedule(batches.len());
        }
        let total: u64 = batches.iter().map(|batch| batch.len() as u64).sum();
        let left = total * (plan.epochs - epoch + 1) as u64;
        let whole =
            Whole { elapsed: run_started.elapsed(), done: pictures, total: pictures + left };
        let title = format!("epoch {epoch}/{}", plan.epochs);
        let bar = say.progress_within(&title, total, "pictures", whole);
        pictures += total;
        let (mut totals, since) = (Totals::default(), Instant::now());
        task.take_wait();
        for (index, batch) in batches.iter().enumerate() {
            let rates = schedule.rates(done, lr);
            let is_logged = log.is_on() && (done + 1).checked_rem(plan.log_interval) == Some(0);
            stepper.measures_norm = is_logged;
            let step = stepper.step(rates, || task.forward(epoch, index, batch))?;
            task.stepped();
            done += 1;
            if is_logged {
                record_step(log, done, rates.lr, &step);
            }
            totals.add(step);
            bar.inc(batch.len() as u64);
        }
        drop(bar);
        let mut means = totals.means();
        if let Some(wait) = task.take_wait() {
            means.push((DATA_WAIT, wait.as_secs_f64() / since.elapsed().as_secs_f64().max(1e-9)));
        }
        if let Some(scale) = stepper.scaler.scale() {
            means.push(("loss_scale", scale));
            means.push(("skipped_steps", stepper.scaler.skipped() as f64));
        }
        means.push(("lr", lr * schedule.factor(done.saturating_sub(1))));
        let loss = means.first().map_or(f64::NAN, |(_, loss)| *loss);
        let scores = monitor.ranked(task.validate(epoch, log)?, Some(loss));
        record(log, epoch, &means, &scores);
        trained = epoch;
        let is_best = scores.beats(&best);
        history.push((Some(loss), scores.clone()));
        for warning in log.take_warnings() {
            say.warn(&warning);
        }
        if totals.kept() == 0.0 {
            say.warn(&format!(
                "every step of epoch {epoch} overflowed in float16; stopping, the best model is kept \
                 (--precision bf16 or f32 helps)"
            ));
            break;
        }
        if scores.has_diverged() || !loss.is_finite() {
            say.warn(&format!(
                "training diverged in epoch {epoch}; stopping, the best model is kept (a lower --lr \
                 helps)"
            ));
            break;
        }
        if let (Some(plateau), Some(score)) = (&mut plateau, scores.rank.first()) {
            let score = if monitor.is_lower_better() { -score } else { *score };
            lr = plan.lr * plateau.observe(score);
        }
        if is_best {
            task.save(&run.best(), epoch, &scores)?;
            task.show_best(log);
            (best, best_epoch) = (scores.clone(), epoch);
        }
        let mark = match is_best {
            true if scores.is_unmeasured() => "  (best)".into(),
            true => format!("  (best {})", scores.criterion),
            false => String::new(),
        };
        let figures = headline(&means, &scores);
        if epoch % plan.report_every.max(1) == 0 || epoch == plan.epochs {
            say.line(&format!("epoch {epoch}: {figures}{mark}"));
        }
        if plan.keep_last {
            save_last(task, epoch, &scores);
        }
        last = Some((epoch, scores));
        if plan.patience > 0 && !best.is_unmeasured() && epoch - best_epoch >= plan.patience {
            let Scores { criterion, .. } = best;
            say.line(&format!("stopping: no better {criterion} for {} epochs", plan.patience));
            break;
        }
    }
    if !plan.keep_last
        && let Some((epoch, scores)) = &last
    {
        save_last(task, *epoch, scores);
    }
    Ok(FitResult { untouched, best, best_epoch, epochs: trained, model: run.best(), history })
}

impl FitConfig {
    fn schedule(&self, steps_per_epoch: usize) -> Schedule {
        let total_steps = (steps_per_epoch * self.epochs) as u64;
        let warmup_steps = (self.warmup * total_steps as f64).round() as u64;
        let rising =
            |final_fraction| Schedule::WarmupCosine { warmup_steps, total_steps, final_fraction };
        match self.schedule {
            ScheduleKind::WarmupCosine => rising(0.0),
            ScheduleKind::Constant | ScheduleKind::Plateau => rising(1.0),
            cycling => match cycling.over(steps_per_epoch as u64, self.epochs as u64) {
                Schedule::Cyclic(cycle) => {
                    let half = self.cycle * steps_per_epoch as f64 / 2.0;
                    let steps = (half.round() as u64).max(1);
                    Schedule::Cyclic(Cycle { steps_up: steps, steps_down: steps, ..cycle })
                }
                other => other,
            },
        }
    }

    fn plateau(&self, monitor: Monitor) -> Result<Option<Plateau>> {
        let is_plateau = self.schedule == ScheduleKind::Plateau;
        let better = if monitor.is_lower_better() { Better::Lower } else { Better::Higher };
        let config = PlateauConfig { better, ..PlateauConfig::default() };
        is_plateau.then(|| Plateau::new(config)).transpose()
    }
}

/// Waiting below this fraction of the time is not reported.
const NOTICEABLE: f64 = 0.01;

/// The epoch's line: the loss and what goes with it, then the validation figures.
fn headline(means: &[(&'static str, f64)], scores: &Scores) -> String {
    let is_reported =
        |name: &str, mean: f64| name != "lr" && (name != DATA_WAIT || mean >= NOTICEABLE);
    let means = means.iter().filter(|(name, mean)| is_reported(name, *mean));
    let means = means.map(|(name, mean)| match *name {
        "loss" => format!("loss {mean:.4}"),
        "positive_distance" => format!("d(+) {mean:.2}"),
        "negative_distance" => format!("d(-) {mean:.2}"),
        "grad_norm" => format!("gradient {mean:.2}"),
        "loss_scale" => format!("loss scale {mean:.0}"),
        DATA_WAIT => format!("waited {:.0} % for data", 100.0 * mean),
        "skipped_steps" => format!("{mean:.0} steps skipped"),
        share => format!("{share} {:.0} %", 100.0 * mean),
    });
    format!("{}; {}", means.collect::<Vec<_>>().join(", "), scores.headline)
}

/// One row of metrics.csv and one point of every TensorBoard curve.
fn record(log: &mut RunLog, epoch: usize, means: &[(&'static str, f64)], scores: &Scores) {
    let train: Vec<_> =
        means.iter().map(|(name, value)| (format!("train/{name}"), *value)).collect();
    let figures = || scores.values.iter().filter(|(name, _)| !is_internal(name));
    let val = figures().map(|(name, value)| (format!("val/{name}"), *value));
    let all: Vec<_> = train.into_iter().chain(val).collect();
    let tags: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    log.scalars(epoch as u64, &tags);
    let mut row = vec![("epoch", epoch as f64)];
    row.extend(means.iter().copied());
    row.extend(figures().copied());
    log.epoch_row(&row);
}

/// The figures of one step, in one copy from the device. Steps that overflowed in float16 have none.
fn record_step(log: &mut RunLog, done: u64, lr: f64, step: &Step) {
    let loss = step.figures.first().map(|(_, loss)| ("train/step/loss", loss));
    let norm = step.grad_norm.as_ref().map(|norm| ("train/step/grad_norm", norm));
    let (tags, values): (Vec<_>, Vec<_>) =
        loss.into_iter().chain(norm).map(|(tag, value)| (tag, value.to_kind(Kind::Double))).unzip();
    let values = Vec::<f64>::try_from(Tensor::stack(&values, 0)).unwrap_or_default();
    let mut points = vec![("train/step/lr", lr)];
    points.extend(tags.into_iter().zip(values).filter(|(_, value)| value.is_finite()));
    log.scalars(done, &points);
    log.flush();
}

#[cfg(test)]
mod tests;
