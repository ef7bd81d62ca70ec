//! Training: the loop, optimisers, schedules, checkpoints and logs.

pub mod calibrate;
pub mod classifier;
pub mod fit;
pub mod fit_result;
pub mod frozen_prefix;
pub mod hardest;
pub mod log;
pub mod lr_find;
pub mod map_cache;
pub mod monitor;
pub mod objective;
pub mod optim;
pub mod progress;
pub mod projection;
pub mod recipes;
pub mod run_folder;
pub mod scaler;
pub mod schedule;
pub mod scoring;
pub mod settings;
pub mod stages;
pub mod step;
pub mod triplet;
pub mod tuples;
pub mod weight_interpolation;
