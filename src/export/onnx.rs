//! ONNX export: translates the traced operations and writes the file.

use std::fmt;
use std::str::FromStr;

use prost::Message;
use tch::{Device, Kind, Tensor};

use super::graph::Graph;
use super::onnx_ops::Builder;
use super::{Export, INPUT};
use crate::weights::onnx_file::{
    Dimension, GraphProto, IR_VERSION, ModelProto, OPSET, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto,
};
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
    use std::collections::HashMap;

    use super::*;
    use crate::models::{Architecture, Backbone, Mode};
    use crate::weights::Source;
    use crate::weights::onnx_file::NodeProto;

    /// Statistics, weights and biases of batch normalisations that are not those of the start.
    fn unlike_the_start(backbone: &Backbone) {
        tch::no_grad(|| {
            for param in backbone.params.iter().filter(|param| param.tensor.dim() == 1) {
                let values =
                    Tensor::arange(param.tensor.numel() as i64, (Kind::Float, Device::Cpu));
                let values = values.sin() * 0.2;
                let middle = if param.name.ends_with("running_mean") || param.name.ends_with("bias")
                {
                    0.0
                } else {
                    0.9
                };
                param.tensor.shallow_clone().copy_(&(values + middle));
            }
        });
    }

    fn values(tensor: &TensorProto) -> Tensor {
        let values = tensor.raw_data.chunks_exact(4);
        let values: Vec<f32> =
            values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Tensor::from_slice(&values).reshape(&tensor.dims)
    }

    /// The graph as PyTorch's exporter writes it: batch normalisations folded into the convolutions before them,
    /// weights with numbers for names. `keeps_raw` is whether they stay bytes.
    fn folded(graph: &mut GraphProto, keeps_raw: bool) -> usize {
        let mut tensors: HashMap<String, Tensor> = graph
            .initializer
            .iter()
            .filter(|tensor| tensor.data_type == 1)
            .map(|tensor| (tensor.name.clone(), values(tensor)))
            .collect();
        let (mut nodes, mut count): (Vec<NodeProto>, usize) = (Vec::new(), 0);
        for mut node in std::mem::take(&mut graph.node) {
            let before = nodes.iter_mut().find(|before| {
                before.op_type == "Conv"
                    && node.op_type == "BatchNormalization"
                    && before.output[0] == node.input[0]
            });
            if let Some(conv) = before {
                let [weight, bias, mean, var] = [1, 2, 3, 4].map(|at| &tensors[&node.input[at]]);
                let epsilon = f64::from(
                    node.attribute.iter().find(|a| a.name == "epsilon").unwrap().f.unwrap(),
                );
                let scale = weight / (var + epsilon).sqrt();
                let own = conv
                    .input
                    .get(2)
                    .map_or_else(|| mean.zeros_like(), |own| tensors[own].shallow_clone());
                let bias = bias + (own - mean) * &scale;
                let weight = &tensors[&conv.input[1]] * scale.reshape([-1, 1, 1, 1]);
                conv.input.truncate(1);
                for (what, tensor) in [("weight", weight), ("bias", bias)] {
                    let name = format!("onnx::Conv_{what}{count}");
                    tensors.insert(name.clone(), tensor);
                    conv.input.push(name);
                }
                conv.output = std::mem::take(&mut node.output);
                count += 1;
                continue;
            }
            nodes.push(node);
        }
        let rest =
            graph.initializer.drain(..).filter(|tensor| tensor.data_type != 1).collect::<Vec<_>>();
        let mut names: Vec<_> = tensors.into_iter().collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let is_weight = |name: &String| !name.starts_with("constant_");
        let numbers: HashMap<String, String> = names
            .iter()
            .enumerate()
            .filter(|(_, (name, _))| is_weight(name))
            .map(|(at, (name, _))| (name.clone(), at.to_string()))
            .collect();
        for input in nodes.iter_mut().flat_map(|node| &mut node.input) {
            if let Some(number) = numbers.get(input.as_str()) {
                input.clone_from(number);
            }
        }
        graph.initializer = names
            .iter()
            .map(|(name, tensor)| {
                let list = floats(tensor).unwrap();
                let mut proto = TensorProto::floats(
                    numbers.get(name).unwrap_or(name).clone(),
                    tensor.size(),
                    &list,
                );
                if !keeps_raw {
                    proto.raw_data.clear();
                    proto.float_data = list;
                }
                proto
            })
            .chain(rest)
            .collect();
        graph.node = nodes;
        count
    }

    /// The embedding of one picture.
    fn embedding(backbone: &Backbone) -> Vec<f32> {
        let side = i64::from(backbone.input.size);
        let picture = Tensor::arange(3 * side * side, (Kind::Float, Device::Cpu)).sin().abs();
        let embedded =
            tch::no_grad(|| backbone.embed(&picture.reshape([1, 3, side, side]), Mode::EVAL));
        floats(&embedded).unwrap()
    }

    #[test]
    fn onnx_files_are_weights_with_our_names_or_folded_and_numbered() {
        let folder = tempfile::tempdir().unwrap();
        for (architecture, norms) in [
            (Architecture::OpenFace, 36),
            (Architecture::MobileFaceNet, 1),
            (Architecture::IResNet18, 1),
        ] {
            let backbone = Backbone::new(architecture, Device::Cpu);
            unlike_the_start(&backbone);
            let wanted = embedding(&backbone);
            let bytes = Export::trunk(backbone).unwrap().to_onnx(BatchSize::Dynamic).unwrap();
            let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
            let count =
                folded(model.graph.as_mut().unwrap(), architecture != Architecture::OpenFace);
            assert!(count >= norms, "{count}");
            for (name, bytes) in [("named", bytes), ("numbered", model.encode_to_vec())] {
                let path = folder.path().join(format!("{name}.onnx"));
                std::fs::write(&path, bytes).unwrap();
                let loaded = Backbone::new(architecture, Device::Cpu);
                let report = Source::File(path).load_into(&loaded).unwrap().unwrap();
                assert_eq!(report.notes.len(), usize::from(name == "numbered"), "{report}");
                let found = embedding(&loaded);
                let far = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs());
                let far = far.fold(0.0, f32::max);
                assert!(
                    far < if name == "named" { 1e-7 } else { 1e-5 },
                    "{}: {far}",
                    architecture.name()
                );
            }
        }
        let other = Backbone::new(Architecture::OpenFace, Device::Cpu);
        let error =
            Source::File(folder.path().join("numbered.onnx")).load_into(&other).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("numbered.onnx: layer 1 of the ONNX file, a convolution")
                && text.contains("layer1"),
            "{text}"
        );
    }

    #[test]
    fn a_batch_is_a_number_or_dynamic() {
        assert_eq!("dynamic".parse(), Ok(BatchSize::Dynamic));
        assert_eq!("16".parse(), Ok(BatchSize::Fixed(16)));
        for wrong in ["0", "-1", "", "any", "70000"] {
            assert!(wrong.parse::<BatchSize>().is_err(), "{wrong}");
        }
    }
}
