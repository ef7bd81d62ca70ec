//! Every triplet of a batch.

use super::miner::{Miner, Search};

/// `--miner batch-all`.
pub const BATCH_ALL: Miner =
    Miner { name: "batch-all", help: "Every triplet of the batch", search: Search::All };
