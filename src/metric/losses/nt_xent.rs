//! NT-Xent on labels: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective",
//! 2016; Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020.

use tch::Tensor;

use super::masked::log_sum_exp;
use super::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::{negatives, positives};

/// `-log( exp(S_ip/t) / (exp(S_ip/t) + sum_n exp(S_in/t)) )` for each anchor `i` and positive `p`,
/// where `n` goes over the negatives of `i` and `S` is the cosine.
///
/// Other positives of the anchor are not in the denominator (as in pytorch-metric-learning); with
/// two pictures an identity, SimCLR's setting, there are none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NtXentLoss {
    /// The temperature `t`; lower ones look at the hardest negatives only.
    pub temperature: f64,
    /// What the sum over positive pairs is divided by.
    pub reduction: Reduction,
}

impl Default for NtXentLoss {
    /// A temperature of 0.07.
    fn default() -> Self {
        Self { temperature: 0.07, reduction: Reduction::Mean }
    }
}

impl NtXentLoss {
    /// The loss over a batch: embeddings `[B, D]` (of any length), labels int64 `[B]`.
    pub fn over(&self, embeddings: &Tensor, labels: &Tensor) -> LossOutput {
        self.reduction.reduce(&self.per_pair(embeddings, labels))
    }

    /// The loss of each (anchor, positive), float32 `[T]`, row after row. Waits for the device once,
    /// to learn how many there are.
    pub fn per_pair(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let labels = labels.to_device(embeddings.device());
        let logits = cosine(embeddings, embeddings) / self.temperature;
        let others = log_sum_exp(&logits, &negatives(&labels)).unsqueeze(1);
        // -log(e^s / (e^s + e^o)) = softplus(o - s): nothing overflows.
        (others - logits).softplus().masked_select(&positives(&labels))
    }
}
