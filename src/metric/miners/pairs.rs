//! Pairs, half of the same person and half of different people: at random, or with the different
//! ones that look most alike.

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::metric::PairLabels;
use crate::verdict::Verdict;

/// How the pairs of different people are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PairMiner {
    /// At random
    #[default]
    Random,
    /// The nearest ones in a random pool of candidates
    HardNegative,
}

/// Chosen pairs: positions in a batch, and whether the two are the same person. First the pairs of
/// the same person, then as many of different people. May be empty.
#[derive(Debug)]
pub struct Pairs {
    /// Int64 `[N]`, on the device of the distances.
    pub left: Tensor,
    /// Int64 `[N]`; always behind `left` in the batch.
    pub right: Tensor,
    /// What the pairs are.
    pub labels: PairLabels,
}

impl PairMiner {
    /// Chooses up to `count` pairs (half same, half different; fewer when the batch has fewer of one
    /// kind) by distances `[B, B]` and labels, int64 `[B]`. The pairs of the same person are always
    /// random. `pool` is how many random pairs of different people are looked at for the hardest; at
    /// least as many as are wanted are, and at `usize::MAX` all. The same seed gives the same pairs.
    ///
    /// All `B (B - 1) / 2` pairs are listed on the way, in some 60 bytes each: 8 GB for 16,384
    /// embeddings, beside the 1 GB of their distances.
    ///
    /// # Panics
    /// When the shapes of distances and labels do not fit each other.
    pub fn mine(
        self,
        distances: &Tensor,
        labels: &Tensor,
        count: usize,
        pool: usize,
        seed: u64,
    ) -> Pairs {
        let size = labels.numel();
        assert_eq!(distances.size(), [size as i64; 2], "distances of a batch of {size} labels");
        no_grad(|| {
            let places: Vec<(usize, usize)> =
                (0..size).flat_map(|i| (i + 1..size).map(move |j| (i, j))).collect();
            let column = |side: fn(&(usize, usize)) -> usize| {
                Tensor::from_slice(&places.iter().map(|p| side(p) as i64).collect::<Vec<_>>())
            };
            let (left, right) = (column(|p| p.0), column(|p| p.1));
            let names = labels.to_device(Device::Cpu);
            let of = |rows: &Tensor| names.index_select(0, rows);
            let candidates = PairLabels::of_identities(&of(&left), &of(&right));
            let on_device = |rows: &Tensor| rows.to_device(distances.device());
            let each = distances.index(&[Some(on_device(&left)), Some(on_device(&right))]);
            let chosen = self.choose(&each, &candidates, count, pool, seed);
            let pick = |rows: &Tensor| rows.index_select(0, &chosen);
            let (left, right) = (pick(&left), pick(&right));
            let labels = PairLabels::of_identities(&of(&left), &of(&right));
            Pairs { left: on_device(&left), right: on_device(&right), labels }
        })
    }

    /// The same choice among listed candidates with distances `[C]`: positions in the list, int64 on
    /// the CPU, first those of the same person, then as many of different people, nearest first
    /// where they were chosen by distance (a distance that is not a number counts as far).
    ///
    /// # Panics
    /// When the number of distances is not that of the labels.
    pub fn choose(
        self,
        distances: &Tensor,
        labels: &PairLabels,
        count: usize,
        pool: usize,
        seed: u64,
    ) -> Tensor {
        assert_eq!(distances.size(), [labels.len() as i64], "one distance a label");
        no_grad(|| {
            let mut random = StdRng::seed_from_u64(seed);
            let [same, different] = [Verdict::Same, Verdict::Different]
                .map(|pair| labels.are(pair).to_device(Device::Cpu).nonzero().squeeze_dim(1));
            let half = (count / 2).min(same.numel()).min(different.numel());
            let mut draw = |from: &Tensor, number: usize| {
                let drawn = index::sample(&mut random, from.numel(), number);
                let drawn: Vec<i64> = drawn.into_iter().map(|place| place as i64).collect();
                from.index_select(0, &Tensor::from_slice(&drawn))
            };
            let same = draw(&same, half);
            let different = match self {
                Self::Random => draw(&different, half),
                Self::HardNegative => {
                    let number = pool.max(half).min(different.numel());
                    let pool = draw(&different, number).sort(0, false).0;
                    let far = distances.to_device(Device::Cpu).to_kind(Kind::Double);
                    let far = far.index_select(0, &pool).nan_to_num(f64::INFINITY, None, None);
                    let (_, order) = far.sort_stable(true, 0, false);
                    pool.index_select(0, &order.narrow(0, 0, half as i64))
                }
            };
            Tensor::cat(&[same, different], 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::Batch;

    fn listed(pairs: &Pairs) -> Vec<(usize, usize)> {
        let column = |x: &Tensor| Vec::<i64>::try_from(x).unwrap();
        let (left, right) = (column(&pairs.left), column(&pairs.right));
        left.iter().zip(right).map(|(&i, j)| (i as usize, j as usize)).collect()
    }

    #[test]
    fn half_are_the_same_and_the_hardest_of_all_agree_with_loops() {
        let mut seen = 0;
        for seed in 0..200 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f32>> = Vec::try_from(batch.distances()).unwrap();
            let names = batch.names();
            let places: Vec<(usize, usize)> =
                (0..names.len()).flat_map(|i| (i + 1..names.len()).map(move |j| (i, j))).collect();
            let (same, mut different): (Vec<_>, Vec<_>) =
                places.into_iter().partition(|&(i, j)| names[i] == names[j]);
            different.sort_by(|a, b| rows[a.0][a.1].total_cmp(&rows[b.0][b.1]));
            for miner in PairMiner::value_variants() {
                let mine =
                    |seed| miner.mine(&batch.distances(), &batch.labels, 9, usize::MAX, seed);
                let (pairs, half) = (mine(seed), 4.min(same.len()).min(different.len()));
                let found = listed(&pairs);
                assert_eq!(found.len(), 2 * half, "seed {seed}");
                assert_eq!(pairs.labels.len(), 2 * half);
                assert!(found[..half].iter().all(|pair| same.contains(pair)));
                assert!(found[half..].iter().all(|pair| different.contains(pair)));
                let mut once = found.clone();
                once.sort();
                once.dedup();
                assert_eq!(once.len(), found.len(), "a pair was chosen twice");
                if *miner == PairMiner::HardNegative {
                    assert_eq!(found[half..], different[..half], "seed {seed}");
                }
                let kinds: Vec<bool> = Vec::try_from(pairs.labels.are(Verdict::Different)).unwrap();
                assert!(kinds[..half].iter().all(|d| !d) && kinds[half..].iter().all(|&d| d));
                assert_eq!(listed(&mine(seed)), found);
                seen += half;
            }
        }
        assert!(seen > 300, "the batches were too easy: {seen}");
    }

    #[test]
    fn a_small_pool_is_seeded_and_harder_than_chance() {
        let size = 40;
        let labels = Tensor::arange(size, (Kind::Int64, Device::Cpu)).remainder(10);
        let x = Tensor::arange(size, (Kind::Float, Device::Cpu)).view([size, 1]).sin();
        let distances = crate::metric::pairwise(&x);
        let mean = |miner: PairMiner, pool, seed| {
            let pairs = miner.mine(&distances, &labels, 20, pool, seed);
            let all = distances.index(&[Some(&pairs.left), Some(&pairs.right)]);
            (all.narrow(0, 10, 10).mean(Kind::Float).double_value(&[]), listed(&pairs))
        };
        let (random, pool, all) = (
            mean(PairMiner::Random, 100, 5),
            mean(PairMiner::HardNegative, 100, 5),
            mean(PairMiner::HardNegative, usize::MAX, 5),
        );
        assert!(random.0 > 2.0 * pool.0 && pool.0 > all.0, "{} {} {}", random.0, pool.0, all.0);
        assert_ne!(mean(PairMiner::HardNegative, 100, 6).1, pool.1);
    }

    #[test]
    fn nothing_to_choose_is_an_empty_list_and_no_number_is_far() {
        let labels = PairLabels::new(&[Verdict::Different; 3]);
        let distances = Tensor::from_slice(&[f32::NAN, 2.0, 1.0]);
        let chosen = PairMiner::HardNegative.choose(&distances, &labels, 2, 3, 0);
        assert_eq!(chosen.size(), [0]);
        let labels = PairLabels::new(&[Verdict::Different, Verdict::Different, Verdict::Same]);
        let chosen = PairMiner::HardNegative.choose(&distances, &labels, 2, 3, 0);
        assert_eq!(Vec::<i64>::try_from(chosen).unwrap(), [2, 1]);
    }

    #[test]
    fn names_are_the_command_lines() {
        for miner in PairMiner::value_variants() {
            let flag = miner.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(miner).unwrap(), flag.get_name());
        }
    }
}
