//! Training: the loop, optimisers, schedules, checkpoints and logs.
//!
//! [`train_triplet`] is the whole of `visage train-triplet` in one call:
//!
//! ```no_run
//! use visage::prelude::*;
//!
//! # fn main() -> visage::Result<()> {
//! let mut settings = TripletSettings { epochs: 10, ..TripletSettings::default() };
//! settings.data.data = Some("faces".into()); // one sub-folder per identity
//! let device = DeviceChoice::Auto.resolve()?;
//! let result = train_triplet(settings, device, &Reporter::stderr(false))?;
//! let model = Recogniser::load(&result.model, device)?;
//! # Ok(())
//! # }
//! ```

pub mod calibrate;
pub mod checkpoint;
pub mod classifier;
pub mod dataset;
pub mod distil;
pub mod epoch_log;
pub mod fit;
pub mod fit_result;
pub mod frozen_prefix;
#[cfg(feature = "cli")]
pub mod hardest;
pub mod interrupt;
pub mod interval;
pub mod log;
pub mod lr_find;
pub mod map_cache;
pub mod monitor;
pub mod named;
pub mod objective;
pub mod optim;
pub mod photos;
pub mod plan;
pub mod projection;
pub mod recipes;
pub mod run_folder;
pub mod runs;
pub mod scaler;
pub mod schedule;
pub mod scoring;
pub mod set_up;
pub mod settings;
mod snapshot;
pub mod stages;
pub mod state;
pub mod step;
pub mod strangers;
pub mod task;
pub mod triplet;
mod triplet_training;
pub mod tuples;
pub mod watch;
pub mod weight_interpolation;
pub mod world;

pub use triplet_training::{TripletTraining, train_triplet};
