//! The linear classifier on a frozen trunk: features are computed once, so an epoch is a few
//! small matrix products. Every model it writes is calibrated on the validation part.

use std::path::Path;

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use tch::{Device, Kind, Tensor};

use super::calibrate::{OpenSetCalibration, calibrate};
use super::fit_result::Scores;
use super::log::RunLog;
use super::scoring::{Labelled, SAME_BIAS, SAME_WEIGHT, same_curve};
use super::step::Forward;
use super::task::Task;
use crate::eval::calibration::{expected_calibration_error, negative_log_likelihood};
use crate::eval::knn;
use crate::eval::unknown::Logistic;
use crate::models::layers::Linear;
use crate::models::{Backbone, Params};
use crate::recognise::{Classifier, GalleryFace, Head, KnownFaces, ModelCard, Unknown, recogniser};
use crate::{Error, Result};

/// Inputs of a classifier's training.
#[derive(Debug)]
pub struct Features<'a> {
    /// The frozen trunk, written into every model file.
    pub trunk: &'a Backbone,
    /// Training features.
    pub train: &'a Labelled,
    /// Features of the mirrored training pictures; may be empty.
    pub mirrored: Option<&'a Labelled>,
    /// Validation features.
    pub validation: &'a Labelled,
    /// The files behind the training features.
    pub faces: &'a [GalleryFace],
    /// Open-set calibration from the distances of known faces and strangers.
    pub known: &'a OpenSetCalibration,
}

/// The training of one linear head.
#[derive(Debug)]
pub struct ClassifierTask<'a> {
    from: Features<'a>,
    card: &'a ModelCard,
    unknown: Option<f64>,
    batch_size: usize,
    /// The head's tensors, for the optimiser.
    pub params: Params,
    layer: Linear,
    features: Tensor,
    targets: Tensor,
    /// P(same | distance) of the validation pairs, for `visage verify`; the trunk rests.
    same: Option<Logistic>,
}

impl<'a> ClassifierTask<'a> {
    /// A head with PyTorch's default initialisation (seed it with `tch::manual_seed`), on the CPU:
    /// its work is too small for anything else. With `unknown`, faces whose probability is below it
    /// are UNKNOWN, instead of the calibrated threshold.
    pub fn new(
        from: Features<'a>,
        card: &'a ModelCard,
        unknown: Option<f64>,
        batch_size: usize,
    ) -> Self {
        let dim = from.train.embeddings.dim() as i64;
        let (layer, params) = Params::collect(Device::Cpu, |root| {
            Linear::new(&root.sub("classifier"), dim, card.classes.len() as i64)
        });
        let parts = || std::iter::once(from.train).chain(from.mirrored);
        let values: Vec<_> =
            parts().map(|part| Tensor::from_slice(part.embeddings.values())).collect();
        let targets: Vec<i64> =
            parts().flat_map(|part| &part.labels).map(|&label| label as i64).collect();
        let features = Tensor::cat(&values, 0).view([-1, dim]);
        let targets = Tensor::from_slice(&targets);
        let same = same_curve(&from.validation.pairs());
        Self { from, card, unknown, batch_size, params, layer, features, targets, same }
    }

    fn head(&self) -> Result<Head> {
        let mut tensors = self.params.snapshot().into_iter().map(|(_, tensor)| tensor);
        match (tensors.next(), tensors.next()) {
            (Some(weight), Some(bias)) => Ok(Head { weight, bias }),
            _ => Err(Error::Config("the classifier head has no tensors".into())),
        }
    }

    /// The classifier as it is, calibrated.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn classifier(&self) -> Result<Classifier> {
        let head = self.head()?;
        let mut calibration = calibrate(&head, self.from.validation, self.from.known)?;
        if let Some(share) = self.unknown {
            calibration.unknown = Unknown::ProbabilityBelow(share);
        }
        let gallery = KnownFaces {
            embeddings: self.from.train.embeddings.clone(),
            labels: self.from.train.labels.clone(),
            faces: self.from.faces.to_vec(),
        };
        Ok(Classifier { head, gallery, calibration })
    }
}

impl Task for ClassifierTask<'_> {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        let mut order: Vec<usize> = (0..self.targets.numel()).collect();
        let seed = self.card.seed ^ (epoch as u64).rotate_left(32);
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        Ok(order.chunks(self.batch_size).map(<[usize]>::to_vec).collect())
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        self.params.tensors()
    }

    fn forward(&mut self, _: usize, _: usize, batch: &[usize]) -> Result<Forward<'_>> {
        let rows: Vec<i64> = batch.iter().map(|&row| row as i64).collect();
        let rows = Tensor::from_slice(&rows);
        let targets = self.targets.index_select(0, &rows);
        let logits = self.layer.forward(&self.features.index_select(0, &rows));
        let right = logits.argmax(1, false).eq_tensor(&targets).to_kind(Kind::Float);
        let loss = logits.cross_entropy_for_logits(&targets);
        let measures = vec![("accuracy", right.mean(Kind::Float))];
        Ok(Forward { measures, ..Forward::from(loss) })
    }

    fn validate(&mut self, _: usize, _: &mut RunLog) -> Result<Scores> {
        let (head, validation) = (self.head()?, self.from.validation);
        if validation.labels.is_empty() {
            return Ok(Scores { headline: "no validation pictures".into(), ..Scores::default() });
        }
        let logits = head.logits(&validation.embeddings)?;
        let right: Vec<bool> = logits
            .iter()
            .zip(&validation.labels)
            .map(|(row, &label)| largest(row) == Some(label))
            .collect();
        let share = |hits: usize| hits as f64 / right.len() as f64;
        let accuracy = share(right.iter().filter(|right| **right).count());
        let nll = negative_log_likelihood(&logits.concat(), &validation.labels, 1.0, 0.0);
        let classifier = self.classifier()?;
        let answers = classifier.answer(&validation.embeddings)?;
        let named = share(answers.iter().filter(|answer| answer.is_known).count());
        let confidences: Vec<f64> =
            answers.iter().filter_map(|answer| Some(answer.ranking.first()?.1)).collect();
        let ece = expected_calibration_error(&confidences, &right, 15);
        let knn = knn::against_gallery(
            &self.from.train.embeddings,
            &self.from.train.labels,
            &validation.embeddings,
            &validation.labels,
        );
        let calibration = &classifier.calibration;
        let same = self.same;
        let figures = [
            ("accuracy", Some(accuracy)),
            ("nll", Some(nll)),
            ("knn_gallery", knn),
            ("named", Some(named)),
            ("ece", ece),
            ("temperature", Some(calibration.temperature)),
            ("threshold", Some(calibration.unknown.threshold())),
            (SAME_WEIGHT, same.map(|curve| curve.weight)),
            (SAME_BIAS, same.map(|curve| curve.bias)),
        ];
        Ok(Scores {
            values: figures.iter().filter_map(|(name, value)| value.map(|v| (*name, v))).collect(),
            rank: vec![accuracy, -nll],
            criterion: "accuracy",
            headline: format!(
                "validation accuracy {:.1} %, NLL {nll:.3}, named {:.1} %",
                100.0 * accuracy,
                100.0 * named
            ),
        })
    }

    fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()> {
        let card = self.card.at(epoch, figures);
        recogniser::write(path, &card, self.from.trunk, Some(&self.classifier()?))
    }
}

/// The index of the largest value; the first of equals.
fn largest(row: &[f32]) -> Option<usize> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map(|(index, _)| index)
}
