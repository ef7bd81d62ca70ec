//! The settings of `train-pairs`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{
    BnMode, DataSettings, ScheduleSettings, TuningSettings, at_least, not_negative, positive, share,
};
use crate::models::{Architecture, HeadKind};
use crate::{Error, Result};

/// The margin of the contrastive loss, where none is given.
const MARGIN: f64 = 1.0;

/// A loss on pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairLossKind {
    /// Same pairs are pulled together, different ones pushed beyond the margin (Hadsell et al. 2006)
    Contrastive,
    /// Binary cross-entropy of the head's logit: 1 is the same person
    Bce,
}

/// Everything `train-pairs` can be told.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PairSettings {
    /// What to train on: a folder of identities, or one with img_align_celeba and
    /// identity_CelebA.txt. Nobody is in training and in validation.
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Architecture of the trunk that both pictures go through
    #[arg(long, value_enum, default_value_t = Architecture::DenseNet121)]
    pub backbone: Architecture,
    /// Weights of the trunk to start from: a known name, a file, or `none` for random ones
    /// [default: the backbone's own]
    #[arg(long, value_name = "NAME|FILE|none")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Trunk parameters below these key prefixes may be missing from the --weights file, or have
    /// another shape there; they start at random
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',')]
    #[serde(default)]
    pub allow_missing: Vec<String>,
    /// What compares the two pictures on top of the trunk
    #[arg(long, value_enum, default_value_t = HeadKind::Projection)]
    pub head: HeadKind,
    /// Length of the vectors that are compared [default: the head's own]
    #[arg(long, value_name = "D")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    /// Side of the input pictures in pixels [default: the backbone's own]
    #[arg(long, value_name = "PIXELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// What is learnt from a pair [default: contrastive for heads with a distance, bce for heads
    /// with a logit]
    #[arg(long, value_enum)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<PairLossKind>,
    /// Distance to which the contrastive loss pushes different people apart
    #[arg(long, default_value_t = MARGIN, allow_negative_numbers = true)]
    pub margin: f64,
    /// Pairs in an epoch, half of them of one person [default: one a picture]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<usize>,
    /// Different pairs are the nearest of the drawn one and so many others (0: as drawn)
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[serde(default)]
    pub hard_negatives: usize,
    /// Pairs in a batch
    #[arg(long, default_value_t = 32)]
    pub batch_size: usize,
    /// Passes over the pairs of an epoch
    #[arg(long, default_value_t = 10)]
    pub epochs: usize,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-4)]
    pub lr: f64,
    /// How to get from step to step.
    #[command(flatten)]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// How the trunk is fine-tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub tuning: TuningSettings,
    /// Run folder; an older run there is kept under another name
    #[arg(long, value_name = "DIR", default_value = "runs/pairs")]
    pub out: PathBuf,
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
        at_least("--batch-size", self.batch_size, 1)?;
        at_least("--epochs", self.epochs, 1)?;
        self.tuning.check()?;
        if (self.loss() == PairLossKind::Bce) != self.head.gives_logit() {
            return Err(Error::Config(format!(
                "--loss {}: --head {} answers with a {}; leave --loss out",
                self.loss()
                    .to_possible_value()
                    .map(|v| v.get_name().to_owned())
                    .unwrap_or_default(),
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
