//! Semi-hard negatives: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face
//! Recognition and Clustering", 2015.

use tch::Tensor;

use super::{Triplets, negatives, positives};
use crate::metric::rows::count_up_to;

/// For each (anchor, positive) the nearest negative with `d_ap < d_an < d_ap + margin`, the first
/// in the batch among equals; a pair without one gives no triplet. In the order of (anchor,
/// positive).
///
/// Each row's negatives are sorted once; the one wanted is then the first beyond `d_ap`.
pub(super) fn mine(distances: &Tensor, labels: &Tensor, margin: f64) -> Triplets {
    let far = distances.masked_fill(&negatives(labels).logical_not(), f64::INFINITY);
    let (sorted, order) = far.sort_stable(true, 1, false);
    let last = distances.size()[1] - 1;
    let next = count_up_to(&sorted, distances);
    // Beyond the last entry there is none; the last one is then not farther and drops out below.
    let place = next.clamp_max(last);
    let candidate = sorted.gather(1, &place, false);
    let found = positives(labels)
        .logical_and(&candidate.gt_tensor(distances))
        .logical_and(&candidate.lt_tensor(&(distances + margin)))
        .nonzero();
    let (anchor, positive) = (found.select(1, 0), found.select(1, 1));
    let negative = order.gather(1, &place, false).index(&[Some(&anchor), Some(&positive)]);
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
            // Distances are multiples of 0.25, so 0.5 and 1 put negatives exactly on the border.
            for margin in [0.2, 0.5, 1.0] {
                let mut wanted: Vec<[usize; 3]> = Vec::new();
                for [a, p, n] in batch.every_triplet() {
                    let (near, far) = (rows[a][p], rows[a][n]);
                    if !(near < far && far < near + margin as f32) {
                        continue;
                    }
                    match wanted.last_mut() {
                        Some(best) if best[..2] == [a, p] => {
                            if far < rows[a][best[2]] {
                                best[2] = n;
                            }
                        }
                        _ => wanted.push([a, p, n]),
                    }
                }
                let miner = Miner::SemiHard;
                let found = listed(miner.mine(&batch.distances(), &batch.labels, margin, 0));
                assert_eq!(found, wanted, "seed {seed}, margin {margin}");
                triplets += found.len();
            }
        }
        assert!(triplets > 500, "the batches were too easy: {triplets}");
    }
}
