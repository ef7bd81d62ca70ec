//! The losses that need nothing but embeddings and labels, behind one name each.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{LossOutput, MultiSimilarityLoss, NtXentLoss, Reduction, SupConLoss};

/// A loss on embeddings and labels that chooses its own pairs, with its paper's numbers.
///
/// Each of them weighs all pairs in one graph: the forward and the backward pass together need about
/// seven matrices `[B, B]`. Measured with 4,096 embeddings of 128 numbers: 470 MB (multi-similarity),
/// 420 MB (NT-Xent), 400 MB (supervised contrastive); with 16,384 it is sixteen times that, 6 to 8 GB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BatchLoss {
    /// Multi-similarity with its miner (Wang et al. 2019)
    MultiSimilarity,
    /// Normalised temperature-scaled cross-entropy (Chen et al. 2020)
    NtXent,
    /// Supervised contrastive (Khosla et al. 2020)
    #[value(name = "supcon")]
    #[serde(rename = "supcon")]
    SupCon,
}

impl BatchLoss {
    /// The loss over a batch: embeddings `[B, D]` (of any length), labels int64 `[B]`.
    pub fn over(self, embeddings: &Tensor, labels: &Tensor, reduction: Reduction) -> LossOutput {
        match self {
            Self::MultiSimilarity => {
                MultiSimilarityLoss { reduction, ..Default::default() }.over(embeddings, labels)
            }
            Self::NtXent => NtXentLoss { reduction, ..Default::default() }.over(embeddings, labels),
            Self::SupCon => SupConLoss { reduction, ..Default::default() }.over(embeddings, labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_command_lines() {
        for loss in BatchLoss::value_variants() {
            let flag = loss.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(loss).unwrap(), flag.get_name());
        }
    }
}
