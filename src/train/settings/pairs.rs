//! The settings of `train-pairs`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checks::{at_least, not_negative, positive, share, within};
use super::{BnMode, DataSettings, ScheduleSettings, TrunkSettings, TuningSettings};
use crate::models::{Architecture, HeadKind};
use crate::weights::Source;
use crate::{Error, Result};

/// The margin of the contrastive loss, where none is given.
const MARGIN: f64 = 1.0;

/// A loss on pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum PairLossKind {
    /// Same pairs are pulled together, different ones pushed beyond the margin (Hadsell et al. 2006)
    Contrastive,
    /// Binary cross-entropy of the head's logit: 1 is the same person
    Bce,
}

/// All settings of `train-pairs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Loss"))]
#[serde(default, rename_all = "kebab-case")]
pub struct PairSettings {
    /// What to train on: a folder of identities, or one with img_align_celeba and
    /// identity_CelebA.txt. Training and validation have no person in common.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Architecture of the shared trunk
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = Architecture::DenseNet121, help_heading = "Model"))]
    pub backbone: Architecture,
    /// What the trunk starts from.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub trunk: TrunkSettings,
    /// Head that compares the two embeddings
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = HeadKind::Projection, help_heading = "Model"))]
    pub head: HeadKind,
    /// Embedding dimension of the head [default: the head's]
    #[cfg_attr(feature = "cli", arg(long, value_name = "D", help_heading = "Model"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    /// Loss function [default: contrastive for heads with a distance, bce for heads with a logit]
    #[cfg_attr(feature = "cli", arg(long, value_enum))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<PairLossKind>,
    /// Distance to which the contrastive loss pushes different people apart
    #[cfg_attr(feature = "cli", arg(long, default_value_t = MARGIN, allow_negative_numbers = true))]
    pub margin: f64,
    /// Number of pairs per epoch, half of them of the same person [default: one per picture]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", help_heading = "Sampling"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// Hard negatives: for each different pair sample N more candidates and keep the nearest (0:
    /// off)
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")
    )]
    pub hard_negatives: usize,
    /// Batch size in pairs
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 32, help_heading = "Sampling"))]
    pub batch_size: usize,
    /// Number of epochs
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 10, help_heading = "Schedule"))]
    pub epochs: usize,
    /// Peak learning rate
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "RATE", default_value_t = 1e-4, help_heading = "Optimizer")
    )]
    pub lr: f64,
    /// Optimizer and schedule.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// How the trunk is fine-tuned.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub tuning: TuningSettings,
    /// Run folder; if it holds a run already, a number is appended
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DIR", default_value = "runs/pairs", help_heading = "Output")
    )]
    pub out: PathBuf,
}

impl PairLossKind {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contrastive => "contrastive",
            Self::Bce => "bce",
        }
    }
}

/// The defaults of the flags.
impl Default for PairSettings {
    fn default() -> Self {
        Self {
            data: DataSettings::default(),
            backbone: Architecture::DenseNet121,
            trunk: TrunkSettings::default(),
            head: HeadKind::Projection,
            embedding_dim: None,
            loss: None,
            margin: MARGIN,
            pairs: None,
            hard_negatives: 0,
            batch_size: 32,
            epochs: 10,
            lr: 1e-4,
            schedule: ScheduleSettings::default(),
            tuning: TuningSettings::default(),
            out: "runs/pairs".into(),
        }
    }
}

impl PairSettings {
    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        share("--val-fraction", self.data.val_fraction)?;
        positive("--margin", self.margin)?;
        not_negative("--lr", self.lr)?;
        at_least("--pairs", self.pairs.unwrap_or(1), 1)?;
        within("--hard-negatives", self.hard_negatives, 0, 1000)?;
        at_least("--batch-size", self.batch_size, 1)?;
        at_least("--epochs", self.epochs, 1)?;
        self.trunk.check()?;
        self.tuning.check()?;
        if (self.loss() == PairLossKind::Bce) != self.head.gives_logit() {
            return Err(Error::Config(format!(
                "--loss {}: --head {} returns a {}; leave --loss out",
                self.loss().name(),
                self.head.name(),
                if self.head.gives_logit() { "logit" } else { "distance" }
            )));
        }
        if self.loss() == PairLossKind::Bce && self.margin != MARGIN {
            return Err(Error::Config(
                "--margin: no effect with --loss bce; losses that take it: contrastive".into(),
            ));
        }
        self.schedule.check(self.lr)
    }

    /// Sets what was left open to its default, so that `config.toml` repeats the run even if defaults
    /// change. `dim` is the head's embedding dimension and `side` the trunk's input size in pixels.
    pub fn fill_in(&mut self, weights: &Source, dim: i64, side: u32) {
        self.loss = Some(self.loss());
        self.trunk.fill_in(weights, side);
        self.embedding_dim = self.head.default_dim().map(|_| dim);
        self.schedule.fill_in();
    }

    /// The loss, where none is given the head's own.
    pub fn loss(&self) -> PairLossKind {
        let own =
            if self.head.gives_logit() { PairLossKind::Bce } else { PairLossKind::Contrastive };
        self.loss.unwrap_or(own)
    }

    /// Batch normalisation of the trunk works on batch statistics.
    pub fn batch_statistics(&self) -> bool {
        self.tuning.bn == Some(BnMode::Train)
    }
}
