//! The hard hinge over every triplet of some anchors: its sum and its gradient by counting.

use tch::{Kind, Tensor};

use super::all_triplets::AnchorSums;
use crate::metric::rows::count_smaller;
use crate::metric::tiles::Tile;

/// The sum of `relu(d_ap - d_an + margin)`.
///
/// It is piecewise linear in the distances, so on its piece it is
/// `sum_ap c_ap (d_ap + margin) - sum_an c_an d_an`, where `c_ap` counts the negatives `n` for
/// which `(a, p, n)` is active, `d_an < d_ap + margin`, and `c_an` the positives.
pub(super) fn sums(tile: Tile, margin: f64) -> AnchorSums {
    let reach = tile.positives(f64::NEG_INFINITY) + margin;
    let mut of_negatives = tile.far.zeros_like();
    let of_pairs = count_smaller(&tile.far, &reach, Some(&mut of_negatives));
    let weights = (-&of_negatives).scatter(1, &tile.members.index, &of_pairs);
    let active = of_pairs.sum(Kind::Double);
    // In float64: the sum is a small difference of two large ones.
    let total = |distances: &Tensor, counts: &Tensor| {
        (distances.to_kind(Kind::Double) * counts).sum(Kind::Double)
    };
    let near = total(&tile.positives(0.0), &of_pairs);
    let far = total(&tile.negatives(0.0), &of_negatives);
    AnchorSums { sum: near - far + &active * margin, weights, active }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::groups::Groups;
    use crate::metric::testing::{Batch, values};

    #[test]
    fn counts_agree_with_loops() {
        for seed in 0..200 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f32>> = Vec::try_from(batch.distances()).unwrap();
            let size = rows.len();
            let mut wanted = vec![0.0; size * size];
            for [a, p, n] in batch.every_triplet() {
                if rows[a][n] < rows[a][p] + 0.5 {
                    wanted[a * size + p] += 1.0;
                    wanted[a * size + n] -= 1.0;
                }
            }
            let groups = Groups::new(&batch.labels, tch::Device::Cpu);
            let sums = sums(Tile::new(batch.distances(), &groups, 0), 0.5);
            assert_eq!(values(&sums.weights), wanted, "seed {seed}");
            let active = wanted.iter().filter(|&&weight| weight > 0.0).sum::<f64>();
            assert_eq!(sums.active.double_value(&[]), active);
        }
    }
}
