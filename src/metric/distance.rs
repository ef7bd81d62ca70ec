//! Distances between embeddings: in float32 (float64 stays), with autocast disabled, and with finite
//! gradients for equal embeddings.

use tch::{Kind, Tensor, no_grad};

use crate::native::without_autocast;

/// Added inside the root of [`euclidean`], whose gradient would be infinite at zero: equal embeddings
/// have a distance of 1e-6.
pub const ROOT_EPSILON: f64 = 1e-12;

/// Squared Euclidean distances `|a_i - b_j|^2` between all rows of `a [N, D]` and `b [M, D]`. Shape:
/// float32 `[N, M]`, never negative, differentiable.
///
/// Computed as `|a|^2 + |b|^2 - 2ab`, one matrix product instead of an `[N, M, D]` tensor. Cancellation
/// gives an error of about `1e-6` on the unit sphere, and in general `1e-6` times the squared distance
/// of the rows to the mean of `b`, which is subtracted first. For exact distances of pairs use
/// [`squared_euclidean_rows`].
pub fn squared_euclidean(a: &Tensor, b: &Tensor) -> Tensor {
    without_autocast(|| {
        let Squares { left, right, left_norms, right_norms } = Squares::new(a, b);
        (right_norms.addmm(&left, &right) + left_norms).clamp_min(0.0)
    })
}

/// Precomputed terms of [`squared_euclidean`]: `|b|^2 - 2ab` is one pass over `[N, M]`, adding `|a|^2`
/// another.
#[derive(Debug)]
pub(super) struct Squares {
    /// `-2a`, `[N, D]`.
    left: Tensor,
    /// `b` transposed, `[D, M]`.
    right: Tensor,
    /// `|a|^2`, `[N, 1]`.
    left_norms: Tensor,
    /// `|b|^2`, `[1, M]`.
    right_norms: Tensor,
}

impl Squares {
    /// For all rows of `a [N, D]` and `b [M, D]`; the mean of `b` is subtracted from both.
    pub fn new(a: &Tensor, b: &Tensor) -> Self {
        without_autocast(|| {
            let (a, b) = (precise(a), precise(b));
            // Distances are invariant to translation, so that the mean needs no gradient.
            let centre = no_grad(|| b.mean_dim([0i64].as_slice(), true, None));
            let (a, b) = (a - &centre, b - &centre);
            let norms = |x: &Tensor| x.square().sum_dim_intlist([1i64].as_slice(), true, None);
            let (left_norms, right_norms) = (norms(&a), norms(&b).tr());
            Self { left: a * -2.0, right: b.tr(), left_norms, right_norms }
        })
    }

    /// The distances of `length` rows of `a`, from row `start`: `[length, M]`, computed in place
    /// without gradient.
    pub fn rows(&self, start: i64, length: i64) -> Tensor {
        let part = |of: &Tensor| of.narrow(0, start, length);
        no_grad(|| {
            without_autocast(|| {
                let mut squared = self.right_norms.addmm(&part(&self.left), &self.right);
                squared.g_add_(&part(&self.left_norms)).clamp_min_(0.0)
            })
        })
    }

    /// `D`, at least 1.
    pub fn dimensions(&self) -> f64 {
        self.right.size()[0].max(1) as f64
    }
}

/// Squared Euclidean distances within a batch `x [B, D]`, as float32 `[B, B]`: [`squared_euclidean`]
/// with an exact zero diagonal (without gradient).
pub fn pairwise(x: &Tensor) -> Tensor {
    let itself = Tensor::eye(x.size()[0], (Kind::Bool, x.device()));
    squared_euclidean(x, x).masked_fill(&itself, 0.0)
}

/// Row-wise squared Euclidean distances `|a_i - b_i|^2`, `a, b [N, D]` to float32 `[N]`. Exactly zero
/// for equal rows.
pub fn squared_euclidean_rows(a: &Tensor, b: &Tensor) -> Tensor {
    let difference = precise(a) - precise(b);
    difference.square().sum_dim_intlist([1i64].as_slice(), false, None)
}

/// Euclidean distances `sqrt(|a_i - b_j|^2 + ROOT_EPSILON)` between all rows of `a [N, D]` and `b [M,
/// D]`. Shape: float32 `[N, M]`.
///
/// The gradient is finite everywhere. Because of the error of [`squared_euclidean`], distances below
/// about `1e-3` on the unit sphere are not accurate.
pub fn euclidean(a: &Tensor, b: &Tensor) -> Tensor {
    (squared_euclidean(a, b) + ROOT_EPSILON).sqrt()
}

/// L2 normalisation of the rows of `x [N, D]`, in float32 (float64 stays): `x / sqrt(|x|^2 +
/// ROOT_EPSILON)`, so that rows of zeros stay zero with a finite gradient.
pub fn normalise(x: &Tensor) -> Tensor {
    let x = precise(x);
    let squared = x.square().sum_dim_intlist([-1i64].as_slice(), true, None);
    x / (squared + ROOT_EPSILON).sqrt()
}

/// Cosine similarities between all rows of `a [N, D]` and `b [M, D]`, float32 `[N, M]`, -1 to 1. As a
/// distance it is `1 - cosine`.
pub fn cosine(a: &Tensor, b: &Tensor) -> Tensor {
    without_autocast(|| normalise(a).matmul(&normalise(b).tr()))
}

/// The dtype of distances and losses: float64 stays (for gradient checks), everything else is converted
/// to float32.
pub(super) fn precise(x: &Tensor) -> Tensor {
    x.to_kind(if x.kind() == Kind::Double { Kind::Double } else { Kind::Float })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, close, values};
    use crate::native::with_cpu_autocast;
    use tch::Device;

    #[test]
    fn matches_a_naive_loop_on_the_unit_sphere() {
        for seed in 0..20 {
            let x = Batch::random(seed).on_the_sphere();
            let wanted = Batch::naive_distances(&x);
            close(&values(&squared_euclidean(&x, &x)), &wanted, 2e-6);
            close(&values(&pairwise(&x)), &wanted, 2e-6);
            let roots: Vec<f64> = wanted.iter().map(|d| d.sqrt()).collect();
            close(&values(&euclidean(&x, &x)), &roots, 2e-3);
        }
    }

    #[test]
    fn different_sides_and_rows_agree_with_arithmetic_by_hand() {
        let a = Tensor::from_slice2(&[[0.0f32, 0.0], [1.0, 2.0]]);
        let b = Tensor::from_slice2(&[[3.0f32, 4.0], [1.0, 2.0], [0.0, -1.0]]);
        close(&values(&squared_euclidean(&a, &b)), &[25.0, 5.0, 1.0, 8.0, 0.0, 10.0], 1e-5);
        close(&values(&squared_euclidean_rows(&a, &b.narrow(0, 0, 2))), &[25.0, 0.0], 0.0);
        close(&values(&euclidean(&a, &b))[..1], &[5.0], 1e-6);
        assert_eq!(squared_euclidean(&a, &b.narrow(0, 0, 0)).size(), [2, 0]);
    }

    #[test]
    fn crowded_embeddings_far_from_the_origin_keep_their_distances() {
        let x = Tensor::from_slice2(&[[1000.0f32, 1000.0], [1000.0, 1000.5]]);
        close(&values(&pairwise(&x)), &[0.0, 0.25, 0.25, 0.0], 1e-6);
    }

    #[test]
    fn equal_embeddings_have_a_zero_diagonal_and_finite_gradients() {
        let x = Tensor::full([4, 8], 0.3, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let distances = pairwise(&x);
        assert!(values(&distances.diag(0)).iter().all(|&d| d == 0.0));
        (distances.sum(Kind::Float) + euclidean(&x, &x).sum(Kind::Float)).backward();
        assert!(values(&x.grad()).iter().all(|g| g.is_finite()));
    }

    #[test]
    fn the_gradient_is_twice_the_difference() {
        let a = Tensor::from_slice2(&[[0.5f32, -1.0]]).set_requires_grad(true);
        let b = Tensor::from_slice2(&[[2.0f32, 1.0]]).set_requires_grad(true);
        squared_euclidean(&a, &b).sum(Kind::Float).backward();
        close(&values(&a.grad()), &[-3.0, -4.0], 1e-5);
        close(&values(&b.grad()), &[3.0, 4.0], 1e-5);
    }

    #[test]
    fn cosines_by_hand_and_at_the_origin() {
        let a = Tensor::from_slice2(&[[3.0f32, 4.0], [0.0, 0.0]]).set_requires_grad(true);
        let b = Tensor::from_slice2(&[[6.0f32, 8.0], [-8.0, 6.0], [-3.0, -4.0]]);
        let found = cosine(&a, &b);
        close(&values(&found), &[1.0, 0.0, -1.0, 0.0, 0.0, 0.0], 1e-6);
        found.sum(Kind::Float).backward();
        assert!(values(&a.grad()).iter().all(|g| g.is_finite()));
    }

    #[test]
    fn sixteen_bit_embeddings_give_float32_distances() {
        let x = Batch::random(3).on_the_sphere().to_kind(Kind::BFloat16);
        for distances in
            [pairwise(&x), squared_euclidean_rows(&x, &x), euclidean(&x, &x), cosine(&x, &x)]
        {
            assert_eq!(distances.kind(), Kind::Float);
        }
        close(&values(&pairwise(&x)), &Batch::naive_distances(&x.to_kind(Kind::Double)), 2e-6);
    }

    #[test]
    fn autocast_changes_nothing() {
        let x = Batch::random(5).on_the_sphere();
        let plain = values(&pairwise(&x));
        let within = with_cpu_autocast(|| {
            assert_ne!(x.matmul(&x.tr()).kind(), Kind::Float);
            pairwise(&x)
        });
        assert_eq!(values(&within), plain);
    }
}
