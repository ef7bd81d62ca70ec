//! Reference outputs of PyTorch for a network, layer by layer, written by `tests/parity/reference.py`,
//! which describes the format.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::file::WeightFile;
use crate::models::Architecture;
use crate::{Error, Result};

/// The metadata key of a reference's description, as JSON.
pub const ABOUT: &str = "visage-reference";
/// The supported version of the format.
const FORMAT: u32 = 1;

/// The mode of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// As after `model.eval()`.
    Eval,
    /// As after `model.train()`, with dropout at probability zero.
    Train,
}

/// The precision of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As Visage runs.
    Float32,
    /// Float64, so that rounding does not flip a ReLU.
    Float64,
}

impl Precision {
    /// The dtype.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Float64 => Kind::Double,
        }
    }
}

/// The description of a reference.
#[derive(Debug, Clone, Deserialize)]
pub struct About {
    format: u32,
    /// The script that wrote it.
    pub tool: String,
    /// PyTorch's version.
    pub torch: String,
    /// The network.
    pub architecture: Architecture,
    /// Training or evaluation.
    pub mode: Pass,
    /// The dtype of weights, input and results.
    pub dtype: Precision,
    /// Outputs of its classifier; none where the output is the embedding.
    pub classes: Option<i64>,
    /// Outputs of an embedding layer on top of the trunk.
    pub embedding_dim: Option<i64>,
    /// The state dict: keys and shapes.
    pub keys: Vec<(String, Vec<i64>)>,
    /// What was computed, in the order of execution: name, shape and length (2-norm).
    pub tensors: Vec<(String, Vec<i64>, f64)>,
}

/// The kind of result that a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The output of a layer.
    Activation,
    /// Logits or embeddings, or the auxiliary logits.
    Output,
    /// The gradient of the loss with respect to a parameter.
    Gradient,
    /// A running mean or variance after the pass.
    Statistic,
}

impl Part {
    /// The part, and the layer or key, of a tensor's name in the file.
    fn of(name: &str) -> Option<(Self, &str)> {
        match name.split_once(':') {
            Some(("activation", layer)) => Some((Self::Activation, layer)),
            Some(("gradient", key)) => Some((Self::Gradient, key)),
            Some(("statistic", key)) => Some((Self::Statistic, key)),
            None if ["output", "auxiliary"].contains(&name) => Some((Self::Output, name)),
            _ => None,
        }
    }
}

/// One tensor that PyTorch computed.
#[derive(Debug)]
pub struct Expected {
    /// What it is.
    pub part: Part,
    /// The layer or key.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its length (2-norm), in float64.
    pub length: f64,
    /// K of its n values, in float64: those at the places floor(k n / K) of the flattened tensor.
    pub values: Tensor,
}

/// A reference, whose tensors are read on demand.
#[derive(Debug)]
pub struct Reference<'a> {
    /// Its description.
    pub about: About,
    /// Pictures `[N, 3, H, W]` or grey `[N, 1, H, W]`, uint8.
    pub input: Tensor,
    file: WeightFile<'a>,
}

impl Reference<'static> {
    /// Opens a reference.
    ///
    /// # Errors
    /// The file cannot be read, is no reference, or is one of another version.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(WeightFile::open(path)?)
    }
}

impl<'a> Reference<'a> {
    /// Reads the bytes of a reference; `path` only names them in errors.
    ///
    /// # Errors
    /// As [`Reference::open`].
    pub fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        Self::of(WeightFile::parse(path, bytes)?)
    }

    fn of(file: WeightFile<'a>) -> Result<Self> {
        let path = file.path().to_owned();
        let fail = |reason: String| Error::weights(&path, reason);
        let text = file.metadata().get(ABOUT).ok_or_else(|| {
            let how = "tests/parity/reference.py writes one";
            fail(format!("is no reference (its metadata have no {ABOUT}): {how}"))
        })?;
        let about: About = serde_json::from_str(text)
            .map_err(|error| fail(format!("its description cannot be read: {error}")))?;
        if about.format != FORMAT {
            let found = about.format;
            return Err(fail(format!("is a reference of format {found}; {FORMAT} can be read")));
        }
        let input = file.get("input").ok_or_else(|| fail("holds no input".into()))?;
        if input.kind != Kind::Uint8 {
            return Err(fail("its input is not of dtype uint8".into()));
        }
        let input = file.tensor(input)?;
        Ok(Self { about, input, file })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Every tensor that PyTorch computed, in the order of execution.
    ///
    /// # Errors
    /// A tensor is missing, of an unknown name, or has more values than its shape.
    pub fn expected(&self) -> impl Iterator<Item = Result<Expected>> {
        self.about.tensors.iter().map(|(name, shape, length)| {
            let fail = |what: &str| Error::weights(self.path(), format!("{name}: {what}"));
            let (part, short) = Part::of(name)
                .ok_or_else(|| fail("is neither a layer, a gradient nor an output"))?;
            let entry =
                self.file.get(name).ok_or_else(|| fail("described, and not in the file"))?;
            let whole = shape.iter().try_fold(1i64, |all, &side| all.checked_mul(side));
            let kept = i64::try_from(entry.count()).ok();
            if whole
                .zip(kept)
                .is_none_or(|(whole, kept)| kept > whole || (kept == 0) != (whole == 0))
            {
                return Err(fail("the number of its values does not fit its shape"));
            }
            let values = self.file.tensor(entry)?.to_kind(Kind::Double).f_view([-1])?;
            let (name, shape) = (short.to_owned(), shape.clone());
            Ok(Expected { part, name, shape, length: *length, values })
        })
    }
}
