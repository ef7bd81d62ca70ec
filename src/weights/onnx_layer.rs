//! The layers of an ONNX file: nodes with weights.

/// ONNX's default of a batch normalisation's `epsilon`, and PyTorch's.
pub(super) const EPSILON: f64 = 1e-5;

/// A node with weights.
#[derive(Debug)]
pub(super) struct OnnxLayer {
    pub kind: LayerKind,
    /// The node's name, for errors.
    pub name: String,
    /// Its tensors, as places among the entries: weight and bias, or also mean and variance.
    pub tensors: Vec<usize>,
    /// A linear layer's weight is `[in, out]`.
    pub is_transposed: bool,
    /// Of a batch normalisation.
    pub epsilon: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerKind {
    Convolution,
    Normalisation,
    PRelu,
    Linear,
}

impl LayerKind {
    pub fn of(operation: &str) -> Option<Self> {
        match operation {
            "Conv" => Some(Self::Convolution),
            "BatchNormalization" => Some(Self::Normalisation),
            "PRelu" => Some(Self::PRelu),
            "Gemm" | "MatMul" => Some(Self::Linear),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Convolution => "a convolution",
            Self::Normalisation => "a batch normalisation",
            Self::PRelu => "a PReLU",
            Self::Linear => "a linear layer",
        }
    }
}
