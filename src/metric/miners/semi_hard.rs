//! Semi-hard negatives: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face
//! Recognition and Clustering", 2015.

use tch::Tensor;

use super::miner::{Miner, Search};
use super::tuples::Triplets;
use crate::metric::chunks::AnchorChunk;
use crate::metric::counting::{FEW, count_up_to};

/// `--miner semi-hard`.
pub const SEMI_HARD: Miner = Miner {
    name: "semi-hard",
    help: "For each anchor and positive the nearest negative that is farther than the positive, but by \
           less than the margin (FaceNet, Schroff et al. 2015)",
    search: Search::PerChunk(mine),
};

/// For each anchor and positive the nearest negative with `d_ap < d_an < d_ap + margin`, the first in
/// the batch among equals.
fn mine(chunk: &AnchorChunk, margin: f64) -> Triplets {
    let (far, near) = (&chunk.far, &chunk.near);
    let (distance, negative) =
        if near.size()[1] > FEW { by_sorting(far, near) } else { column_by_column(chunk) };
    let found = distance
        .gt_tensor(near)
        .logical_and(&distance.lt_tensor(&(near + margin)))
        .logical_and(&chunk.members.others);
    // Only the found ones are kept until the last chunk.
    let places = found.nonzero();
    let [anchor, column] = [0, 1].map(|side| places.select(1, side));
    let chosen = |of: &Tensor| of.index(&[Some(&anchor), Some(&column)]);
    Triplets { positive: chosen(&chunk.members.index), negative: chosen(&negative), anchor }
}

/// The nearest negative beyond each member, its distance and its column (`[T, K]` each), by one pass
/// over all negatives for each member.
fn column_by_column(chunk: &AnchorChunk) -> (Tensor, Tensor) {
    let beyond = |column: i64| chunk.nearest_beyond(&chunk.near.narrow(1, column, 1));
    let (distance, negative): (Vec<_>, Vec<_>) = (0..chunk.near.size()[1]).map(beyond).unzip();
    (Tensor::cat(&distance, 1), Tensor::cat(&negative, 1))
}

/// The same by sorting each row once and taking the first beyond the member.
fn by_sorting(far: &Tensor, near: &Tensor) -> (Tensor, Tensor) {
    let (sorted, order) = far.sort_stable(true, 1, false);
    // If there is none, the last entry is taken, which is not farther.
    let place = count_up_to(&sorted, near).clamp_max(far.size()[1] - 1);
    (sorted.gather(1, &place, false), order.gather(1, &place, false))
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
                let found = listed(SEMI_HARD.mine(&batch.distances(), &batch.labels, margin, 0));
                assert_eq!(found, wanted, "seed {seed}, margin {margin}");
                triplets += found.len();
            }
        }
        assert!(triplets > 500, "the batches were too easy: {triplets}");
    }
}
