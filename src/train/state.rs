//! Where a training stands between two steps, and on what it runs.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tch::Device;

use super::fit_result::Scores;
use super::schedule::Plateau;
use super::watch::{self, Watch};
use crate::{device, native};

/// Where a training stands between two steps. The generators need no state: every draw is a function
/// of the seed, the epoch and the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The epoch in training, from 1; the number of epochs and one where all are done.
    pub epoch: usize,
    /// Steps done in it.
    pub index: usize,
    /// Its batches, as indices of pictures; empty before its first step.
    pub batches: Vec<Vec<usize>>,
    /// Steps done in all epochs.
    pub done: u64,
    /// Steps of the first epoch, which the schedule counts with.
    pub steps_per_epoch: usize,
    /// The base learning rate, before any rollback.
    pub lr: f64,
    /// The plateau schedule, if there is one.
    pub plateau: Option<Plateau>,
    /// Mean loss and scores of the epochs so far, the untouched start first.
    pub history: Vec<(Option<f64>, Scores)>,
    /// The epoch of the best model.
    pub best_epoch: usize,
    /// The checksum of its tensors; none in checkpoints of older versions.
    #[serde(default)]
    pub best_checksum: Option<u32>,
    /// What later steps are compared with.
    pub watch: Watch,
    /// How often an epoch was started again because it went wrong.
    pub rollbacks: u32,
    /// Pictures that can no longer be read, by number.
    pub excluded: BTreeSet<usize>,
}

impl State {
    /// Before the first step, from the scores of the start.
    pub fn new(lr: f64, plateau: Option<Plateau>, untouched: Scores) -> Self {
        Self {
            epoch: 1,
            index: 0,
            batches: Vec::new(),
            done: 0,
            steps_per_epoch: 0,
            lr,
            plateau,
            history: vec![(None, untouched)],
            best_epoch: 0,
            best_checksum: None,
            watch: Watch::default(),
            rollbacks: 0,
            excluded: BTreeSet::new(),
        }
    }

    /// The learning rate of the schedule's peak, after the rollbacks.
    pub fn rate(&self) -> f64 {
        self.lr / watch::BACKOFF.powi(self.rollbacks as i32)
    }

    /// The scores of the untouched start.
    pub fn untouched(&self) -> Scores {
        self.scores_of(0)
    }

    /// The best scores so far.
    pub fn best(&self) -> Scores {
        self.scores_of(self.best_epoch)
    }

    fn scores_of(&self, epoch: usize) -> Scores {
        self.history.get(epoch).map(|(_, scores)| scores.clone()).unwrap_or_default()
    }
}

/// What a learning-rate range test has measured between two steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RangeState {
    /// Learning rate and loss of each step that was made.
    pub losses: Vec<(f64, f64)>,
    /// The running mean of the losses, before its correction.
    pub mean: f64,
    /// The lowest corrected mean.
    pub lowest: Option<f64>,
    /// Fingerprint of the data set.
    pub data: String,
}

/// What decides, besides seed and data, which bits a training computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    visage: String,
    libtorch: String,
    device: String,
    processor: String,
    threads: i32,
    processes: usize,
}

impl Environment {
    /// Of this process, training on `device`, one of `processes`.
    pub fn here(device: Device, processes: usize) -> Self {
        Self {
            visage: env!("CARGO_PKG_VERSION").into(),
            libtorch: native::version::runs_on_text(),
            device: device::name(device),
            processor: native::cpu_capability().unwrap_or_default(),
            threads: tch::get_num_threads(),
            processes,
        }
    }

    /// What is not as it was, in words.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let pairs = [
            ("visage", &self.visage, &now.visage),
            ("libtorch", &self.libtorch, &now.libtorch),
            ("--device", &self.device, &now.device),
            ("the processor's instructions", &self.processor, &now.processor),
            ("--threads", &self.threads.to_string(), &now.threads.to_string()),
            ("--processes", &self.processes.to_string(), &now.processes.to_string()),
        ];
        let changed = pairs.into_iter().filter(|(_, before, now)| before != now);
        changed.map(|(what, before, now)| format!("{what}: {before}, now {now}")).collect()
    }
}
