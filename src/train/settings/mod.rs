//! The settings of a training run: one struct per command, which is its command-line flags, its
//! `config.toml` and part of its model files. Defaults and help texts live here only.

mod classifier;
mod lr_find;
mod pairs;
mod triplet;
mod tuning;

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use serde::{Deserialize, Serialize};

use super::fit::FitConfig;
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

/// Parser of `on` and `off`, for switches that are on by default.
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

/// The largest side of input pictures that is accepted, in pixels.
pub const MAX_INPUT_SIZE: u32 = 4096;

/// Parser of `--input-size`.
pub fn input_size() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=i64::from(MAX_INPUT_SIZE))
}

/// Refuses an input size from a file that `--input-size` would refuse.
fn check_input_size(side: Option<u32>) -> Result<()> {
    let side = side.unwrap_or(1);
    let range = format!("1 to {MAX_INPUT_SIZE} pixels");
    demand((1..=MAX_INPUT_SIZE).contains(&side), "--input-size", side.into(), &range)
}

/// Parses `90`, `90%` or `0.5%` as a percentage. A bare number above 0 and up to 1 is ambiguous
/// (90 % is often written 0.9) and refused.
///
/// # Errors
/// Says how to write the value.
pub fn percent(text: &str) -> Result<f64, String> {
    let (number, is_marked) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (text, false),
    };
    let value: f64 = number.parse().map_err(|_| "expected a percentage such as 90".to_owned())?;
    match value > 0.0 && value <= 1.0 && !is_marked {
        true => Err(format!("ambiguous: write {text}% or {}", 100.0 * value)),
        false => Ok(value),
    }
}

/// What to train on.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Data")]
#[serde(rename_all = "kebab-case")]
pub struct DataSettings {
    /// Folder with one sub-folder of pictures per identity [default: data/avengers if present, else
    /// the ORL faces, downloaded once]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Use this split (CSV with columns path, identity, part) instead of a random one
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Fraction of each identity's pictures used for validation; near-duplicates stay together
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    pub val_fraction: f64,
    /// Fail on unreadable pictures instead of skipping them
    #[arg(long)]
    pub strict: bool,
    /// Memory limit for decoded pictures in MB; pictures beyond it are decoded again in each epoch
    #[arg(long, value_name = "MB", default_value_t = Fitting::MEMORY_MB)]
    #[serde(default = "picture_memory")]
    pub picture_memory: u64,
    /// Random seed for the split, the batches, the augmentation and random weights
    #[arg(long, default_value_t = 0, value_parser = seed())]
    pub seed: u64,
}

impl DataSettings {
    /// How pictures are resized to `side` pixels and kept in memory.
    pub fn fitting(&self, side: u32) -> Fitting {
        Fitting { side, memory: self.picture_memory.saturating_mul(1 << 20) }
    }
}

/// Optimizer and learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[command(next_help_heading = "Schedule")]
#[serde(rename_all = "kebab-case")]
pub struct ScheduleSettings {
    /// Optimizer
    #[arg(long, value_enum, default_value_t = OptimizerKind::Adam, help_heading = "Optimizer")]
    pub optimizer: OptimizerKind,
    /// Weight decay [default: 0, or 0.01 with adamw, as in PyTorch]
    #[arg(long, value_name = "RATE", help_heading = "Optimizer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Learning-rate schedule; cyclical schedules cycle beta1 (Adam) or the momentum inversely
    #[arg(long, value_enum, default_value_t = ScheduleKind::WarmupCosine)]
    #[serde(default)]
    pub schedule: ScheduleKind,
    /// Fraction of all steps for linear warm-up (warmup-cosine, constant, plateau)
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub warmup: f64,
    /// Length of a cycle in epochs (triangular, triangular2, exp-range)
    #[arg(long, value_name = "EPOCHS", default_value_t = 4.0)]
    #[serde(default = "four")]
    pub cycle: f64,
    /// Clip the gradient norm over all parameters to this value
    #[arg(long, value_name = "NORM", help_heading = "Optimizer")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
    /// Early stopping: stop after this many epochs without improvement (0: never)
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    pub patience: usize,
    /// Figure that decides which epoch is the best one, for the saved model, --patience and
    /// --schedule plateau: a validation column of metrics.csv, or loss [default: the mean of knn,
    /// knn_gallery and verification; auc for pairs; accuracy for a classifier]
    #[arg(long, value_name = "METRIC")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Log loss, learning rate and gradient norm of every N-th step to TensorBoard (0: only epochs)
    #[arg(long, value_name = "STEPS", default_value_t = LOG_INTERVAL, help_heading = "Output")]
    #[serde(default = "log_interval")]
    pub log_interval: u64,
}

/// Steps between two points of the curves by step.
const LOG_INTERVAL: u64 = 50;

fn log_interval() -> u64 {
    LOG_INTERVAL
}

/// Mode of batch normalisation during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BnMode {
    /// Use batch statistics and update the running ones
    Train,
    /// Use the running statistics and keep them as they are
    Eval,
}

impl ScheduleSettings {
    /// The optimizer's configuration at learning rate `lr`.
    pub fn optimizer(&self, lr: f64) -> OptimizerConfig {
        let defaults = OptimizerConfig::new(self.optimizer);
        let weight_decay = self.weight_decay.unwrap_or(defaults.weight_decay);
        OptimizerConfig { lr, weight_decay, ..defaults }
    }

    /// The loop's plan for `epochs` at learning rate `lr`.
    pub fn plan(&self, epochs: usize, lr: f64) -> FitConfig {
        let (warmup, patience) = (self.warmup, self.patience);
        FitConfig {
            epochs,
            lr,
            warmup,
            schedule: self.schedule,
            cycle: self.cycle,
            clip: self.clip_grad_norm,
            scale_loss: false,
            patience,
            monitor: self.monitor.clone(),
            log_interval: self.log_interval,
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
    demand((0.0..1.0).contains(&value), flag, value, "a fraction from 0 to below 1")
}

fn at_least(flag: &str, value: usize, least: usize) -> Result<()> {
    demand(value >= least, flag, value as f64, &format!("{least} or more"))
}

fn demand(ok: bool, flag: &str, value: f64, what: &str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Config(format!("{flag} {value}: expected {what}"))) }
}
