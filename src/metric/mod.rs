//! Metric learning: distances (larger always means farther), losses, miners.
//!
//! ```text
//! embeddings [B, D] -> distances [B, B] -> miner -> tuples (indices)
//! embeddings [B, D], labels [B], tuples -> loss per tuple -> reduction -> scalar
//! ```
//!
//! A miner gets distances without gradient and returns indices; the loss computes with gradient. For
//! triplets, [`Miner::mine_embeddings`] and the forward pass of [`TripletMarginLoss`] process chunks of
//! anchors, without the whole matrix. [`LossKind`] and [`Miner`] are registries of the values of
//! `--loss` and `--miner`.

pub mod batch_stats;
mod chunks;
mod counting;
pub mod distance;
pub mod distance_kind;
mod groups;
pub mod losses;
pub mod memory;
pub mod miners;
pub mod named;
pub mod pair;
#[cfg(test)]
mod testing;

pub use batch_stats::BatchStats;
pub use distance::{
    cosine, euclidean, normalise, pairwise, squared_euclidean, squared_euclidean_rows,
};
pub use distance_kind::DistanceKind;
pub use losses::{
    CircleLoss, ContrastiveLoss, Hinge, Loss, LossKind, LossOptions, LossOutput, LossShape,
    MarginSoftmaxLoss, MultiSimilarityLoss, NtXentLoss, PairBceLoss, Reduction, SupConLoss,
    TripletMarginLoss,
};
pub use memory::CrossBatchMemory;
pub use miners::{Miner, Triplets, Tuples};
pub use named::Named;
pub use pair::PairLabels;
