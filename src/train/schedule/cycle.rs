//! The cyclical learning rate: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017.

use serde::{Deserialize, Serialize};

use super::{at_least_one, impossible, positive};
use crate::Result;

/// How high the later triangles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CycleShape {
    /// All of one height
    #[default]
    Triangular,
    /// Each half as high as the one before
    Triangular2,
    /// Lower by a factor at every step
    ExpRange,
}

/// Between which values beta1 (Adam) or the momentum (SGD) goes against the learning rate: high
/// where that is low.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MomentumCycle {
    /// At the highest learning rate.
    pub low: f64,
    /// At the lowest learning rate.
    pub high: f64,
    /// Adam's beta2 meanwhile. PyTorch leaves it at the optimiser's.
    pub beta2: f64,
}

impl MomentumCycle {
    /// Smith's 0.85 and 0.95, with beta2 at 0.99.
    pub const SMITH: Self = Self { low: 0.85, high: 0.95, beta2: 0.99 };

    pub(super) fn validate(&self) -> Result<()> {
        for (setting, value) in
            [("low momentum", self.low), ("high momentum", self.high), ("beta2", self.beta2)]
        {
            if !(0.0..1.0).contains(&value) {
                return Err(impossible(setting, value, "at least 0 and below 1"));
            }
        }
        if self.low > self.high {
            return Err(impossible("low momentum", self.low, "at most the high one"));
        }
        Ok(())
    }
}

/// Triangles between two factors, from the low one up and down again. PyTorch's `CyclicLR`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cycle {
    /// How high the later triangles are.
    pub shape: CycleShape,
    /// Steps from the bottom to the top, at least 1. Smith takes 2 to 10 epochs.
    pub steps_up: u64,
    /// Steps back to the bottom, at least 1.
    pub steps_down: u64,
    /// The factor at the bottom.
    pub low: f64,
    /// The factor at the top of the first triangle.
    pub high: f64,
    /// The factor that [`CycleShape::ExpRange`] lowers the triangle by at every step; the other
    /// shapes ignore it.
    pub gamma: f64,
    /// What the momentum does; `None` leaves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<MomentumCycle>,
}

impl Cycle {
    /// Cycles of `steps_up` up and as many down, from a quarter of the base learning rate to all of
    /// it, the momentum from 0.95 to 0.85.
    pub fn new(shape: CycleShape, steps_up: u64) -> Self {
        let momentum = Some(MomentumCycle::SMITH);
        let steps_down = steps_up;
        Self { shape, steps_up, steps_down, low: 0.25, high: 1.0, gamma: 0.9999, momentum }
    }

    /// How high step `step` is, from 0 at the bottom to 1 at the top of the first triangle.
    fn height(&self, step: u64) -> f64 {
        let (up, down) = (self.steps_up.max(1), self.steps_down.max(1));
        let length = up.saturating_add(down);
        let place = step % length;
        let triangle = match place <= up {
            true => place as f64 / up as f64,
            false => (length - place) as f64 / down as f64,
        };
        triangle
            * match self.shape {
                CycleShape::Triangular => 1.0,
                CycleShape::Triangular2 => 0.5f64.powf((step / length) as f64),
                CycleShape::ExpRange => self.gamma.powf(step as f64),
            }
    }

    pub(super) fn factor(&self, step: u64) -> f64 {
        self.low + (self.high - self.low) * self.height(step)
    }

    pub(super) fn momentum_at(&self, step: u64) -> Option<f64> {
        self.momentum.map(|range| range.high - (range.high - range.low) * self.height(step))
    }

    pub(super) fn validate(&self) -> Result<()> {
        at_least_one("steps_up", self.steps_up)?;
        at_least_one("steps_down", self.steps_down)?;
        positive("high", self.high)?;
        if !(0.0..=self.high).contains(&self.low) {
            return Err(impossible("low", self.low, "from 0 to the high one"));
        }
        if !(self.gamma > 0.0 && self.gamma <= 1.0) {
            return Err(impossible("gamma", self.gamma, "above 0 and at most 1"));
        }
        self.momentum.as_ref().map_or(Ok(()), MomentumCycle::validate)
    }
}
