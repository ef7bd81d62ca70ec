//! The settings of a training run: one struct a command, which is at once its command-line flags,
//! its `config.toml` and what a model file remembers. Defaults and help texts live here only.

mod classifier;
mod lr_find;
mod pairs;
mod triplet;
mod tuning;

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use serde::{Deserialize, Serialize};

use super::fit::Plan;
use super::optim::{OptimizerConfig, OptimizerKind};
use super::schedule::ScheduleKind;
use crate::data::store::Fitting;
use crate::metric::Named;
use crate::{Error, Result};

pub use classifier::ClassifierSettings;
pub use lr_find::LrFindSettings;
pub use pairs::{PairLossKind, PairSettings};
pub use triplet::TripletSettings;
pub use tuning::TuningSettings;

/// Reads `on` and `off` for switches that are on by default.
fn switch() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off", "true", "false"])
        .map(|text| text == "on" || text == "true")
}

/// Reads a choice by its name; the help lists all of them.
fn choice<T: Named>() -> impl TypedValueParser<Value = T> {
    let value = |choice: &T| PossibleValue::new(choice.name()).help(choice.help());
    PossibleValuesParser::new(T::ALL.iter().map(value))
        .try_map(|name| T::by_name(&name).ok_or("no such choice"))
}

fn four() -> f64 {
    4.0
}

fn picture_memory() -> u64 {
    Fitting::MEMORY_MB
}

fn whole() -> f64 {
    1.0
}

/// Seeds are stored in TOML, whose integers are signed.
fn seed() -> impl TypedValueParser<Value = u64> {
    value_parser!(u64).range(..=i64::MAX as u64)
}

/// What to train on.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DataSettings {
    /// Folder with one sub-folder of pictures per identity [default: data/avengers where it
    /// exists, else the ORL faces, fetched once]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Reuse a split file (CSV: path, identity, part) instead of drawing one
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Share of each identity's pictures held back for validation; near-duplicates stay together
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    pub val_fraction: f64,
    /// Make an unreadable picture an error instead of skipping it
    #[arg(long)]
    pub strict: bool,
    /// Memory for decoded pictures, in MB; those that do not fit are decoded again when needed
    #[arg(long, value_name = "MB", default_value_t = Fitting::MEMORY_MB)]
    #[serde(default = "picture_memory")]
    pub picture_memory: u64,
    /// Decides the split, the batches, the augmentation and random weights
    #[arg(long, default_value_t = 0, value_parser = seed())]
    pub seed: u64,
}

impl DataSettings {
    /// How pictures of side `side` are fitted and kept.
    pub fn fitting(&self, side: u32) -> Fitting {
        Fitting { side, memory: self.picture_memory.saturating_mul(1 << 20) }
    }
}

/// How long to train and with which optimiser.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleSettings {
    /// Update rule
    #[arg(long, value_enum, default_value_t = OptimizerKind::Adam)]
    pub optimizer: OptimizerKind,
    /// Pull of the weights towards zero [default: PyTorch's: 0, or 0.01 with adamw]
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// What the learning rate does from step to step; cycles move beta1 (Adam) or the momentum the
    /// other way
    #[arg(long, value_enum, default_value_t = ScheduleKind::WarmupCosine)]
    #[serde(default)]
    pub schedule: ScheduleKind,
    /// Share of all steps over which the learning rate rises from zero (warmup-cosine, constant,
    /// plateau)
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub warmup: f64,
    /// Epochs of one triangle up and down (triangular, triangular2, exp-range)
    #[arg(long, value_name = "EPOCHS", default_value_t = 4.0)]
    #[serde(default = "four")]
    pub cycle: f64,
    /// Shorten longer gradients (the norm over all parameters) to this length
    #[arg(long, value_name = "NORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
    /// Stop after this many epochs without a better score (0: never)
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    pub patience: usize,
}

/// What batch normalisation does while a pretrained trunk is fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BnMode {
    /// Batch statistics, running statistics updated
    Train,
    /// Running statistics, untouched
    Eval,
}

impl ScheduleSettings {
    /// The optimiser's configuration at learning rate `lr`.
    pub fn optimizer(&self, lr: f64) -> OptimizerConfig {
        let defaults = OptimizerConfig::new(self.optimizer);
        let weight_decay = self.weight_decay.unwrap_or(defaults.weight_decay);
        OptimizerConfig { lr, weight_decay, ..defaults }
    }

    /// The loop's plan for `epochs` at learning rate `lr`.
    pub fn plan(&self, epochs: usize, lr: f64) -> Plan {
        let (warmup, patience) = (self.warmup, self.patience);
        Plan {
            epochs,
            lr,
            warmup,
            schedule: self.schedule,
            cycle: self.cycle,
            clip: self.clip_grad_norm,
            scale_loss: false,
            patience,
            keep_last: true,
            report_every: 1,
        }
    }

    fn check(&self, lr: f64) -> Result<()> {
        positive("--lr", lr)?;
        not_negative("--weight-decay", self.weight_decay.unwrap_or(0.0))?;
        positive("--clip-grad-norm", self.clip_grad_norm.unwrap_or(1.0))?;
        positive("--cycle", self.cycle)?;
        share("--warmup", self.warmup)
    }
}

/// Refuses a percentage outside 0 to 100.
///
/// # Errors
/// Names the flag and the value.
pub fn percentage(flag: &str, value: f64) -> Result<()> {
    demand((0.0..=100.0).contains(&value), flag, value, "a percentage from 0 to 100")
}

fn positive(flag: &str, value: f64) -> Result<()> {
    demand(value > 0.0 && value.is_finite(), flag, value, "a number above 0")
}

fn not_negative(flag: &str, value: f64) -> Result<()> {
    demand(value >= 0.0 && value.is_finite(), flag, value, "0 or more")
}

fn share(flag: &str, value: f64) -> Result<()> {
    demand((0.0..1.0).contains(&value), flag, value, "a share from 0 up to, but not, 1")
}

fn at_least(flag: &str, value: usize, least: usize) -> Result<()> {
    demand(value >= least, flag, value as f64, &format!("{least} or more"))
}

fn demand(ok: bool, flag: &str, value: f64, what: &str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Config(format!("{flag} {value}: expected {what}"))) }
}
