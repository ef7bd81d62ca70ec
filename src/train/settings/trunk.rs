//! What a trunk starts from, for every training of one.

use serde::{Deserialize, Serialize};

use super::checks::check_input_size;
#[cfg(feature = "cli")]
use super::flags;
use crate::Result;
use crate::weights::Source;

/// The initial weights of a trunk, and its input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Model"))]
#[serde(default, rename_all = "kebab-case")]
pub struct TrunkSettings {
    /// Initial weights of the trunk: a known name, a file, a run folder, or `none` for random weights
    /// [default: the backbone's pretrained weights]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME|FILE|RUN|none"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Allow parameters with these key prefixes to be missing from the --weights file, or to have
    /// another shape there; they are initialised at random
    #[cfg_attr(feature = "cli", arg(long, value_name = "PREFIX,...", value_delimiter = ','))]
    pub allow_missing: Vec<String>,
    /// Input size in pixels [default: the backbone's]
    #[cfg_attr(feature = "cli", arg(long, value_name = "PIXELS", value_parser = flags::input_size()))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
}

impl TrunkSettings {
    pub(super) fn check(&self) -> Result<()> {
        check_input_size(self.input_size)
    }

    /// Sets what was left open to what was taken: the weights and the input size in pixels.
    pub(super) fn fill_in(&mut self, weights: &Source, side: u32) {
        self.weights.get_or_insert_with(|| weights.flag());
        self.input_size.get_or_insert(side);
    }
}
