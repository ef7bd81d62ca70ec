//! Miners: which triplets of a batch the loss looks at.
//!
//! A miner sees the distances without gradient and answers with indices. All of them work with
//! whole rows of the `[B, B]` matrix at once, in memory of order B^2. A new miner is a file here,
//! a `mod` line, a variant of [`Miner`] and its arm in [`Miner::mine`]. [`PairMiner`] does the same
//! for pairs.

mod batch_hard;
mod pairs;
mod random;
mod semi_hard;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

pub use pairs::{PairMiner, Pairs};

/// How triplets are chosen among the pictures of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Miner {
    /// One random positive and one random negative for each anchor
    Random,
    /// The farthest positive and the nearest negative for each anchor (Hermans et al. 2017)
    #[default]
    BatchHard,
    /// For each anchor and positive the nearest negative that is farther than the positive, but by
    /// less than the margin (FaceNet, Schroff et al. 2015)
    SemiHard,
    /// Every triplet of the batch
    BatchAll,
}

/// What a miner chose.
#[derive(Debug)]
pub enum Selection {
    /// These triplets.
    Triplets(Triplets),
    /// Every valid triplet. There are of the order of B^3, so they are never listed:
    /// [`TripletLoss::over_all`](crate::metric::TripletLoss::over_all) sums over them without.
    All,
}

/// A list of triplets: three int64 tensors `[T]` of positions in the batch, on the device of the
/// distances. `T` may be zero.
#[derive(Debug)]
pub struct Triplets {
    /// The picture that the two distances start from.
    pub anchor: Tensor,
    /// Another picture of the anchor's identity.
    pub positive: Tensor,
    /// A picture of another identity.
    pub negative: Tensor,
}

impl Triplets {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.anchor.numel()
    }

    /// Whether the batch had no triplet to offer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Miner {
    /// Chooses triplets by the squared distances `[B, B]` of a batch and its labels, int64 `[B]`
    /// (on any device). `margin` is the loss's; only semi-hard looks at it. `seed` decides
    /// everything random: the same seed gives the same triplets on every device.
    ///
    /// The listing miners wait for the device once, to learn how long the list is.
    ///
    /// # Panics
    /// When the shapes of distances and labels do not fit each other.
    pub fn mine(&self, distances: &Tensor, labels: &Tensor, margin: f64, seed: u64) -> Selection {
        let size = labels.numel() as i64;
        assert_eq!(distances.size(), [size, size], "distances of a batch of {size} labels");
        no_grad(|| {
            let labels = labels.to_device(distances.device());
            if size == 0 {
                let none = || labels.to_kind(Kind::Int64);
                let triplets = Triplets { anchor: none(), positive: none(), negative: none() };
                return Selection::Triplets(triplets);
            }
            match self {
                Self::Random => Selection::Triplets(random::mine(&labels, seed)),
                Self::BatchHard => Selection::Triplets(batch_hard::mine(distances, &labels)),
                Self::SemiHard => Selection::Triplets(semi_hard::mine(distances, &labels, margin)),
                Self::BatchAll => Selection::All,
            }
        })
    }
}

/// Which pairs are (anchor, positive): the same label, and not the picture itself. Bool `[B, B]`.
pub fn positives(labels: &Tensor) -> Tensor {
    let itself = Tensor::eye(labels.numel() as i64, (Kind::Bool, labels.device()));
    labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1)).logical_and(&itself.logical_not())
}

/// Which pairs are (anchor, negative): different labels. Bool `[B, B]`.
pub fn negatives(labels: &Tensor) -> Tensor {
    labels.unsqueeze(0).ne_tensor(&labels.unsqueeze(1))
}

/// The anchors that have a positive and a negative, int64 `[A]`, ascending.
fn anchors(positives: &Tensor, negatives: &Tensor) -> Tensor {
    positives.any_dim(1, false).logical_and(&negatives.any_dim(1, false)).nonzero().squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, values};
    use crate::metric::{Reduction, TripletLoss, pairwise};

    /// The triplets as plain positions.
    pub(super) fn listed(selection: Selection) -> Vec<[usize; 3]> {
        let Selection::Triplets(triplets) = selection else { panic!("not a list") };
        let column = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        let (a, p, n) =
            (column(&triplets.anchor), column(&triplets.positive), column(&triplets.negative));
        assert_eq!(triplets.is_empty(), a.is_empty());
        (0..triplets.len()).map(|i| [a[i] as usize, p[i] as usize, n[i] as usize]).collect()
    }

    #[test]
    fn the_masks_follow_the_definition() {
        let labels = Tensor::from_slice(&[4i64, 4, 9]);
        assert_eq!(values(&positives(&labels)), [0., 1., 0., 1., 0., 0., 0., 0., 0.]);
        assert_eq!(values(&negatives(&labels)), [0., 0., 1., 0., 0., 1., 1., 1., 0.]);
    }

    #[test]
    fn every_miner_gives_a_finite_loss_with_a_gradient_and_repeats_itself() {
        for miner in Miner::value_variants() {
            for (labels, has_triplets) in [
                (vec![], false),
                (vec![5], false),
                (vec![5, 5], false),
                (vec![5, 6], false),
                (vec![5, 5, 6], true),
            ] {
                let x = [[0.6f32, 0.8], [0.8, 0.6], [0.9, 0.5]];
                let x = Tensor::from_slice2(&x).narrow(0, 0, labels.len() as i64);
                let x = x.set_requires_grad(true);
                let labels = Tensor::from_slice::<i64>(&labels);
                for reduction in [Reduction::Mean, Reduction::Active] {
                    let loss = TripletLoss { margin: 0.2, reduction };
                    let run = || {
                        let distances = pairwise(&x);
                        let selection = miner.mine(&distances, &labels, 0.2, 17);
                        loss.over(&selection, &distances, &labels)
                    };
                    let output = run();
                    assert_eq!(output.loss.kind(), Kind::Float, "{miner:?}");
                    assert_eq!(output.loss.dim(), 0, "{miner:?}");
                    let value = output.loss.double_value(&[]);
                    assert!(value.is_finite() && (value > 0.0) == has_triplets, "{miner:?}");
                    assert_eq!(output.tuples.int64_value(&[]) > 0, has_triplets, "{miner:?}");
                    assert_eq!(value, run().loss.double_value(&[]), "{miner:?}");
                    output.loss.backward();
                    let gradient = values(&x.grad());
                    assert!(gradient.iter().all(|g| g.is_finite()), "{miner:?}");
                    assert_eq!(gradient.iter().any(|&g| g != 0.0), has_triplets, "{miner:?}");
                    crate::native::clear_gradients(&[&x]).unwrap();
                }
            }
        }
    }

    #[test]
    fn listed_triplets_are_valid_and_need_no_order_of_labels() {
        for miner in [Miner::Random, Miner::BatchHard, Miner::SemiHard] {
            for seed in 0..100 {
                let batch = Batch::random(seed);
                let valid = batch.every_triplet();
                let found = listed(miner.mine(&batch.distances(), &batch.labels, 0.7, seed));
                assert!(found.iter().all(|t| valid.contains(t)), "{miner:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn names_are_the_command_lines() {
        let names: Vec<String> =
            Miner::value_variants().iter().map(|m| serde_json::to_string(m).unwrap()).collect();
        let flags: Vec<String> = Miner::value_variants()
            .iter()
            .map(|m| format!("\"{}\"", m.to_possible_value().unwrap().get_name()))
            .collect();
        assert_eq!(names, flags);
        assert_eq!(flags[1], "\"batch-hard\"");
    }
}
