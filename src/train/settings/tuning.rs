//! The settings of fine-tuning, whatever is learnt.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{BnMode, demand, switch, whole};
use crate::Result;
use crate::data::augment::Augment;
use crate::device::Precision;

/// Which parts of a trunk train, how fast, and on which views of the pictures.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TuningSettings {
    /// Keep these blocks as they are (`visage models NAME` lists them; any key prefix will do, and `all`).
    /// What frozen blocks make of a picture is computed once where no random change comes before it
    /// (--crop off --jitter off)
    #[arg(long, value_name = "BLOCK,...", value_delimiter = ',')]
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Start with the top stage of the trunk alone and let the next one below join after every so
    /// many epochs (0: all train from the start)
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    #[serde(default)]
    pub unfreeze_every: usize,
    /// Learning rate of each stage of the trunk, as a share of that of the stage above it
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    #[serde(default = "whole")]
    pub lr_decay_by_layer: f64,
    /// Memory for the output of frozen blocks, in MB
    #[arg(long, value_name = "MB", default_value_t = 2048)]
    #[serde(default)]
    pub cache_memory: u64,
    /// Disk in the run folder for what does not fit there, in MB
    #[arg(long, value_name = "MB", default_value_t = 8192)]
    #[serde(default)]
    pub cache_disk: u64,
    /// Batch normalisation while training [default: eval, or train with --weights none]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bn: Option<BnMode>,
    /// What the trunk computes in while it trains; weights and their gradients, statistics, distances,
    /// losses and all that is measured are float32 in any case
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    #[serde(default)]
    pub precision: Precision,
    /// Mirror training pictures at random
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub flip: bool,
    /// Shift, scale and turn training pictures a little at random
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub crop: bool,
    /// Change brightness, contrast and colour of training pictures a little at random
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub jitter: bool,
}

/// What the flags are where none is given.
impl Default for TuningSettings {
    fn default() -> Self {
        Self {
            freeze: Vec::new(),
            unfreeze_every: 0,
            lr_decay_by_layer: 1.0,
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
        demand(ok, "--lr-decay-by-layer", decay, "a share above 0, at most 1")
    }
}
