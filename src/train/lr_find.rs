//! The learning-rate range test: the rate rises from step to step until the loss explodes, and the
//! curve shows where training goes well (Smith, "Cyclical learning rates for training neural
//! networks", 2017; with the stopping rule and the two suggestions of fastai's `lr_find`).

use serde::Serialize;

use super::checkpoint::{Checkpoint, Checkpoints, Header};
use super::fit_result::Scores;
use super::interrupt::Interrupt;
use super::interval::Interval;
use super::log::LogPosition;
use super::optim::{Optimizer, StepRates};
use super::run_folder::RunFolder;
use super::snapshot::{load, snapshot};
use super::state::{Environment, RangeState, State};
use super::step::Stepper;
use super::task::Task;
use crate::progress::Reporter;
use crate::words::count;
use crate::{Error, Result};

/// Decay of the running mean of the losses, which decides when the test ends.
const DECAY: f64 = 0.98;
/// The test ends when the running mean exceeds its lowest value by this factor.
const EXPLODED: f64 = 4.0;
/// A loss that is more times the mean of the first tenth counts as that in the smoothed curve.
const CLIPPED: f64 = 2.0;
/// This many equal losses in a row, after others, mean that the network has collapsed.
const FLAT: usize = 6;
/// How many standard errors of the smoothed loss a descent must exceed: pure noise has a range of four
/// or five.
const CLEAR: f64 = 5.0;

/// Which rates to try.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RangeTest {
    /// The first learning rate.
    pub from: f64,
    /// The last one.
    pub to: f64,
    /// Number of optimiser steps between them, at least 10.
    pub steps: usize,
    /// Maximum gradient norm over all parameters; `None`: no clipping.
    pub clip: Option<f64>,
    /// Loss scaling, for float16.
    pub scale_loss: bool,
}

impl RangeTest {
    /// The learning rate of `step`, counted from 0: `from (to / from)^(step / (steps - 1))`.
    pub fn rate(&self, step: usize) -> f64 {
        let part = step as f64 / self.steps.saturating_sub(1).max(1) as f64;
        self.from * (self.to / self.from).powf(part)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let Self { from, to, steps, .. } = *self;
        let reason = if !(from > 0.0 && from.is_finite()) {
            format!("--from {from}: expected a number above 0")
        } else if !(to > from && to.is_finite()) {
            format!("--to {to}: expected a number above --from {from}")
        } else if steps < 10 {
            format!("--steps {steps}: expected 10 or more")
        } else {
            return Ok(());
        };
        Err(Error::Config(reason))
    }
}

/// One step of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The learning rate of the step.
    pub lr: f64,
    /// The batch's loss, measured before the parameters moved.
    pub loss: f64,
    /// The mean of the losses around this one, a tenth of the steps to both sides, with weights that
    /// fall in a line. Symmetric, so that it does not lag behind the loss; cut at the ends of the curve.
    pub smoothed: f64,
}

/// Why the test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// All rates were tried.
    Whole,
    /// The running mean of the losses exceeded four times its lowest value; that point is the last.
    Exploded,
    /// The loss stands still: a network that gives every picture the same embedding has the margin
    /// as its triplet loss. The last six points show this.
    Collapsed,
    /// The loss of the step after the last point was not a finite number.
    NotFinite,
}

/// The curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// The steps made, in order.
    pub points: Vec<Point>,
    /// Why the test ended.
    pub end: End,
    /// Number of points at the start that are ignored: a tenth of the requested steps.
    pub skip: usize,
}

/// What a curve recommends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suggestion {
    /// The rate at which the smoothed loss falls fastest, on its way to its lowest value.
    pub steepest: f64,
    /// The rate at its lowest value; already too high to train with. A tenth of it is the usual
    /// alternative.
    pub lowest: f64,
}

/// Why a curve recommends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoSuggestion {
    /// It ended within the ignored points at the start.
    #[error("the loss exploded too early: start lower, with a smaller --from")]
    TooShort,
    /// The smoothed loss never fell by more than chance explains.
    #[error(
        "the loss never fell by more than its noise: try more --steps, a larger --to, or another \
         loss"
    )]
    NoDescent,
}

/// Where an interrupted test can go on.
pub struct Keep<'a> {
    /// The folder of its checkpoints.
    pub run: &'a RunFolder,
    /// How often one is written.
    pub every: Interval,
    /// Ends the test after the step it is in.
    pub interrupt: Interrupt,
    /// Fingerprint of the data set, which a test that goes on must have, too.
    pub data: &'a str,
}

/// Runs the test: `test.steps` optimiser steps on the batches of the epochs from 1 on, fewer when
/// the loss explodes. The parameters are useless afterwards. With `keep` it writes checkpoints, and goes
/// on from the one of a resumed run.
///
/// # Errors
/// Impossible rates, an epoch without a batch, a checkpoint that does not fit, a signal, and errors from the
/// task.
pub fn lr_find(
    task: &mut dyn Task,
    optimizer: &mut Optimizer,
    test: &RangeTest,
    keep: Option<Keep>,
    say: &Reporter,
) -> Result<Sweep> {
    test.check()?;
    let environment = Environment::here(optimizer.device(), 1);
    let mut stepper = Stepper::with(optimizer, test.clip, test.scale_loss);
    let mut now = State { epoch: 0, ..State::new(test.from, None, Scores::default()) };
    let mut range = RangeState::default();
    if let Some(Keep { run, data, .. }) = &keep {
        range.data = (*data).to_owned();
        if let Some(Checkpoint { header, tensors }) = run.checkpoint() {
            let mut changes = header.environment.changes(&environment);
            range = header.range.clone().unwrap_or_default();
            if range.data != *data {
                changes.push("the contents of the pictures have changed".into());
            }
            run.accept(&changes, say)?;
            load(task, &mut stepper, tensors)?;
            now = header.state.clone();
            if now.epoch > 0 {
                task.batches(now.epoch)?;
            }
            say.line(&format!("resuming after {}", count(now.done as usize, "step")));
        }
    }
    let mut saver =
        keep.as_ref().map(|keep| Checkpoints::new(keep.run.path(), keep.every, now.done));
    let bar = say.progress("learning rates", test.steps as u64, "steps");
    bar.inc(now.done);
    let mut sweep = Sweep { points: Vec::new(), end: End::Whole, skip: test.steps / 10 };
    while now.done < test.steps as u64 {
        if let (Some(saver), Some(keep)) = (&mut saver, &keep) {
            let signal = keep.interrupt.signal();
            if signal.is_some() || saver.is_due(now.done) {
                let header = Header {
                    state: now.clone(),
                    totals: (0, Vec::new()),
                    log: LogPosition::default(),
                    environment: environment.clone(),
                    start: None,
                    range: Some(range.clone()),
                };
                saver
                    .save(header, snapshot(task, &stepper))
                    .iter()
                    .for_each(|warning| say.warn(warning));
            }
            if let Some(signal) = signal {
                saver.wait().iter().for_each(|warning| say.warn(warning));
                return Err(Error::Interrupted { signal, resume: keep.run.how_to_resume() });
            }
        }
        if now.index == now.batches.len() {
            now.epoch += 1;
            (now.index, now.batches) = (0, task.batches(now.epoch)?);
            task.take_notes().iter().for_each(|note| say.line(&format!("note: {note}")));
        }
        let epoch = now.epoch;
        let none = || Error::Data(format!("epoch {epoch} has no batch to train on"));
        let batch = now.batches.get(now.index).ok_or_else(none)?;
        let lr = test.rate(now.done as usize);
        let done = stepper.step(StepRates::lr(lr), || task.forward(epoch, now.index, batch))?;
        bar.inc(1);
        now.index += 1;
        now.done += 1;
        if done.skipped.as_ref().is_some_and(|skipped| skipped.double_value(&[]) > 0.0) {
            continue;
        }
        if let Some(end) = take_in(&mut range, lr, done.loss()) {
            sweep.end = end;
            break;
        }
    }
    let points = range.losses.into_iter();
    sweep.points = points.map(|(lr, loss)| Point { lr, loss, smoothed: loss }).collect();
    sweep.smooth();
    Ok(sweep)
}

/// Takes in the loss of a step at rate `lr`; returns why the test ends, if it does.
fn take_in(range: &mut RangeState, lr: f64, loss: f64) -> Option<End> {
    if !loss.is_finite() {
        return Some(End::NotFinite);
    }
    range.losses.push((lr, loss));
    range.mean = DECAY * range.mean + (1.0 - DECAY) * loss;
    // Skipped steps gave the mean nothing, so they do not count in its correction.
    let running = range.mean / (1.0 - DECAY.powf(range.losses.len() as f64));
    let lowest = range.lowest.map_or(running, |lowest| running.min(lowest));
    range.lowest = Some(lowest);
    // Of a loss of zero nothing is a multiple.
    if lowest > 0.0 && running > EXPLODED * lowest {
        return Some(End::Exploded);
    }
    has_collapsed(&range.losses).then_some(End::Collapsed)
}

impl Sweep {
    /// The number of points before a collapse.
    fn alive(&self) -> usize {
        self.points.len().saturating_sub(if self.end == End::Collapsed { FLAT } else { 0 })
    }

    /// Fills in the smoothed losses, those of a collapse apart.
    fn smooth(&mut self) {
        let first = self.points.iter().take(self.skip.max(1)).map(|point| point.loss);
        let limit = CLIPPED * first.clone().sum::<f64>() / first.count().max(1) as f64;
        let alive = self.alive();
        let (alive, collapsed) = self.points.split_at_mut(alive);
        for part in [alive, collapsed] {
            let losses: Vec<f64> = part.iter().map(|point| point.loss.min(limit)).collect();
            for (at, point) in part.iter_mut().enumerate() {
                let (mut sum, mut weights) = (0.0, 0.0);
                let window = at.saturating_sub(self.skip)..(at + self.skip + 1).min(losses.len());
                for other in window {
                    let weight = 1.0 - at.abs_diff(other) as f64 / (self.skip as f64 + 1.0);
                    sum += weight * losses[other];
                    weights += weight;
                }
                point.smoothed = sum / weights;
            }
        }
    }

    /// The rate of the steepest descent over the logarithm of the rate, and the rate of the lowest
    /// smoothed loss. The first tenth of the steps is left out, and so is whatever comes after the
    /// lowest point, or from a collapse on.
    ///
    /// # Errors
    /// The curve is too short, or it falls, from its highest point before the lowest, by no more
    /// than five standard errors of the smoothed loss. The noise of the losses is taken from the
    /// differences of successive ones (von Neumann 1941), which no trend disturbs.
    pub fn suggest(&self) -> Result<Suggestion, NoSuggestion> {
        let by_loss = |a: &&Point, b: &&Point| a.smoothed.total_cmp(&b.smoothed);
        let steady = self.points.get(self.skip..self.alive()).unwrap_or_default();
        if steady.len() < 3 {
            return Err(NoSuggestion::TooShort);
        }
        let (end, lowest) = steady
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| by_loss(a, b))
            .ok_or(NoSuggestion::TooShort)?;
        let descent = &steady[..=end];
        let highest = descent.iter().max_by(by_loss).map_or(lowest.smoothed, |top| top.smoothed);
        // The variance of a mean with the weights 1, 1 - 1/w, ..., 1/w to both sides.
        let width = self.skip as f64 + 1.0;
        let variance = (2.0 * width * width + 1.0) / (3.0 * width.powi(3));
        let error = noise(&self.points[..=self.skip + end]) * variance.sqrt();
        if highest - lowest.smoothed <= CLEAR * error {
            return Err(NoSuggestion::NoDescent);
        }
        // The steps are equally long on the logarithmic axis: differences are slopes.
        let fall = |points: &[Point]| points[0].smoothed - points[2].smoothed;
        let steepest = descent.windows(3).max_by(|a, b| fall(a).total_cmp(&fall(b)));
        let steepest = steepest.map_or(descent[0].lr, |points| points[1].lr);
        Ok(Suggestion { steepest, lowest: lowest.lr })
    }

    /// Whether the smoothed loss is lowest at the last point: the range ended before the descent.
    pub fn falls_to_the_end(&self) -> bool {
        let smoothed = || self.points.iter().map(|point| point.smoothed);
        smoothed().next_back() == smoothed().min_by(f64::total_cmp) && !self.points.is_empty()
    }
}

/// Whether the newest losses are equal to four digits, after some that were not even to two. At the
/// lowest rates a full batch's loss is constant from the start, and a loss of zero is no collapse.
fn has_collapsed(losses: &[(f64, f64)]) -> bool {
    let (before, newest) = losses.split_at(losses.len().saturating_sub(FLAT));
    let Some((_, last)) = newest.last() else { return false };
    let apart = |(_, loss): &(f64, f64)| (loss - last).abs() / last.abs();
    newest.iter().all(|step| apart(step) < 1e-4) && before.iter().any(|step| apart(step) > 1e-2)
}

/// The standard deviation of the losses around their trend.
fn noise(points: &[Point]) -> f64 {
    let squares = points.windows(2).map(|pair| (pair[1].loss - pair[0].loss).powi(2) / 2.0);
    (squares.sum::<f64>() / (points.len().max(2) - 1) as f64).sqrt()
}

#[cfg(test)]
mod tests;
