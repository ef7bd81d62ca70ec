//! Pictures to names: trunk, head, calibration and gallery together.

use std::borrow::Cow;
use std::path::Path;

use image::RgbImage;
use tch::{Device, Kind, Tensor};

use super::Identifier;
use super::embedder::{embed_pictures, to_tensor};
use super::model_file::{Calibration, GalleryFace, ModelCard, ModelKind, Unknown};
use crate::eval::calibration::softmax;
use crate::eval::{
    Embeddings,
    knn::{self, Near},
};
use crate::models::{Architecture, Backbone, Compute};
use crate::weights::load::NOT_FINITE;
use crate::weights::{self, Bare, Built, GALLERY, HEAD, Source, TensorFile};
use crate::{Error, Result};

/// A linear layer from embeddings to one logit per identity.
#[derive(Debug)]
pub struct Head {
    /// `[C, D]`
    pub weight: Tensor,
    /// `[C]`
    pub bias: Tensor,
}

impl Head {
    /// Logits `[N, C]` of embeddings `[N, D]`.
    ///
    /// # Errors
    /// The embeddings are not of the head's length.
    pub fn logits(&self, embeddings: &Embeddings) -> Result<Vec<Vec<f32>>> {
        let xs = to_tensor(embeddings)?;
        let logits = tch::no_grad(|| xs.f_linear(&self.weight, Some(&self.bias)))?;
        Ok(Vec::<Vec<f32>>::try_from(logits.to_kind(Kind::Float))?)
    }
}

/// The training faces a classifier remembers.
#[derive(Debug)]
pub struct KnownFaces {
    /// One row a training picture.
    pub embeddings: Embeddings,
    /// Its identity.
    pub labels: Vec<usize>,
    /// Its file and content.
    pub faces: Vec<GalleryFace>,
}

/// What makes a trunk a classifier.
#[derive(Debug)]
pub struct Classifier {
    /// Embeddings to logits.
    pub head: Head,
    /// The training faces.
    pub gallery: KnownFaces,
    /// Logits and distances to probabilities and UNKNOWN.
    pub calibration: Calibration,
}

/// What the classifier says about one face.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The identities with their probabilities, likeliest first. They sum to P(known), the rest is
    /// the probability of a stranger.
    pub ranking: Vec<(usize, f64)>,
    /// P(one of the identities), whichever.
    pub known: f64,
    /// The face is named, not UNKNOWN.
    pub is_known: bool,
    /// Euclidean distance to the nearest training face.
    pub distance: f32,
    /// The row of that face in the gallery.
    pub neighbour: usize,
    /// Enrolled faces that speak for the answer, the nearest first; a classifier gives none.
    pub reasons: Vec<Reason>,
}

/// A known face that is near.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// Its row in the gallery.
    pub neighbour: usize,
    /// Whose it is.
    pub identity: usize,
    /// Euclidean distance to it.
    pub distance: f32,
}

/// A loaded model.
#[derive(Debug)]
pub struct Recogniser {
    /// What there is to know about it.
    pub card: ModelCard,
    /// Its frozen trunk.
    pub backbone: Backbone,
    classifier: Option<Classifier>,
}

impl Recogniser {
    /// Reads a model file written by `train-triplet` or `train-classifier`.
    ///
    /// # Errors
    /// The file is missing, broken, not a model, or its tensors do not fit its card.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let mut file = TensorFile::read(path)?;
        let card = ModelCard::of(path, &file)?;
        if card.kind == ModelKind::Pairs {
            let text = "is a pair network, which compares two pictures; `visage verify A B` and \
                        `visage evaluate --pairs` take it";
            return Err(Error::weights(path, text));
        }
        let mut backbone = card.backbone(path, device)?;
        weights::manifest::load_trunk(&backbone, path, &file)?;
        backbone.set_compute(Compute::fast(None))?;
        backbone.params.freeze_all();
        let classifier = match card.kind {
            ModelKind::Trunk | ModelKind::Pairs => None,
            ModelKind::Classifier => Some(read_classifier(path, &card, &mut file)?),
        };
        Ok(Self { card, backbone, classifier })
    }

    /// A frozen trunk with the architecture's default weights; without a classifier.
    ///
    /// # Errors
    /// No weights for it are part of the crate.
    pub fn pretrained(architecture: Architecture, device: Device) -> Result<Self> {
        let Built { backbone, source, .. } = Bare::pretrained(architecture).build(device)?;
        if source == Source::Random {
            return Err(Error::Config(format!(
                "{}: no pretrained weights are part of Visage; weights::Bare loads them from a file",
                architecture.name()
            )));
        }
        backbone.params.freeze_all();
        let card = ModelCard::new(ModelKind::Trunk, &backbone, source.describe());
        Ok(Self { card, backbone, classifier: None })
    }

    /// Head, gallery and calibration.
    ///
    /// # Errors
    /// The model is a bare trunk.
    pub fn classifier(&self) -> Result<&Classifier> {
        self.classifier.as_ref().ok_or_else(|| {
            let text = "the model is a trunk without a classifier; `visage train-classifier \
                        --trunk FILE` makes one";
            Error::Config(text.into())
        })
    }

    /// Calls UNKNOWN every face whose probability is below `share` (in [0, 1]).
    pub fn demand_probability(&mut self, share: f64) {
        if let Some(classifier) = &mut self.classifier {
            classifier.calibration.unknown = Unknown::ProbabilityBelow(share);
        }
    }

    /// Embeds pictures of any size: the model's own resize and normalisation, in batches.
    ///
    /// # Errors
    /// An error from libtorch, such as lack of memory.
    pub fn embed(&self, pictures: &[RgbImage]) -> Result<Embeddings> {
        embed_pictures(&self.backbone, pictures)
    }
}

impl Classifier {
    /// One answer per embedding:
    /// P(identity k) = P(known | distance to the nearest identity) · softmax(logits / T)_k.
    ///
    /// # Errors
    /// The embeddings are not of the head's length.
    pub fn answer(&self, embeddings: &Embeddings) -> Result<Vec<Answer>> {
        let KnownFaces { embeddings: faces, labels, .. } = &self.gallery;
        let nearest = knn::nearest_identity(faces, labels, embeddings, self.calibration.neighbours);
        let answers = self.head.logits(embeddings)?.into_iter().zip(nearest);
        Ok(answers.map(|(logits, near)| self.calibration.answer(&logits, near)).collect())
    }
}

/// A model with a classifier; of a bare trunk, identification is an error.
impl Identifier for Recogniser {
    fn name(&self, identity: usize) -> &str {
        self.card.classes.get(identity).map_or("?", String::as_str)
    }

    fn identify(&self, embeddings: &Embeddings) -> Result<Vec<Answer>> {
        self.classifier()?.answer(embeddings)
    }

    fn picture_of(&self, neighbour: usize) -> Option<Cow<'_, str>> {
        let face = self.classifier.as_ref()?.gallery.faces.get(neighbour)?;
        Some(Cow::Borrowed(&face.path))
    }
}

/// Writes a model file, whole or not at all: the trunk under PyTorch's keys, the classifier's
/// tensors under `classifier.` and `gallery.`, the card in the metadata.
///
/// # Errors
/// Names the path and what failed.
pub fn write(
    path: &Path,
    card: &ModelCard,
    trunk: &Backbone,
    classifier: Option<&Classifier>,
) -> Result<()> {
    let mut file = TensorFile::default();
    file.tensors.extend(trunk.params.snapshot());
    let mut card = card.clone();
    if let Some(Classifier { head, gallery, calibration }) = classifier {
        let labels: Vec<i64> = gallery.labels.iter().map(|&label| label as i64).collect();
        let embeddings = to_tensor(&gallery.embeddings)?;
        file.tensors.extend([
            (format!("{HEAD}weight"), head.weight.shallow_clone()),
            (format!("{HEAD}bias"), head.bias.shallow_clone()),
            (format!("{GALLERY}embeddings"), embeddings),
            (format!("{GALLERY}labels"), Tensor::from_slice(&labels)),
        ]);
        card.calibration = Some(calibration.clone());
        card.gallery = gallery.faces.clone();
    }
    card.store(&mut file);
    file.write(path)
}

impl Calibration {
    /// One answer from the head's logits and the nearest faces of the gallery.
    pub fn answer(&self, logits: &[f32], near: Near) -> Answer {
        let known = self.known.probability(f64::from(near.identity));
        let mut ranking: Vec<_> = softmax(logits, self.temperature)
            .into_iter()
            .map(|share| share * known)
            .enumerate()
            .collect();
        // Stable: equal probabilities stay in the order of the classes.
        ranking.sort_by(|a, b| b.1.total_cmp(&a.1));
        let probability = ranking.first().map_or(0.0, |&(_, best)| best);
        let is_known = match self.unknown {
            // NaN is never a name.
            Unknown::KnownBelow(threshold) => known >= threshold && !probability.is_nan(),
            Unknown::ProbabilityBelow(threshold) => probability >= threshold,
        };
        let Near { row: neighbour, distance, .. } = near;
        Answer { ranking, known, is_known, distance, neighbour, reasons: Vec::new() }
    }
}

fn read_classifier(path: &Path, card: &ModelCard, file: &mut TensorFile) -> Result<Classifier> {
    let (classes, dim) = (card.classes.len() as i64, card.embedding_dim);
    let rows = card.gallery.len() as i64;
    let mut take = |name: String, kind: Kind, shape: &[i64]| -> Result<Tensor> {
        let tensor = file
            .tensors
            .remove(&name)
            .ok_or_else(|| Error::weights(path, format!("{name} is missing")))?;
        if tensor.size() != shape {
            let found = tensor.size();
            return Err(Error::weights(path, format!("{name} is {found:?}, not {shape:?}")));
        }
        let tensor = tensor.to_kind(kind);
        match weights::load::is_finite(&tensor) {
            true => Ok(tensor),
            false => Err(Error::weights(path, format!("{name} is {NOT_FINITE}"))),
        }
    };
    let head = Head {
        weight: take(format!("{HEAD}weight"), Kind::Float, &[classes, dim])?,
        bias: take(format!("{HEAD}bias"), Kind::Float, &[classes])?,
    };
    let embeddings = take(format!("{GALLERY}embeddings"), Kind::Float, &[rows, dim])?;
    let labels = take(format!("{GALLERY}labels"), Kind::Int64, &[rows])?;
    let labels: Vec<i64> = Vec::try_from(labels)?;
    if rows == 0 || labels.iter().any(|label| !(0..classes).contains(label)) {
        return Err(Error::weights(path, format!("{GALLERY}labels do not match the classes")));
    }
    let values: Vec<f32> = Vec::try_from(embeddings.flatten(0, -1))?;
    let gallery = KnownFaces {
        embeddings: Embeddings::new(rows as usize, dim as usize, values)?,
        labels: labels.into_iter().map(|label| label as usize).collect(),
        faces: card.gallery.clone(),
    };
    let calibration = card
        .calibration
        .clone()
        .ok_or_else(|| Error::weights(path, "its model card has no calibration"))?;
    Ok(Classifier { head, gallery, calibration })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::unknown::Logistic;

    #[test]
    fn nan_is_never_a_name() {
        let known = Logistic { weight: -1.0, bias: 5.0 };
        for unknown in [Unknown::KnownBelow(0.5), Unknown::ProbabilityBelow(0.0)] {
            let calibration =
                Calibration { temperature: 1.0, known, neighbours: 1, unknown, fpir: None };
            let near = Near { row: 0, distance: 0.5, identity: 0.5 };
            assert!(calibration.answer(&[2.0, 1.0], near).is_known);
            assert!(!calibration.answer(&[f32::NAN, 1.0], near).is_known);
            assert!(!calibration.answer(&[f32::INFINITY, 1.0], near).is_known);
        }
    }
}
