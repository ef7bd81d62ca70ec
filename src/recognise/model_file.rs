//! The model file: a trunk, perhaps a classifier head and its gallery, and what there is to know
//! about them, in one safetensors file whose trunk carries PyTorch's keys.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::detect::Framing;
use crate::eval::unknown::Logistic;
use crate::models::{Architecture, Backbone, BuildOptions, HeadKind, InputSpec};
use crate::weights::{Source, TensorFile};
use crate::words::{self, count};
use crate::{Error, Result};

/// The key of the metadata table under which [`ModelCard`] is stored as JSON.
pub const CARD: &str = "visage";

/// What kind of model a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// A trunk: pictures to embeddings.
    Trunk,
    /// A frozen trunk with a linear head, calibration and gallery: pictures to names.
    Classifier,
    /// A trunk with a head for two pictures: same or different.
    Pairs,
}

impl ModelKind {
    /// What it is called in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trunk => "trunk",
            Self::Classifier => "classifier",
            Self::Pairs => "pair network",
        }
    }
}

/// The data a model was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataCard {
    /// The folder, as given (a name that is not Unicode is written as near as can be).
    pub path: String,
    /// SHA-256 over names and contents of all its pictures.
    pub fingerprint: String,
    /// Pictures used for training.
    pub train: usize,
    /// Pictures used for validation.
    pub validation: usize,
}

/// A training picture that a classifier remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GalleryFace {
    /// Its file, as near as Unicode can name it.
    pub path: String,
    /// SHA-256 of its content, hexadecimal: knows the picture under another name.
    pub sha256: String,
}

/// How a classifier's scores become a probability, and when it says UNKNOWN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Divides the head's logits before the softmax.
    pub temperature: f64,
    /// P(one of the known identities | mean distance to the [`neighbours`](Self::neighbours) nearest
    /// training faces of the nearest identity).
    pub known: Logistic,
    /// Number of training faces of an identity that its distance is the mean of.
    #[serde(default = "one")]
    pub neighbours: usize,
    /// When the answer is UNKNOWN.
    pub unknown: Unknown,
    /// The share of strangers who get a name all the same, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fpir: Option<MeasuredFpir>,
}

impl Calibration {
    /// What would make every answer meaningless.
    fn flaw(&self) -> Option<String> {
        if !(TEMPERATURES.contains(&self.temperature)) {
            return Some(format!("a temperature of {:e}", self.temperature));
        }
        let is_finite = self.known.weight.is_finite() && self.known.bias.is_finite();
        (!is_finite || self.neighbours == 0).then(|| "the calibration of its distances".into())
    }
}

/// Temperatures with which a softmax still tells classes apart without overflowing.
const TEMPERATURES: RangeInclusive<f64> = 1e-6..=1e6;

/// What models without [`Calibration::neighbours`] were calibrated with.
fn one() -> usize {
    1
}

/// A false-positive identification rate: the share of strangers who get a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredFpir {
    /// The rate that `--fpir` asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<f64>,
    /// The rate at the threshold.
    pub value: f64,
    /// Lower bound of its 95 % interval (Wilson's, counting people).
    pub low: f64,
    /// Upper bound.
    pub high: f64,
    /// Number of strangers.
    pub people: usize,
    /// Which strangers.
    pub source: StrangerSource,
}

/// Where strangers come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrangerSource {
    /// A folder of the user's.
    Folder(String),
    /// They are part of the program.
    Embedded,
    /// They are part of the program; what fine-tuning made of them was estimated.
    Estimated,
}

impl std::fmt::Display for MeasuredFpir {
    /// `1.0 % of strangers get a name (95 % interval 0.7 to 1.4 %, measured on 3460 embedded strangers)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [value, low, high] = [self.value, self.low, self.high].map(|share| 100.0 * share);
        let people = words::people(self.people);
        let strangers = count(self.people, "embedded stranger");
        write!(f, "{value:.1} % of strangers get a name (95 % interval {low:.1} to {high:.1} %, ")?;
        match &self.source {
            StrangerSource::Folder(path) => write!(f, "measured on {people} in {path})"),
            StrangerSource::Embedded => write!(f, "measured on {strangers})"),
            StrangerSource::Estimated => write!(
                f,
                "estimated: {strangers}, moved as fine-tuning moved the training \
                 faces; --strangers measures it)"
            ),
        }
    }
}

/// When a face is called UNKNOWN.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// P(known) is below this: the choice of `train-classifier`, made on validation faces. Doubt
    /// between two known identities does not make a face a stranger, so it plays no part.
    KnownBelow(f64),
    /// The answer's own probability is below this: what `--unknown PERCENT` asks for.
    ProbabilityBelow(f64),
}

impl Unknown {
    /// The threshold, as a share.
    pub fn threshold(self) -> f64 {
        match self {
            Self::KnownBelow(threshold) | Self::ProbabilityBelow(threshold) => threshold,
        }
    }
}

/// What a model card says about a pair network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairCard {
    /// The head on the trunk.
    pub head: HeadKind,
    /// Two pictures nearer than this show the same person, chosen on validation pairs; none where
    /// there were none to choose on.
    pub threshold: Option<f64>,
    /// P(the same person | distance), same and different being as likely; fitted on validation pairs.
    #[serde(default, rename = "same_curve")]
    pub probability: Option<Logistic>,
}

/// Everything about a model that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The version of Visage that wrote the file.
    pub version: String,
    /// What the file holds.
    pub kind: ModelKind,
    /// The trunk's architecture.
    pub architecture: Architecture,
    /// The length of its embeddings.
    pub embedding_dim: i64,
    /// The last layer is one that `--embedding-dim` put on top of the architecture's own.
    #[serde(default)]
    pub embedding_layer: bool,
    /// Its input size and normalisation.
    pub input: InputSpec,
    /// What the trunk started from.
    pub weights: String,
    /// The identities it was trained on, in label order.
    pub classes: Vec<String>,
    /// The seed of the run.
    pub seed: u64,
    /// The threads libtorch computed with: part of what makes a run repeatable to the bit.
    #[serde(default)]
    pub threads: u32,
    /// The epoch the weights are from; 0 is the untouched start.
    pub epoch: usize,
    /// The data of the run.
    pub data: DataCard,
    /// Every setting of the run, as in its `config.toml`.
    pub settings: serde_json::Value,
    /// The validation figures at that epoch.
    pub metrics: BTreeMap<String, f64>,
    /// For a classifier: its calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// For a classifier: how its training pictures hold the face; none in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub framing: Option<Framing>,
    /// For a pair network: its head, and how it decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair: Option<PairCard>,
    /// For a classifier: the pictures behind the gallery's rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gallery: Vec<GalleryFace>,
}

impl ModelCard {
    /// The card of an untouched network: no data, no classes, no figures yet. `weights` says what
    /// the trunk started from.
    pub fn new(kind: ModelKind, backbone: &Backbone, weights: String) -> Self {
        let data =
            DataCard { path: String::new(), fingerprint: String::new(), train: 0, validation: 0 };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            kind,
            architecture: backbone.architecture,
            embedding_dim: backbone.embedding_dim,
            embedding_layer: false,
            input: backbone.input.clone(),
            weights,
            classes: Vec::new(),
            seed: 0,
            threads: tch::get_num_threads() as u32,
            epoch: 0,
            data,
            settings: serde_json::Value::Null,
            metrics: BTreeMap::new(),
            calibration: None,
            framing: None,
            pair: None,
            gallery: Vec::new(),
        }
    }

    /// The trunk it describes, with random weights; `path` is the file it is from, for errors.
    ///
    /// # Errors
    /// A card that no trunk of this version fits.
    pub fn backbone(&self, path: &Path, device: Device) -> Result<Backbone> {
        let embedding_dim = self.embedding_layer.then_some(self.embedding_dim);
        let options = BuildOptions { embedding_dim, ..BuildOptions::default() };
        let mut backbone = Backbone::build(self.architecture, device, &options)?;
        backbone.set_input_size(self.input.size)?;
        if (&self.input, self.embedding_dim) != (&backbone.input, backbone.embedding_dim) {
            let (found, known) = (&self.input, &backbone.input);
            return Err(Error::weights(
                path,
                format!(
                    "its input is {found:?} and its embedding {}-d, this version's {known:?} and {}-d",
                    self.embedding_dim, backbone.embedding_dim
                ),
            ));
        }
        Ok(backbone)
    }

    /// Reads the card out of a file's metadata.
    ///
    /// # Errors
    /// The file has no card (it is a plain weight file, not a model written by Visage), or one this
    /// version cannot read.
    pub fn of(path: &Path, file: &TensorFile) -> Result<Self> {
        Self::parse(path, file.meta(CARD))
    }

    /// The card of a trunk before it is trained further: where its weights are a model file, the
    /// framing is that model's.
    pub fn of_trunk(backbone: &Backbone, source: &Source) -> Self {
        let framing = match source {
            Source::File(path) => Self::peek(path).ok().and_then(|card| card.framing),
            _ => None,
        };
        Self { framing, ..Self::new(ModelKind::Trunk, backbone, source.describe()) }
    }

    /// Reads the card without reading the tensors.
    ///
    /// # Errors
    /// As [`ModelCard::of`].
    pub fn peek(path: &Path) -> Result<Self> {
        let metadata = TensorFile::read_metadata(path)?;
        Self::parse(path, metadata.get(CARD).map(String::as_str))
    }

    fn parse(path: &Path, text: Option<&str>) -> Result<Self> {
        let text = text.ok_or_else(|| {
            Error::weights(
                path,
                "holds weights but no Visage model card; give it as --weights with a --backbone, \
                 or give a model that train-triplet or train-classifier wrote",
            )
        })?;
        let card: Self = serde_json::from_str(text).map_err(|error| {
            Error::weights(path, format!("its model card cannot be read by this version: {error}"))
        })?;
        match card.calibration.as_ref().and_then(Calibration::flaw) {
            Some(flaw) => Err(Error::weights(path, format!("its model card is broken: {flaw}"))),
            None => Ok(card),
        }
    }

    /// The most telling of its validation figures, and what it is called.
    pub fn headline(&self) -> Option<(&'static str, f64)> {
        let names: &[(&str, &str)] = match self.kind {
            ModelKind::Classifier => &[("accuracy", "accuracy")],
            ModelKind::Trunk | ModelKind::Pairs => {
                &[("auc", "AUC"), ("verification", "verification accuracy"), ("knn", "1-NN")]
            }
        };
        names.iter().find_map(|(key, label)| Some((*label, *self.metrics.get(*key)?)))
    }

    /// The network: `openface`, or `densenet121 and projection`.
    pub fn network(&self) -> String {
        let trunk = self.architecture.name();
        match &self.pair {
            Some(pair) => format!("{trunk} and {}", pair.head.name()),
            None => trunk.to_owned(),
        }
    }

    /// The card of this run's model at `epoch`, with its figures.
    pub fn at(&self, epoch: usize, figures: &[(&str, f64)]) -> Self {
        let metrics = figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Self { epoch, metrics, ..self.clone() }
    }

    /// Stores the card in a file's metadata.
    pub fn store(&self, file: &mut TensorFile) {
        // Plain structs, strings and maps: this serialisation cannot fail.
        file.metadata.insert(CARD.into(), serde_json::json!(self).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_that_would_say_nothing_is_refused() {
        let with = |temperature, weight| Calibration {
            temperature,
            known: Logistic { weight, bias: 0.0 },
            neighbours: 1,
            unknown: Unknown::KnownBelow(0.5),
            fpir: None,
        };
        assert_eq!(with(1.0, -8.0).flaw(), None);
        for (temperature, weight) in
            [(1e-320, -8.0), (0.0, -8.0), (-1.0, -8.0), (1.0, f64::INFINITY)]
        {
            assert!(with(temperature, weight).flaw().is_some(), "{temperature:e} {weight}");
        }
    }
}
