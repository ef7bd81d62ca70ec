//! Miners: choose the triplets of a batch for the loss.
//!
//! A miner sees the distances without gradient and returns indices. All of them look at the distances
//! of a chunk of anchors at a time, so that they can mine embeddings whose `[B, B]` matrix would not
//! fit. A new miner is a file here, its `mod` line and its row of the registry; `--miner`, its help
//! and the conformance test follow.

mod batch_all;
mod batch_hard;
mod easy_positive;
mod miner;
mod random;
mod semi_hard;
#[cfg(test)]
mod tests;
pub(crate) mod tuples;

pub use miner::Miner;
pub use tuples::{Triplets, Tuples};

crate::metric::named::registry! {
    Miner:
    random::RANDOM,
    batch_hard::BATCH_HARD,
    semi_hard::SEMI_HARD,
    easy_positive::EASY_POSITIVE,
    batch_all::BATCH_ALL,
}
