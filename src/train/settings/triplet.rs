//! The settings of `train-triplet`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::checks::{at_least, demand, positive, share, within};
#[cfg(feature = "cli")]
use super::flags;
use super::{BnMode, DataSettings, ScheduleSettings, TrunkSettings, TuningSettings};
use crate::metric::losses::{Hinge, LossKind, LossOption, Reduction, TRIPLET};
use crate::metric::miners::{BATCH_HARD, Miner};
use crate::metric::{DistanceKind, Named};
use crate::models::{Architecture, HeadKind};
use crate::recognise::FaceSearch;
use crate::train::optim::OptimizerKind;
use crate::weights::Source;
use crate::{Error, Result};

/// The trunk, where neither it nor its weights are given: better on people it was not trained on than
/// OpenFace, fine-tuned or not (docs/evaluation.md).
const BACKBONE: Architecture = Architecture::DlibResnet;
/// Triplets in a batch, where none are given.
const BATCH: usize = 32;
/// P and K, where none are given.
const IDENTITIES: usize = 8;
const PICTURES: usize = 4;
/// Pictures of a part that are scored after an epoch.
const VAL_LIMIT: usize = 10_000;

/// All settings of `train-triplet`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Loss"))]
#[serde(default, rename_all = "kebab-case")]
pub struct TripletSettings {
    /// What to train on.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub data: DataSettings,
    /// Architecture of the trunk [default: that of --weights, or dlib-resnet]
    #[cfg_attr(feature = "cli", arg(long, value_enum, help_heading = "Model"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<Architecture>,
    /// What the trunk starts from.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub trunk: TrunkSettings,
    /// Add a linear layer with D outputs on top of the trunk, initialised at random
    #[cfg_attr(feature = "cli", arg(long, value_name = "D", help_heading = "Model"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    /// Train a pair network on these triplets instead of mined ones: a folder of strips (anchor,
    /// positive and negative side by side), passport folders, or a list of files
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE|DIR", conflicts_with_all = ["split", "data"],
        help_heading = "Data"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triplets: Option<PathBuf>,
    /// With --triplets: head on top of the trunk [default: projection]
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, requires = "triplets", help_heading = "Model")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadKind>,
    /// With --triplets: batch size in triplets
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = BATCH, help_heading = "Sampling"))]
    pub batch_size: usize,
    /// Loss function
    #[cfg_attr(feature = "cli", arg(long, value_parser = flags::choice::<LossKind>(), default_value_t = TRIPLET))]
    pub loss: LossKind,
    /// With --loss triplet: the triplet miner
    #[cfg_attr(feature = "cli", arg(long, value_parser = flags::choice::<Miner>(), default_value_t = BATCH_HARD))]
    pub miner: Miner,
    /// How much farther a negative must be than a positive; the default depends on the loss
    #[cfg_attr(feature = "cli", arg(long, allow_negative_numbers = true, help = margin_help()))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// With --loss triplet: the distance
    #[cfg_attr(feature = "cli", arg(long, value_parser = flags::choice::<DistanceKind>(), default_value_t = DistanceKind::Squared))]
    pub distance: DistanceKind,
    /// With --loss triplet: the hinge function
    #[cfg_attr(feature = "cli", arg(long, value_parser = flags::choice::<Hinge>(), default_value_t = Hinge::Hard))]
    pub hinge: Hinge,
    /// What the loss is averaged over
    #[cfg_attr(feature = "cli", arg(long, value_parser = flags::choice::<Reduction>(), default_value_t = Reduction::Mean))]
    pub reduction: Reduction,
    /// With --loss arcface or cosface: fraction of the class centres in each softmax, the batch's
    /// own and a random sample of the others (PartialFC, An et al. 2021) [default: all]
    #[cfg_attr(feature = "cli", arg(long, value_name = "SHARE"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_sample: Option<f64>,
    /// Cross-batch memory: the last SIZE embeddings as extra positives and negatives (not with
    /// arcface and cosface; Wang et al. 2020; 0: off)
    #[cfg_attr(feature = "cli", arg(long, value_name = "SIZE", default_value_t = 0))]
    pub xbm: usize,
    /// With --xbm: number of steps before the first batch is remembered
    #[cfg_attr(feature = "cli", arg(long, value_name = "STEPS", default_value_t = 0))]
    pub xbm_start: u64,
    /// P: identities per batch (reduced if the data has fewer)
    #[cfg_attr(feature = "cli", arg(short = 'p', long, value_name = "P", default_value_t = IDENTITIES, help_heading = "Sampling"))]
    pub identities_per_batch: usize,
    /// K: pictures per identity in a batch
    #[cfg_attr(feature = "cli", arg(short = 'k', long, value_name = "K", default_value_t = PICTURES, help_heading = "Sampling"))]
    pub pictures_per_identity: usize,
    /// After each epoch, score about N pictures of each part, those of a fixed random sample of
    /// people; at the end, the best model on all (0: always all)
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = VAL_LIMIT, help_heading = "Data"))]
    pub val_limit: usize,
    /// Number of epochs
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 30, help_heading = "Schedule"))]
    pub epochs: usize,
    /// Peak learning rate [default: 6e-5, or 6e-3 with sgd]
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", help_heading = "Optimizer"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Optimizer and schedule.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub schedule: ScheduleSettings,
    /// Weight interpolation: save start + SHARE (end - start), where the end is the average with
    /// --model-ema; values below 1 generalise better to unknown people [default: 0.75, or 1 with
    /// --weights none]
    #[cfg_attr(feature = "cli", arg(long, value_name = "SHARE", help_heading = "Fine-tuning"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blend: Option<f64>,
    /// Pass a batch through the trunk in chunks of N pictures (gradient caching): less memory for
    /// one more forward pass; triplets are still mined in the whole batch (0: off)
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")
    )]
    pub micro_batch: usize,
    /// How the trunk is fine-tuned.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub tuning: TuningSettings,
    /// Run folder; if it holds a run already, a number is appended
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "DIR", default_value = "runs/triplet", help_heading = "Output")
    )]
    pub out: PathBuf,
}

/// The defaults of the flags.
impl Default for TripletSettings {
    fn default() -> Self {
        Self {
            data: DataSettings::default(),
            backbone: None,
            trunk: TrunkSettings::default(),
            embedding_dim: None,
            triplets: None,
            head: None,
            batch_size: BATCH,
            loss: TRIPLET,
            miner: BATCH_HARD,
            margin: None,
            distance: DistanceKind::Squared,
            hinge: Hinge::Hard,
            reduction: Reduction::Mean,
            class_sample: None,
            xbm: 0,
            xbm_start: 0,
            identities_per_batch: IDENTITIES,
            pictures_per_identity: PICTURES,
            val_limit: VAL_LIMIT,
            epochs: 30,
            lr: None,
            schedule: ScheduleSettings::default(),
            blend: None,
            micro_batch: 0,
            tuning: TuningSettings::default(),
            out: "runs/triplet".into(),
        }
    }
}

#[cfg(feature = "cli")]
fn margin_help() -> String {
    let margins = LossKind::default_margins();
    format!(
        "How much farther a negative must be than a positive [default: {margins}; 0.3 with --triplets]"
    )
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
            demand(ok, "--blend", blend, "a fraction above 0, at most 1")?;
        }
        if let Some(sample) = self.class_sample {
            let ok = sample > 0.0 && sample < 1.0;
            demand(ok, "--class-sample", sample, "a fraction above 0 and below 1")?;
        }
        within("--identities-per-batch", self.identities_per_batch, 2, 10_000)?;
        within("--pictures-per-identity", self.pictures_per_identity, 2, 10_000)?;
        at_least("--epochs", self.epochs, 1)?;
        at_least("--batch-size", self.batch_size, 1)?;
        self.trunk.check()?;
        self.check_unused()?;
        if self.triplets.is_some() && self.micro_batch > 0 {
            return Err(Error::Config(
                "--micro-batch: cannot be used with --triplets; lower --batch-size".into(),
            ));
        }
        if self.head.is_some_and(HeadKind::gives_logit) {
            let text = "--head: triplets compare distances; use projection, euclidean or passport";
            return Err(Error::Config(text.into()));
        }
        self.tuning.check()?;
        self.schedule.check(self.lr())
    }

    /// Refuses flags that would change nothing. One with a default is refused where it differs from
    /// it, because a `config.toml` has all of these.
    fn check_unused(&self) -> Result<()> {
        let differs = [
            ("--batch-size", self.batch_size != BATCH),
            ("--miner", self.miner != BATCH_HARD),
            ("--identities-per-batch", self.identities_per_batch != IDENTITIES),
            ("--pictures-per-identity", self.pictures_per_identity != PICTURES),
            ("--xbm", self.xbm > 0),
            ("--val-limit", self.val_limit != VAL_LIMIT),
        ];
        let (of_triplets, of_batches) = differs.split_at(1);
        let given = |flags: &[(&'static str, bool)]| flags.iter().find(|flag| flag.1).map(|f| f.0);
        if self.triplets.is_some() {
            if self.loss != TRIPLET {
                let text = "--triplets: only --loss triplet learns from triplets";
                return Err(Error::Config(text.into()));
            }
            if self.data.detect != FaceSearch::Auto {
                let text =
                    "--detect: no effect with --triplets, whose pictures are used as they are";
                return Err(Error::Config(text.into()));
            }
            if let Some(flag) = given(of_batches) {
                return Err(Error::Config(format!(
                    "{flag}: no effect with --triplets, which are not mined; --batch-size is the \
                     number of triplets in a batch"
                )));
            }
        } else if let Some(flag) = given(of_triplets) {
            return Err(Error::Config(format!(
                "{flag}: only with --triplets; without, a batch has --identities-per-batch times \
                 --pictures-per-identity pictures"
            )));
        }
        if self.xbm_start > 0 && self.xbm == 0 {
            return Err(Error::Config("--xbm-start: no effect without --xbm".into()));
        }
        for (option, is_given) in [
            (LossOption::Margin, self.margin.is_some()),
            (LossOption::Miner, self.miner != BATCH_HARD),
            (LossOption::Distance, self.distance != DistanceKind::Squared),
            (LossOption::Hinge, self.hinge != Hinge::Hard),
            (LossOption::Memory, self.xbm > 0),
            (LossOption::ClassSample, self.class_sample.is_some()),
        ] {
            if is_given && !self.loss.takes(option) {
                return Err(Error::Config(format!(
                    "--{}: no effect with --loss {}; losses that take it: {}",
                    option.name(),
                    self.loss,
                    LossKind::takers(option)
                )));
            }
        }
        Ok(())
    }

    /// Refuses what only a pass in one piece can do, once `bn` is decided.
    ///
    /// # Errors
    /// `--micro-batch` with batch statistics.
    pub fn check_pieces(&self) -> Result<()> {
        if self.micro_batch > 0 && self.tuning.bn == Some(BnMode::Train) {
            return Err(Error::Config(
                "--micro-batch requires --bn eval: the statistics of a chunk are not those of the \
                 batch"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The architecture of the trunk; where none is given, that of the weights, or else dlib-resnet.
    ///
    /// # Errors
    /// The weights cannot be found or read.
    pub fn resolve_backbone(&mut self) -> Result<Architecture> {
        let found = match (self.backbone, self.trunk.weights.as_deref()) {
            (Some(given), _) => given,
            (None, None) => BACKBONE,
            (None, weights) => {
                Source::resolve(weights, BACKBONE)?.architecture()?.unwrap_or(BACKBONE)
            }
        };
        Ok(*self.backbone.insert(found))
    }

    /// Sets what was left open to its default, so that `config.toml` repeats the run even if defaults
    /// change. `side` is the trunk's input size in pixels.
    pub fn fill_in(&mut self, weights: &Source, side: u32) {
        self.lr = Some(self.lr());
        self.margin = self.margin.or(self.loss.margin.map(|(margin, _)| margin));
        self.trunk.fill_in(weights, side);
        self.schedule.fill_in();
    }

    /// The loss in words: `triplet, margin 0.2, squared distance, batch-hard mining; batches of 8
    /// identities x 4 pictures`.
    pub fn objective(&self) -> String {
        let mut parts = vec![self.loss.to_string()];
        let margin = self.margin.or(self.loss.margin.map(|(margin, _)| margin));
        parts.extend(margin.map(|margin| format!("margin {margin}")));
        if self.loss.takes(LossOption::Distance) {
            parts.push(format!("{} distance", self.distance));
        }
        if self.loss.takes(LossOption::Miner) {
            parts.push(format!("{} mining", self.miner));
        }
        if self.xbm > 0 {
            parts.push(format!("memory of {} embeddings", self.xbm));
        }
        let (p, k) = (self.identities_per_batch, self.pictures_per_identity);
        format!("{}; batches of {p} identities x {k} pictures", parts.join(", "))
    }

    /// The learning rate, where none is given the optimiser's own.
    pub fn lr(&self) -> f64 {
        self.lr.unwrap_or(if self.schedule.optimizer == OptimizerKind::Sgd { 6e-3 } else { 6e-5 })
    }
}
