//! Training: the loop, optimisers, schedules, checkpoints and logs.

pub mod optim;
pub mod schedule;
