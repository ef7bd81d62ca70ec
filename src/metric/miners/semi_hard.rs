//! Semi-hard negatives: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face
//! Recognition and Clustering", 2015.

use tch::Tensor;

use crate::metric::rows::{FEW, count_up_to};
use crate::metric::tiles::{Tile, nearest};

/// For each anchor of a tile and each member of its identity the nearest negative with
/// `d_ap < d_an < d_ap + margin`, the first in the batch among equals, int64 `[T, K]`; -1 where
/// there is none, or where the member is no positive.
pub(super) fn mine(tile: &Tile, margin: f64) -> Tensor {
    let (far, near) = (&tile.far, &tile.near);
    let (distance, negative) =
        if near.size()[1] > FEW { by_sorting(far, near) } else { by_looking(far, near) };
    let found = distance
        .gt_tensor(near)
        .logical_and(&distance.lt_tensor(&(near + margin)))
        .logical_and(&tile.members.others);
    negative.masked_fill(&found.logical_not(), -1)
}

/// The nearest of `far [T, B]` beyond each of `near [T, K]`, its distance and its column (`[T, K]`
/// each), by one look at all for each member.
fn by_looking(far: &Tensor, near: &Tensor) -> (Tensor, Tensor) {
    let beyond = |column: i64| {
        let farther = far.gt_tensor(&near.narrow(1, column, 1));
        nearest(&far.where_scalarother(&farther, f64::INFINITY))
    };
    let (distance, negative): (Vec<_>, Vec<_>) = (0..near.size()[1]).map(beyond).unzip();
    (Tensor::cat(&distance, 1), Tensor::cat(&negative, 1))
}

/// The same by sorting each row once: the one wanted is then the first beyond the member.
fn by_sorting(far: &Tensor, near: &Tensor) -> (Tensor, Tensor) {
    let (sorted, order) = far.sort_stable(true, 1, false);
    // Beyond the last entry there is none; the last one is then not farther.
    let place = count_up_to(&sorted, near).clamp_max(far.size()[1] - 1);
    (sorted.gather(1, &place, false), order.gather(1, &place, false))
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
