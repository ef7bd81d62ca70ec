//! The output of every format's reader.

use std::collections::BTreeMap;
use std::fmt;

use super::onnx_layer::OnnxLayer;
use super::stored::{Entry, Storage};

/// The format of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// safetensors.
    Safetensors,
    /// The zip of `torch.save`, PyTorch 1.6 and later.
    TorchZip,
    /// The pickle stream of `torch.save` before PyTorch 1.6.
    TorchLegacy,
    /// A TorchScript archive, which tch's `.ot` is, too.
    TorchScript,
    /// NumPy's `.npz`.
    Npz,
    /// ONNX.
    Onnx,
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "PyTorch zip",
            Self::TorchLegacy => "PyTorch before 1.6",
            Self::TorchScript => "TorchScript",
            Self::Npz => "NumPy npz",
            Self::Onnx => "ONNX",
        })
    }
}

/// The output of a format's reader: tensors, their storages, and metadata.
#[derive(Debug)]
pub(super) struct Index {
    pub format: WeightFormat,
    pub entries: Vec<Entry>,
    pub storages: Vec<Storage>,
    pub metadata: BTreeMap<String, String>,
    pub notes: Vec<String>,
    /// Of an ONNX file, in the order of execution.
    pub layers: Vec<OnnxLayer>,
}

impl Index {
    pub fn new(format: WeightFormat) -> Self {
        Self {
            format,
            entries: Vec::new(),
            storages: Vec::new(),
            metadata: BTreeMap::new(),
            notes: Vec::new(),
            layers: Vec::new(),
        }
    }
}
