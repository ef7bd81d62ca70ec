//! The trunk of a gallery: embeddings of different trunks cannot be compared, so a gallery has one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind};

use super::file::to_bytes;
use crate::models::{Architecture, Backbone};
use crate::weights::Bare;
use crate::{Error, Result};

/// Values that are hashed at a time.
const CHUNK: usize = 1 << 16;

/// What loads the trunk again: a model file, or a backbone with weights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrunkSource {
    /// The model file.
    pub model: Option<String>,
    /// The name or file of the weights of a bare backbone.
    pub weights: Option<String>,
    /// Key prefixes that the weights may lack.
    pub allow_missing: Vec<String>,
    /// The side of its input in pixels.
    pub input_size: Option<u32>,
}

/// The trunk that all embeddings of a gallery come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GalleryTrunk {
    /// Its architecture.
    pub architecture: Architecture,
    /// SHA-256 over its parameters and its input, hexadecimal.
    pub fingerprint: String,
    /// The length of its embeddings.
    pub dim: usize,
    /// Where it was loaded from.
    pub source: TrunkSource,
}

impl GalleryTrunk {
    /// Describes a trunk that was loaded from `source`.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn of(backbone: &Backbone, source: TrunkSource) -> Result<Self> {
        Ok(Self {
            architecture: backbone.architecture,
            fingerprint: fingerprint(backbone)?,
            dim: backbone.embedding_dim as usize,
            source,
        })
    }

    /// It is the one whose weights are part of the program.
    ///
    /// # Errors
    /// A program that was built wrongly.
    pub fn is_pretrained(&self) -> Result<bool> {
        let built = Bare::pretrained(self.architecture).build(Device::Cpu)?;
        Ok(fingerprint(&built.backbone)? == self.fingerprint)
    }

    /// A sentence part for errors: `openface (1a2b3c4d)`.
    pub fn describe(&self) -> String {
        let name = self.architecture.name();
        let place = self.source.model.as_deref().or(self.source.weights.as_deref());
        let place = place.filter(|place| *place != name);
        let place = place.map(|place| format!(" of {place}")).unwrap_or_default();
        let short = self.fingerprint.get(..8).unwrap_or(&self.fingerprint);
        format!("{name}{place} ({short})")
    }

    /// Its embeddings can be compared with those of `other`.
    ///
    /// # Errors
    /// They cannot: names both.
    pub fn check(&self, other: &Self) -> Result<()> {
        match self.fingerprint == other.fingerprint {
            true => Ok(()),
            false => Err(Error::Data(format!(
                "its embeddings are those of another trunk: {}, not {}; use that one, or enrol the \
                 pictures in a new gallery",
                self.describe(),
                other.describe()
            ))),
        }
    }
}

/// SHA-256 over names, shapes and values of all parameters, and over how a picture becomes the input.
fn fingerprint(backbone: &Backbone) -> Result<String> {
    let mut sum = Sha256::new();
    sum.update(format!(
        "{} {:?} {}",
        backbone.architecture.name(),
        backbone.input,
        backbone.embedding_dim
    ));
    let mut parameters = backbone.params.snapshot();
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, tensor) in parameters {
        sum.update(format!("{name} {:?}", tensor.size()));
        let values = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut row = vec![0f32; values.numel()];
        values.f_copy_data(&mut row, values.numel())?;
        row.chunks(CHUNK).for_each(|chunk| sum.update(to_bytes(chunk)));
    }
    Ok(hex::encode(sum.finalize()))
}
