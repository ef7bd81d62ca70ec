//! A random positive and a random negative for each anchor, as a loader of fixed triplets would draw
//! them: the baseline for the other miners.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::miner::{Miner, Search};
use crate::metric::groups::Groups;

/// `--miner random`.
pub const RANDOM: Miner = Miner {
    name: "random",
    help: "One random positive and one random negative for each anchor",
    search: Search::Labels(mine),
};

/// One triplet for each anchor that has a positive and a negative, both drawn uniformly, on the
/// host.
fn mine(groups: &Groups, seed: u64) -> Vec<[usize; 3]> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut draw = || (0..groups.len()).map(|_| random.random()).collect::<Vec<f64>>();
    let (positives, negatives) = (draw(), draw());
    let triplet = |anchor: usize| {
        let (group, different) = groups.of(anchor);
        let rank = |uniform: f64, count: usize| ((uniform * count as f64) as usize).min(count - 1);
        let place = rank(positives[anchor], group.len() - 1);
        // The group without the anchor.
        let positive = group[place + usize::from(group[place] >= anchor)];
        // The batch without the group: as many of the group come before the one of this rank as
        // have fewer others before them.
        let place = rank(negatives[anchor], different);
        let before = group.iter().enumerate().filter(|&(k, &member)| member - k <= place).count();
        [anchor, positive, place + before]
    };
    groups.anchors().map(triplet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::miners::tests::listed;
    use crate::metric::testing::Batch;
    use std::collections::BTreeMap;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn each_anchor_that_can_appears_once() {
        for seed in 0..100 {
            let batch = Batch::random(seed);
            let mut wanted: Vec<usize> = batch.every_triplet().iter().map(|t| t[0]).collect();
            wanted.dedup();
            let found = mine(&Groups::new(&batch.labels, Device::Cpu), seed);
            assert_eq!(found.iter().map(|t| t[0]).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn every_triplet_is_drawn_equally_often() {
        // Five pictures of one identity and five of another: 4 x 5 triplets per anchor.
        let labels = Tensor::from_slice(&[0i64, 1, 0, 1, 0, 1, 0, 1, 0, 1]);
        let distances = Tensor::zeros([10, 10], (Kind::Float, Device::Cpu));
        let mut counts = BTreeMap::new();
        for seed in 0..4000 {
            for triplet in listed(RANDOM.mine(&distances, &labels, 0.2, seed)) {
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
        let with = |seed| mine(&Groups::new(&labels, Device::Cpu), seed);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }
}
