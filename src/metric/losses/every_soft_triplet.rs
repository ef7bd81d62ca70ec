//! The soft margin over every triplet of a batch, a few anchors at a time.

use tch::{Kind, Tensor, no_grad};

use crate::metric::miners::{negatives, positives};

/// How many places of triplets are looked at together: 16 MB in float32.
pub(super) const TILE: i64 = 1 << 22;

/// The sum of `softplus(d_ap - d_an + margin)` over all valid triplets, and what it is made of.
pub(super) struct SoftSum {
    /// The sum, a float64 scalar. No gradient.
    pub sum: Tensor,
    /// The gradient of the sum with respect to the distances: `[B, B]`, in their kind.
    pub weights: Tensor,
    /// All valid triplets: an int64 scalar.
    pub tuples: Tensor,
    /// Those whose value is above zero: an int64 scalar.
    pub active: Tensor,
}

/// Sums over the triplets of distances `[B, B]` and labels, int64 `[B]`. Memory of order B^2, time
/// of order B^3. `tile` is [`TILE`], or less in tests.
pub(super) fn sum_soft(distances: &Tensor, labels: &Tensor, margin: f64, tile: i64) -> SoftSum {
    no_grad(|| {
        let distances = distances.detach();
        let labels = labels.to_device(distances.device());
        let (positives, negatives) = (positives(&labels), negatives(&labels));
        let size = labels.numel() as i64;
        let zero = |kind| Tensor::zeros([], (kind, distances.device()));
        let (mut sum, mut tuples) = (zero(Kind::Double), zero(Kind::Int64));
        let (mut active, mut weights) = (zero(Kind::Int64), vec![distances.narrow(0, 0, 0)]);
        let together = (tile / (size * size).max(1)).clamp(1, size.max(1));
        let mut start = 0;
        while start < size {
            let rows = together.min(size - start);
            let part = |x: &Tensor| x.narrow(0, start, rows);
            let (d, p, n) = (part(&distances), part(&positives), part(&negatives));
            let invalid = p.unsqueeze(2).logical_and(&n.unsqueeze(1)).logical_not();
            let reach = d.unsqueeze(2) - d.unsqueeze(1) + margin;
            let value = reach.softplus().masked_fill(&invalid, 0.0);
            let slope = reach.sigmoid().masked_fill(&invalid, 0.0);
            let along = |dim: i64| slope.sum_dim_intlist([dim].as_slice(), false, None);
            weights.push(along(2) - along(1));
            sum += value.sum(Kind::Double);
            active += value.gt(0.0).sum(Kind::Int64);
            tuples += invalid.logical_not().sum(Kind::Int64);
            start += rows;
        }
        SoftSum { sum, weights: Tensor::cat(&weights, 0), tuples, active }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, close, values};

    #[test]
    fn tiles_of_any_size_agree_with_loops() {
        for seed in 0..60 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f64>> =
                Vec::try_from(batch.distances().to_kind(Kind::Double)).unwrap();
            let size = rows.len();
            let (mut sum, mut weights) = (0.0, vec![0.0; size * size]);
            let list = batch.every_triplet();
            for &[a, p, n] in &list {
                let reach = (rows[a][p] - rows[a][n] + 0.1).exp();
                sum += reach.ln_1p();
                weights[a * size + p] += reach / (1.0 + reach);
                weights[a * size + n] -= reach / (1.0 + reach);
            }
            for tile in [1, 2 * (size * size) as i64, TILE] {
                let distances = batch.distances().to_kind(Kind::Double);
                let found = sum_soft(&distances, &batch.labels, 0.1, tile);
                close(&values(&found.sum), &[sum], 1e-7);
                close(&values(&found.weights), &weights, 1e-9);
                assert_eq!(found.tuples.int64_value(&[]), list.len() as i64);
                assert_eq!(found.active.int64_value(&[]), list.len() as i64);
            }
        }
    }
}
