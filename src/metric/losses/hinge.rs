//! The two hinges of the triplet loss: of one triplet, and summed over every triplet of some anchors
//! with the gradient of the sum.

use tch::{Kind, Tensor};

use crate::metric::chunks::AnchorChunk;
use crate::metric::counting::count_smaller;
use crate::metric::named::named_enum;

/// Number of triplets per chunk of the soft hinge: 16 MB in float32.
const TRIPLETS_AT_ONCE: i64 = 1 << 22;

named_enum! {
    /// The function applied to the violation `d_ap - d_an + margin` of a triplet.
    pub enum Hinge {
        /// Clamped at zero: triplets beyond the margin have no gradient
        Hard = "hard",
        /// Softplus, `log(1 + exp(.))`; --margin still applies (Hermans et al. 2017: 0)
        Soft = "soft",
    }
}

/// The sum over the triplets of some anchors.
pub(super) struct AnchorSums {
    /// A float64 scalar.
    pub sum: Tensor,
    /// The gradient of the sum with respect to the anchors' distances: `[T, B]`, in their kind.
    pub gradient: Tensor,
    /// The triplets whose value is above zero: a scalar of any kind.
    pub active: Tensor,
}

impl Hinge {
    /// The loss of each violation.
    pub(super) fn apply(self, violation: &Tensor) -> Tensor {
        match self {
            Self::Hard => violation.relu(),
            Self::Soft => violation.softplus(),
        }
    }

    /// A triplet has a loss above zero where `d_an < d_ap + active_margin`. For the soft hinge it is
    /// where the loss is above zero in float32.
    pub(super) fn active_margin(self, margin: f64) -> f64 {
        match self {
            Self::Hard => margin,
            Self::Soft => margin - f64::from(f32::MIN_POSITIVE).ln(),
        }
    }

    /// The sum over every triplet of the anchors of a chunk.
    pub(super) fn sums(self, chunk: AnchorChunk, margin: f64) -> AnchorSums {
        match self {
            Self::Hard => hard_sums(chunk, margin),
            Self::Soft => soft_sums(chunk, margin),
        }
    }
}

/// The sum of `relu(d_ap - d_an + margin)`, by counting.
///
/// It is piecewise linear in the distances:
/// `sum_ap c_ap (d_ap + margin) - sum_an c_an d_an`, where `c_ap` counts the negatives `n` for
/// which `(a, p, n)` is active, `d_an < d_ap + margin`, and `c_an` the positives.
fn hard_sums(chunk: AnchorChunk, margin: f64) -> AnchorSums {
    let limits = chunk.positives(f64::NEG_INFINITY) + margin;
    let mut negative_counts = chunk.far.zeros_like();
    let positive_counts = count_smaller(&chunk.far, &limits, Some(&mut negative_counts));
    let gradient = (-&negative_counts).scatter(1, &chunk.members.index, &positive_counts);
    let active = positive_counts.sum(Kind::Double);
    // In float64: the sum is a small difference of two large ones.
    let total = |distances: &Tensor, counts: &Tensor| {
        (distances.to_kind(Kind::Double) * counts).sum(Kind::Double)
    };
    let near = total(&chunk.positives(0.0), &positive_counts);
    let far = total(&chunk.negatives(0.0), &negative_counts);
    AnchorSums { sum: near - far + &active * margin, gradient, active }
}

/// The sum of `softplus(d_ap - d_an + margin)`, by its terms.
fn soft_sums(chunk: AnchorChunk, margin: f64) -> AnchorSums {
    // Invalid triplets are minus infinity, whose softplus and gradient are zero.
    let limits = chunk.positives(f64::NEG_INFINITY) + margin;
    let far = chunk.far.unsqueeze(1);
    let mut negative_slopes = chunk.far.zeros_like();
    let (mut positive_slopes, mut values, mut active) = (Vec::new(), Vec::new(), Vec::new());
    let columns = (TRIPLETS_AT_ONCE / (chunk.far.numel() as i64).max(1)).max(1);
    for limits in limits.split(columns, 1) {
        let violation = limits.unsqueeze(2) - &far;
        let (value, slope) = (violation.softplus(), violation.sigmoid());
        let along = |of: &Tensor, dim: i64| of.sum_dim_intlist([dim].as_slice(), false, None);
        positive_slopes.push(along(&slope, 2));
        negative_slopes += along(&slope, 1);
        values.push(along(&value, 2).sum(Kind::Double));
        active.push(value.gt(0.0).sum(Kind::Int64));
    }
    let positive_slopes = Tensor::cat(&positive_slopes, 1);
    AnchorSums {
        sum: Tensor::stack(&values, 0).sum(Kind::Double),
        gradient: (-negative_slopes).scatter(1, &chunk.members.index, &positive_slopes),
        active: Tensor::stack(&active, 0).sum(Kind::Int64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::chunks::chunks;
    use crate::metric::groups::Groups;
    use crate::metric::testing::{Batch, close, values};
    use tch::Device;

    #[test]
    fn hard_counts_agree_with_loops() {
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
            let groups = Groups::new(&batch.labels, Device::Cpu);
            let sums = hard_sums(AnchorChunk::new(batch.distances(), &groups, 0), 0.5);
            assert_eq!(values(&sums.gradient), wanted, "seed {seed}");
            let active = wanted.iter().filter(|&&weight| weight > 0.0).sum::<f64>();
            assert_eq!(sums.active.double_value(&[]), active);
        }
    }

    #[test]
    fn soft_sums_of_chunks_of_any_size_agree_with_loops() {
        for seed in 0..60 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f64>> =
                Vec::try_from(batch.distances().to_kind(Kind::Double)).unwrap();
            let size = rows.len();
            let (mut sum, mut gradient) = (0.0, vec![0.0; size * size]);
            let list = batch.every_triplet();
            let mut active = list.len() as i64;
            for &[a, p, n] in &list {
                let exp = (rows[a][p] - rows[a][n] + 0.1).exp();
                sum += exp.ln_1p();
                gradient[a * size + p] += exp / (1.0 + exp);
                gradient[a * size + n] -= exp / (1.0 + exp);
            }
            let groups = Groups::new(&batch.labels, Device::Cpu);
            let distances = batch.distances().to_kind(Kind::Double);
            for (start, length) in chunks(size as i64, 2 * size as i64) {
                let rows = distances.narrow(0, start, length).copy();
                let found = soft_sums(AnchorChunk::new(rows, &groups, start), 0.1);
                let (first, past) = (start as usize, (start + length) as usize);
                close(&values(&found.gradient), &gradient[first * size..past * size], 1e-9);
                sum -= found.sum.double_value(&[]);
                active -= found.active.int64_value(&[]);
            }
            close(&[sum], &[0.0], 1e-7);
            assert_eq!(active, 0, "seed {seed}");
        }
    }
}
