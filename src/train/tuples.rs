//! Training of a [`PairNet`] on pairs of pictures, or on given triplets.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use tch::{Kind, Tensor};

use super::fit_result::Scores;
use super::frozen_prefix::FrozenPrefix;
use super::log::RunLog;
use super::named::prefixed;
use super::scoring::{log_distances, same_curve};
use super::step::Forward;
use super::task::Task;
use super::triplet::mix;
use super::weight_interpolation::WeightInterpolation;
use crate::data::pairs::PairSampler;
use crate::eval::Embeddings;
use crate::eval::folds::{f1_at, stratified_folds};
use crate::eval::roc::roc_auc;
use crate::eval::verification::{Pairs, accuracy_at, best_threshold};
use crate::metric::PairLabels;
use crate::metric::losses::{ContrastiveLoss, PairBceLoss, TripletMarginLoss};
use crate::models::{Mode, PairNet};
use crate::native::cuda;
use crate::recognise::embedder::{BATCH, embed_values};
use crate::recognise::{Comparison, ModelCard, PairCard, pair_model};
use crate::{Error, Result};

/// A validation pair, and whether it shows the same person.
pub type EvalPair = (usize, usize, bool);

/// Source of the batches and their loss.
#[derive(Debug)]
pub enum TupleSource {
    /// Pairs sampled from the training pictures in each epoch.
    Pairs {
        /// The sampler.
        sampler: PairSampler,
        /// Hard negatives: number of further candidates per different pair.
        hard: usize,
        /// The loss.
        loss: PairLoss,
    },
    /// Given triplets, shuffled in each epoch.
    Triplets {
        /// Anchor, positive, negative: picture numbers.
        triplets: Vec<[usize; 3]>,
        /// The loss.
        loss: TripletMarginLoss,
        /// Seed of the shuffle.
        seed: u64,
    },
}

/// A loss on pairs.
#[derive(Debug, Clone, Copy)]
pub enum PairLoss {
    /// On the distance of the two vectors.
    Contrastive(ContrastiveLoss),
    /// On the head's logit.
    Bce(PairBceLoss),
}

/// The training of a pair network.
#[derive(Debug)]
pub struct TupleTask<'a> {
    net: &'a PairNet,
    prefix: FrozenPrefix<'a>,
    tuple_source: TupleSource,
    labels: &'a [usize],
    eval_pairs: Vec<EvalPair>,
    card: &'a ModelCard,
    mode: Mode,
    batch: usize,
    seed: u64,
    kept: WeightInterpolation,
    /// Result of the last validation.
    pair: PairCard,
    notes: Vec<String>,
}

/// The settings of a [`TupleTask`] that are plain values.
#[derive(Debug)]
pub struct TupleConfig<'a> {
    /// The label of each picture; used for pairs only.
    pub labels: &'a [usize],
    /// The validation pairs.
    pub eval_pairs: Vec<EvalPair>,
    /// What model files say about the run.
    pub card: &'a ModelCard,
    /// The trunk's batch normalisation uses the statistics of the batch.
    pub batch_statistics: bool,
    /// Number of pairs or triplets per batch.
    pub batch: usize,
    /// The seed of the run.
    pub seed: u64,
    /// The decay of the weights' moving average, which is then scored and saved.
    pub model_ema: Option<f64>,
}

impl<'a> TupleTask<'a> {
    /// Prepares the task.
    pub fn new(
        net: &'a PairNet,
        prefix: FrozenPrefix<'a>,
        tuple_source: TupleSource,
        config: TupleConfig<'a>,
    ) -> Self {
        let TupleConfig { labels, eval_pairs, card, batch_statistics, batch, seed, model_ema } =
            config;
        let pair = PairCard { head: net.kind(), threshold: None, probability: None };
        let mode = Mode { dropout: true, batch_statistics };
        let params = net.backbone.params.iter().chain(net.params.iter());
        let kept = WeightInterpolation::new(params, 1.0, model_ema);
        Self {
            net,
            prefix,
            tuple_source,
            labels,
            eval_pairs,
            card,
            mode,
            batch,
            seed,
            kept,
            pair,
            notes: Vec::new(),
        }
    }

    /// The pairs of an epoch with hard negatives: nearest in the current embeddings.
    fn hard_pairs(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        let TupleSource::Pairs { sampler, hard, .. } = &self.tuple_source else {
            return Ok(Vec::new());
        };
        let pictures = sampler.pictures();
        let vectors = vectors(self.net, &mut self.prefix, &pictures)?;
        let row = |picture| {
            let row = pictures.partition_point(|&other| other < picture);
            vectors.as_ref().map_or(&[][..], |vectors| vectors.row(row))
        };
        let apart = |a: usize, b: usize| {
            row(a).iter().zip(row(b)).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
        };
        let pairs = sampler.epoch_hard(epoch, *hard, apart);
        Ok(pairs.iter().map(|pair| vec![pair.a, pair.b]).collect())
    }
}

impl Task for TupleTask<'_> {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        self.notes.extend(self.prefix.begin(epoch)?);
        let tuples: Vec<Vec<usize>> = match &self.tuple_source {
            TupleSource::Pairs { hard: 1.., .. } => self.hard_pairs(epoch)?,
            TupleSource::Pairs { sampler, .. } => {
                sampler.epoch(epoch).iter().map(|pair| vec![pair.a, pair.b]).collect()
            }
            TupleSource::Triplets { triplets, seed, .. } => {
                let mut order = triplets.clone();
                order.shuffle(&mut StdRng::seed_from_u64(mix(*seed, epoch as u64, 0)));
                order.iter().map(|triplet| triplet.to_vec()).collect()
            }
        };
        Ok(tuples.chunks(self.batch.max(1)).map(|tuples| tuples.concat()).collect())
    }

    fn prefetch(&mut self, batches: &[Vec<usize>]) {
        self.prefix.prefetch(batches);
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.net.backbone.params.tensors();
        tensors.extend(prefixed("head", self.net.params.tensors()));
        tensors.extend(prefixed("kept", self.kept.tensors()));
        tensors
    }

    fn unreadable(&self) -> Vec<(usize, Error)> {
        self.prefix.faces().unreadable()
    }

    fn exclude(&mut self, pictures: &BTreeSet<usize>) -> Result<()> {
        match &mut self.tuple_source {
            TupleSource::Pairs { sampler, .. } => {
                *sampler = sampler.without(|picture| pictures.contains(&picture))?;
            }
            TupleSource::Triplets { triplets, .. } => {
                triplets.retain(|triplet| triplet.iter().all(|panel| !pictures.contains(panel)));
                if triplets.is_empty() {
                    return Err(Error::Data("no triplet can be read any more".into()));
                }
            }
        }
        self.eval_pairs.retain(|(a, b, _)| !pictures.contains(a) && !pictures.contains(b));
        Ok(())
    }

    fn take_wait(&mut self) -> Option<Duration> {
        Some(self.prefix.take_wait())
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>> {
        let seed = mix(self.seed, epoch as u64, index as u64);
        tch::manual_seed(seed as i64); // of dropout
        let (first, maps) = self.prefix.views(batch, seed)?;
        let vectors = self.net.vectors(first, &maps, self.mode, Mode::TRAIN)?;
        let arity = if matches!(self.tuple_source, TupleSource::Pairs { .. }) { 2 } else { 3 };
        let tuples = (batch.len() / arity) as i64;
        let columns = vectors.view([tuples, arity as i64, vectors.size()[1]]);
        let column = |at: i64| columns.select(1, at);
        let (a, b) = (column(0), column(1));
        let apart = |a: &Tensor, b: &Tensor| {
            (a - b).square().sum_dim_intlist(1, false, Kind::Float).detach().sqrt()
        };
        let (output, measures) = match &self.tuple_source {
            TupleSource::Pairs { loss, .. } => {
                let identity = |at: usize| -> Vec<i64> {
                    batch.iter().skip(at).step_by(2).map(|&i| self.labels[i] as i64).collect()
                };
                let device = a.device();
                let of_a = cuda::upload_slice(&identity(0), device)?;
                let of_b = cuda::upload_slice(&identity(1), device)?;
                let labels = PairLabels::of_identities(&of_a, &of_b);
                let same = of_a.eq_tensor(&of_b).to_kind(Kind::Float);
                let mean = |values: &Tensor, mask: &Tensor| {
                    (values * mask).sum(Kind::Float) / mask.sum(Kind::Float).clamp_min(1.0)
                };
                match loss {
                    PairLoss::Contrastive(loss) => {
                        let far = apart(&a, &b);
                        let measures = vec![
                            ("positive_distance", mean(&far, &same)),
                            ("negative_distance", mean(&far, &(1.0 - &same))),
                        ];
                        (loss.forward(&a, &b, &labels), measures)
                    }
                    PairLoss::Bce(loss) => {
                        let logits =
                            self.net.join(&a, &b, Mode::TRAIN).unwrap_or_else(|| -apart(&a, &b));
                        let right = logits.gt(0.0).to_kind(Kind::Float).eq_tensor(&same);
                        let right = right.to_kind(Kind::Float).mean(Kind::Float);
                        (loss.forward(&logits, &labels), vec![("accuracy", right)])
                    }
                }
            }
            TupleSource::Triplets { loss, .. } => {
                let n = column(2);
                let (near, far) = (apart(&a, &b), apart(&a, &n));
                let output = loss.forward_rows(&a, &b, &n);
                let active = &output.active / output.tuples.clamp_min(1);
                let measures = vec![
                    ("active", active),
                    ("positive_distance", near.mean(Kind::Float)),
                    ("negative_distance", far.mean(Kind::Float)),
                ];
                (output, measures)
            }
        };
        Ok(Forward { measures, ..Forward::from(output.loss) })
    }

    fn stepped(&mut self) {
        self.kept.update();
    }

    fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores> {
        self.notes.extend(self.prefix.begin(epoch.max(1))?);
        if self.eval_pairs.is_empty() {
            return Ok(Scores { headline: "no validation pairs".into(), ..Scores::default() });
        }
        let Self { net, prefix, eval_pairs, kept, .. } = self;
        let pairs = kept.with(|| pair_distances(net, prefix, eval_pairs))?;
        if pairs.distance.iter().any(|value| !value.is_finite()) {
            return Ok(Scores::diverged());
        }
        log_distances(log, epoch, &pairs);
        let threshold = best_threshold(&pairs);
        self.pair.threshold = threshold.map(|threshold| threshold.distance);
        self.pair.probability = same_curve(&pairs);
        let (auc, accuracy) = (roc_auc(&pairs), held_out_accuracy(&pairs));
        let figures = [
            ("verification", accuracy),
            ("auc", auc),
            ("f1", threshold.and_then(|threshold| f1_at(&pairs, threshold.distance))),
            ("threshold", self.pair.threshold),
        ];
        let percent = |value: Option<f64>| format!("{:.1} %", 100.0 * value.unwrap_or(f64::NAN));
        Ok(Scores {
            values: figures.iter().filter_map(|(name, value)| value.map(|v| (*name, v))).collect(),
            rank: auc.into_iter().collect(),
            criterion: "auc",
            headline: format!(
                "validation pairs: verification {}, AUC {}",
                percent(accuracy),
                percent(auc)
            ),
        })
    }

    fn average(&self) -> Option<&WeightInterpolation> {
        Some(&self.kept)
    }

    fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()> {
        let card = ModelCard { pair: Some(self.pair.clone()), ..self.card.at(epoch, figures) };
        pair_model::write(path, &card, self.net)
    }
}

/// Returns the distance between the two pictures of each pair. Each picture goes
/// through the trunk once.
///
/// # Errors
/// An error from libtorch, or from the disk.
pub fn pair_distances(
    net: &PairNet,
    prefix: &mut FrozenPrefix,
    eval_pairs: &[EvalPair],
) -> Result<Pairs> {
    let mut asked: Vec<usize> = eval_pairs.iter().flat_map(|&(a, b, _)| [a, b]).collect();
    asked.sort_unstable();
    asked.dedup();
    let row = |picture| asked.partition_point(|&other| other < picture);
    let places: Vec<_> = eval_pairs.iter().map(|&(a, b, _)| (row(a), row(b))).collect();
    let distance = match vectors(net, prefix, &asked)? {
        Some(rows) => Comparison::of(net).distances(&rows, &places)?,
        None => vec![f32::NAN; places.len()],
    };
    let same = eval_pairs.iter().map(|&(_, _, same)| same).collect();
    Ok(Pairs { distance, same })
}

/// The vectors of pictures without augmentation; `None` if one is not finite, because training has
/// diverged.
fn vectors(
    net: &PairNet,
    prefix: &mut FrozenPrefix,
    pictures: &[usize],
) -> Result<Option<Embeddings>> {
    let batches = pictures.chunks(BATCH).map(|batch| prefix.plain(batch));
    let values = embed_values(net, batches)?;
    let is_finite = values.iter().all(|value| value.is_finite());
    let dim = net.dim() as usize;
    is_finite.then(|| Embeddings::new(pictures.len(), dim, values)).transpose()
}

/// Balanced accuracy on each half of the pairs with the threshold of the other half, averaged: no
/// pair is judged by a threshold it has helped to choose.
fn held_out_accuracy(pairs: &Pairs) -> Option<f64> {
    let fold = stratified_folds(&pairs.same, 2, 0);
    let half = |number: usize| {
        let inside: Vec<usize> = (0..fold.len()).filter(|&pair| fold[pair] == number).collect();
        pairs.subset(&inside)
    };
    let (first, second) = (half(0), half(1));
    let across = |on: &Pairs, of: &Pairs| accuracy_at(on, best_threshold(of)?.distance);
    Some(f64::midpoint(across(&first, &second)?, across(&second, &first)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_pair_is_judged_by_its_own_threshold() {
        let easy = Pairs {
            distance: vec![0.1, 0.2, 0.1, 0.2, 0.8, 0.9, 0.8, 0.9],
            same: vec![true, true, true, true, false, false, false, false],
        };
        assert_eq!(held_out_accuracy(&easy), Some(1.0));
        assert_eq!(held_out_accuracy(&Pairs::default()), None);
    }
}
