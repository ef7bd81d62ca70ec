//! The contrastive loss: Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an
//! Invariant Mapping", 2006.

use tch::Tensor;

use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::{ROOT_EPSILON, precise, squared_euclidean_rows};
use crate::metric::pair::PairLabels;
use crate::verdict::Verdict;

/// `(1 - y)/2 D^2 + y/2 max(0, m - D)^2` for each pair, where `y` is 1 for different people and 0
/// for the same person, and `D = sqrt(|a - b|^2 + eps)`.
///
/// pytorch-metric-learning's `ContrastiveLoss` differs: it is linear in the distance, and averages over
/// the non-zero pairs, positive and negative ones separately.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContrastiveLoss {
    /// The margin `m`: different people farther apart have no loss.
    pub margin: f64,
    /// Added inside the root, whose gradient at zero would be infinite without it. Keras adds 1e-7.
    pub eps: f64,
    /// What the sum over pairs is divided by.
    pub reduction: Reduction,
}

impl Default for ContrastiveLoss {
    /// A margin of 1, mean over all pairs.
    fn default() -> Self {
        Self { margin: 1.0, eps: ROOT_EPSILON, reduction: Reduction::Mean }
    }
}

impl ContrastiveLoss {
    /// The loss over the pairs of rows of `a` and `b`, `[N, D]` each.
    ///
    /// # Panics
    /// When the number of rows is not that of the labels.
    pub fn forward(&self, a: &Tensor, b: &Tensor, labels: &PairLabels) -> LossOutput {
        self.reduction.reduce(&self.per_pair(&squared_euclidean_rows(a, b), labels))
    }

    /// The loss of each pair, float32 `[N]`, from squared Euclidean distances `[N]`.
    ///
    /// # Panics
    /// When the number of distances is not that of the labels.
    fn per_pair(&self, squared: &Tensor, labels: &PairLabels) -> Tensor {
        assert_eq!(squared.size(), [labels.len() as i64], "one distance per label");
        let squared = precise(squared) + self.eps;
        let y = labels.ones_where(Verdict::Different, squared.kind(), squared.device());
        let short = (self.margin - squared.sqrt()).relu();
        ((1.0 - &y) * squared + y * short.square()) * 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};

    #[test]
    fn by_hand() {
        let labels = PairLabels::new(&[Verdict::Same, Verdict::Different, Verdict::Different]);
        let loss = ContrastiveLoss { margin: 2.0, eps: 0.0, reduction: Reduction::Active };
        let per_pair = loss.per_pair(&Tensor::from_slice(&[9.0f32, 1.0, 16.0]), &labels);
        close(&values(&per_pair), &[4.5, 0.5, 0.0], 1e-6);
        let zeros = Tensor::zeros([3, 2], (tch::Kind::Float, tch::Device::Cpu));
        let output = loss.forward(&zeros, &(&zeros + 3.0), &labels);
        close(&values(&output.loss), &[9.0], 1e-6);
        assert_eq!(output.active.int64_value(&[]), 1);
    }
}
