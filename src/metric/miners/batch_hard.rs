//! The hardest positive and the hardest negative of each anchor: Hermans, Beyer and Leibe, "In
//! Defense of the Triplet Loss for Person Re-Identification", 2017.

use tch::Tensor;

use super::{Triplets, anchors, negatives, positives};

/// One triplet for each anchor that has a positive and a negative: the farthest positive and the
/// nearest negative. Among equals the first in the batch.
pub(super) fn mine(distances: &Tensor, labels: &Tensor) -> Triplets {
    let (positives, negatives) = (positives(labels), negatives(labels));
    let farthest = distances.masked_fill(&positives.logical_not(), f64::NEG_INFINITY);
    let nearest = distances.masked_fill(&negatives.logical_not(), f64::INFINITY);
    let anchor = anchors(&positives, &negatives);
    let positive = farthest.max_dim(1, false).1.index_select(0, &anchor);
    let negative = nearest.min_dim(1, false).1.index_select(0, &anchor);
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
