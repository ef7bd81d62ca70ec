//! The settings of `train-classifier`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checks::{at_least, check_input_size, demand, percentage, share};
#[cfg(feature = "cli")]
use super::flags;
use super::{DataSettings, ScheduleSettings};
use crate::models::Architecture;
use crate::{Error, Result};

/// All settings of `train-classifier`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Model"))]
#[serde(default, rename_all = "kebab-case")]
pub struct ClassifierSettings {
    /// What to train on.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Model file or run folder of a trained trunk, or pretrained weights (a name or a file)
    /// [default: the pinned trunk, else the newest run's, else pretrained dlib-resnet]
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE|RUN|NAME"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Architecture of pretrained --trunk weights [default: that of the name; of a file: openface]
    #[cfg_attr(feature = "cli", arg(long, value_enum))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Architecture>,
    /// Allow parameters with these key prefixes to be missing from the pretrained weights, or to
    /// have another shape there; they are initialised at random
    #[cfg_attr(feature = "cli", arg(long, value_name = "PREFIX,...", value_delimiter = ','))]
    pub allow_missing: Vec<String>,
    /// Input size of the pretrained backbone in pixels [default: the backbone's]
    #[cfg_attr(feature = "cli", arg(long, value_name = "PIXELS", value_parser = flags::input_size()))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// Folder of pictures of other people, to choose the UNKNOWN threshold on; faces are cut out as
    /// `classify` does [default: the strangers that are part of the program, as embeddings]
    #[cfg_attr(feature = "cli", arg(long, value_name = "DIR", help_heading = "Data"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strangers: Option<PathBuf>,
    /// False-positive identification rate: the maximum percentage of strangers who get a name; write
    /// values up to 1 with a percent sign, such as 0.5% [default: 3%, or as much more as it takes to
    /// name 92% of the validation faces]
    #[cfg_attr(feature = "cli", arg(long, value_name = "PERCENT", value_parser = flags::percent, conflicts_with = "unknown"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fpir: Option<f64>,
    /// Minimum probability for a name, in percent (0.5%, not 0.5); replaces --fpir
    #[cfg_attr(feature = "cli", arg(long, value_name = "PERCENT", value_parser = flags::percent))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<f64>,
    /// Number of epochs over the cached features
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 60, help_heading = "Schedule"))]
    pub epochs: usize,
    /// Batch size
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 32, help_heading = "Optimizer"))]
    pub batch_size: usize,
    /// Peak learning rate
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "RATE", default_value_t = 0.02, help_heading = "Optimizer")
    )]
    pub lr: f64,
    /// Optimizer and schedule.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Also train on the horizontally flipped pictures
    #[cfg_attr(feature = "cli", arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = flags::switch(), help_heading = "Augmentation"))]
    pub flip: bool,
    /// Run folder; if it holds a run already, a number is appended
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DIR", default_value = "runs/classifier", help_heading = "Output")
    )]
    pub out: PathBuf,
}

/// The defaults of the flags.
impl Default for ClassifierSettings {
    fn default() -> Self {
        Self {
            data: DataSettings::default(),
            trunk: None,
            backbone: None,
            allow_missing: Vec::new(),
            input_size: None,
            strangers: None,
            fpir: None,
            unknown: None,
            epochs: 60,
            batch_size: 32,
            lr: 0.02,
            schedule: ScheduleSettings::default(),
            flip: true,
            out: "runs/classifier".into(),
        }
    }
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
        if let Some(percent) = self.fpir {
            let ok = percent > 0.0 && percent < 100.0;
            demand(ok, "--fpir", percent, "a percentage above 0 and below 100")?;
            if self.unknown.is_some() {
                let text = "--fpir: no effect with --unknown, which sets the threshold by hand";
                return Err(Error::Config(text.into()));
            }
        }
        self.schedule.check(self.lr)
    }
}
