//! A kind of training, as the training loop sees it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tch::Tensor;

use super::fit_result::Scores;
use super::log::RunLog;
use super::step::Forward;
use super::weight_interpolation::WeightInterpolation;
use crate::{Error, Result};

/// A kind of training: what a batch, a loss and a score are.
pub trait Task {
    /// Prepares an epoch and gives its batches, as lists of picture indices; a function of the seed, the
    /// epoch and the model.
    ///
    /// # Errors
    /// The data cannot fill a batch.
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>>;

    /// The batches that are asked for next, in this order; may be decoded ahead.
    fn prefetch(&mut self, batches: &[Vec<usize>]) {
        let _ = batches;
    }

    /// Every tensor that training changes besides the optimiser's, by name and not copied: a checkpoint
    /// holds them, and a resumed training fills them.
    fn tensors(&self) -> Vec<(String, Tensor)>;

    /// The pictures that training still needs and that can no longer be read, with the reason.
    fn unreadable(&self) -> Vec<(usize, Error)> {
        Vec::new()
    }

    /// Goes on without these pictures, in training and in validation; called with all of them whenever
    /// there are more.
    ///
    /// # Errors
    /// What is left is not enough.
    fn exclude(&mut self, pictures: &BTreeSet<usize>) -> Result<()> {
        let _ = pictures;
        Ok(())
    }

    /// Takes the notes for the user that were collected since the last call.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Time spent waiting for data since the last call; `None` if the task never waits.
    fn take_wait(&mut self) -> Option<Duration> {
        None
    }

    /// Forward pass and loss of one batch.
    ///
    /// # Errors
    /// An error from libtorch.
    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>>;

    /// Names of the parameters whose gradient is whole in each of the processes that train together, because
    /// they come after the embeddings are gathered.
    fn whole(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Called after each optimiser step.
    fn stepped(&mut self) {}

    /// Scores the model as it is; epoch 0 is the untouched start. Pictures of the state (strips,
    /// histograms) go to the log.
    ///
    /// # Errors
    /// An error from libtorch.
    fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores>;

    /// Scores the best model, that of `epoch`, on all pictures, where [`validate`](Self::validate) scores a
    /// sample of them, and writes the figures into its file; `last` is the last epoch trained.
    ///
    /// # Errors
    /// The file, or a picture, cannot be read or written.
    fn score_all(&mut self, best: &Path, epoch: usize, last: usize) -> Result<Option<Scores>> {
        let _ = (best, epoch, last);
        Ok(None)
    }

    /// Shows the model that was scored last, the best so far, where the log shows a model.
    fn show_best(&mut self, log: &mut RunLog) {
        let _ = log;
    }

    /// The average of the weights that is scored in place of the trained ones, where there is one.
    fn average(&self) -> Option<&WeightInterpolation> {
        None
    }

    /// Writes the weights that the network holds now, with these figures.
    ///
    /// # Errors
    /// The file cannot be written.
    fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()>;

    /// Writes the model that was scored.
    ///
    /// # Errors
    /// The file cannot be written.
    fn save(&self, path: &Path, epoch: usize, scores: &Scores) -> Result<()> {
        let write = || self.write(path, epoch, &scores.values);
        self.average().map_or_else(write, |average| average.with(write))
    }

    /// Writes the trained weights; without figures where an average was scored.
    ///
    /// # Errors
    /// The file cannot be written.
    fn save_trained(&self, path: &Path, epoch: usize, scores: &Scores) -> Result<()> {
        let is_scored = self.average().is_none_or(WeightInterpolation::keeps_trained);
        self.write(path, epoch, if is_scored { &scores.values } else { &[] })
    }
}
