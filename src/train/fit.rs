//! The training loop: one for every kind of training.

use std::collections::BTreeMap;
use std::time::Instant;

use super::checkpoint::{Checkpoints, Header, part};
use super::epoch_log::{headline, record, record_step, record_time};
use super::fit_result::{FitResult, Scores};
use super::log::{LogPosition, RunLog};
use super::monitor::Monitor;
use super::named::prefixed;
use super::optim::Optimizer;
use super::plan::FitConfig;
use super::run_folder::RunFolder;
use super::snapshot::{Tensors, load, on_cpu, snapshot};
use super::state::{Environment, State};
use super::step::{Stepper, Totals};
use super::task::Task;
use super::watch::{self, Trouble};
use crate::progress::{Progress, Reporter, Whole};
use crate::words::count;
use crate::{Error, Result};

/// Parts of a checkpoint besides those of a snapshot.
const TOTALS: &str = "totals";
/// The snapshot of when the epoch began.
const START: &str = "start";

/// Trains `task`, keeping the best and the last model in `run`.
///
/// The initial weights are scored first and saved as the best model: only a higher score
/// replaces it. An epoch that goes wrong ([`watch`]) is trained again from its start at a
/// lower rate; after three of those the training stops, with the cause in
/// [`stopped`](FitResult::stopped).
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
    let mut fit = Fit::begin(task, optimizer, plan, (run, log, say))?;
    while !fit.is_over() {
        match fit.epoch() {
            Ok(None) => {}
            Ok(Some(trouble)) => fit.recover(trouble)?,
            Err(error) => fit.exclude_unreadable(error)?,
        }
    }
    fit.finish()
}

/// A training in progress.
struct Fit<'a> {
    task: &'a mut dyn Task,
    stepper: Stepper<'a>,
    plan: &'a FitConfig,
    run: &'a RunFolder,
    log: &'a mut RunLog,
    say: &'a Reporter,
    monitor: Monitor,
    saver: Checkpoints,
    now: State,
    /// Sums over the steps of the epoch.
    totals: Totals,
    /// Where the epoch can begin again.
    start: EpochStart,
    /// Goes true with the first model that cannot be written.
    has_warned: bool,
    /// Why the training stopped early.
    stopped: Option<String>,
    since: Instant,
    /// Pictures of the epochs that this process began.
    pictures: u64,
}

/// A training as it was when its epoch began.
struct EpochStart {
    state: State,
    log: LogPosition,
    tensors: Tensors,
}

impl<'a> Fit<'a> {
    /// Scores the initial weights, or goes on from the checkpoint of `run`.
    fn begin(
        task: &'a mut dyn Task,
        optimizer: &'a mut Optimizer,
        plan: &'a FitConfig,
        (run, log, say): (&'a RunFolder, &'a mut RunLog, &'a Reporter),
    ) -> Result<Self> {
        let device = optimizer.device();
        let processes = plan.world.size();
        // The same start everywhere, whatever machine drew it.
        plan.world.level(&task.tensors())?;
        let mut stepper = Stepper::with(optimizer, plan.clip, plan.scale_loss);
        stepper.world = plan.world.clone();
        stepper.whole = task.whole();
        let (mut totals, mut start) = (Totals::default(), None);
        let now = match run.checkpoint() {
            Some(checkpoint) => {
                let Header { state, environment, .. } = &checkpoint.header;
                run.accept(&environment.changes(&Environment::here(device, processes)), say)?;
                load(task, &mut stepper, &checkpoint.tensors)?;
                if !state.excluded.is_empty() {
                    task.exclude(&state.excluded)?;
                }
                let sums = part(&checkpoint.tensors, TOTALS);
                totals = Totals::restore(&checkpoint.header.totals, sums, device);
                start = checkpoint.header.start.clone().map(|(state, log)| {
                    let tensors = part(&checkpoint.tensors, START).into_iter().collect();
                    EpochStart { state, log, tensors }
                });
                let done = count(state.done as usize, "step");
                say.line(&format!("resuming in epoch {}, after {done}", state.epoch));
                state.clone()
            }
            None => first(task, plan, run, log, say)?,
        };
        let monitor = Monitor::new(plan.monitor.as_deref(), &now.untouched())?;
        let saver = Checkpoints::new(run.path(), plan.checkpoint_every, now.done);
        let (stopped, since) = (None, Instant::now());
        let start = start.unwrap_or_else(|| {
            let (state, log) = (now.clone(), log.position());
            EpochStart { state, log, tensors: snapshot(task, &stepper) }
        });
        Ok(Self {
            task,
            stepper,
            plan,
            run,
            log,
            say,
            monitor,
            saver,
            now,
            totals,
            start,
            has_warned: false,
            stopped,
            since,
            pictures: 0,
        })
    }

    fn is_over(&self) -> bool {
        self.stopped.is_some() || self.now.epoch > self.plan.epochs || self.has_stalled()
    }

    /// Whether there was no better epoch for as long as the patience lasts.
    fn has_stalled(&self) -> bool {
        let waited = (self.now.epoch - 1).saturating_sub(self.now.best_epoch);
        let patience = self.plan.patience;
        patience > 0 && !self.now.best().is_unmeasured() && waited >= patience
    }

    /// Trains an epoch, or what is left of it.
    fn epoch(&mut self) -> Result<Option<Trouble>> {
        let bar = self.open_epoch()?;
        let since = Instant::now();
        self.task.take_wait();
        self.plan.world.take_exchange();
        if let Some(trouble) = self.steps(&bar)? {
            return Ok(Some(trouble));
        }
        drop(bar);
        let wait = self.task.take_wait();
        let exchange = self.plan.world.take_exchange();
        let seconds = since.elapsed().as_secs_f64();
        let wait = wait.map(|wait| wait.as_secs_f64() / seconds.max(1e-9));
        let means = self.means();
        let loss = means.first().map_or(f64::NAN, |(_, loss)| *loss);
        let epoch = self.now.epoch;
        let scores = self.monitor.ranked(self.task.validate(epoch, self.log)?, Some(loss));
        if let Some(trouble) =
            watch::after_epoch(self.totals.kept(), loss, &scores, &self.now.best())
        {
            return Ok(Some(trouble));
        }
        record(self.log, epoch, self.now.rollbacks, &means, &scores);
        record_time(self.log, epoch, seconds, wait, exchange);
        self.log.take_warnings().iter().for_each(|warning| self.say.warn(warning));
        let world = self.plan.world.clone();
        let is_best =
            scores.beats(&self.now.best()) && world.agree(|| Ok(self.keep_best(epoch, &scores)))?;
        let mark = match is_best {
            true if scores.is_unmeasured() => "  (best)".into(),
            true => format!("  (best {})", scores.criterion),
            false => String::new(),
        };
        if epoch.is_multiple_of(self.plan.report_every.max(1)) || epoch == self.plan.epochs {
            let figures = headline(&means, wait, &scores);
            self.say.line(&format!("epoch {epoch}: {figures}{mark}"));
        }
        self.close_epoch(loss, scores, is_best);
        Ok(None)
    }

    /// Prepares the batches of the epoch, and its bar.
    fn open_epoch(&mut self) -> Result<Progress> {
        let Self { task, now, plan, say, .. } = self;
        let begun = task.batches(now.epoch)?;
        // The batches of a model may follow from what it was when the epoch began.
        if now.batches.is_empty() {
            now.batches = begun;
        }
        task.prefetch(&now.batches[now.index.min(now.batches.len())..]);
        task.take_notes().iter().for_each(|note| say.line(&format!("note: {note}")));
        if now.steps_per_epoch == 0 {
            now.steps_per_epoch = now.batches.len();
        }
        let size =
            |batches: &[Vec<usize>]| batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        let before = size(&now.batches[..now.index.min(now.batches.len())]);
        let total = size(&now.batches);
        let left = total * (plan.epochs - now.epoch + 1) as u64 - before;
        let done = self.pictures;
        let whole = Whole { elapsed: self.since.elapsed(), done, total: done + left };
        let title = format!("epoch {}/{}", now.epoch, plan.epochs);
        let bar = say.progress_within(&title, total, "pictures", whole);
        bar.inc(before);
        self.pictures += total - before;
        Ok(bar)
    }

    /// The steps of the epoch that are left.
    fn steps(&mut self, bar: &Progress) -> Result<Option<Trouble>> {
        let schedule = self.plan.schedule(self.now.steps_per_epoch);
        while self.now.index < self.now.batches.len() {
            let Self { task, stepper, plan, now, log, totals, .. } = &mut *self;
            let batch = &now.batches[now.index];
            let rates = schedule.rates(now.done, now.rate());
            let is_logged = log.is_on() && (now.done + 1).checked_rem(plan.log_interval) == Some(0);
            let is_watched = watch::is_due(now.done, now.index + 1 == now.batches.len());
            stepper.measures_norm = is_logged || is_watched;
            let step = stepper.step(rates, || task.forward(now.epoch, now.index, batch))?;
            task.stepped();
            bar.inc(batch.len() as u64);
            now.index += 1;
            now.done += 1;
            if is_logged {
                record_step(log, now.done, rates.lr, &step);
            }
            totals.add(&step);
            if is_watched {
                let scale = stepper.scaler.scale();
                let trouble = now.watch.after_step(totals, &step, plan.clip.is_some(), scale);
                if trouble.is_some() {
                    return Ok(trouble);
                }
            }
            let signal = self.plan.world.signal(self.plan.interrupt.signal())?;
            if signal.is_some() || self.saver.is_due(self.now.done) {
                self.save();
            }
            if let Some(signal) = signal {
                self.saver.wait().iter().for_each(|warning| self.say.warn(warning));
                return Err(Error::Interrupted { signal, resume: self.run.how_to_resume() });
            }
        }
        Ok(None)
    }

    /// The means of the epoch, and how it was stepped.
    fn means(&self) -> Vec<(&'static str, f64)> {
        let (scaler, now) = (&self.stepper.scaler, &self.now);
        let mut means = self.totals.means();
        if let Some(scale) = scaler.scale() {
            means.push(("loss_scale", scale));
            means.push(("skipped_steps", scaler.skipped() as f64));
        }
        let schedule = self.plan.schedule(now.steps_per_epoch);
        means.push(("lr", now.rate() * schedule.factor(now.done.saturating_sub(1))));
        means
    }

    /// Goes over to the next epoch.
    fn close_epoch(&mut self, loss: f64, scores: Scores, is_best: bool) {
        let (now, plan) = (&mut self.now, self.plan);
        if let (Some(plateau), Some(score)) = (&mut now.plateau, scores.rank.first()) {
            let score = if self.monitor.is_lower_better() { -score } else { *score };
            now.lr = plan.lr * plateau.observe(score);
        }
        if is_best {
            now.best_epoch = now.epoch;
        }
        now.history.push((Some(loss), scores));
        now.epoch += 1;
        now.index = 0;
        now.batches = Vec::new();
        self.totals = Totals::default();
        if plan.keep_last {
            self.keep_last();
        }
        if self.has_stalled() {
            let Scores { criterion, .. } = self.now.best();
            self.say.line(&format!("stopping: no better {criterion} for {} epochs", plan.patience));
        }
        self.remember_start();
        if self.saver.is_due_after_epoch(self.now.done) {
            self.save();
        }
    }

    /// Writes the best model, and whether that went well. If it did not, the one before stays the best, and
    /// the training goes on: there may be room again for the next.
    fn keep_best(&mut self, epoch: usize, scores: &Scores) -> bool {
        self.run.restore().iter().for_each(|warning| self.say.warn(warning));
        let written = self.task.save(&self.run.best(), epoch, scores);
        match &written {
            Ok(()) => {
                self.now.best_checksum = self.run.best_checksum();
                self.task.show_best(self.log);
            }
            Err(error) => {
                let best = self.now.best_epoch;
                self.warn_of_disk(&format!("the best model stays that of epoch {best}: {error}"));
            }
        }
        written.is_ok()
    }

    /// Writes the last model.
    fn keep_last(&mut self) {
        let Some((_, scores)) = self.now.history.last() else { return };
        if !self.plan.world.is_first() {
            return;
        }
        let epoch = self.now.history.len() - 1;
        if let Err(error) = self.task.save_trained(&self.run.last(), epoch, scores) {
            self.warn_of_disk(&format!("the last model is not kept: {error}"));
        }
    }

    /// Warns of a model that cannot be written, once: a full disk must not end the run.
    fn warn_of_disk(&mut self, warning: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            let goes_on = "the training goes on, and tries again after each epoch";
            self.say.warn(&format!("{warning}; {goes_on}"));
        }
    }

    /// Keeps what it takes to begin this epoch again.
    fn remember_start(&mut self) {
        let tensors = snapshot(self.task, &self.stepper);
        let (state, log) = (self.now.clone(), self.log.position());
        self.start = EpochStart { state, log, tensors };
    }

    /// Begins the epoch again, with the rate and the pictures that there are now.
    fn restart_epoch(&mut self) -> Result<()> {
        let start = &self.start;
        load(self.task, &mut self.stepper, &start.tensors)?;
        self.log.rewind(self.run.path(), start.log.clone());
        let State { rollbacks, excluded, .. } = &self.now;
        let (rollbacks, excluded) = (*rollbacks, excluded.clone());
        self.now = State { rollbacks, excluded, ..start.state.clone() };
        self.totals = Totals::default();
        Ok(())
    }

    /// Begins the epoch again without the pictures that can no longer be read.
    ///
    /// # Errors
    /// `error`, where pictures are not its reason or are more than `max_bad`.
    fn exclude_unreadable(&mut self, error: Error) -> Result<()> {
        let is_of_pictures =
            matches!(error, Error::Io { .. } | Error::Picture { .. } | Error::Data(_));
        // Of several processes the others do not know of it, and wait for this one.
        if !is_of_pictures || self.plan.world.size() > 1 {
            return Err(error);
        }
        let known = &self.now.excluded;
        let mut found: BTreeMap<_, _> = self.task.unreadable().into_iter().collect();
        found.retain(|number, _| !known.contains(number));
        let (all, most) = (known.len() + found.len(), self.plan.max_bad);
        if found.is_empty() || all > most {
            return Err(error);
        }
        for reason in found.values() {
            self.say.warn(&format!("left out from here on: {reason}"));
        }
        self.now.excluded.extend(found.into_keys());
        self.task.exclude(&self.now.excluded)?;
        let (epoch, all) = (self.now.epoch, count(all, "picture"));
        self.say.warn(&format!("starting epoch {epoch} again without {all} (--max-bad {most})"));
        self.restart_epoch()
    }

    /// Goes back to the start of the epoch with a lower rate, or stops.
    fn recover(&mut self, trouble: Trouble) -> Result<()> {
        let epoch = self.now.epoch;
        let Trouble { cause, advice, can_retry } = trouble;
        self.now.rollbacks += 1;
        let tries = self.now.rollbacks;
        self.restart_epoch()?;
        if self.plan.strict_numerics || !can_retry || tries > watch::TRIES {
            self.say.warn(&format!(
                "stopping in epoch {epoch}: {cause}; the best model is kept ({advice})"
            ));
            self.stopped = Some(format!("epoch {epoch}: {cause}"));
            return Ok(());
        }
        self.say.warn(&format!(
            "epoch {epoch}: {cause}; starting the epoch again with the learning rate divided by {} (try {tries} \
             of {})",
            watch::BACKOFF,
            watch::TRIES
        ));
        self.log.scalars(epoch as u64, &[("train/rollbacks", f64::from(tries))]);
        Ok(())
    }

    /// Has a checkpoint written.
    fn save(&mut self) {
        if !self.plan.world.is_first() {
            return;
        }
        let (steps, names, sums) = self.totals.state();
        let mut header = Header {
            state: self.now.clone(),
            totals: (steps, names),
            log: self.log.position(),
            environment: Environment::here(self.stepper.optimizer.device(), self.plan.world.size()),
            start: None,
            range: None,
        };
        let shared = |tensors: &Tensors| -> Vec<_> {
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
        };
        let start = &self.start;
        let mut tensors: Tensors = shared(&start.tensors).into_iter().collect();
        if start.state != self.now {
            header.start = Some((start.state.clone(), start.log.clone()));
            let begun = prefixed(START, shared(&start.tensors)).collect::<Vec<_>>();
            tensors = snapshot(self.task, &self.stepper);
            tensors.extend(begun);
        }
        tensors.extend(prefixed(TOTALS, on_cpu(sums, true)));
        self.saver.save(header, tensors).iter().for_each(|warning| self.say.warn(warning));
    }

    /// Writes the last model, waits for the last checkpoint, and scores the best model.
    fn finish(mut self) -> Result<FitResult> {
        if !self.plan.keep_last && self.now.history.len() > 1 {
            self.keep_last();
        }
        self.saver.wait().iter().for_each(|warning| self.say.warn(warning));
        let last = self.now.history.len() - 1;
        let scored = self.task.score_all(&self.run.best(), self.now.best_epoch, last);
        let best_of_all = scored.unwrap_or_else(|error| {
            self.say.warn(&format!("the best model has the figures of the sample only: {error}"));
            None
        });
        if let Some(scores) = &best_of_all {
            self.say.line(&format!("the best model, on all pictures: {}", scores.headline));
        }
        Ok(FitResult {
            untouched: self.now.untouched(),
            best: self.now.best(),
            best_of_all,
            best_epoch: self.now.best_epoch,
            epochs: self.now.history.len() - 1,
            model: self.run.best(),
            rollbacks: self.now.rollbacks,
            stopped: self.stopped,
            history: self.now.history,
        })
    }
}

/// Scores the initial weights and saves them as the best model.
fn first(
    task: &mut dyn Task,
    plan: &FitConfig,
    run: &RunFolder,
    log: &mut RunLog,
    say: &Reporter,
) -> Result<State> {
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
    if plan.world.is_first() {
        task.save(&run.best(), 0, &untouched)?;
    }
    task.show_best(log);
    record(log, 0, 0, &[], &untouched);
    task.take_notes().iter().for_each(|note| say.line(&format!("note: {note}")));
    say.line(&format!("epoch 0 (untouched): {}", untouched.headline));
    let best_checksum = run.best_checksum();
    Ok(State { best_checksum, ..State::new(plan.lr, plan.plateau(monitor)?, untouched) })
}

#[cfg(test)]
mod tests;
