//! What a training achieved: the scores of an epoch, and of a run.

use std::path::PathBuf;

/// The validation figures of one epoch.
#[derive(Debug, Clone, Default, PartialEq)]
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

/// Result of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct FitResult {
    /// Scores of the initial weights (epoch 0).
    pub untouched: Scores,
    /// The best scores and their epoch; 0 when no epoch beat the start.
    pub best: Scores,
    /// The epoch of the best scores.
    pub best_epoch: usize,
    /// Epochs trained.
    pub epochs: usize,
    /// The best model's file.
    pub model: PathBuf,
    /// Mean loss (none for the untouched start) and scores of each epoch, from epoch 0 on.
    pub history: Vec<(Option<f64>, Scores)>,
}
