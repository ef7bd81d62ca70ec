//! The settings of `train-triplet`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{
    BnMode, DataSettings, ScheduleSettings, TuningSettings, at_least, demand, positive, share,
};
use crate::metric::Measure;
use crate::metric::losses::{Hinge, Reduction};
use crate::metric::miners::Miner;
use crate::models::Architecture;
use crate::train::objective::LossKind;
use crate::train::optim::OptimizerKind;
use crate::{Error, Result};

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
    /// What is learnt from a batch
    #[arg(long, value_enum, default_value_t = LossKind::Triplet)]
    #[serde(default)]
    pub loss: LossKind,
    /// Which triplets of a batch to learn from
    #[arg(long, value_enum, default_value_t = Miner::BatchHard)]
    pub miner: Miner,
    /// How much farther a negative shall be than a positive [default: 0.2; 0.5 radians with arcface,
    /// a cosine of 0.35 with cosface]
    #[arg(long, allow_negative_numbers = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Which distance triplets compare
    #[arg(long, value_enum, default_value_t = Measure::Squared)]
    #[serde(default)]
    pub distance: Measure,
    /// What becomes of a triplet beyond the margin
    #[arg(long, value_enum, default_value_t = Hinge::Hard)]
    #[serde(default)]
    pub hinge: Hinge,
    /// What the loss is averaged over
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
    /// Pass a batch through the trunk in pieces of so many pictures: less memory for one more
    /// forward pass; triplets are mined in the whole batch all the same (0: in one piece)
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[serde(default)]
    pub micro_batch: usize,
    /// How the trunk is fine-tuned.
    #[command(flatten)]
    #[serde(flatten)]
    pub tuning: TuningSettings,
    /// Run folder; an older run there is kept under another name
    #[arg(long, value_name = "DIR", default_value = "runs/triplet")]
    pub out: PathBuf,
}

impl TripletSettings {
    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        share("--val-fraction", self.data.val_fraction)?;
        positive("--margin", self.margin.unwrap_or(1.0))?;
        if let Some(blend) = self.blend {
            let ok = blend > 0.0 && blend <= 1.0;
            demand(ok, "--blend", blend, "a share above 0, at most 1")?;
        }
        at_least("--identities-per-batch", self.identities_per_batch, 2)?;
        at_least("--pictures-per-identity", self.pictures_per_identity, 2)?;
        at_least("--epochs", self.epochs, 1)?;
        self.tuning.check()?;
        self.schedule.check(self.lr())
    }

    /// Refuses what only a pass in one piece can do, once `bn` is decided.
    ///
    /// # Errors
    /// `--micro-batch` with batch statistics.
    pub fn check_pieces(&self) -> Result<()> {
        if self.micro_batch > 0 && self.tuning.bn == Some(BnMode::Train) {
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
}
