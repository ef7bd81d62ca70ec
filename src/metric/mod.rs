//! Metric learning: distances (larger always means farther), losses, miners.
//!
//! ```text
//! embeddings [B, D] -> distances [B, B] -> miner -> selection of triplets or pairs -> loss
//! embeddings [B, D], labels [B] -> loss that weighs all pairs itself, or a head with class centres
//! ```
//!
//! A miner looks at the distances without gradient and says which triplets or pairs count; the loss
//! reads those distances with gradient. With triplets neither needs them all at once:
//! [`Miner::mine_embeddings`] and [`TripletObjective::over_embeddings`] go some anchors at a time.

pub mod distance;
mod groups;
pub mod losses;
pub mod measure;
pub mod miners;
pub mod pair;
mod rows;
pub mod survey;
#[cfg(test)]
mod testing;
mod tiles;

pub use distance::{
    cosine, euclidean, normalise, pairwise, squared_euclidean, squared_euclidean_rows,
};
pub use losses::{
    BatchLoss, ContrastiveLoss, Hinge, LossOutput, MarginHead, MarginKind, MultiSimilarityLoss,
    NtXentLoss, PairBceLoss, Reduction, SupConLoss, TripletLoss, TripletObjective,
};
pub use measure::Measure;
pub use miners::{Miner, PairMiner, Pairs, Selection, Triplets};
pub use pair::PairLabels;
pub use survey::Survey;
