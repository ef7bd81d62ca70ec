//! A random positive and a random negative for each anchor: what a loader of ready-made triplets
//! does, and the baseline for the other miners.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tch::{Kind, Tensor};

use super::{Triplets, anchors, negatives, positives};
use crate::metric::rows::count_below;

/// One triplet for each anchor that has a positive and a negative, both drawn uniformly.
pub(super) fn mine(labels: &Tensor, seed: u64) -> Triplets {
    let (positives, negatives) = (positives(labels), negatives(labels));
    let mut random = StdRng::seed_from_u64(seed);
    let anchor = anchors(&positives, &negatives);
    let positive = draw(&positives, &mut random).index_select(0, &anchor);
    let negative = draw(&negatives, &mut random).index_select(0, &anchor);
    Triplets { anchor, positive, negative }
}

/// A uniformly drawn set column for each row of the mask `[B, B]`: int64 `[B]`. Rows with nothing
/// set give some column; the caller drops them.
fn draw(mask: &Tensor, random: &mut StdRng) -> Tensor {
    let size = mask.size()[0];
    // Drawn on the CPU, one number a row, so that the device changes nothing.
    let uniform: Vec<f64> = (0..size).map(|_| random.random()).collect();
    let uniform = Tensor::from_slice(&uniform).to_device(mask.device());
    // The k-th set column is the first at which the running count reaches k.
    let running = mask.cumsum(1, Kind::Int64);
    let count = running.select(1, size - 1);
    let last = (&count - 1).clamp_min(0);
    let rank = (uniform * count).floor().to_kind(Kind::Int64).minimum(&last) + 1;
    count_below(&running, &rank.unsqueeze(1)).squeeze_dim(1).clamp_max(size - 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::listed;
    use super::*;
    use crate::metric::testing::Batch;
    use crate::metric::{Miner, Selection};
    use std::collections::BTreeMap;

    #[test]
    fn each_anchor_that_can_appears_once() {
        for seed in 0..100 {
            let batch = Batch::random(seed);
            let mut wanted: Vec<usize> = batch.every_triplet().iter().map(|t| t[0]).collect();
            wanted.dedup();
            let found = listed(Selection::Triplets(mine(&batch.labels, seed)));
            assert_eq!(found.iter().map(|t| t[0]).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn every_triplet_is_drawn_equally_often() {
        // Five pictures of one identity and five of another: 4 x 5 triplets an anchor.
        let labels = Tensor::from_slice(&[0i64, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        let distances = Tensor::zeros([10, 10], (Kind::Float, tch::Device::Cpu));
        let mut counts = BTreeMap::new();
        for seed in 0..4000 {
            for triplet in listed(Miner::Random.mine(&distances, &labels, 0.2, seed)) {
                *counts.entry(triplet).or_insert(0u32) += 1;
            }
        }
        // 200 expected of each, standard deviation 14.
        assert_eq!(counts.len(), 10 * 20);
        assert!(counts.values().all(|count| (130..=270).contains(count)), "{counts:?}");
    }

    #[test]
    fn seeds_differ() {
        let labels = Tensor::from_slice(&[0i64, 1, 0, 1, 0, 1, 0, 1]);
        let with = |seed| listed(Selection::Triplets(mine(&labels, seed)));
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }
}
