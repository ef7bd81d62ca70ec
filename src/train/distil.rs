//! Distillation: a student trunk learns to tell faces apart as a teacher does, from unlabelled pictures
//! (Hinton et al., "Distilling the knowledge in a neural network", 2015; the relational term is that of
//! Park et al., "Relational knowledge distillation", 2019).
//!
//! In each step both see the same random views, each in its own framing and size (Beyer et al.,
//! "Knowledge distillation: a good teacher is patient and consistent", 2022). The mean of the teacher's
//! embeddings is subtracted from them: what all faces have in common would be most of the cosine.
//! Where both embeddings have one length, the teacher's are rotated to where the student starts (Schönemann,
//! "A generalized solution of the orthogonal Procrustes problem", 1966): distances stay what they were,
//! and nothing is spent on learning the teacher's axes.

use std::collections::BTreeSet;
use std::path::Path;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tch::{Kind, Tensor};

use super::fit_result::Scores;
use super::log::RunLog;
use super::named::prefixed;
use super::settings::{BnMode, DistilSettings};
use super::step::{Figure, Forward};
use super::task::Task;
use super::triplet::mix;
use super::weight_interpolation::WeightInterpolation;
use crate::data::augment::Augment;
use crate::data::store::PictureStore;
use crate::eval::Embeddings;
use crate::eval::pair_scores::PairScores;
use crate::eval::verification::Pairs;
use crate::metric::distance::normalise;
use crate::models::layers::Linear;
use crate::models::{Backbone, Mode};
use crate::native::without_autocast;
use crate::recognise::embedder::{BATCH, embed_values, to_tensor};
use crate::recognise::{Comparison, ModelCard, embed_stored, recogniser};
use crate::{Error, Result};

/// Pictures whose mean embedding is taken for that of all.
const CENTRE: usize = 2048;
/// Largest number of held-out pictures that are compared.
pub const MAX_HELD_OUT: usize = 1000;
/// Seed of the folds, that of `visage evaluate --pairs`.
const FOLD_SEED: u64 = 0;

/// Weights of the terms of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// 1 - cosine of the student's and the teacher's embedding.
    pub cosine: f64,
    /// Squared difference of the similarities, mean over all pairs of the batch.
    pub relational: f64,
    /// The same over the two pairs of each picture that the student overrates and underrates most.
    pub hard_pairs: f64,
}

impl Terms {
    /// The loss of student embeddings `[B, D]` against targets `[B, T]` of length 1, B at least 2;
    /// `projected [B, T]` are the student's for the cosine term. With the terms for the log.
    pub fn loss(
        &self,
        student: &Tensor,
        projected: &Tensor,
        target: &Tensor,
    ) -> (Tensor, Vec<Figure>) {
        without_autocast(|| {
            let own = normalise(student);
            let cosine = (normalise(projected) * target).sum_dim_intlist(-1, false, Kind::Float);
            let cosine = (-cosine + 1.0).mean(Kind::Float);
            // [B, B]; the diagonal is left out.
            let size = student.size()[0];
            let others = Tensor::ones([size, size], (Kind::Float, student.device()))
                - Tensor::eye(size, (Kind::Float, student.device()));
            let apart = (own.matmul(&own.tr()) - target.matmul(&target.tr())) * &others;
            let squared = apart.square();
            let relational = squared.sum(Kind::Float) / (size * (size - 1)) as f64;
            let extreme = |values: Tensor| values.clamp_min(0.0).square().mean(Kind::Float);
            let hard_pairs = extreme(apart.amax([1i64].as_slice(), false))
                + extreme(-apart.amin([1i64].as_slice(), false));
            let hard_pairs = hard_pairs * 0.5;
            let loss = &cosine * self.cosine
                + &relational * self.relational
                + &hard_pairs * self.hard_pairs;
            let figures =
                vec![("cosine", cosine), ("relational", relational), ("hard_pairs", hard_pairs)];
            (loss, figures)
        })
    }
}

/// Pairs for validation: the student's faces and which of them belong together.
#[derive(Debug)]
pub struct ValidationPairs {
    /// The faces.
    pub faces: PictureStore,
    /// Two faces each.
    pub places: Vec<(usize, usize)>,
    /// Whether they show the same person.
    pub same: Vec<bool>,
    /// Folds of the file, if it has some.
    pub folds: Option<Vec<usize>>,
}

/// The same faces in the framing of both networks, and which of them train.
#[derive(Debug)]
pub struct DistilFaces {
    /// As the teacher sees them.
    pub teacher: PictureStore,
    /// As the student sees them.
    pub student: PictureStore,
    /// The faces that train.
    pub train: Vec<usize>,
    /// Faces kept out of training.
    pub held_out: Vec<usize>,
}

/// The distillation of one teacher into one student.
pub struct DistilTask<'a> {
    teacher: &'a Backbone,
    student: &'a Backbone,
    faces: &'a DistilFaces,
    pairs: Option<&'a ValidationPairs>,
    card: &'a ModelCard,
    terms: Terms,
    projection: Option<&'a Linear>,
    target: Target,
    /// The faces that train.
    train: Vec<usize>,
    /// Faces kept out of training, the similarities that the teacher sees among them, and its embeddings
    /// of them.
    held_out: Option<(Vec<usize>, Tensor, Tensor)>,
    augment: Augment,
    mode: Mode,
    average: WeightInterpolation,
    batch: usize,
    seed: u64,
}

/// What the student learns: the teacher's embeddings without their mean, rotated.
#[derive(Debug)]
struct Target {
    /// `[T]`.
    mean: Tensor,
    /// Orthogonal, `[T, T]`; none where the student's embeddings are shorter or longer.
    rotation: Option<Tensor>,
}

impl Target {
    /// From embeddings `[N, T]` and `[N, D]` of the same faces.
    fn new(teacher: &Tensor, student: &Tensor) -> Result<Self> {
        let mean = teacher.mean_dim([0i64].as_slice(), false, Kind::Float);
        let mut target = Self { mean, rotation: None };
        let is_finite = student.isfinite().all().int64_value(&[]) == 1;
        if teacher.size() == student.size() && is_finite {
            let both = target.of(teacher).tr().matmul(student).to_kind(Kind::Double);
            let (u, _, v) = both.f_svd(true, true)?;
            target.rotation = Some(u.matmul(&v.tr()).to_kind(Kind::Float));
        }
        Ok(target)
    }

    /// What it was made of: the student as it was at the start.
    fn tensors(&self) -> Vec<(String, Tensor)> {
        let rotation = self.rotation.iter().map(|tensor| ("rotation", tensor));
        let all = [("mean", &self.mean)].into_iter().chain(rotation);
        all.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect()
    }

    /// Of the teacher's embeddings, with length 1.
    fn of(&self, teacher: &Tensor) -> Tensor {
        let target = normalise(&(teacher - &self.mean));
        self.rotation.as_ref().map_or(target.shallow_clone(), |rotation| target.matmul(rotation))
    }
}

impl<'a> DistilTask<'a> {
    /// Prepares the task; the teacher embeds some faces for it. `projection` takes the student's
    /// embeddings to the teacher's dimension, where they differ.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn new(
        (teacher, student): (&'a Backbone, &'a Backbone),
        projection: Option<&'a Linear>,
        faces: &'a DistilFaces,
        pairs: Option<&'a ValidationPairs>,
        card: &'a ModelCard,
        settings: &DistilSettings,
    ) -> Result<Self> {
        let mut some = faces.train.clone();
        some.shuffle(&mut StdRng::seed_from_u64(settings.seed));
        some.truncate(CENTRE);
        let of_teacher =
            |which: &[usize]| rows(&embed_stored(teacher, &faces.teacher, which)?, teacher);
        let own = rows(&embed_stored(student, &faces.student, &some)?, student)?;
        let target = Target::new(&of_teacher(&some)?, &own)?;
        let held_out = match faces.held_out.len() {
            0 | 1 => None,
            _ => {
                let held_out = target.of(&of_teacher(&faces.held_out)?);
                Some((faces.held_out.clone(), similarities(&held_out), held_out))
            }
        };
        let tuning = settings.tuning();
        Ok(Self {
            teacher,
            student,
            faces,
            pairs,
            card,
            terms: Terms {
                cosine: settings.cosine,
                relational: settings.relational,
                hard_pairs: settings.hard_pairs,
            },
            projection,
            target,
            train: faces.train.clone(),
            held_out,
            augment: settings.augmentation.augment(),
            mode: Mode { dropout: true, batch_statistics: settings.bn == BnMode::Train },
            average: WeightInterpolation::new(student.params.iter(), 1.0, tuning.model_ema),
            batch: settings.batch_size,
            seed: settings.seed,
        })
    }

    /// The student's embeddings of stored faces, with the averaged weights; `None` if the training has
    /// diverged.
    fn embed(&self, faces: &PictureStore, which: &[usize]) -> Result<Option<Embeddings>> {
        let batch = |batch: &[usize]| Ok((0, faces.batch(batch, self.student.device())?));
        let values =
            self.average.with(|| embed_values(self.student, which.chunks(BATCH).map(batch)))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let dim = self.student.embedding_dim as usize;
        Embeddings::new(which.len(), dim, values).map(Some)
    }

    /// The figures of the pairs, accuracy and AUC; `None` if the training has diverged.
    fn score_pairs(&self, pairs: &ValidationPairs) -> Result<Option<Vec<(&'static str, f64)>>> {
        let Some(embeddings) = self.embed(&pairs.faces, &pairs.faces.all())? else {
            return Ok(None);
        };
        let distances = Comparison::Euclidean.distances(&embeddings, &pairs.places)?;
        let listed = Pairs::new(distances, pairs.same.clone())?;
        let scores = PairScores::of(&listed, pairs.folds.as_deref(), FOLD_SEED);
        let mut values = Vec::new();
        if let Some(scores) = scores {
            values.extend(scores.folds.as_ref().map(|folds| ("accuracy", folds.mean())));
            values.push(("auc", scores.auc));
        }
        Ok(Some(values))
    }
}

impl Task for DistilTask<'_> {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        let mut order = self.train.clone();
        order.shuffle(&mut StdRng::seed_from_u64(mix(self.seed, epoch as u64, u64::MAX)));
        let mut batches: Vec<_> = order.chunks(self.batch).map(<[usize]>::to_vec).collect();
        // Batch statistics and similarities of a few faces would be noise.
        if batches.len() > 1 {
            batches.retain(|batch| batch.len() == self.batch);
        }
        Ok(batches)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.student.params.tensors();
        let layer = self.projection.map(Linear::tensors).unwrap_or_default();
        tensors.extend(prefixed("projection", layer));
        tensors.extend(prefixed("kept", self.average.tensors()));
        tensors.extend(prefixed("target", self.target.tensors()));
        tensors
    }

    /// Of both framings of the faces; not of the validation pairs.
    fn unreadable(&self) -> Vec<(usize, Error)> {
        let mut found = self.faces.student.unreadable();
        found.extend(self.faces.teacher.unreadable());
        found
    }

    fn exclude(&mut self, pictures: &BTreeSet<usize>) -> Result<()> {
        self.train.retain(|picture| !pictures.contains(picture));
        if self.train.is_empty() {
            return Err(Error::Data("no training picture can be read any more".into()));
        }
        if let Some((held_out, similar, target)) = &mut self.held_out {
            let left = (0i64..).zip(&*held_out).filter(|(_, face)| !pictures.contains(face));
            let rows: Vec<i64> = left.map(|(row, _)| row).collect();
            held_out.retain(|picture| !pictures.contains(picture));
            let rows = Tensor::from_slice(&rows).to_device(target.device());
            *target = target.index_select(0, &rows);
            *similar = similarities(target);
        }
        if self.held_out.as_ref().is_some_and(|(held_out, ..)| held_out.len() < 2) {
            self.held_out = None;
        }
        Ok(())
    }

    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>> {
        let seed = mix(self.seed, epoch as u64, index as u64);
        tch::manual_seed(seed as i64); // of dropout
        // The draws are relative to the side, so that both views change alike.
        let view = |network: &Backbone, faces: &PictureStore| {
            let pictures = faces.batch(batch, network.device())?;
            self.augment.apply(&pictures, network.input.size.into(), seed)
        };
        let seen = view(self.teacher, &self.faces.teacher)?;
        let target = tch::no_grad(|| self.target.of(&self.teacher.embed(&seen, Mode::EVAL)));
        let own = self.student.embed(&view(self.student, &self.faces.student)?, self.mode);
        let projected = match self.projection {
            Some(projection) => projection.forward(&own),
            None => own.shallow_clone(),
        };
        let (loss, measures) = self.terms.loss(&own, &projected, &target);
        Ok(Forward { measures, ..Forward::from(loss) })
    }

    fn stepped(&mut self) {
        self.average.update();
    }

    fn validate(&mut self, _: usize, _: &mut RunLog) -> Result<Scores> {
        let mut values = match self.pairs {
            Some(pairs) => match self.score_pairs(pairs)? {
                Some(values) => values,
                None => return Ok(Scores::diverged()),
            },
            None => Vec::new(),
        };
        if let Some((held_out, wanted, target)) = &self.held_out {
            let Some(own) = self.embed(&self.faces.student, held_out)? else {
                return Ok(Scores::diverged());
            };
            let own = normalise(&rows(&own, self.student)?);
            let agreement = correlation(&similarities(&own), wanted);
            values.push(("agreement", agreement));
            if self.projection.is_none() {
                let cosine = (own * target).sum_dim_intlist(-1, false, Kind::Float);
                values.push(("held_out_cosine", cosine.mean(Kind::Float).double_value(&[])));
            }
        }
        let figure = |name| values.iter().find(|(other, _)| *other == name).map(|found| found.1);
        let (criterion, value) = match figure("auc") {
            Some(auc) => ("auc", Some(auc)),
            None => ("agreement", figure("agreement")),
        };
        let each = values.iter().map(|(name, value)| format!("{name} {value:.4}"));
        Ok(Scores {
            headline: each.collect::<Vec<_>>().join(", "),
            rank: value.into_iter().collect(),
            criterion,
            values,
        })
    }

    fn average(&self) -> Option<&WeightInterpolation> {
        Some(&self.average)
    }

    fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()> {
        recogniser::write(path, &self.card.at(epoch, figures), self.student, None)
    }
}

/// Embeddings as a tensor `[N, D]` on the network's device.
fn rows(embeddings: &Embeddings, network: &Backbone) -> Result<Tensor> {
    Ok(to_tensor(embeddings)?.f_to_device(network.device())?)
}

/// The similarities of all pairs of rows of length 1, `[N (N - 1) / 2]`.
fn similarities(rows: &Tensor) -> Tensor {
    let all = rows.matmul(&rows.tr());
    let pairs = all.ones_like().triu(1).to_kind(Kind::Bool);
    all.masked_select(&pairs)
}

/// Pearson's correlation.
fn correlation(a: &Tensor, b: &Tensor) -> f64 {
    let centred = |x: &Tensor| {
        let x = x.to_kind(Kind::Double);
        &x - x.mean(Kind::Double)
    };
    let (a, b) = (centred(a), centred(b));
    let norm = (a.square().sum(Kind::Double) * b.square().sum(Kind::Double)).sqrt();
    let both = (a * b).sum(Kind::Double).double_value(&[]);
    // Equal similarities everywhere say nothing.
    both / norm.double_value(&[]).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn unit(rows: &[[f64; 2]]) -> Tensor {
        let rows: Vec<f32> = rows.concat().into_iter().map(|value| value as f32).collect();
        normalise(&Tensor::from_slice(&rows).view([-1, 2]))
    }

    #[test]
    fn the_terms_are_those_of_a_plain_loop() {
        let (own, target) = (
            unit(&[[1.0, 0.2], [-0.3, 1.0], [0.5, -2.0], [1.0, 1.0]]),
            unit(&[[1.0, 0.0], [1.0, 0.9], [-0.5, 1.0], [0.2, 1.0]]),
        );
        let dot =
            |x: &Tensor, y: &Tensor, i: i64, j: i64| x.get(i).dot(&y.get(j)).double_value(&[]);
        let (mut cosine, mut relational, mut hard) = (0.0, 0.0, 0.0);
        for i in 0..4 {
            cosine += (1.0 - dot(&own, &target, i, i)) / 4.0;
            let others = (0..4).filter(|&j| j != i);
            let apart: Vec<f64> =
                others.map(|j| dot(&own, &own, i, j) - dot(&target, &target, i, j)).collect();
            relational += apart.iter().map(|d| d * d).sum::<f64>() / 12.0;
            hard += apart.iter().fold(0.0f64, |a, b| a.max(*b)).powi(2) / 8.0;
            hard += apart.iter().fold(0.0f64, |a, b| a.max(-b)).powi(2) / 8.0;
        }
        let terms = Terms { cosine: 0.5, relational: 3.0, hard_pairs: 2.0 };
        let (loss, figures) = terms.loss(&own, &own, &target);
        let found: Vec<f64> = figures.iter().map(|(_, value)| value.double_value(&[])).collect();
        for (found, wanted) in found.iter().zip([cosine, relational, hard]) {
            assert!((found - wanted).abs() < 1e-5, "{found}, {wanted}");
        }
        let wanted = 0.5 * cosine + 3.0 * relational + 2.0 * hard;
        assert!((loss.double_value(&[]) - wanted).abs() < 1e-5);
        let (loss, _) = terms.loss(&target, &target, &target);
        assert!(loss.double_value(&[]).abs() < 1e-5);
    }

    #[test]
    fn the_target_is_the_teacher_turned_to_where_the_student_is() {
        tch::manual_seed(3);
        let own = normalise(&Tensor::randn([40, 4], (Kind::Float, Device::Cpu)));
        let own = normalise(&(&own - own.mean_dim([0i64].as_slice(), false, Kind::Float)));
        let square = Tensor::randn([4, 4], (Kind::Float, Device::Cpu));
        let (turn, _) = Tensor::linalg_qr(&square, "reduced");
        let teacher = own.matmul(&turn) * 0.5 + 0.5;
        let target = Target::new(&teacher, &own).unwrap().of(&teacher);
        let cosine = (&target * &own).sum_dim_intlist(-1, false, Kind::Float);
        assert!(cosine.min().double_value(&[]) > 0.98, "{}", cosine.min());
        let lengths = target.square().sum_dim_intlist(-1, false, Kind::Float);
        assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-4);
        // Another length: only the mean is taken out.
        let other = Target::new(&teacher, &own.narrow(1, 0, 3)).unwrap();
        assert!(other.rotation.is_none() && other.of(&teacher).size() == [40, 4]);
    }

    #[test]
    fn similarities_are_those_of_each_pair_once_and_agree_with_themselves() {
        let rows = unit(&[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
        let found: Vec<f32> = Vec::try_from(similarities(&rows)).unwrap();
        let root = 0.5f32.sqrt();
        let wanted = [0.0, root, root];
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
        let a = Tensor::from_slice(&[1f32, 2.0, 4.0]);
        assert!((correlation(&a, &(&a * 3.0 + 1.0)) - 1.0).abs() < 1e-12);
        assert!((correlation(&a, &-&a) + 1.0).abs() < 1e-12);
        assert_eq!(correlation(&a, &Tensor::ones([3], (Kind::Float, Device::Cpu))), 0.0);
    }
}
