//! Signs that a training is being ruined, so that the loop can go back to where it was sound.
//!
//! | sign | seen |
//! |---|---|
//! | a loss that is not finite | every 16 steps and at the end of an epoch |
//! | an exploding loss or, without gradient clipping, gradient norm: more than 100 times the largest of the first 8 checks | every 16 steps |
//! | embeddings that are not finite | at the end of an epoch |
//! | a collapse: the AUC of the validation pairs keeps less than half of what the best model has above chance | at the end of an epoch |
//! | a collapse: negatives are less than a quarter as far as in the first checks, positives nearly as far, and almost every triplet is active | every 16 steps and at the end of an epoch |
//! | float16 that overflows at every loss scale | every 16 steps and at the end of an epoch |
//!
//! What is seen is a function of the training alone, so that a run that recovers does so in the same
//! way each time, and after a resume.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::fit_result::Scores;
use super::step::{Step, Totals};

/// How often an epoch is started again in a run.
pub const TRIES: u32 = 3;
/// What the learning rate is divided by each time.
pub const BACKOFF: f64 = 10.0;
/// Steps between two checks, for each of which the host waits for the device.
const EVERY: u64 = 16;
/// Checks that set what is usual.
const REFERENCE: u32 = 8;
/// More than this many times the usual is an explosion.
const EXPLODED: f64 = 100.0;
/// A model with a lower AUC has nothing to lose.
const WORTH_KEEPING: f64 = 0.65;
/// In a collapse negatives are less than this fraction as far as they were, ...
const SHRUNK: f64 = 0.25;
/// ... positives at least this fraction as far as negatives, ...
const AS_FAR: f64 = 0.7;
/// ... and at least this fraction of the triplets is active.
const ALL_ACTIVE: f64 = 0.99;
/// Loss scales below this do not come back.
const LOWEST_SCALE: f64 = 1e-15;

const LOWER_RATE: &str = "a lower --lr helps";
const OTHER_PRECISION: &str = "--precision bf16 or f32 helps";

/// Why an epoch is not worth going on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What was seen.
    pub cause: String,
    /// What the user can do.
    pub advice: &'static str,
    /// Whether a lower rate may help.
    pub can_retry: bool,
}

impl Trouble {
    fn of_rate(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), advice: LOWER_RATE, can_retry: true }
    }

    fn overflow(cause: &str) -> Self {
        Self { cause: cause.into(), advice: OTHER_PRECISION, can_retry: false }
    }
}

/// What the first checks of a training found usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    checks: u32,
    loss: f64,
    norm: f64,
    /// Mean distance to negatives; 0 where a task has none.
    #[serde(default)]
    apart: f64,
}

/// Whether the step after `done` steps is checked; the first one is, and the last one of an epoch.
pub fn is_due(done: u64, is_last: bool) -> bool {
    is_last || done == 0 || (done + 1).is_multiple_of(EVERY)
}

impl Watch {
    /// Checks a step by its figures and the sums of its epoch. Clipping takes care of any gradient norm. The
    /// host waits for the device.
    pub fn after_step(
        &mut self,
        totals: &Totals,
        step: &Step,
        is_clipped: bool,
        scale: Option<f64>,
    ) -> Option<Trouble> {
        if scale.is_some_and(|scale| scale < LOWEST_SCALE) {
            return Some(Trouble::overflow("float16 overflows at every loss scale"));
        }
        if totals.loss().is_some_and(|sum| !sum.is_finite()) {
            return Some(Trouble::of_rate("the loss is not finite"));
        }
        let value = |tensor: &Tensor| f64::try_from(tensor).ok().filter(|value| value.is_finite());
        let figure = |wanted: &str| {
            let (_, tensor) = step.figures.iter().find(|(name, _)| *name == wanted)?;
            value(tensor)
        };
        let triplets = ["active", "positive_distance", "negative_distance"].map(figure);
        if let [Some(active), Some(positive), Some(negative)] = triplets
            && let Some(collapse) = self.collapse(active, positive, negative)
        {
            return Some(collapse);
        }
        // A step that float16 skipped may have neither.
        let norm = step.grad_norm.as_ref().filter(|_| !is_clipped).and_then(value);
        self.compare(figure("loss").unwrap_or(0.0).abs(), norm.unwrap_or(0.0))
    }

    /// Whether all embeddings came close to one point. Called before [`compare`](Self::compare), which counts.
    fn collapse(&mut self, active: f64, positive: f64, negative: f64) -> Option<Trouble> {
        if self.checks < REFERENCE {
            self.apart = self.apart.max(negative);
        }
        let has_collapsed =
            active >= ALL_ACTIVE && negative < SHRUNK * self.apart && positive >= AS_FAR * negative;
        has_collapsed.then(|| {
            Trouble::of_rate(format!(
                "the embeddings collapsed: negatives are {negative:.3} apart after {:.3}, positives {positive:.3}",
                self.apart
            ))
        })
    }

    fn compare(&mut self, loss: f64, norm: f64) -> Option<Trouble> {
        if self.checks < REFERENCE {
            self.checks += 1;
            self.loss = self.loss.max(loss);
            self.norm = self.norm.max(norm);
            return None;
        }
        let jumped = |what: &str, usual: f64, now: f64| {
            let is_out = usual > 0.0 && now > EXPLODED * usual;
            is_out.then(|| Trouble::of_rate(format!("{what} rose from {usual:.2} to {now:.2}")))
        };
        let norm = jumped("the gradient norm", self.norm, norm);
        norm.or_else(|| jumped("the loss", self.loss, loss))
    }
}

/// Checks an epoch: how many of its steps counted, its mean loss, and its scores against the best.
pub fn after_epoch(kept: f64, loss: f64, scores: &Scores, best: &Scores) -> Option<Trouble> {
    if kept == 0.0 {
        return Some(Trouble::overflow("every step overflowed in float16"));
    }
    if !loss.is_finite() {
        return Some(Trouble::of_rate("the loss is not finite"));
    }
    if scores.has_diverged() {
        return Some(Trouble::of_rate("the embeddings are not finite"));
    }
    let auc = |scores: &Scores| {
        let found = scores.values.iter().find(|(name, _)| *name == "auc");
        found.map(|(_, value)| *value)
    };
    let (before, now) = (auc(best)?, auc(scores)?);
    let has_collapsed = before >= WORTH_KEEPING && now - 0.5 < 0.5 * (before - 0.5);
    has_collapsed.then(|| {
        Trouble::of_rate(format!(
            "the embeddings collapsed: verification AUC {:.1} % after {:.1} %",
            100.0 * now,
            100.0 * before
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_is_judged_by_the_first_checks() {
        let mut watch = Watch::default();
        for check in 0..REFERENCE {
            let loss = if check == 3 { 2.0 } else { 0.0 };
            assert_eq!(watch.compare(loss, 1e9), None);
        }
        assert_eq!(watch.compare(200.0, 9e10), None);
        let cause = watch.compare(201.0, 0.0).unwrap().cause;
        assert_eq!(cause, "the loss rose from 2.00 to 201.00");
        assert!(watch.compare(0.0, 1.1e11).unwrap().cause.starts_with("the gradient norm"));
        // Clipped gradients and hinges without a violation set no measure.
        let mut silent = Watch { checks: REFERENCE, ..Watch::default() };
        assert_eq!(silent.compare(5.0, 5.0), None);
    }

    #[test]
    fn negatives_that_come_as_close_as_positives_are_a_collapse() {
        let mut watch = Watch::default();
        assert_eq!(watch.collapse(1.0, 0.9, 0.8), None);
        // Hard triplets, easy ones, and positives that came close.
        for (active, positive, negative) in [(1.0, 0.4, 0.3), (0.9, 0.1, 0.1), (1.0, 0.05, 0.1)] {
            assert_eq!(watch.collapse(active, positive, negative), None);
        }
        let cause = watch.collapse(1.0, 0.09, 0.1).unwrap().cause;
        assert!(
            cause.ends_with("negatives are 0.100 apart after 0.800, positives 0.090"),
            "{cause}"
        );
        // Once the reference is set, distances may grow and come back.
        watch.checks = REFERENCE;
        assert_eq!(watch.collapse(1.0, 3.0, 9.0), None);
        assert_eq!(watch.collapse(1.0, 0.8, 0.8), None);
    }

    #[test]
    fn a_collapse_is_a_loss_of_what_was_there() {
        let scores = |auc: f64| Scores { values: vec![("auc", auc)], ..Scores::default() };
        let judged = |now, before| after_epoch(1.0, 0.1, &scores(now), &scores(before));
        let cause = judged(0.6, 0.9).unwrap().cause;
        assert!(cause.ends_with("verification AUC 60.0 % after 90.0 %"), "{cause}");
        for (now, before) in [(0.75, 0.9), (0.5, 0.6), (0.95, 0.9)] {
            assert_eq!(judged(now, before), None, "{now} {before}");
        }
        assert_eq!(after_epoch(1.0, 0.1, &Scores::default(), &scores(0.9)), None);
        assert!(!after_epoch(0.0, 0.1, &scores(0.9), &scores(0.9)).unwrap().can_retry);
        assert!(after_epoch(1.0, f64::NAN, &scores(0.9), &scores(0.9)).is_some());
        assert!(after_epoch(1.0, 0.1, &Scores::diverged(), &scores(0.9)).is_some());
    }
}
