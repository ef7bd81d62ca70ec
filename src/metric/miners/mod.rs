//! Miners: choose the triplets of a batch for the loss.
//!
//! A miner gets distances without gradient and returns indices. Distances are processed in chunks of
//! anchors, so that a full `[B, B]` matrix is not needed. A new miner needs a file here
//! and its row in the registry, from which `--miner`, its help and the conformance test are derived.

mod miner;
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
