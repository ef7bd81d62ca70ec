//! The supervised contrastive loss: Khosla et al., "Supervised Contrastive Learning", 2020.

use tch::Tensor;

use super::log_sum_exp::log_sum_exp;
use super::loss::{Loss, LossKind, LossOption};
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::tuples::Tuples;
use crate::native::cuda::uploaded;

/// `--loss supcon`.
pub const SUP_CON: LossKind = LossKind {
    name: "supcon",
    help: "Supervised contrastive (Khosla et al. 2020)",
    margin: None,
    options: &[LossOption::Memory],
    exact_gradient: true,
    build: |options, _| {
        Box::new(SupConLoss { reduction: options.reduction, ..SupConLoss::default() })
    },
};

/// `-1/|P| sum_{p in P} log( exp(S_ip/t) / sum_{a != i} exp(S_ia/t) )` for each anchor `i` that has
/// positives `P`, where `S` is the cosine (the paper's `L_out`, without its factor t/0.07).
///
/// The mean is over the anchors with a positive. pytorch-metric-learning takes it over the anchors
/// whose loss is not zero ([`Reduction::Active`]) and returns zero for a batch of one
/// identity, for which the formula still gives a gradient.
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

impl Loss for SupConLoss {
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> LossOutput {
        self.reduction.reduce(&self.per_anchor(embeddings, labels, tuples))
    }
}

impl SupConLoss {
    /// The loss of each anchor that has a positive, float32 `[A]`, in the order of the batch.
    /// Synchronises with the device once, for their number.
    fn per_anchor(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> Tensor {
        let (positives, negatives) = tuples.pairs(&uploaded(labels, embeddings.device()));
        let logits = cosine(&tuples.anchors(embeddings), embeddings) / self.temperature;
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
        // Three equal embeddings: each positive has half of the anchor's probability.
        let x = Tensor::from_slice2(&[[1.0f32, 0.0], [2.0, 0.0], [0.5, 0.0]]);
        let labels = Tensor::from_slice(&[3i64, 3, 3]);
        let found = SupConLoss::default().per_anchor(&x, &labels, &Tuples::All);
        close(&values(&found), &[2f64.ln(); 3], 1e-5);
    }
}
