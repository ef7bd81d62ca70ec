//! The hardest positive and the hardest negative of each anchor: Hermans, Beyer and Leibe, "In
//! Defense of the Triplet Loss for Person Re-Identification", 2017.

use tch::{Kind, Tensor};

use super::{Triplets, negatives};

/// One triplet for each anchor that has a positive and a negative: the farthest positive and the
/// nearest negative. Among equals the first in the batch.
pub(super) fn mine(distances: &Tensor, labels: &Tensor) -> Triplets {
    let different = negatives(labels);
    let itself = Tensor::eye(labels.numel() as i64, (Kind::Bool, labels.device()));
    let (none, all) = (f64::NEG_INFINITY, f64::INFINITY);
    let (far, positive) =
        distances.masked_fill(&different.logical_or(&itself), none).max_dim(1, false);
    let (near, negative) = distances.masked_fill(&different.logical_not(), all).min_dim(1, false);
    // Not "is finite": broken embeddings are to give a broken loss and not an empty one.
    let anchor = far.ne(none).logical_and(&near.ne(all)).nonzero().squeeze_dim(1);
    let [positive, negative] = [positive, negative].map(|of| of.index_select(0, &anchor));
    Triplets { anchor, positive, negative }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listed;
    use crate::metric::Miner;
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
            let found = listed(Miner::BatchHard.mine(&batch.distances(), &batch.labels, 0.2, 0));
            assert_eq!(found, wanted, "seed {seed}");
            triplets += found.len();
        }
        assert!(triplets > 500, "the batches were too easy: {triplets}");
    }
}
