//! The settings of fine-tuning, for every loss.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{BnMode, demand, share, switch, whole};
use crate::Result;
use crate::data::augment::Augment;
use crate::device::Precision;

/// Which parts of a trunk train, how fast, and on which views of the pictures.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Fine-tuning")]
#[serde(rename_all = "kebab-case")]
pub struct TuningSettings {
    /// Freeze these blocks: names from `visage models NAME`, key prefixes, or `all`. Their output is
    /// computed once per picture and cached if there is no random augmentation (--crop off --jitter
    /// off)
    #[arg(long, value_name = "BLOCK,...", value_delimiter = ',')]
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Gradual unfreezing: train only the top stage at first, and unfreeze the next one below after
    /// each N epochs (0: train all from the start)
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    #[serde(default)]
    pub unfreeze_every: usize,
    /// Layer-wise learning-rate decay: factor from each stage of the trunk to the one below
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    #[serde(default = "whole")]
    pub lr_decay_by_layer: f64,
    /// Validate and save an exponential moving average of the weights with this decay, such as 0.999;
    /// --blend then interpolates between the start and that average
    #[arg(long, value_name = "DECAY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_ema: Option<f64>,
    /// Memory limit for the cached output of frozen blocks, in MB
    #[arg(long, value_name = "MB", default_value_t = 2048)]
    #[serde(default)]
    pub cache_memory: u64,
    /// Disk limit for the cache beyond --cache-memory, in the run folder, in MB
    #[arg(long, value_name = "MB", default_value_t = 8192)]
    #[serde(default)]
    pub cache_disk: u64,
    /// Mode of batch normalisation [default: eval, or train with --weights none]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bn: Option<BnMode>,
    /// Precision of the trunk's forward and backward pass (autocast); weights, gradients,
    /// statistics, distances, losses and evaluation stay float32
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    #[serde(default)]
    pub precision: Precision,
    /// Random horizontal flip
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = switch(), help_heading = "Augmentation")]
    pub flip: bool,
    /// Random affine: small shifts, scales and rotations
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = switch(), help_heading = "Augmentation")]
    pub crop: bool,
    /// Colour jitter: small random changes of brightness, contrast and colour
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = switch(), help_heading = "Augmentation")]
    pub jitter: bool,
}

/// The defaults of the flags.
impl Default for TuningSettings {
    fn default() -> Self {
        Self {
            freeze: Vec::new(),
            unfreeze_every: 0,
            lr_decay_by_layer: 1.0,
            model_ema: None,
            cache_memory: 2048,
            cache_disk: 8192,
            bn: None,
            precision: Precision::Auto,
            flip: true,
            crop: true,
            jitter: true,
        }
    }
}

impl TuningSettings {
    /// The augmentation these settings ask for.
    pub fn augment(&self) -> Augment {
        Augment { flip: self.flip, crop: self.crop, jitter: self.jitter }
    }

    pub(super) fn check(&self) -> Result<()> {
        let decay = self.lr_decay_by_layer;
        let ok = decay > 0.0 && decay <= 1.0;
        demand(ok, "--lr-decay-by-layer", decay, "a fraction above 0, at most 1")?;
        share("--model-ema", self.model_ema.unwrap_or(0.0))
    }
}
