//! The supervised contrastive loss: Khosla et al., "Supervised Contrastive Learning", 2020.

use tch::Tensor;

use super::masked::log_sum_exp;
use super::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::{negatives, positives};

/// `-1/|P| sum_{p in P} log( exp(S_ip/t) / sum_{a != i} exp(S_ia/t) )` for each anchor `i` that has
/// positives `P`, where `S` is the cosine (the paper's `L_out`, without its factor t/0.07).
///
/// The mean is over the anchors with a positive. pytorch-metric-learning takes it over the anchors
/// whose loss is not zero ([`Reduction::Active`]) and answers zero for a batch of one identity,
/// where the formula still pulls the pictures together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SupConLoss {
    /// The temperature `t`.
    pub temperature: f64,
    /// What the sum over anchors is divided by.
    pub reduction: Reduction,
}

impl Default for SupConLoss {
    /// The paper's temperature of 0.1.
    fn default() -> Self {
        Self { temperature: 0.1, reduction: Reduction::Mean }
    }
}

impl SupConLoss {
    /// The loss over a batch: embeddings `[B, D]` (of any length), labels int64 `[B]`.
    pub fn over(&self, embeddings: &Tensor, labels: &Tensor) -> LossOutput {
        self.reduction.reduce(&self.per_anchor(embeddings, labels))
    }

    /// The loss of each anchor that has a positive, float32 `[A]`, in the order of the batch. Waits
    /// for the device once, to learn how many there are.
    pub fn per_anchor(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let labels = labels.to_device(embeddings.device());
        let (positives, negatives) = (positives(&labels), negatives(&labels));
        let logits = cosine(embeddings, embeddings) / self.temperature;
        let others = log_sum_exp(&logits, &positives.logical_or(&negatives)).unsqueeze(1);
        let per_pair = (others - logits).masked_fill(&positives.logical_not(), 0.0);
        let kind = per_pair.kind();
        let count = positives.sum_dim_intlist([1i64].as_slice(), false, kind);
        let mean = per_pair.sum_dim_intlist([1i64].as_slice(), false, kind) / count.clamp_min(1.0);
        mean.masked_select(&count.gt(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};

    #[test]
    fn one_identity_is_pulled_together_by_hand() {
        // Three equal pictures: each positive has half of the anchor's probability.
        let x = Tensor::from_slice2(&[[1.0f32, 0.0], [2.0, 0.0], [0.5, 0.0]]);
        let labels = Tensor::from_slice(&[3i64, 3, 3]);
        let found = SupConLoss::default().per_anchor(&x, &labels);
        close(&values(&found), &[2f64.ln(); 3], 1e-5);
    }
}
