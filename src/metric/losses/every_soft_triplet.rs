//! The soft margin over every triplet of some anchors.

use tch::{Kind, Tensor};

use super::all_triplets::AnchorSums;
use crate::metric::tiles::Tile;

/// How many places of triplets are looked at together: 16 MB in float32.
const TOGETHER: i64 = 1 << 22;

/// The sum of `softplus(d_ap - d_an + margin)`, by its terms.
pub(super) fn sums(tile: Tile, margin: f64) -> AnchorSums {
    // What is no triplet is minus infinity, whose softplus and slope are zero.
    let reach = tile.positives(f64::NEG_INFINITY) + margin;
    let far = tile.far.unsqueeze(1);
    let mut of_negatives = tile.far.zeros_like();
    let (mut of_pairs, mut values, mut active) = (Vec::new(), Vec::new(), Vec::new());
    let columns = (TOGETHER / (tile.far.numel() as i64).max(1)).max(1);
    for near in reach.split(columns, 1) {
        let beyond = near.unsqueeze(2) - &far;
        let (value, slope) = (beyond.softplus(), beyond.sigmoid());
        let along = |of: &Tensor, dim: i64| of.sum_dim_intlist([dim].as_slice(), false, None);
        of_pairs.push(along(&slope, 2));
        of_negatives += along(&slope, 1);
        values.push(along(&value, 2).sum(Kind::Double));
        active.push(value.gt(0.0).sum(Kind::Int64));
    }
    let of_pairs = Tensor::cat(&of_pairs, 1);
    AnchorSums {
        sum: Tensor::stack(&values, 0).sum(Kind::Double),
        weights: (-of_negatives).scatter(1, &tile.members.index, &of_pairs),
        active: Tensor::stack(&active, 0).sum(Kind::Int64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::groups::Groups;
    use crate::metric::testing::{Batch, close, values};
    use crate::metric::tiles::spans;
    use tch::Device;

    #[test]
    fn tiles_of_any_size_agree_with_loops() {
        for seed in 0..60 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f64>> =
                Vec::try_from(batch.distances().to_kind(Kind::Double)).unwrap();
            let size = rows.len();
            let (mut sum, mut weights) = (0.0, vec![0.0; size * size]);
            let list = batch.every_triplet();
            let mut active = list.len() as i64;
            for &[a, p, n] in &list {
                let reach = (rows[a][p] - rows[a][n] + 0.1).exp();
                sum += reach.ln_1p();
                weights[a * size + p] += reach / (1.0 + reach);
                weights[a * size + n] -= reach / (1.0 + reach);
            }
            let groups = Groups::new(&batch.labels, Device::Cpu);
            let distances = batch.distances().to_kind(Kind::Double);
            for (start, length) in spans(size as i64, 2 * size as i64) {
                let rows = distances.narrow(0, start, length).copy();
                let found = sums(Tile::new(rows, &groups, start), 0.1);
                let (first, past) = (start as usize, (start + length) as usize);
                close(&values(&found.weights), &weights[first * size..past * size], 1e-9);
                sum -= found.sum.double_value(&[]);
                active -= found.active.int64_value(&[]);
            }
            close(&[sum], &[0.0], 1e-7);
            assert_eq!(active, 0, "seed {seed}");
        }
    }
}
