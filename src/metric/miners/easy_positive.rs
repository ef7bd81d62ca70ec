//! Easy positives with semi-hard negatives: Xuan, Stylianou and Pless, "Improved Embeddings with Easy
//! Positive Triplet Mining", 2020 (their EPSHN).

use super::miner::{Miner, Search};
use super::tuples::Triplets;
use crate::metric::chunks::AnchorChunk;

/// `--miner easy-positive`.
pub const EASY_POSITIVE: Miner = Miner {
    name: "easy-positive",
    help: "The nearest positive and the nearest negative farther than it, for each anchor (Xuan et al. 2020)",
    search: Search::PerChunk(mine),
};

/// For each anchor the nearest positive and the nearest negative with `d_an > d_ap`, the first in the
/// batch among equals; none for an anchor without one of them. The margin is not used.
fn mine(chunk: &AnchorChunk, _margin: f64) -> Triplets {
    let (near, place) = chunk.positives(f64::INFINITY).min_dim(1, true);
    let positive = chunk.members.index.gather(1, &place, false);
    let (far, negative) = chunk.nearest_beyond(&near);
    // An infinite distance means no positive or no negative.
    let found = far.gt_tensor(&near).logical_and(&far.lt(f64::INFINITY));
    let anchor = found.squeeze_dim(1).nonzero().squeeze_dim(1);
    let [positive, negative] =
        [positive, negative].map(|column| column.squeeze_dim(1).index_select(0, &anchor));
    Triplets { anchor, positive, negative }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::miners::tests::listed;
    use crate::metric::testing::Batch;

    #[test]
    fn agrees_with_loops() {
        let mut triplets = 0;
        for seed in 0..300 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f32>> = Vec::try_from(batch.distances()).unwrap();
            let names = batch.names();
            let mut wanted = Vec::new();
            for (a, row) in rows.iter().enumerate() {
                // The first of the nearest: `min_by` keeps the first of equals.
                let nearest = |of: &dyn Fn(usize) -> bool| {
                    (0..row.len()).filter(|&i| of(i)).min_by(|&i, &j| row[i].total_cmp(&row[j]))
                };
                let Some(p) = nearest(&|i| i != a && names[i] == names[a]) else { continue };
                let beyond = |i: usize| names[i] != names[a] && row[i] > row[p];
                wanted.extend(nearest(&beyond).map(|n| [a, p, n]));
            }
            let found = listed(EASY_POSITIVE.mine(&batch.distances(), &batch.labels, 0.2, 0));
            assert_eq!(found, wanted, "seed {seed}");
            triplets += found.len();
        }
        assert!(triplets > 500, "the batches were too easy: {triplets}");
    }
}
