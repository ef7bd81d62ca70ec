//! The distance of a loss.

use tch::Tensor;

use super::distance::{
    ROOT_EPSILON, cosine, euclidean, normalise, pairwise, squared_euclidean, squared_euclidean_rows,
};
use super::named::named_enum;

named_enum! {
    /// A distance between embeddings; larger always means farther.
    pub enum DistanceKind {
        /// The squared Euclidean distance (FaceNet)
        Squared = "squared",
        /// The Euclidean distance, `sqrt(|a - b|^2 + 1e-12)`
        Euclidean = "euclidean",
        /// One minus the cosine, 0 to 2
        Cosine = "cosine",
        /// The mean over the dimensions of the squared differences, `|a - b|^2 / D`
        MeanSquared = "mean-squared",
    }
}

impl DistanceKind {
    /// All distances within a batch `x [B, D]`, float32 `[B, B]`, differentiable; see [`pairwise`] for
    /// their precision.
    pub fn pairwise(self, x: &Tensor) -> Tensor {
        match self {
            Self::Squared => pairwise(x),
            Self::MeanSquared => pairwise(x) / dimensions(x),
            Self::Euclidean | Self::Cosine => self.between(x, x),
        }
    }

    /// The distances between all rows of `a [N, D]` and `b [M, D]`, float32 `[N, M]`, differentiable.
    pub fn between(self, a: &Tensor, b: &Tensor) -> Tensor {
        match self {
            Self::Squared => squared_euclidean(a, b),
            Self::Euclidean => euclidean(a, b),
            Self::Cosine => 1.0 - cosine(a, b),
            Self::MeanSquared => squared_euclidean(a, b) / dimensions(a),
        }
    }

    /// Row-wise distances of `a [N, D]` and `b [N, D]`, float32 `[N]`. Euclidean ones are subtracted
    /// before squaring.
    pub fn rowwise(self, a: &Tensor, b: &Tensor) -> Tensor {
        match self {
            Self::Squared => squared_euclidean_rows(a, b),
            Self::Euclidean => (squared_euclidean_rows(a, b) + ROOT_EPSILON).sqrt(),
            Self::Cosine => {
                let products = normalise(a) * normalise(b);
                1.0 - products.sum_dim_intlist([1i64].as_slice(), false, None)
            }
            Self::MeanSquared => squared_euclidean_rows(a, b) / dimensions(a),
        }
    }
}

fn dimensions(x: &Tensor) -> f64 {
    x.size().last().map_or(1.0, |&d| d.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};

    #[test]
    fn rows_and_matrix_agree_with_arithmetic_by_hand() {
        let a = Tensor::from_slice2(&[[3.0f32, 4.0], [4.0, -3.0]]);
        for (distance, wanted) in [
            (DistanceKind::Squared, 50.0),
            (DistanceKind::Euclidean, 50f64.sqrt()),
            (DistanceKind::Cosine, 1.0),
            (DistanceKind::MeanSquared, 25.0),
        ] {
            let rows = distance.rowwise(&a, &a.flip([0i64]));
            close(&values(&rows), &[wanted; 2], 1e-5);
            close(&values(&distance.pairwise(&a)), &[0.0, wanted, wanted, 0.0], 1e-5);
        }
    }
}
