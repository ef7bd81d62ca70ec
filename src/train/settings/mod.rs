//! The settings of a training run: one struct per command, which is its command-line flags, its
//! `config.toml` and part of its model files. Defaults and help texts live here only: `Default` gives
//! a program what the flags give a user.

mod augment;
mod checks;
mod classifier;
mod distil;
#[cfg(feature = "cli")]
mod flags;
mod lr_find;
mod pairs;
mod triplet;
mod trunk;
mod tuning;

use std::path::PathBuf;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::interrupt::Interrupt;
use super::interval::Interval;
use super::optim::{OptimizerConfig, OptimizerKind};
use super::plan::FitConfig;
use super::schedule::ScheduleKind;
use crate::data::store::Fitting;
use crate::recognise::FaceSearch;
use crate::{Error, Result};

pub use augment::AugmentSettings;
pub use checks::percentage;
pub use classifier::ClassifierSettings;
pub use distil::DistilSettings;
#[cfg(feature = "cli")]
pub(crate) use flags::{input_size, percent};
pub use lr_find::LrFindSettings;
pub use pairs::{PairLossKind, PairSettings};
pub use triplet::TripletSettings;
pub use trunk::TrunkSettings;
pub use tuning::TuningSettings;

use checks::{not_negative, positive, share};

/// What to train on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Data"))]
#[serde(default, rename_all = "kebab-case")]
pub struct DataSettings {
    /// Folder with one sub-folder of pictures per identity, a CelebA folder, an MXNet record file (X.rec),
    /// WebDataset shards ('X-{000..003}.tar') or a table of path and label (X.csv) [default:
    /// data/avengers, else data/orl]
    #[cfg_attr(feature = "cli", arg(long, value_name = "DIR"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Use this split (CSV with columns path, identity, part) instead of a random one
    #[cfg_attr(feature = "cli", arg(long, value_name = "FILE"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<PathBuf>,
    /// Fraction of each identity's pictures used for validation; near-duplicates stay together
    #[cfg_attr(feature = "cli", arg(long, value_name = "SHARE", default_value_t = 0.25))]
    pub val_fraction: f64,
    /// Fail on unreadable pictures instead of skipping them
    #[cfg_attr(feature = "cli", arg(long))]
    pub strict: bool,
    /// When to run the face detector: auto crops the main face from each picture if the set shows whole
    /// photos, and uses pictures as they are if it shows face crops or no faces; photos without a face
    /// are left out
    #[cfg_attr(
        feature = "cli",
        arg(long, value_enum, value_name = "auto|always|never", default_value = "auto")
    )]
    pub detect: FaceSearch,
    /// Memory limit for decoded pictures in MB; pictures beyond it are decoded again in each epoch
    #[cfg_attr(feature = "cli", arg(long, value_name = "MB", default_value_t = Fitting::MEMORY_MB))]
    pub picture_memory: u64,
    /// Random seed for the split, the batches, the augmentation and random weights
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 0, value_parser = flags::seed()))]
    pub seed: u64,
}

/// The defaults of the flags.
impl Default for DataSettings {
    fn default() -> Self {
        Self {
            data: None,
            split: None,
            val_fraction: 0.25,
            strict: false,
            detect: FaceSearch::Auto,
            picture_memory: Fitting::MEMORY_MB,
            seed: 0,
        }
    }
}

impl DataSettings {
    /// How pictures are resized to `side` pixels and kept in memory.
    pub fn fitting(&self, side: u32) -> Fitting {
        Fitting { side, memory: self.picture_memory.saturating_mul(1 << 20) }
    }
}

/// Optimizer and learning-rate schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args), command(next_help_heading = "Schedule"))]
#[serde(default, rename_all = "kebab-case")]
pub struct ScheduleSettings {
    /// Optimizer
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = OptimizerKind::Adam, help_heading = "Optimizer"))]
    pub optimizer: OptimizerKind,
    /// Weight decay [default: 0, or 0.01 with adamw, as in PyTorch]
    #[cfg_attr(feature = "cli", arg(long, value_name = "RATE", help_heading = "Optimizer"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Learning-rate schedule; cyclical schedules cycle beta1 (Adam) or the momentum inversely
    #[cfg_attr(feature = "cli", arg(long, value_enum, default_value_t = ScheduleKind::WarmupCosine))]
    pub schedule: ScheduleKind,
    /// Fraction of all steps for linear warm-up (warmup-cosine, constant, plateau)
    #[cfg_attr(feature = "cli", arg(long, value_name = "SHARE", default_value_t = 0.1))]
    pub warmup: f64,
    /// Length of a cycle in epochs (triangular, triangular2, exp-range)
    #[cfg_attr(feature = "cli", arg(long, value_name = "EPOCHS", default_value_t = 4.0))]
    pub cycle: f64,
    /// Clip the gradient norm over all parameters to this value
    #[cfg_attr(feature = "cli", arg(long, value_name = "NORM", help_heading = "Optimizer"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
    /// Early stopping: stop after this many epochs without improvement (0: never)
    #[cfg_attr(feature = "cli", arg(long, value_name = "EPOCHS", default_value_t = 0))]
    pub patience: usize,
    /// Metric that decides which epoch is best, for the saved model, --patience and --schedule
    /// plateau: a validation column of metrics.csv, or loss [default: the mean of knn, knn_gallery
    /// and verification; auc for pairs; accuracy for a classifier]
    #[cfg_attr(feature = "cli", arg(long, value_name = "METRIC"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
    /// Write a checkpoint for --resume every so many steps (200) or at this interval (30s, 5m);
    /// also at the end of each epoch, unless that would slow training down
    #[cfg_attr(
        feature = "cli",
        arg(long, value_name = "STEPS|TIME", default_value_t, help_heading = "Output")
    )]
    pub checkpoint_every: Interval,
    /// Maximum number of pictures that may become unreadable in training; the epoch restarts
    /// without them
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", default_value_t = MAX_BAD))]
    pub max_bad: usize,
    /// Stop (exit code 3) at the first non-finite loss or embedding, explosion or collapse, instead
    /// of restarting the epoch up to three times, each at a tenth of the learning rate
    #[cfg_attr(feature = "cli", arg(long))]
    pub strict_numerics: bool,
    /// Log loss, learning rate and gradient norm of every N-th step to TensorBoard (0: only epochs)
    #[cfg_attr(feature = "cli", arg(long, value_name = "STEPS", default_value_t = LOG_INTERVAL, help_heading = "Output"))]
    pub log_interval: u64,
}

/// Pictures a training goes on without.
const MAX_BAD: usize = 10;

/// Steps between two points of the curves by step.
const LOG_INTERVAL: u64 = 50;

/// Mode of batch normalisation during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum BnMode {
    /// Use batch statistics and update the running ones
    Train,
    /// Use the running statistics and keep them as they are
    Eval,
}

/// The defaults of the flags.
impl Default for ScheduleSettings {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::default(),
            weight_decay: None,
            schedule: ScheduleKind::default(),
            warmup: 0.1,
            cycle: 4.0,
            clip_grad_norm: None,
            patience: 0,
            monitor: None,
            checkpoint_every: Interval::default(),
            max_bad: MAX_BAD,
            strict_numerics: false,
            log_interval: LOG_INTERVAL,
        }
    }
}

/// The schedules of `--cycle` and of `--warmup`.
const CYCLIC: &str = "triangular, triangular2, exp-range";
const WARMED_UP: &str = "warmup-cosine, constant, plateau";

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
            checkpoint_every: self.checkpoint_every,
            max_bad: self.max_bad,
            strict_numerics: self.strict_numerics,
            interrupt: Interrupt::default(),
            world: Rc::default(),
            report_every: 1,
        }
    }

    /// Sets what was left open to its default.
    pub fn fill_in(&mut self) {
        self.weight_decay = Some(self.optimizer(1.0).weight_decay);
    }

    fn check(&self, lr: f64) -> Result<()> {
        positive("--lr", lr)?;
        not_negative("--weight-decay", self.weight_decay.unwrap_or(0.0))?;
        positive("--clip-grad-norm", self.clip_grad_norm.unwrap_or(1.0))?;
        positive("--cycle", self.cycle)?;
        share("--warmup", self.warmup)?;
        // One with a default is refused where it differs from it: a config.toml has them all.
        let (schedule, usual) = (self.schedule, Self::default());
        let unused = [
            ("--cycle", self.cycle != usual.cycle && !schedule.has_cycle(), CYCLIC),
            ("--warmup", self.warmup != usual.warmup && !schedule.has_warmup(), WARMED_UP),
        ];
        match unused.into_iter().find(|(_, is_unused, _)| *is_unused) {
            Some((flag, _, schedules)) => Err(Error::Config(format!(
                "{flag}: no effect with this --schedule; schedules that use it: {schedules}"
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "cli")]
mod tests {
    use clap::{Args, Command};

    use super::*;
    use crate::models::Architecture;

    /// What clap makes of no flags at all.
    fn no_flags<S: Args>() -> S {
        let matches = S::augment_args(Command::new("settings")).get_matches_from(["settings"]);
        S::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn counts_that_no_memory_holds_are_refused() {
        let error = |triplet: TripletSettings| triplet.check().unwrap_err().to_string();
        let settings = TripletSettings { pictures_per_identity: usize::MAX, ..Default::default() };
        assert!(error(settings).ends_with("expected at most 10000"));
        let pairs = PairSettings { pairs: Some(usize::MAX), ..Default::default() };
        assert!(pairs.check().unwrap_err().to_string().contains("--pairs 1844674407370955161"));
        let pairs = PairSettings { hard_negatives: usize::MAX, ..Default::default() };
        assert!(pairs.check().unwrap_err().to_string().contains("at most 1000"));
    }

    #[test]
    fn programs_and_command_lines_have_the_same_defaults() {
        assert_eq!(no_flags::<TripletSettings>(), TripletSettings::default());
        assert_eq!(no_flags::<PairSettings>(), PairSettings::default());
        assert_eq!(no_flags::<ClassifierSettings>(), ClassifierSettings::default());
        assert_eq!(no_flags::<DistilSettings>(), DistilSettings::default());
        assert_eq!(no_flags::<LrFindSettings>(), LrFindSettings::default());
    }

    #[test]
    fn what_a_file_leaves_out_has_its_default() {
        let text = "epochs = 3\nloss = \"arcface\"\nwarmup = 0.2\nbn = \"train\"\n";
        let mut wanted = TripletSettings { epochs: 3, ..TripletSettings::default() };
        wanted.loss = crate::metric::losses::ARCFACE;
        wanted.schedule.warmup = 0.2;
        wanted.tuning.bn = Some(BnMode::Train);
        assert_eq!(toml::from_str::<TripletSettings>(text).unwrap(), wanted);
    }

    #[test]
    fn the_backbone_is_that_of_the_weights() {
        let of = |weights: Option<&str>| {
            let weights = weights.map(str::to_owned);
            let trunk = TrunkSettings { weights, ..TrunkSettings::default() };
            TripletSettings { trunk, ..TripletSettings::default() }.resolve_backbone()
        };
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/pretrained/openface-nn4-distilled.safetensors");
        assert_eq!(of(None).unwrap(), Architecture::DlibResnet);
        assert_eq!(of(Some("none")).unwrap(), Architecture::DlibResnet);
        assert_eq!(of(Some("openface-nn4-distilled")).unwrap(), Architecture::OpenFace);
        assert_eq!(of(Some(file)).unwrap(), Architecture::OpenFace);
        assert!(of(Some("nowhere.pth")).unwrap_err().to_string().contains("nowhere.pth"));
    }
}
