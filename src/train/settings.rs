//! The settings of a training run: one struct a command, which is at once its command-line flags,
//! its `config.toml` and what a model file remembers. Defaults and help texts live here only.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum, value_parser};
use serde::{Deserialize, Serialize};

use super::fit::Plan;
use super::optim::{OptimizerConfig, OptimizerKind};
use crate::data::augment::Augment;
use crate::metric::losses::Reduction;
use crate::metric::miners::Miner;
use crate::models::Architecture;
use crate::{Error, Result};

/// Reads `on` and `off` for switches that are on by default.
fn switch() -> impl TypedValueParser<Value = bool> {
    clap::builder::PossibleValuesParser::new(["on", "off", "true", "false"])
        .map(|text| text == "on" || text == "true")
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
    /// Decides the split, the batches, the augmentation and random weights
    #[arg(long, default_value_t = 0, value_parser = seed())]
    pub seed: u64,
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
    /// Share of all steps over which the learning rate rises from zero
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    pub warmup: f64,
    /// Learning rate after the warm-up
    #[arg(long, value_enum, default_value_t = Decay::Cosine)]
    pub decay: Decay,
    /// Shorten longer gradients (the norm over all parameters) to this length
    #[arg(long, value_name = "NORM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
    /// Stop after this many epochs without a better score (0: never)
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    pub patience: usize,
}

/// What the learning rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Falls to zero along half a cosine
    Cosine,
    /// Stays
    Constant,
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

/// Everything `train-triplet` can be told.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TripletSettings {
    /// What to train on.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Architecture of the trunk
    #[arg(long, value_enum, default_value_t = Architecture::OpenFace)]
    pub backbone: Architecture,
    /// Weights to start from: a known name, a file, or `none` for random ones [default: the
    /// backbone's own]
    #[arg(long, value_name = "NAME|FILE|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Trunk parameters below these key prefixes may be missing from the --weights file, or have
    /// another shape there; they start at random
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(default)]
    pub allow_missing: Vec<String>,
    /// Put a layer with D outputs on top of the trunk; it starts at random
    #[arg(long, value_name = "D")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    /// Side of the input pictures in pixels [default: the backbone's own]
    #[arg(long, value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// Which triplets of a batch to learn from
    #[arg(long, value_enum, default_value_t = Miner::BatchHard)]
    pub miner: Miner,
    /// How much farther (squared distance) a negative shall be than a positive
    #[arg(long, default_value_t = 0.2, allow_negative_numbers = true)]
    pub margin: f64,
    /// Which triplets the loss is averaged over
    #[arg(long, value_enum, default_value_t = Reduction::Mean)]
    pub reduction: Reduction,
    /// P: identities in a batch (lowered where the data has fewer)
    #[arg(short = 'p', long, value_name = "P", default_value_t = 8)]
    pub identities_per_batch: usize,
    /// K: pictures of each identity in a batch
    #[arg(short = 'k', long, value_name = "K", default_value_t = 4)]
    pub pictures_per_identity: usize,
    /// Passes over the training pictures
    #[arg(long, default_value_t = 30)]
    pub epochs: usize,
    /// Highest learning rate [default: 6e-5, or 6e-3 with sgd]
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// How to get from step to step.
    #[command(flatten)]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Share of the training that the kept model carries: start + SHARE (trained - start); less
    /// than 1 tells strangers apart better [default: 0.75, or 1 with --weights none]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<f64>,
    /// Keep these blocks as they are (`visage models NAME` lists them; any key prefix will do).
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
    /// Pass a batch through the trunk in pieces of so many pictures: less memory for one more
    /// forward pass; triplets are mined in the whole batch all the same (0: in one piece)
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[serde(default)]
    pub micro_batch: usize,
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
    /// Mirror training pictures at random
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub flip: bool,
    /// Shift, scale and turn training pictures a little at random
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub crop: bool,
    /// Change brightness, contrast and colour of training pictures a little at random
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub jitter: bool,
    /// Run folder; an older run there is kept under another name
    #[arg(long, value_name = "DIR", default_value = "runs/triplet")]
    pub out: PathBuf,
}

/// Everything `train-classifier` can be told.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClassifierSettings {
    /// What to train on.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Model file of the trained trunk, or weights (name or file) for an untouched one [default:
    /// the newest runs/*/best.safetensors of a finished run]
    #[arg(long, value_name = "FILE|NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Architecture of an untouched trunk: --trunk are weights for it then [default: openface]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Architecture>,
    /// Parameters of an untouched trunk below these key prefixes may be missing from its weights,
    /// or have another shape there; they are random
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(default)]
    pub allow_missing: Vec<String>,
    /// Side of an untouched trunk's input pictures in pixels [default: the backbone's own]
    #[arg(long, value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// Folder of faces of other people; makes the UNKNOWN threshold better
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strangers: Option<PathBuf>,
    /// Name a face only from this probability on, in percent [default: chosen on validation]
    #[arg(long, value_name = "PERCENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<f64>,
    /// Passes over the cached features
    #[arg(long, default_value_t = 60)]
    pub epochs: usize,
    /// Features in a batch
    #[arg(long, default_value_t = 32)]
    pub batch_size: usize,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 0.02)]
    pub lr: f64,
    /// How to get from step to step.
    #[command(flatten)]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Also learn from the mirrored training pictures
    #[arg(long, value_name = "on|off", default_value = "on", action = clap::ArgAction::Set, value_parser = switch())]
    pub flip: bool,
    /// Run folder; an older run there is kept under another name
    #[arg(long, value_name = "DIR", default_value = "runs/classifier")]
    pub out: PathBuf,
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
            cosine: self.decay == Decay::Cosine,
            clip: self.clip_grad_norm,
            patience,
            keep_last: true,
            report_every: 1,
        }
    }

    fn check(&self, lr: f64) -> Result<()> {
        positive("--lr", lr)?;
        not_negative("--weight-decay", self.weight_decay.unwrap_or(0.0))?;
        positive("--clip-grad-norm", self.clip_grad_norm.unwrap_or(1.0))?;
        share("--warmup", self.warmup)
    }
}

impl TripletSettings {
    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        share("--val-fraction", self.data.val_fraction)?;
        positive("--margin", self.margin)?;
        if let Some(blend) = self.blend {
            let ok = blend > 0.0 && blend <= 1.0;
            demand(ok, "--blend", blend, "a share above 0, at most 1")?;
        }
        at_least("--identities-per-batch", self.identities_per_batch, 2)?;
        at_least("--pictures-per-identity", self.pictures_per_identity, 2)?;
        at_least("--epochs", self.epochs, 1)?;
        let decay = self.lr_decay_by_layer;
        let ok = decay > 0.0 && decay <= 1.0;
        demand(ok, "--lr-decay-by-layer", decay, "a share above 0, at most 1")?;
        self.schedule.check(self.lr())
    }

    /// Refuses what only a pass in one piece can do, once `bn` is decided.
    ///
    /// # Errors
    /// `--micro-batch` with batch statistics.
    pub fn check_pieces(&self) -> Result<()> {
        if self.micro_batch > 0 && self.bn == Some(BnMode::Train) {
            return Err(Error::Config(
                "--micro-batch needs --bn eval: the statistics of a piece are not those of the \
                 batch"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The learning rate, where none is given the optimiser's own.
    pub fn lr(&self) -> f64 {
        self.lr.unwrap_or(if self.schedule.optimizer == OptimizerKind::Sgd { 6e-3 } else { 6e-5 })
    }

    /// The augmentation these settings ask for.
    pub fn augment(&self) -> Augment {
        Augment { flip: self.flip, crop: self.crop, jitter: self.jitter }
    }
}

impl ClassifierSettings {
    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        share("--val-fraction", self.data.val_fraction)?;
        at_least("--epochs", self.epochs, 1)?;
        at_least("--batch-size", self.batch_size, 1)?;
        if let Some(percent) = self.unknown {
            percentage("--unknown", percent)?;
        }
        self.schedule.check(self.lr)
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
