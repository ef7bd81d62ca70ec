//! The settings of `train-classifier`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{DataSettings, ScheduleSettings, at_least, percentage, share, switch};
use crate::Result;
use crate::models::Architecture;

/// Everything `train-classifier` can be told.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClassifierSettings {
    /// What to train on.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Model file of the trained trunk, or weights (name or file) for an untouched one [default:
    /// the newest runs/*/best.safetensors of a finished run]
    #[arg(long, value_name = "FILE|NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Architecture of an untouched trunk: --trunk are weights for it then [default: openface]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Architecture>,
    /// Parameters of an untouched trunk below these key prefixes may be missing from its weights,
    /// or have another shape there; they are random
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(default)]
    pub allow_missing: Vec<String>,
    /// Side of an untouched trunk's input pictures in pixels [default: the backbone's own]
    #[arg(long, value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// Folder of faces of other people; makes the UNKNOWN threshold better
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strangers: Option<PathBuf>,
    /// Name a face only from this probability on, in percent [default: chosen on validation]
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<f64>,
    /// Passes over the cached features
    #[arg(long, default_value_t = 60)]
    pub epochs: usize,
    /// Features in a batch
    #[arg(long, default_value_t = 32)]
    pub batch_size: usize,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 0.02)]
    pub lr: f64,
    /// How to get from step to step.
    #[command(flatten)]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Also learn from the mirrored training pictures
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub flip: bool,
    /// Run folder; an older run there is kept under another name
    #[arg(long, value_name = "DIR", default_value = "runs/classifier")]
    pub out: PathBuf,
}

impl ClassifierSettings {
    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        share("--val-fraction", self.data.val_fraction)?;
        at_least("--epochs", self.epochs, 1)?;
        at_least("--batch-size", self.batch_size, 1)?;
        if let Some(percent) = self.unknown {
            percentage("--unknown", percent)?;
        }
        self.schedule.check(self.lr)
    }
}
