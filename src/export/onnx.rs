//! ONNX export: translates the traced operations and writes the file.

use std::fmt;
use std::str::FromStr;

use prost::Message;
use tch::{Device, Kind, Tensor};

use super::graph::Graph;
use super::onnx_file::{
    Dimension, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};
use super::onnx_ops::Builder;
use super::{Export, INPUT};
use crate::{Error, Result};

/// Metadata key of the JSON.
pub const METADATA: &str = "visage";

/// Batch size of an ONNX file's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// Dynamic.
    Dynamic,
    /// Fixed.
    Fixed(u16),
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dynamic => f.write_str("dynamic"),
            Self::Fixed(count) => write!(f, "{count}"),
        }
    }
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "dynamic" => Ok(Self::Dynamic),
            Ok(count @ 1..) => Ok(Self::Fixed(count)),
            _ => Err(format!("a number from 1 to {}, or `dynamic`", u16::MAX)),
        }
    }
}

impl BatchSize {
    fn dimension(self) -> Dimension {
        match self {
            Self::Dynamic => Dimension::named("batch"),
            Self::Fixed(count) => Dimension::fixed(count.into()),
        }
    }
}

impl Export {
    /// The ONNX file: input `pictures`, outputs `embedding` and, for a classifier, `logits`.
    /// Initialisers have PyTorch's state-dict keys; the metadata property [`METADATA`] has the rest as
    /// JSON.
    ///
    /// # Errors
    /// The network has an unsupported operation (which is named), or libtorch fails.
    pub fn to_onnx(&self, batch: BatchSize) -> Result<Vec<u8>> {
        let trace = self.trace()?;
        let graph = Graph::parse(&trace.describe()?)?;
        let outputs = self.outputs();
        let mut builder = Builder::default();
        builder.name(graph.input, INPUT);
        for (value, (name, _)) in graph.outputs.iter().zip(&outputs) {
            builder.name(*value, name);
        }
        for node in &graph.nodes {
            builder.add(node)?;
        }
        let mut initializer = builder.constants;
        for key in builder.tensors {
            let tensor = trace.tensor(&key)?;
            initializer.push(TensorProto::floats(key, tensor.size(), &floats(&tensor)?));
        }
        let first = || batch.dimension();
        let [channels, height, width] = self.picture().map(Dimension::fixed);
        let outputs = outputs.into_iter();
        let output = outputs
            .map(|(name, n)| ValueInfoProto::float(name, vec![first(), Dimension::fixed(n)]));
        let graph = GraphProto {
            node: builder.operations,
            name: self.backbone.architecture.name().into(),
            initializer,
            input: vec![ValueInfoProto::float(INPUT, vec![first(), channels, height, width])],
            output: output.collect(),
        };
        let side = self.backbone.input.size;
        let (key, value) = (METADATA.into(), self.metadata().to_string());
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "visage".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            doc_string: format!(
                "Faces to embeddings of length one. {INPUT}: float32 RGB in [0, 1], [N, 3, {side}, \
                 {side}]; the normalisation is inside."
            ),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: Some("".into()), version: OPSET }],
            metadata_props: vec![StringStringEntryProto { key, value }],
        };
        match i32::try_from(model.encoded_len()) {
            Ok(_) => Ok(model.encode_to_vec()),
            Err(_) => {
                let text = "the model is larger than the 2 GiB that an ONNX file can hold; export \
                            TorchScript instead";
                Err(Error::Config(text.into()))
            }
        }
    }
}

/// All values, row-major.
fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float);
    Ok(Vec::try_from(tensor.f_flatten(0, -1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_a_number_or_dynamic() {
        assert_eq!("dynamic".parse(), Ok(BatchSize::Dynamic));
        assert_eq!("16".parse(), Ok(BatchSize::Fixed(16)));
        for wrong in ["0", "-1", "", "any", "70000"] {
            assert!(wrong.parse::<BatchSize>().is_err(), "{wrong}");
        }
    }
}
