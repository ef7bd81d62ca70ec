//! The settings of `distil`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checks::{at_least, not_negative, positive, share};
#[cfg(feature = "cli")]
use super::flags;
use super::{AugmentSettings, BnMode, ScheduleSettings, TrunkSettings, TuningSettings};
use crate::device::Precision;
use crate::models::Architecture;
use crate::recognise::FaceSearch;
use crate::train::optim::OptimizerKind;
use crate::weights::Source;
use crate::{Error, Result};

/// Decay of the moving average of the weights.
const EMA: f64 = 0.999;

/// All settings of `distil`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(
    next_help_heading = "Loss",
    mut_arg("optimizer", |optimizer| optimizer.default_value("adamw")),
    mut_arg("monitor", |monitor| monitor.help(
        "Metric that decides which epoch is best, for the saved model, --patience and \
         --schedule plateau: a validation column of metrics.csv, or loss [default: auc, or \
         agreement without --pairs]")),
))]
#[serde(default, rename_all = "kebab-case")]
pub struct DistilSettings {
    /// The trunk to learn from: an architecture with its pretrained weights, a model file or a run
    /// folder
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_name = "NAME|FILE|RUN",
            default_value = "dlib-resnet",
            help_heading = "Model"
        )
    )]
    pub teacher: String,
    /// Architecture of the student
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = Architecture::OpenFace, help_heading = "Model"))]
    pub backbone: Architecture,
    /// What the trunk starts from.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub trunk: TrunkSettings,
    /// Add a linear layer with D outputs on top of the student, initialised at random
    #[cfg_attr(feature = "cli", arg(long, value_name = "D", help_heading = "Model"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    /// Folders of pictures, record files (X.rec), WebDataset shards or tables (X.csv); labels are not used
    #[cfg_attr(feature = "cli", arg(long, value_name = "DIR", num_args = 1.., help_heading = "Data"))]
    pub data: Vec<PathBuf>,
    /// When to run the face detector: auto crops the main face from each photo and uses a picture as
    /// it is if a face fills it or none is found
    #[cfg_attr(
        feature = "cli",
        arg(
            long,
            value_enum,
            value_name = "auto|always|never",
            default_value = "auto",
            help_heading = "Data"
        )
    )]
    pub detect: FaceSearch,
    /// Validate on these pairs (LFW's format or a table); their people and pictures are left out of
    /// training
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "FILE", requires = "pairs_data", help_heading = "Data")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PathBuf>,
    /// Folder that the paths in --pairs are relative to
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DIR", requires = "pairs", help_heading = "Data")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs_data: Option<PathBuf>,
    /// Fraction of the pictures that is kept out of training, to compare student and teacher on
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "SHARE", default_value_t = 0.05, help_heading = "Data")
    )]
    pub val_fraction: f64,
    /// Random seed for the held-out pictures, the batches, the augmentation and random weights
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 0, value_parser = flags::seed(), help_heading = "Data"))]
    pub seed: u64,
    /// Weight of the cosine term: 1 - cosine of the student's and the teacher's embedding
    #[cfg_attr(feature = "cli", arg(long, value_name = "WEIGHT", default_value_t = 1.0))]
    pub cosine: f64,
    /// Weight of the relational term: mean squared difference of the similarities of all pairs of the
    /// batch
    #[cfg_attr(feature = "cli", arg(long, value_name = "WEIGHT", default_value_t = 2.0))]
    pub relational: f64,
    /// Weight of the hard-pair term: as the relational one, over the two pairs of each picture whose
    /// similarity the student overrates and underrates most
    #[cfg_attr(feature = "cli", arg(long, value_name = "WEIGHT", default_value_t = 0.5))]
    pub hard_pairs: f64,
    /// Batch size
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", default_value_t = 128, help_heading = "Sampling")
    )]
    pub batch_size: usize,
    /// Number of epochs
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 100, help_heading = "Schedule"))]
    pub epochs: usize,
    /// Peak learning rate
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "RATE", default_value_t = 1e-3, help_heading = "Optimizer")
    )]
    pub lr: f64,
    /// Optimizer and schedule.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Validate and save an exponential moving average of the weights with this decay (0: off; less in
    /// the first steps: (1 + step) / (10 + step))
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DECAY", default_value_t = EMA, help_heading = "Fine-tuning")
    )]
    pub model_ema: f64,
    /// Mode of the student's batch normalisation
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, default_value = "train", help_heading = "Fine-tuning")
    )]
    pub bn: BnMode,
    /// Precision of the student's forward and backward pass (autocast); weights, gradients, losses
    /// and evaluation stay float32
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = Precision::Auto, help_heading = "Fine-tuning"))]
    pub precision: Precision,
    /// The views of the pictures, the same ones for teacher and student.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub augmentation: AugmentSettings,
    /// Run folder; if it holds a run already, a number is appended
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DIR", default_value = "runs/distil", help_heading = "Output")
    )]
    pub out: PathBuf,
}

/// The defaults of the flags.
impl Default for DistilSettings {
    fn default() -> Self {
        let optimizer = OptimizerKind::AdamW;
        Self {
            teacher: Architecture::DlibResnet.name().into(),
            backbone: Architecture::OpenFace,
            trunk: TrunkSettings::default(),
            embedding_dim: None,
            data: Vec::new(),
            detect: FaceSearch::Auto,
            pairs: None,
            pairs_data: None,
            val_fraction: 0.05,
            seed: 0,
            cosine: 1.0,
            relational: 2.0,
            hard_pairs: 0.5,
            batch_size: 128,
            epochs: 100,
            lr: 1e-3,
            schedule: ScheduleSettings { optimizer, ..ScheduleSettings::default() },
            model_ema: EMA,
            bn: BnMode::Train,
            precision: Precision::Auto,
            augmentation: AugmentSettings::default(),
            out: "runs/distil".into(),
        }
    }
}

impl DistilSettings {
    /// Checks every number before any work starts.
    ///
    /// # Errors
    /// Names the flag, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        if self.data.is_empty() {
            return Err(Error::Config("--data: name at least one folder of pictures".into()));
        }
        share("--val-fraction", self.val_fraction)?;
        let weights = [
            ("--cosine", self.cosine),
            ("--relational", self.relational),
            ("--hard-pairs", self.hard_pairs),
        ];
        for (flag, weight) in weights {
            not_negative(flag, weight)?;
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            let text = "--cosine, --relational, --hard-pairs: all are 0; nothing would be learnt";
            return Err(Error::Config(text.into()));
        }
        at_least("--batch-size", self.batch_size, 2)?;
        at_least("--epochs", self.epochs, 1)?;
        positive("--lr", self.lr)?;
        share("--model-ema", self.model_ema)?;
        self.trunk.check()?;
        self.schedule.check(self.lr)
    }

    /// The fine-tuning of the student.
    pub fn tuning(&self) -> TuningSettings {
        TuningSettings {
            model_ema: (self.model_ema > 0.0).then_some(self.model_ema),
            bn: Some(self.bn),
            precision: self.precision,
            augmentation: self.augmentation,
            ..TuningSettings::default()
        }
    }

    /// Sets what was left open to what was taken.
    pub fn fill_in(&mut self, weights: &Source, side: u32) {
        self.trunk.fill_in(weights, side);
        self.schedule.fill_in();
    }
}
