//! The settings of `lr-find`.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::TripletSettings;
use crate::Result;
use crate::train::lr_find::RangeTest;

/// Everything `lr-find` can be told.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LrFindSettings {
    /// The first learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-7)]
    pub from: f64,
    /// The last one
    #[arg(long, value_name = "RATE", default_value_t = 1.0)]
    pub to: f64,
    /// Optimiser steps from the one to the other
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub steps: usize,
    /// The training that a rate is wanted for.
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
