//! The trait of losses, and the entries of the registry.

use std::fmt::Debug;

use tch::{Device, Tensor};

use super::hinge::Hinge;
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance_kind::DistanceKind;
use crate::metric::miners::tuples::Tuples;
use crate::metric::named::{Named, named_enum};

/// A loss over the embeddings of a batch.
pub trait Loss: Debug {
    /// The loss of embeddings `[B, D]` (not normalised), labels int64 `[B]` (on any device) and mined
    /// tuples; [`Tuples::All`] are all tuples of the batch, [`Tuples::OfFirst`] those whose anchor is
    /// not in the memory of past embeddings. Losses on pairs use the pairs of mined triplets; losses
    /// with class centres use every embedding.
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> LossOutput;

    /// Distance and margin for the miner, for losses over mined triplets.
    fn mining(&self) -> Option<Mining> {
        None
    }

    /// The parameters that are trained with the network, by name; most losses have none.
    fn parameters(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }
}

/// The distance and margins of a loss over mined triplets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mining {
    /// The distance.
    pub distance: DistanceKind,
    /// The margin; semi-hard negatives are within it.
    pub margin: f64,
    /// A triplet has a loss above zero where `d_an < d_ap + active_margin`.
    pub active_margin: f64,
}

named_enum! {
    /// A flag that only some losses take.
    pub enum LossOption {
        /// How much farther than a positive a negative must be
        Margin = "margin",
        /// With --loss triplet: the triplet miner
        Miner = "miner",
        /// The distance that triplets compare
        Distance = "distance",
        /// The shape of the triplet loss at the margin
        Hinge = "hinge",
        /// A memory of past embeddings; not for losses with class centres
        Memory = "xbm",
        /// The share of the class centres that a batch is compared with
        ClassSample = "class-sample",
    }
}

/// The values of the flags; a loss uses those that it takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct LossOptions {
    /// [`LossOption::Margin`]; by default the loss's own.
    pub margin: Option<f64>,
    /// [`LossOption::Distance`].
    pub distance: DistanceKind,
    /// [`LossOption::Hinge`].
    pub hinge: Hinge,
    /// What the sum over tuples is divided by, for every loss.
    pub reduction: Reduction,
    /// [`LossOption::ClassSample`], above 0 and below 1; `None`: all class centres.
    pub class_sample: Option<f64>,
}

/// Parameters of losses with class centres.
#[derive(Debug, Clone, Copy)]
pub struct LossShape {
    /// Classes; labels go from 0 to `classes - 1`.
    pub classes: i64,
    /// Length of an embedding.
    pub dim: i64,
    /// Device of the embeddings.
    pub device: Device,
}

/// An entry of the registry: a value of `--loss`, and its constructor.
#[derive(Debug, Clone, Copy)]
pub struct LossKind {
    /// The value of `--loss`.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The default margin and its unit; `None` where the loss has no margin.
    pub margin: Option<(f64, &'static str)>,
    /// The other options it takes.
    pub options: &'static [LossOption],
    /// Whether the gradient is the derivative of the value; not where weights are held constant.
    pub exact_gradient: bool,
    /// Builds the loss. Class centres follow `tch::manual_seed`.
    pub build: fn(&LossOptions, &LossShape) -> Box<dyn Loss>,
}

impl LossKind {
    /// Whether the loss takes this option.
    pub fn takes(&self, option: LossOption) -> bool {
        option == LossOption::Margin && self.margin.is_some() || self.options.contains(&option)
    }

    /// The given margin or the default; 0 for a loss without one.
    pub(super) fn margin(&self, options: &LossOptions) -> f64 {
        options.margin.or(self.margin.map(|(margin, _)| margin)).unwrap_or(0.0)
    }

    /// The names of the losses that take an option: `triplet, arcface`.
    pub fn takers(option: LossOption) -> String {
        let takers = Self::ALL.iter().filter(|loss| loss.takes(option));
        takers.map(|loss| loss.name).collect::<Vec<_>>().join(", ")
    }

    /// The default margins of the losses that have one: `0.2 with triplet, 0.5 radians with arcface`.
    pub fn default_margins() -> String {
        let margins = Self::ALL.iter().filter_map(|loss| {
            let (margin, unit) = loss.margin?;
            let space = if unit.is_empty() { "" } else { " " };
            Some(format!("{margin}{space}{unit} with {}", loss.name))
        });
        margins.collect::<Vec<_>>().join(", ")
    }
}
