//! The settings of `train-classifier`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    DataSettings, ScheduleSettings, at_least, check_input_size, input_size, percent, percentage,
    share, switch,
};
use crate::Result;
use crate::models::Architecture;

/// All settings of `train-classifier`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Model")]
#[serde(rename_all = "kebab-case")]
pub struct ClassifierSettings {
    /// What to train on.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Model file or run folder of a trained trunk, or weights (a name or a file) of a pretrained
    /// backbone [default: the trunk pinned with `visage use`, or the newest run's]
    #[arg(long, value_name = "FILE|RUN|NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Architecture of the pretrained backbone whose weights --trunk names [default: openface]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Architecture>,
    /// Allow parameters with these key prefixes to be missing from the pretrained weights, or to
    /// have another shape there; they are initialised at random
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(default)]
    pub allow_missing: Vec<String>,
    /// Input size of the pretrained backbone in pixels [default: the backbone's]
    #[arg(long, value_name = "PIXELS", value_parser = input_size())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// Folder of faces of other people, to calibrate the UNKNOWN threshold on
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strangers: Option<PathBuf>,
    /// Minimum probability for a name, in percent; write values up to 1 with a percent sign, such
    /// as 0.5% [default: calibrated on the validation pictures]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<f64>,
    /// Number of epochs over the cached features
    #[arg(long, default_value_t = 60, help_heading = "Schedule")]
    pub epochs: usize,
    /// Batch size
    #[arg(long, default_value_t = 32, help_heading = "Optimizer")]
    pub batch_size: usize,
    /// Peak learning rate
    #[arg(long, value_name = "RATE", default_value_t = 0.02, help_heading = "Optimizer")]
    pub lr: f64,
    /// Optimizer and schedule.
    #[command(flatten)]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Also train on the horizontally flipped pictures
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = switch(), help_heading = "Augmentation")]
    pub flip: bool,
    /// Run folder; if it holds a run already, a number is appended
    #[arg(long, value_name = "DIR", default_value = "runs/classifier", help_heading = "Output")]
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
        check_input_size(self.input_size)?;
        if let Some(percent) = self.unknown {
            percentage("--unknown", percent)?;
        }
        self.schedule.check(self.lr)
    }
}
