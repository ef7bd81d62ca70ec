//! What a training achieved: the scores of an epoch, and of a run.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::named::forever;

/// The validation figures of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(into = "SavedScores")]
pub struct Scores {
    /// Named figures, in the order of the table's columns.
    pub values: Vec<(&'static str, f64)>,
    /// What "better" means: compared in order, larger is better. Empty where there is nothing to
    /// measure on: then the newest model is the best.
    pub rank: Vec<f64>,
    /// What the rank is called in the epoch's line.
    pub criterion: &'static str,
    /// The figures for the progress line.
    pub headline: String,
}

impl Scores {
    /// Scores of a model whose embeddings are not finite: lower than any other.
    pub fn diverged() -> Self {
        let headline = "the embeddings are not finite".into();
        Self { rank: vec![f64::NAN], headline, ..Self::default() }
    }

    /// See [`diverged`](Self::diverged).
    pub fn has_diverged(&self) -> bool {
        self.rank.iter().any(|figure| figure.is_nan())
    }

    /// There was nothing to measure on.
    pub fn is_unmeasured(&self) -> bool {
        self.rank.is_empty()
    }

    /// Whether these are better; scores of an unmeasured model always are.
    pub fn beats(&self, other: &Self) -> bool {
        if self.is_unmeasured() {
            return true;
        }
        self.rank.partial_cmp(&other.rank) == Some(std::cmp::Ordering::Greater)
    }
}

/// [`Scores`] to the bit: JSON has no NaN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedScores {
    values: Vec<(String, u64)>,
    rank: Vec<u64>,
    criterion: String,
    headline: String,
}

impl From<Scores> for SavedScores {
    fn from(scores: Scores) -> Self {
        let values = scores.values.iter();
        Self {
            values: values.map(|(name, value)| ((*name).to_owned(), value.to_bits())).collect(),
            rank: scores.rank.iter().map(|value| value.to_bits()).collect(),
            criterion: scores.criterion.to_owned(),
            headline: scores.headline.clone(),
        }
    }
}

impl From<SavedScores> for Scores {
    fn from(saved: SavedScores) -> Self {
        let values = saved.values.iter();
        Self {
            values: values.map(|(name, bits)| (forever(name), f64::from_bits(*bits))).collect(),
            rank: saved.rank.iter().map(|bits| f64::from_bits(*bits)).collect(),
            criterion: forever(&saved.criterion),
            headline: saved.headline.clone(),
        }
    }
}

// Derived, it would demand input that lives forever, for the names.
impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        SavedScores::deserialize(input).map(Self::from)
    }
}

/// Result of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct FitResult {
    /// Scores of the initial weights (epoch 0).
    pub untouched: Scores,
    /// The best scores and their epoch; 0 when no epoch beat the start.
    pub best: Scores,
    /// The best model's scores on all pictures, where epochs are scored on a sample.
    pub best_of_all: Option<Scores>,
    /// The epoch of the best scores.
    pub best_epoch: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// The best model's file.
    pub model: PathBuf,
    /// How often an epoch went wrong and was started again at a lower rate.
    pub rollbacks: u32,
    /// Why the training stopped before its time, if it went wrong for good.
    pub stopped: Option<String>,
    /// Mean loss (none for the untouched start) and scores of each epoch, from epoch 0 on.
    pub history: Vec<(Option<f64>, Scores)>,
}
