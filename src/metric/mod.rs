//! Metric learning: distances (larger always means farther), losses, miners.
//!
//! ```text
//! embeddings [B, D] -> distances [B, B] -> miner -> selection of triplets -> loss
//! ```
//!
//! Distances are computed once a batch; a miner looks at them without gradient and says which
//! triplets count; the loss reads the same distances with gradient.

pub mod distance;
pub mod losses;
pub mod miners;
mod rows;
#[cfg(test)]
mod testing;

pub use distance::{euclidean, pairwise, squared_euclidean, squared_euclidean_rows};
pub use losses::{LossOutput, Reduction, TripletLoss};
pub use miners::{Miner, Selection, Triplets};
