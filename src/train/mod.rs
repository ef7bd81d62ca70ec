//! Training: the loop, optimisers, schedules, checkpoints and logs.

pub mod progress;
