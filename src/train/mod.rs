//! Training: the loop, optimisers, schedules, checkpoints and logs.

pub mod log;
pub mod optim;
pub mod progress;
pub mod schedule;
