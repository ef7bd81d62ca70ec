//! Losses: one value per tuple, and a separate reduction. A new loss needs a file here
//! and its row in the registry, from which `--loss`, its help, the default margin, the check of
//! options and the conformance test are derived.
//!
//! | loss | on | a tuple is |
//! |---|---|---|
//! | [`TripletMarginLoss`] | embeddings, labels and mined triplets; or three tensors | a triplet |
//! | [`MultiSimilarityLoss`], [`SupConLoss`], [`CircleLoss`] | embeddings and labels | an anchor |
//! | [`NtXentLoss`] | embeddings and labels | a positive pair |
//! | [`arcface`], [`cosface`] ([`MarginSoftmaxLoss`]) | embeddings, labels and trained class centres | an embedding |
//! | [`ContrastiveLoss`], [`PairBceLoss`] | pairs; not in the registry | a pair |
//!
//! All of them compute in float32 (or float64 where the embeddings are), with autocast off. Those on
//! pairs of embeddings and labels keep about seven matrices `[B, B]` for the forward and the backward
//! pass. Measured with 4,096 embeddings of 128 numbers: 470 MB (multi-similarity), 420 MB (NT-Xent),
//! 400 MB (supervised contrastive); with 16,384 it is sixteen times that, 6 to 8 GB.
//! [`TripletMarginLoss`] needs no such matrix.

mod all_triplets;
mod chunked_sum;
#[cfg(test)]
mod conformance;
mod contrastive;
#[cfg(test)]
mod golden;
mod hinge;
mod log_sum_exp;
mod loss;
mod margin_softmax;
mod pair_bce;
mod reduction;

pub use contrastive::ContrastiveLoss;
pub use hinge::Hinge;
pub use loss::{Loss, LossKind, LossOption, LossOptions, LossShape, Mining};
pub use margin_softmax::MarginSoftmaxLoss;
pub use pair_bce::PairBceLoss;
pub use reduction::{LossOutput, Reduction};

crate::metric::named::registry! {
    LossKind:
    triplet::TRIPLET,
    multi_similarity::MULTI_SIMILARITY,
    nt_xent::NT_XENT,
    sup_con::SUP_CON,
    circle::CIRCLE,
    arcface::ARCFACE,
    cosface::COSFACE,
}
