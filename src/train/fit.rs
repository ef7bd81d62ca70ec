//! The training loop: one for every kind of training.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::checkpoint::{Checkpoint, Checkpoints, Environment, Interval, State};
use super::fit_result::{FitResult, Scores};
use super::interrupt::Interrupt;
use super::log::RunLog;
use super::monitor::Monitor;
use super::optim::Optimizer;
use super::run_folder::RunFolder;
use super::schedule::{Better, Cycle, Plateau, PlateauConfig, Schedule, ScheduleKind};
use super::scoring::is_internal;
use super::step::{Forward, Step, Stepper, Totals};
use crate::progress::{Reporter, Whole};
use crate::words::count;
use crate::{Error, Result};

/// The share of an epoch's steps that went into waiting for pictures.
pub const DATA_WAIT: &str = "data_wait";

/// A kind of training: what a batch, a loss and a score are.
pub trait Task {
    /// Prepares an epoch and gives its batches, as lists of picture indices; a function of the seed, the
    /// epoch and the model.
    ///
    /// # Errors
    /// The data cannot fill a batch.
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>>;

    /// The batches that are asked for next, in this order; may be decoded ahead.
    fn prefetch(&mut self, batches: &[Vec<usize>]) {
        let _ = batches;
    }

    /// Every tensor that training changes besides the optimiser's, by name and not copied: a checkpoint
    /// holds them, and a resumed training fills them.
    fn tensors(&self) -> Vec<(String, Tensor)>;

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
    /// How often a checkpoint is written.
    pub checkpoint_every: Interval,
    /// Ends the training after the step it is in.
    pub interrupt: Interrupt,
}

/// Where a training stands between two steps.
struct Progress {
    /// The epoch in training, from 1.
    epoch: usize,
    /// Steps done in it.
    index: usize,
    /// Its batches; empty before its first step.
    batches: Vec<Vec<usize>>,
    /// Sums over its steps.
    totals: Totals,
    /// Steps done in all epochs.
    done: u64,
    /// Steps of the first epoch.
    steps_per_epoch: usize,
    /// The base learning rate.
    lr: f64,
    plateau: Option<Plateau>,
    /// Loss and scores of the untouched start and of each epoch.
    history: Vec<(Option<f64>, Scores)>,
    best_epoch: usize,
}

impl Progress {
    /// Before the first step, from the scores of the start.
    fn new(plan: &FitConfig, plateau: Option<Plateau>, untouched: Scores) -> Self {
        Self {
            epoch: 1,
            index: 0,
            batches: Vec::new(),
            totals: Totals::default(),
            done: 0,
            steps_per_epoch: 0,
            lr: plan.lr,
            plateau,
            history: vec![(None, untouched)],
            best_epoch: 0,
        }
    }

    /// As a checkpoint has it.
    fn resume(from: &Checkpoint, device: Device) -> Self {
        let State { epoch, index, done, steps_per_epoch, best_epoch, .. } = from.state;
        let history = from.state.history.iter();
        Self {
            epoch,
            index,
            batches: from.state.batches.clone(),
            totals: Totals::restore(&from.state.totals, from.part(TOTALS), device),
            done,
            steps_per_epoch,
            lr: f64::from_bits(from.state.lr),
            plateau: from.state.plateau.clone(),
            history: history
                .map(|(loss, scores)| (loss.map(f64::from_bits), scores.into()))
                .collect(),
            best_epoch,
        }
    }

    fn untouched(&self) -> Scores {
        self.history.first().map(|(_, scores)| scores.clone()).unwrap_or_default()
    }

    fn best(&self) -> Scores {
        self.history.get(self.best_epoch).map(|(_, scores)| scores.clone()).unwrap_or_default()
    }

    /// What a checkpoint needs, with the tensors of the task and of the step.
    fn save(
        &self,
        saver: &mut Checkpoints,
        task: &dyn Task,
        stepper: &Stepper,
        log: &mut RunLog,
        say: &Reporter,
    ) {
        let (steps, names, sums) = self.totals.state();
        let history = self.history.iter();
        let state = State {
            epoch: self.epoch,
            index: self.index,
            batches: self.batches.clone(),
            done: self.done,
            steps_per_epoch: self.steps_per_epoch,
            totals: (steps, names),
            plateau: self.plateau.clone(),
            lr: self.lr.to_bits(),
            history: history
                .map(|(loss, scores)| (loss.map(f64::to_bits), scores.into()))
                .collect(),
            best_epoch: self.best_epoch,
            log: log.position(),
            environment: Environment::here(stepper.optimizer.device()),
        };
        let parts = vec![
            (TASK, task.tensors()),
            (OPTIMIZER, stepper.optimizer.state()),
            (SCALER, stepper.scaler.state()),
            (TOTALS, sums),
        ];
        saver.save(state, parts).iter().for_each(|warning| say.warn(warning));
    }
}

/// The parts of a checkpoint.
const TASK: &str = "task";
const OPTIMIZER: &str = "optimizer";
const SCALER: &str = "scaler";
const TOTALS: &str = "totals";

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
    let device = optimizer.device();
    let mut stepper = Stepper::with(optimizer, plan.clip, plan.scale_loss);
    let mut now = match run.checkpoint() {
        Some(checkpoint) => {
            run.accept(&checkpoint.state.environment.changes(&Environment::here(device)), say)?;
            checkpoint.copy_to(TASK, &task.tensors())?;
            stepper.optimizer.load_state(&checkpoint.part(OPTIMIZER))?;
            stepper.scaler.load_state(&checkpoint.part(SCALER))?;
            let now = Progress::resume(checkpoint, device);
            say.line(&format!(
                "resuming in epoch {}, after {}",
                now.epoch,
                count(now.done as usize, "step")
            ));
            now
        }
        None => start(task, plan, run, log, say)?,
    };
    let monitor = Monitor::new(plan.monitor.as_deref(), &now.untouched())?;
    let mut saver = Checkpoints::new(run.path(), plan.checkpoint_every, now.done);
    let mut last = now
        .history
        .last()
        .filter(|_| now.epoch > 1)
        .map(|(_, scores)| (now.epoch - 1, scores.clone()));
    // A full disk must not end the run; one warning is enough.
    let mut can_save = true;
    let mut save_last = |task: &dyn Task, epoch: usize, scores: &Scores| {
        if can_save && let Err(error) = task.save(&run.last(), epoch, scores) {
            say.warn(&format!("the last model is not kept: {error}"));
            can_save = false;
        }
    };
    let (run_started, mut pictures) = (Instant::now(), 0);
    let is_over = |now: &Progress| {
        let best = now.best();
        let waited = (now.epoch - 1).saturating_sub(now.best_epoch);
        plan.patience > 0 && !best.is_unmeasured() && waited >= plan.patience
    };
    while now.epoch <= plan.epochs && !is_over(&now) {
        let epoch = now.epoch;
        let begun = task.batches(epoch)?;
        // The batches of a model may follow from what it was when the epoch began.
        if now.batches.is_empty() {
            now.batches = begun;
        }
        task.prefetch(&now.batches[now.index.min(now.batches.len())..]);
        task.take_notes().iter().for_each(|note| say.line(&format!("note: {note}")));
        if now.steps_per_epoch == 0 {
            now.steps_per_epoch = now.batches.len();
        }
        let schedule = plan.schedule(now.steps_per_epoch);
        let size =
            |batches: &[Vec<usize>]| batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        let (total, before) = (size(&now.batches), size(&now.batches[..now.index]));
        let left = total * (plan.epochs - epoch + 1) as u64 - before;
        let whole =
            Whole { elapsed: run_started.elapsed(), done: pictures, total: pictures + left };
        let title = format!("epoch {epoch}/{}", plan.epochs);
        let bar = say.progress_within(&title, total, "pictures", whole);
        bar.inc(before);
        pictures += total - before;
        let since = Instant::now();
        task.take_wait();
        while let Some(batch) = now.batches.get(now.index) {
            let rates = schedule.rates(now.done, now.lr);
            let is_logged = log.is_on() && (now.done + 1).checked_rem(plan.log_interval) == Some(0);
            stepper.measures_norm = is_logged;
            let step = stepper.step(rates, || task.forward(epoch, now.index, batch))?;
            task.stepped();
            bar.inc(batch.len() as u64);
            now.index += 1;
            now.done += 1;
            if is_logged {
                record_step(log, now.done, rates.lr, &step);
            }
            now.totals.add(step);
            let signal = plan.interrupt.signal();
            if signal.is_some() || saver.is_due(now.done) {
                now.save(&mut saver, task, &stepper, log, say);
            }
            if let Some(signal) = signal {
                saver.wait().iter().for_each(|warning| say.warn(warning));
                return Err(Error::Interrupted { signal, resume: run.how_to_resume() });
            }
        }
        drop(bar);
        let (lr, done) = (now.lr, now.done);
        let mut means = now.totals.means();
        if let Some(scale) = stepper.scaler.scale() {
            means.push(("loss_scale", scale));
            means.push(("skipped_steps", stepper.scaler.skipped() as f64));
        }
        means.push(("lr", lr * schedule.factor(done.saturating_sub(1))));
        let wait = task
            .take_wait()
            .map(|wait| wait.as_secs_f64() / since.elapsed().as_secs_f64().max(1e-9));
        let seconds = since.elapsed().as_secs_f64();
        let loss = means.first().map_or(f64::NAN, |(_, loss)| *loss);
        let scores = monitor.ranked(task.validate(epoch, log)?, Some(loss));
        record(log, epoch, &means, &scores);
        record_time(log, epoch, seconds, wait);
        let is_best = scores.beats(&now.best());
        now.history.push((Some(loss), scores.clone()));
        for warning in log.take_warnings() {
            say.warn(&warning);
        }
        if now.totals.kept() == 0.0 {
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
        if let (Some(plateau), Some(score)) = (&mut now.plateau, scores.rank.first()) {
            let score = if monitor.is_lower_better() { -score } else { *score };
            now.lr = plan.lr * plateau.observe(score);
        }
        if is_best {
            task.save(&run.best(), epoch, &scores)?;
            task.show_best(log);
            now.best_epoch = epoch;
        }
        let mark = match is_best {
            true if scores.is_unmeasured() => "  (best)".into(),
            true => format!("  (best {})", scores.criterion),
            false => String::new(),
        };
        let figures = headline(&means, wait, &scores);
        if epoch % plan.report_every.max(1) == 0 || epoch == plan.epochs {
            say.line(&format!("epoch {epoch}: {figures}{mark}"));
        }
        if plan.keep_last {
            save_last(task, epoch, &scores);
        }
        last = Some((epoch, scores));
        now = Progress {
            epoch: epoch + 1,
            index: 0,
            batches: Vec::new(),
            totals: Totals::default(),
            ..now
        };
        if is_over(&now) {
            let Scores { criterion, .. } = now.best();
            say.line(&format!("stopping: no better {criterion} for {} epochs", plan.patience));
        }
        let signal = plan.interrupt.signal();
        if signal.is_some() || saver.is_due_after_epoch(now.done) {
            now.save(&mut saver, task, &stepper, log, say);
        }
    }
    if !plan.keep_last
        && let Some((epoch, scores)) = &last
    {
        save_last(task, *epoch, scores);
    }
    saver.wait().iter().for_each(|warning| say.warn(warning));
    Ok(FitResult {
        untouched: now.untouched(),
        best: now.best(),
        best_epoch: now.best_epoch,
        epochs: now.history.len() - 1,
        model: run.best(),
        history: now.history,
    })
}

/// Scores the initial weights and saves them as the best model.
fn start(
    task: &mut dyn Task,
    plan: &FitConfig,
    run: &RunFolder,
    log: &mut RunLog,
    say: &Reporter,
) -> Result<Progress> {
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
    Ok(Progress::new(plan, plan.plateau(monitor)?, untouched))
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
fn headline(means: &[(&'static str, f64)], wait: Option<f64>, scores: &Scores) -> String {
    let wait = wait.filter(|share| *share >= NOTICEABLE).map(|share| (DATA_WAIT, share));
    let means = means.iter().filter(|(name, _)| *name != "lr").chain(&wait);
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

/// What differs between two runs of a seed, in files of its own.
fn record_time(log: &mut RunLog, epoch: usize, seconds: f64, wait: Option<f64>) {
    let mut row = vec![("epoch", epoch as f64), ("seconds", seconds)];
    row.extend(wait.map(|share| (DATA_WAIT, share)));
    log.timing_row(&row);
    if let Some(share) = wait {
        log.scalars(epoch as u64, &[("train/data_wait", share)]);
    }
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
