//! Losses: one value a tuple, and a reduction apart from it. A new loss is a file here, a `mod` line
//! and a row of the conformance test.
//!
//! | loss | on | a tuple is |
//! |---|---|---|
//! | [`TripletLoss`], [`TripletObjective`] | distances and a miner's selection, or three tensors | a triplet |
//! | [`ContrastiveLoss`], [`PairBceLoss`] | pairs | a pair |
//! | [`MultiSimilarityLoss`], [`SupConLoss`] | embeddings and labels | an anchor |
//! | [`NtXentLoss`] | embeddings and labels | a positive pair |
//! | [`MarginHead`] (ArcFace, CosFace) | embeddings, labels and trained class centres | a picture |
//!
//! All of them compute in float32 (or float64 where the embeddings are), with autocast off. Those on
//! embeddings and labels need memory of order B^2 (see [`BatchLoss`]);
//! [`TripletObjective::over_embeddings`] does without.

mod all_triplets;
mod batch;
#[cfg(test)]
mod conformance;
mod contrastive;
mod every_soft_triplet;
mod every_triplet;
#[cfg(test)]
mod golden;
mod margin_head;
mod masked;
mod multi_similarity;
mod nt_xent;
mod pair_bce;
mod pieces;
mod sup_con;
mod triplet;
mod triplet_objective;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

pub use batch::BatchLoss;
pub use contrastive::ContrastiveLoss;
pub use margin_head::{MarginHead, MarginKind};
pub use multi_similarity::MultiSimilarityLoss;
pub use nt_xent::NtXentLoss;
pub use pair_bce::PairBceLoss;
pub use sup_con::SupConLoss;
pub use triplet::TripletLoss;
pub use triplet_objective::{Hinge, TripletObjective};

/// What the sum over tuples is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// The number of tuples
    #[default]
    Mean,
    /// The number of tuples whose loss is not zero: easy tuples do not water the gradient down
    Active,
}

/// A loss and the counts behind it. The counts stay tensors, so that nothing waits for the device
/// until somebody reads them.
#[derive(Debug)]
pub struct LossOutput {
    /// The reduced loss: a float32 (or float64) scalar with a graph, also where there was no tuple (it is zero
    /// then, and its gradient too).
    pub loss: Tensor,
    /// How many tuples there were: an int64 scalar, on the CPU or on the device.
    pub tuples: Tensor,
    /// How many of them had a loss above zero: an int64 scalar.
    pub active: Tensor,
}

impl Reduction {
    /// Reduces `per_tuple [T]`, float32 or float64, none of it negative.
    pub fn reduce(self, per_tuple: &Tensor) -> LossOutput {
        let tuples = per_tuple.numel() as i64;
        let active = per_tuple.gt(0.0).sum(Kind::Int64);
        let sum = per_tuple.sum(per_tuple.kind());
        // At least one: the sum over no tuple is zero and keeps its graph, 0/0 would not.
        let loss = match self {
            Self::Mean => sum / tuples.max(1),
            Self::Active => sum / active.clamp_min(1),
        };
        LossOutput { loss, tuples: Tensor::from(tuples), active }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_means_by_hand() {
        let per_tuple = Tensor::from_slice(&[0.0f32, 3.0, 0.0, 1.0]);
        for (reduction, wanted) in [(Reduction::Mean, 1.0), (Reduction::Active, 2.0)] {
            let output = reduction.reduce(&per_tuple);
            assert_eq!(output.loss.double_value(&[]), wanted);
            assert_eq!(output.tuples.int64_value(&[]), 4);
            assert_eq!(output.active.int64_value(&[]), 2);
            assert_eq!(reduction.reduce(&(per_tuple.zeros_like())).loss.double_value(&[]), 0.0);
        }
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_not_hidden() {
        let per_tuple = Tensor::from_slice(&[f32::NAN, 1.0]);
        assert!(Reduction::Active.reduce(&per_tuple).loss.double_value(&[]).is_nan());
    }
}
