//! The circle loss: Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
//! 2020.

use tch::Tensor;

use super::log_sum_exp::log_sum_exp;
use super::loss::{Loss, LossKind, LossOption};
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::tuples::Tuples;
use crate::native::cuda::uploaded;

/// `--loss circle`.
pub const CIRCLE: LossKind = LossKind {
    name: "circle",
    help: "Circle loss: each pair weighted by its distance to its optimum (Sun et al. 2020)",
    margin: Some((0.4, "")),
    options: &[LossOption::Memory],
    exact_gradient: false,
    build: |options, _| {
        let (margin, reduction) = (CIRCLE.margin(options), options.reduction);
        Box::new(CircleLoss { margin, reduction, ..CircleLoss::default() })
    },
};

/// `log(1 + sum_N exp(gamma a_n (s_n - m)) sum_P exp(-gamma a_p (s_p - 1 + m)))` for each anchor, with
/// the cosines `s` to its positives `P` and negatives `N`, and the weights `a_p = max(0, 1 + m - s_p)`
/// and `a_n = max(0, s_n + m)`, which have no gradient.
///
/// The mean is over all anchors of the batch; one without a positive or without a negative has a
/// loss of zero. pytorch-metric-learning's default is [`Reduction::Active`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CircleLoss {
    /// The relaxation `m`: positives are to reach a cosine of `1 - m`, negatives `m`.
    pub margin: f64,
    /// The scale `gamma`.
    pub gamma: f64,
    /// What the sum over anchors is divided by.
    pub reduction: Reduction,
}

impl Default for CircleLoss {
    /// pytorch-metric-learning's: `m` 0.4, `gamma` 80. (The paper's for faces: 0.25 and 256.)
    fn default() -> Self {
        Self { margin: 0.4, gamma: 80.0, reduction: Reduction::Mean }
    }
}

impl Loss for CircleLoss {
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> LossOutput {
        let (m, gamma) = (self.margin, self.gamma);
        let (positives, negatives) = tuples.pairs(&uploaded(labels, embeddings.device()));
        let s = cosine(&tuples.anchors(embeddings), embeddings);
        let weight_p = ((1.0 + m) - s.detach()).relu();
        let weight_n = (s.detach() + m).relu();
        let of_positives = log_sum_exp(&(weight_p * (&s - (1.0 - m)) * -gamma), &positives);
        let of_negatives = log_sum_exp(&(weight_n * (&s - m) * gamma), &negatives);
        let exponent = of_positives + of_negatives;
        self.reduction.reduce(&exponent.logaddexp(&exponent.zeros_like()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::losses::golden::Golden;

    #[test]
    fn agrees_with_the_formula() {
        let golden = Golden::read("circle_loss");
        let labels = golden.labels();
        for (margin, gamma) in [(0.4, 80.0), (0.25, 8.0)] {
            for (name, reduction) in [("mean", Reduction::Mean), ("active", Reduction::Active)] {
                let loss = CircleLoss { margin, gamma, reduction };
                golden.check(&format!("circle {margin} {gamma} {name}"), &|x, _| {
                    loss.forward(x, &labels, &Tuples::All)
                });
            }
        }
    }
}
