//! The settings of augmentation.

use serde::{Deserialize, Serialize};

#[cfg(feature = "cli")]
use super::flags;
use crate::data::augment::Augment;

/// Random changes of the pictures that a trunk trains on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Augmentation"))]
#[serde(default, rename_all = "kebab-case")]
pub struct AugmentSettings {
    /// Random horizontal flip
    #[cfg_attr(feature = "cli", arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = flags::switch()))]
    pub flip: bool,
    /// Random affine: small shifts, scales and rotations
    #[cfg_attr(feature = "cli", arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = flags::switch()))]
    pub crop: bool,
    /// Colour jitter: small random changes of brightness, contrast and colour
    #[cfg_attr(feature = "cli", arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set,
        value_parser = flags::switch()))]
    pub jitter: bool,
}

/// The defaults of the flags.
impl Default for AugmentSettings {
    fn default() -> Self {
        Self { flip: true, crop: true, jitter: true }
    }
}

impl AugmentSettings {
    /// The augmentation these settings ask for.
    pub fn augment(&self) -> Augment {
        Augment { flip: self.flip, crop: self.crop, jitter: self.jitter }
    }
}
