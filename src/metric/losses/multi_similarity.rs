//! The multi-similarity loss with its miner: Wang, Han, Huang, Dong and Scott, "Multi-Similarity
//! Loss with General Pair Weighting for Deep Metric Learning", 2019.

use tch::{Tensor, no_grad};

use super::log_sum_exp::log_one_plus_sum_exp;
use super::loss::{Loss, LossKind, LossOption};
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::tuples::Tuples;
use crate::native::cuda::uploaded;

/// `--loss multi-similarity`.
pub const MULTI_SIMILARITY: LossKind = LossKind {
    name: "multi-similarity",
    help: "Multi-similarity with its own miner (Wang et al. 2019)",
    margin: None,
    options: &[LossOption::Memory],
    exact_gradient: true,
    build: |options, _| {
        Box::new(MultiSimilarityLoss {
            reduction: options.reduction,
            ..MultiSimilarityLoss::default()
        })
    },
};

/// For each anchor `i`, with the cosines `S_ik` to its mined positives `P` and negatives `N`:
/// `1/alpha log(1 + sum_P exp(-alpha (S_ik - base))) + 1/beta log(1 + sum_N exp(beta (S_ik - base)))`.
///
/// The mean is over all anchors of the batch, as in the paper, mined pairs or not
/// (pytorch-metric-learning does the same); [`Reduction::Active`] excludes anchors with zero loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiSimilarityLoss {
    /// The weight of the positives' exponent.
    pub alpha: f64,
    /// The weight of the negatives' exponent.
    pub beta: f64,
    /// The offset of cosines in both exponents.
    pub base: f64,
    /// The miner's epsilon: a positive is used if it is less similar than the most similar negative
    /// plus epsilon, a negative if it is more similar than the least similar positive minus epsilon.
    /// `None` uses all pairs.
    pub epsilon: Option<f64>,
    /// What the sum over anchors is divided by.
    pub reduction: Reduction,
}

impl Default for MultiSimilarityLoss {
    /// The paper's: alpha 2, beta 50, base 0.5, epsilon 0.1.
    fn default() -> Self {
        let epsilon = Some(0.1);
        Self { alpha: 2.0, beta: 50.0, base: 0.5, epsilon, reduction: Reduction::Mean }
    }
}

impl Loss for MultiSimilarityLoss {
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> LossOutput {
        self.reduction.reduce(&self.per_anchor(embeddings, labels, tuples))
    }
}

impl MultiSimilarityLoss {
    /// The loss of each anchor, float32 `[B]`.
    fn per_anchor(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> Tensor {
        let similarity = cosine(&tuples.anchors(embeddings), embeddings);
        let (mut positives, mut negatives) = tuples.pairs(&uploaded(labels, embeddings.device()));
        if let Some(epsilon) = self.epsilon {
            (positives, negatives) = mine(&similarity, &positives, &negatives, epsilon);
        }
        let shifted = similarity - self.base;
        log_one_plus_sum_exp(&(&shifted * -self.alpha), &positives) / self.alpha
            + log_one_plus_sum_exp(&(shifted * self.beta), &negatives) / self.beta
    }
}

/// The paper's pair mining: the positives and negatives to use, bool `[B, B]` each. An
/// anchor without a positive or without a negative has none of either. No gradient.
fn mine(
    similarity: &Tensor,
    positives: &Tensor,
    negatives: &Tensor,
    epsilon: f64,
) -> (Tensor, Tensor) {
    if similarity.numel() == 0 {
        return (positives.shallow_clone(), negatives.shallow_clone());
    }
    no_grad(|| {
        let only = |mask: &Tensor, other| similarity.masked_fill(&mask.logical_not(), other);
        let farthest = only(positives, f64::INFINITY).amin([1i64].as_slice(), true);
        let nearest = only(negatives, f64::NEG_INFINITY).amax([1i64].as_slice(), true);
        let hard_positives = (similarity - epsilon).lt_tensor(&nearest).logical_and(positives);
        let hard_negatives = (similarity + epsilon).gt_tensor(&farthest).logical_and(negatives);
        (hard_positives, hard_negatives)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, values};

    #[test]
    fn the_miner_agrees_with_loops() {
        let mut chosen = 0;
        for seed in 0..200 {
            let batch = Batch::random(seed);
            let x = batch.on_the_sphere();
            let similarity = cosine(&x, &x);
            let rows: Vec<Vec<f32>> = Vec::try_from(&similarity).unwrap();
            let (positives, negatives) = Tuples::All.pairs(&batch.labels);
            let (positives, negatives) = mine(&similarity, &positives, &negatives, 0.1);
            let size = rows.len();
            let mut wanted = [vec![0.0; size * size], vec![0.0; size * size]];
            for [a, p, n] in batch.every_triplet() {
                // A triplet within epsilon makes both of its pairs count, and nothing else does.
                if rows[a][p] - 0.1 < rows[a][n] {
                    wanted[0][a * size + p] = 1.0;
                }
                if rows[a][n] + 0.1 > rows[a][p] {
                    wanted[1][a * size + n] = 1.0;
                }
            }
            assert_eq!(values(&positives), wanted[0], "seed {seed}");
            assert_eq!(values(&negatives), wanted[1], "seed {seed}");
            chosen += wanted.concat().iter().filter(|&&w| w > 0.0).count();
        }
        assert!(chosen > 1000, "the batches were too easy: {chosen}");
    }
}
