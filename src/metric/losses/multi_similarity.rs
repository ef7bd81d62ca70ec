//! The multi-similarity loss with its miner: Wang, Han, Huang, Dong and Scott, "Multi-Similarity
//! Loss with General Pair Weighting for Deep Metric Learning", 2019.

use tch::{Tensor, no_grad};

use super::masked::log_one_plus_sum_exp;
use super::{LossOutput, Reduction};
use crate::metric::distance::cosine;
use crate::metric::miners::{negatives, positives};

/// For each anchor `i`, with the cosines `S_ik` to its chosen positives `P` and negatives `N`:
/// `1/alpha log(1 + sum_P exp(-alpha (S_ik - base))) + 1/beta log(1 + sum_N exp(beta (S_ik - base)))`.
///
/// The mean is over all anchors of the batch, as in the paper, chosen pairs or not
/// (pytorch-metric-learning does the same); [`Reduction::Active`] leaves out the anchors at zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiSimilarityLoss {
    /// The weight of the positives' exponent.
    pub alpha: f64,
    /// The weight of the negatives' exponent.
    pub beta: f64,
    /// The cosine from which both are measured.
    pub base: f64,
    /// The miner's slack: a positive counts if it is less similar than the most similar negative
    /// plus this, a negative if it is more similar than the least similar positive minus this.
    /// `None` takes all pairs.
    pub mining: Option<f64>,
    /// What the sum over anchors is divided by.
    pub reduction: Reduction,
}

impl Default for MultiSimilarityLoss {
    /// The paper's: alpha 2, beta 50, base 0.5, slack 0.1.
    fn default() -> Self {
        let mining = Some(0.1);
        Self { alpha: 2.0, beta: 50.0, base: 0.5, mining, reduction: Reduction::Mean }
    }
}

impl MultiSimilarityLoss {
    /// The loss over a batch: embeddings `[B, D]` (of any length), labels int64 `[B]`.
    pub fn over(&self, embeddings: &Tensor, labels: &Tensor) -> LossOutput {
        self.reduction.reduce(&self.per_anchor(embeddings, labels))
    }

    /// The loss of each anchor, float32 `[B]`.
    pub fn per_anchor(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let similarity = cosine(embeddings, embeddings);
        let labels = labels.to_device(embeddings.device());
        let (positives, negatives) = match self.mining {
            None => (positives(&labels), negatives(&labels)),
            Some(slack) => mine(&similarity, &labels, slack),
        };
        let beyond = similarity - self.base;
        log_one_plus_sum_exp(&(&beyond * -self.alpha), &positives) / self.alpha
            + log_one_plus_sum_exp(&(beyond * self.beta), &negatives) / self.beta
    }
}

/// The paper's pair mining: the positives and the negatives that count, bool `[B, B]` each. An
/// anchor without a positive or without a negative gets none of either. No gradient.
fn mine(similarity: &Tensor, labels: &Tensor, slack: f64) -> (Tensor, Tensor) {
    let (positives, negatives) = (positives(labels), negatives(labels));
    if labels.numel() == 0 {
        return (positives, negatives);
    }
    no_grad(|| {
        let outside = |mask: &Tensor, value| similarity.masked_fill(&mask.logical_not(), value);
        let farthest = outside(&positives, f64::INFINITY).amin([1i64].as_slice(), true);
        let nearest = outside(&negatives, f64::NEG_INFINITY).amax([1i64].as_slice(), true);
        let hard_positives = (similarity - slack).lt_tensor(&nearest).logical_and(&positives);
        let hard_negatives = (similarity + slack).gt_tensor(&farthest).logical_and(&negatives);
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
            let (positives, negatives) = mine(&similarity, &batch.labels, 0.1);
            let size = rows.len();
            let mut wanted = [vec![0.0; size * size], vec![0.0; size * size]];
            for [a, p, n] in batch.every_triplet() {
                // A triplet within the slack makes both of its pairs count, and nothing else does.
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
