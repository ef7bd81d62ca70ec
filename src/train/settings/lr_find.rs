//! The settings of `lr-find`.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::TripletSettings;
use crate::Result;
use crate::train::lr_find::RangeTest;

/// All settings of `lr-find`.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Range test")]
#[serde(rename_all = "kebab-case")]
pub struct LrFindSettings {
    /// Lowest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-7)]
    pub from: f64,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    pub to: f64,
    /// Number of optimizer steps
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub steps: usize,
    /// The training to find a learning rate for.
    #[command(flatten)]
    #[serde(flatten)]
    pub triplet: TripletSettings,
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
