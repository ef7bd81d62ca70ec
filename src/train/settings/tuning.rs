//! The settings of fine-tuning, for every loss.

use serde::{Deserialize, Serialize};

use super::checks::{demand, share};
use super::{AugmentSettings, BnMode};
use crate::Result;
use crate::device::Precision;

/// Which parts of a trunk train, how fast, and on which views of the pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Fine-tuning"))]
#[serde(default, rename_all = "kebab-case")]
pub struct TuningSettings {
    /// Freeze these blocks: names from `visage models NAME`, key prefixes, or `all`. Their output is
    /// computed once per picture and cached if there is no random augmentation (--crop off --jitter
    /// off)
    #[cfg_attr(feature = "cli", arg(long, value_name = "BLOCK,...", value_delimiter = ','))]
    pub freeze: Vec<String>,
    /// Gradual unfreezing: train only the top stage at first, and unfreeze the next one below after
    /// each N epochs (0: train all from the start)
    #[cfg_attr(feature = "cli", arg(long, value_name = "EPOCHS", default_value_t = 0))]
    pub unfreeze_every: usize,
    /// Layer-wise learning-rate decay: factor from each stage of the trunk to the one below
    #[cfg_attr(feature = "cli", arg(long, value_name = "SHARE", default_value_t = 1.0))]
    pub lr_decay_by_layer: f64,
    /// Validate and save an exponential moving average of the weights with this decay, such as 0.999
    /// (less in the first steps: (1 + step) / (10 + step))
    #[cfg_attr(feature = "cli", arg(long, value_name = "DECAY"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_ema: Option<f64>,
    /// Memory limit for the cached output of frozen blocks, in MB
    #[cfg_attr(feature = "cli", arg(long, value_name = "MB", default_value_t = 2048))]
    pub cache_memory: u64,
    /// Disk limit for the cache beyond --cache-memory, in the run folder, in MB
    #[cfg_attr(feature = "cli", arg(long, value_name = "MB", default_value_t = 8192))]
    pub cache_disk: u64,
    /// Mode of batch normalisation [default: eval, or train with --weights none]
    #[cfg_attr(feature = "cli", arg(long, value_enum))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bn: Option<BnMode>,
    /// Precision of the trunk's forward and backward pass (autocast); weights, gradients,
    /// statistics, distances, losses and evaluation stay float32
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = Precision::Auto))]
    pub precision: Precision,
    /// The views of the pictures.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub augmentation: AugmentSettings,
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
            augmentation: AugmentSettings::default(),
        }
    }
}

impl TuningSettings {
    /// A limit for the cache of frozen blocks, given where nothing is frozen.
    pub fn unused_cache_flag(&self) -> Option<&'static str> {
        let usual = Self::default();
        let given = [
            ("--cache-memory", self.cache_memory != usual.cache_memory),
            ("--cache-disk", self.cache_disk != usual.cache_disk),
        ];
        let is_unused = self.freeze.is_empty() && self.unfreeze_every == 0;
        given.into_iter().find(|(_, given)| is_unused && *given).map(|(flag, _)| flag)
    }

    pub(super) fn check(&self) -> Result<()> {
        let decay = self.lr_decay_by_layer;
        let ok = decay > 0.0 && decay <= 1.0;
        demand(ok, "--lr-decay-by-layer", decay, "a fraction above 0, at most 1")?;
        share("--model-ema", self.model_ema.unwrap_or(0.0))
    }
}
