//! NT-Xent on labels: Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective",
//! 2016; Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020.

use tch::Tensor;

use super::log_sum_exp::log_sum_exp;
use super::loss::{Loss, LossKind, LossOption};
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::tuples::Tuples;
use crate::native::cuda::uploaded;

/// `--loss nt-xent`.
pub const NT_XENT: LossKind = LossKind {
    name: "nt-xent",
    help: "Normalised temperature-scaled cross-entropy (Chen et al. 2020)",
    margin: None,
    options: &[LossOption::Memory],
    exact_gradient: true,
    build: |options, _| {
        Box::new(NtXentLoss { reduction: options.reduction, ..NtXentLoss::default() })
    },
};

/// `-log( exp(S_ip/t) / (exp(S_ip/t) + sum_n exp(S_in/t)) )` for each anchor `i` and positive `p`,
/// where `n` goes over the negatives of `i` and `S` is the cosine.
///
/// Other positives of the anchor are not in the denominator (as in pytorch-metric-learning); with
/// two pictures per identity, SimCLR's setting, there are none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NtXentLoss {
    /// The temperature `t`; lower ones give more weight to hard negatives.
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

impl Loss for NtXentLoss {
    /// Synchronises with the device once, for the number of positive pairs.
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> LossOutput {
        let (positives, negatives) = tuples.pairs(&uploaded(labels, embeddings.device()));
        let logits = cosine(&tuples.anchors(embeddings), embeddings) / self.temperature;
        let others = log_sum_exp(&logits, &negatives).unsqueeze(1);
        // -log(e^s / (e^s + e^o)) = softplus(o - s): nothing overflows.
        self.reduction.reduce(&(others - logits).softplus().masked_select(&positives))
    }
}
