//! Binary cross-entropy for networks with one logit per pair.

use tch::Tensor;

use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::precise;
use crate::metric::pair::PairLabels;
use crate::verdict::Verdict;

/// `softplus(z) - t z` for each pair, that is `-t log s(z) - (1 - t) log(1 - s(z))` with the sigmoid
/// `s`, where `z` is the network's logit and `t` is 1 for pairs of the class `high_means`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairBceLoss {
    /// What a high logit means: same (a similarity) or different (a distance).
    pub high_means: Verdict,
    /// What the sum over pairs is divided by. No pair has a loss of zero, so both mean the same.
    pub reduction: Reduction,
}

impl Default for PairBceLoss {
    /// A high logit means the same person.
    fn default() -> Self {
        Self { high_means: Verdict::Same, reduction: Reduction::Mean }
    }
}

impl PairBceLoss {
    /// The loss over the logits `[N]` of `N` pairs.
    ///
    /// # Panics
    /// When the number of logits is not that of the labels.
    pub fn forward(&self, logits: &Tensor, labels: &PairLabels) -> LossOutput {
        self.reduction.reduce(&self.per_pair(logits, labels))
    }

    /// The loss of each pair, float32 `[N]`.
    ///
    /// # Panics
    /// When the number of logits is not that of the labels.
    fn per_pair(&self, logits: &Tensor, labels: &PairLabels) -> Tensor {
        assert_eq!(logits.size(), [labels.len() as i64], "one logit per label");
        let logits = precise(logits);
        let target = labels.ones_where(self.high_means, logits.kind(), logits.device());
        // softplus(z) = relu(z) + log(1 + exp(-|z|)), which cannot overflow.
        let rest = (-logits.abs()).exp().log1p();
        logits.relu() - &logits * target + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};

    #[test]
    fn large_logits_stay_finite_with_either_convention() {
        let labels = PairLabels::new(&[Verdict::Same, Verdict::Different, Verdict::Same]);
        let logits = Tensor::from_slice(&[0.0f32, 1000.0, 1000.0]);
        let with = |high_means| PairBceLoss { high_means, ..PairBceLoss::default() };
        let log2 = 2f64.ln();
        let per_pair = |loss: PairBceLoss| values(&loss.per_pair(&logits, &labels));
        close(&per_pair(with(Verdict::Same)), &[log2, 1000.0, 0.0], 1e-6);
        close(&per_pair(with(Verdict::Different)), &[log2, 0.0, 1000.0], 1e-6);
    }
}
