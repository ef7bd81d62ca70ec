//! The hardest positive and the hardest negative of each anchor: Hermans, Beyer and Leibe, "In
//! Defense of the Triplet Loss for Person Re-Identification", 2017.

use tch::Tensor;

use super::miner::{Miner, Search};
use crate::metric::chunks::{AnchorChunk, nearest};

/// `--miner batch-hard`.
pub const BATCH_HARD: Miner = Miner {
    name: "batch-hard",
    help: "The farthest positive and the nearest negative for each anchor (Hermans et al. 2017)",
    search: Search::PerAnchor(mine),
};

/// The farthest positive and the nearest negative of each anchor of a chunk, int64 `[T]` each; of
/// equal distances the first in the batch.
fn mine(chunk: &AnchorChunk) -> [Tensor; 2] {
    let (_, place) = chunk.positives(f64::NEG_INFINITY).max_dim(1, true);
    let positive = chunk.members.index.gather(1, &place, false);
    let (_, negative) = nearest(&chunk.far);
    [positive, negative].map(|column| column.squeeze_dim(1))
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
            let mut wanted: Vec<[usize; 3]> = Vec::new();
            for [a, p, n] in batch.every_triplet() {
                match wanted.last_mut() {
                    Some(best) if best[0] == a => {
                        if rows[a][p] > rows[a][best[1]] {
                            best[1] = p;
                        }
                        if rows[a][n] < rows[a][best[2]] {
                            best[2] = n;
                        }
                    }
                    _ => wanted.push([a, p, n]),
                }
            }
            let found = listed(BATCH_HARD.mine(&batch.distances(), &batch.labels, 0.2, 0));
            assert_eq!(found, wanted, "seed {seed}");
            triplets += found.len();
        }
        assert!(triplets > 500, "the batches were too easy: {triplets}");
    }
}
