//! Logarithms of sums of exponentials over the set columns of each row.

use tch::Tensor;

/// Replaces minus infinity: its exponential is zero in float32 and float64, without 0/0 in the gradient
/// of a row without entries.
const MINUS_INFINITY: f64 = -1e30;

/// `log sum_j exp(x_ij)` over the columns set in `mask`, `[B, C]` to `[B]`; -1e30 for a row without
/// any. Only set entries have a gradient.
pub(super) fn log_sum_exp(x: &Tensor, mask: &Tensor) -> Tensor {
    x.masked_fill(&mask.logical_not(), MINUS_INFINITY).logsumexp([1i64].as_slice(), false)
}

/// `log(1 + sum_j exp(x_ij))` over the columns set in `mask`, `[B, C]` to `[B]`; zero for a row
/// without any.
pub(super) fn log_one_plus_sum_exp(x: &Tensor, mask: &Tensor) -> Tensor {
    let sum = log_sum_exp(x, mask);
    sum.logaddexp(&sum.zeros_like())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};
    use tch::Kind;

    #[test]
    fn rows_without_entries_are_harmless() {
        let x = Tensor::from_slice2(&[[1.0f32, 2.0], [100.0, 200.0], [3.0, 4.0]]);
        let x = x.set_requires_grad(true);
        let mask = Tensor::from_slice2(&[[true, true], [true, false], [false, false]]);
        let wanted = (1f64.exp() + 2f64.exp()).ln();
        let found = values(&log_sum_exp(&x, &mask));
        close(&found[..2], &[wanted, 100.0], 1e-5);
        let more = log_one_plus_sum_exp(&x, &mask);
        close(&values(&more), &[(1.0 + wanted.exp()).ln(), 100.0, 0.0], 1e-5);
        more.sum(Kind::Float).backward();
        let gradient = values(&x.grad());
        close(&gradient[2..], &[1.0, 0.0, 0.0, 0.0], 1e-6);
    }
}
