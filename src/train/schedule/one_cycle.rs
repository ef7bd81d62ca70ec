//! One cycle over the whole run: Smith and Topin, "Super-Convergence: Very Fast Training of Neural
//! Networks Using Large Learning Rates", 2018.

use serde::{Deserialize, Serialize};

use super::{MomentumCycle, at_least_one, half_cosine, impossible, positive};
use crate::Result;

/// From a fraction of the base learning rate up to all of it, then down to next to nothing in the
/// last step, where it stays. PyTorch's `OneCycleLR` in two phases; the base rate is its `max_lr`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneCycle {
    /// Steps of the whole run, at least 1.
    pub total_steps: u64,
    /// The share of them that goes up, 0 to 1.
    pub up: f64,
    /// The first factor is one divided by this, above 0.
    pub start_divisor: f64,
    /// The last factor is the first one divided by this, above 0.
    pub end_divisor: f64,
    /// What the momentum does; `None` leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<MomentumCycle>,
}

impl OneCycle {
    /// PyTorch's defaults: 30 % of the steps up, from 1/25 and to 1/250000 along a cosine, the
    /// momentum from 0.95 to 0.85 and back; and beta2 at 0.99.
    pub fn new(total_steps: u64) -> Self {
        let momentum = Some(MomentumCycle::SMITH);
        let (start_divisor, end_divisor) = (25.0, 1e4);
        Self { total_steps, up: 0.3, start_divisor, end_divisor, momentum }
    }

    /// The value of step `step` that is `start` in the first step, `top` at the turn, and `end` in
    /// the last.
    fn value(&self, step: u64, start: f64, top: f64, end: f64) -> f64 {
        let (step, last) = (step as f64, self.total_steps.saturating_sub(1) as f64);
        // As in PyTorch the turn may lie between two steps.
        let turn = self.up * self.total_steps as f64 - 1.0;
        let done = |from: f64, to: f64| match to > from {
            true => ((step - from) / (to - from)).clamp(0.0, 1.0),
            false => 1.0,
        };
        match step <= turn {
            true => half_cosine(start, top, done(0.0, turn)),
            false => half_cosine(top, end, done(turn, last)),
        }
    }

    pub(super) fn factor(&self, step: u64) -> f64 {
        let start = 1.0 / self.start_divisor;
        self.value(step, start, 1.0, start / self.end_divisor)
    }

    pub(super) fn momentum_at(&self, step: u64) -> Option<f64> {
        self.momentum.map(|range| self.value(step, range.high, range.low, range.high))
    }

    pub(super) fn validate(&self) -> Result<()> {
        at_least_one("total_steps", self.total_steps)?;
        if !(0.0..=1.0).contains(&self.up) {
            return Err(impossible("up", self.up, "from 0 to 1"));
        }
        positive("start_divisor", self.start_divisor)?;
        positive("end_divisor", self.end_divisor)?;
        self.momentum.as_ref().map_or(Ok(()), MomentumCycle::validate)
    }
}
