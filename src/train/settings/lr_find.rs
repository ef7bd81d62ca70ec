//! The settings of `lr-find`.

use serde::{Deserialize, Serialize};

use super::TripletSettings;
use crate::Result;
use crate::train::lr_find::RangeTest;

/// All settings of `lr-find`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Range test"))]
#[serde(default, rename_all = "kebab-case")]
pub struct LrFindSettings {
    /// Lowest learning rate
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", default_value_t = 1e-7))]
    pub from: f64,
    /// Highest learning rate
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", default_value_t = 1.0))]
    pub to: f64,
    /// Number of optimizer steps
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = 100))]
    pub steps: usize,
    /// The training to find a learning rate for.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub triplet: TripletSettings,
}

/// The defaults of the flags.
impl Default for LrFindSettings {
    fn default() -> Self {
        Self { from: 1e-7, to: 1.0, steps: 100, triplet: TripletSettings::default() }
    }
}

impl LrFindSettings {
    /// The range test they ask for.
    pub fn test(&self) -> RangeTest {
        let clip = self.triplet.schedule.clip_grad_norm;
        RangeTest { from: self.from, to: self.to, steps: self.steps, clip, scale_loss: false }
    }

    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        self.test().check()?;
        self.triplet.check()
    }
}
