//! ONNX files as weights.
//!
//! The tensors of a network's layers are the file's entries. PyTorch's exporter keeps the state-dict keys, but folds
//! a batch normalisation into the convolution before it and then calls the new tensors `onnx::Conv_123`; the files of
//! InsightFace have only numbers. [`state_dict`] then takes the layers in the order of execution, which is
//! that in which the networks here register theirs, and undoes the folding.

use std::cell::Cell;
use std::collections::HashMap;

use prost::Message;
use prost::bytes::Bytes;
use tch::{Device, Kind, Tensor};

use super::file::WeightFile;
use super::index::{Index, WeightFormat};
use super::onnx_file::{
    AttributeProto, BFLOAT16, DOUBLE, FLOAT, HALF, INT64, ModelProto, NodeProto, TensorProto,
};
use super::stored::{Data, Entry, Layout, Storage};
use super::tensor_file::TensorFile;
use crate::models::{Param, Params};
use crate::{Error, Result};

/// Prefix of the constants in the files of `visage export`, such as the window of a local response normalisation.
const CONSTANT: &str = "constant_";
/// `data_location` of values in another file.
const EXTERNAL: i32 = 1;
/// ONNX's default of a batch normalisation's `epsilon`.
const EPSILON: f32 = 1e-5;
/// First bytes of the fields that may follow the version, the first field.
const SECOND_FIELD: [u8; 8] = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72];

/// A node with weights.
#[derive(Debug)]
pub(super) struct OnnxLayer {
    kind: LayerKind,
    /// The node's name, for errors.
    name: String,
    /// Its tensors, as names of entries: weight and bias, or also mean and variance.
    tensors: Vec<String>,
    /// A linear layer's weight is `[in, out]`.
    is_transposed: bool,
    epsilon: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LayerKind {
    Convolution,
    Normalisation,
    PRelu,
    Linear,
}

impl LayerKind {
    fn of(operation: &str) -> Option<Self> {
        match operation {
            "Conv" => Some(Self::Convolution),
            "BatchNormalization" => Some(Self::Normalisation),
            "PRelu" => Some(Self::PRelu),
            "Gemm" | "MatMul" => Some(Self::Linear),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Convolution => "a convolution",
            Self::Normalisation => "a batch normalisation",
            Self::PRelu => "a PReLU",
            Self::Linear => "a linear layer",
        }
    }
}

/// Whether a file begins as ONNX files do: with the format's version, then another field of the model.
pub(super) fn is_onnx(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=32, field, ..] if SECOND_FIELD.contains(field))
}

/// Reads the index of an ONNX file: the tensors of convolutions, batch normalisations, PReLUs and linear layers.
pub(super) fn read(bytes: &[u8]) -> Result<Index, String> {
    let copy = Bytes::copy_from_slice(bytes);
    let model = ModelProto::decode(copy.clone())
        .map_err(|error| format!("is no whole ONNX file ({error})"))?;
    let graph = model.graph.ok_or("is an ONNX file without a graph")?;
    let known: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut copies = HashMap::new();
    let mut index = Index::new(WeightFormat::Onnx);
    for node in &graph.node {
        // The same values, perhaps with more dimensions.
        if let ("Identity" | "Unsqueeze" | "Reshape", [from, ..], [to]) =
            (node.op_type.as_str(), node.input.as_slice(), node.output.as_slice())
        {
            let from = copies.get(from.as_str()).copied().unwrap_or(from.as_str());
            copies.insert(to.as_str(), from);
        }
        let Some(kind) = LayerKind::of(&node.op_type) else { continue };
        let inputs = node.input.iter().skip(1).map(String::as_str);
        let inputs = inputs.map(|name| copies.get(name).copied().unwrap_or(name));
        // Weights that the graph computes are not in the file.
        let Some(tensors) = inputs
            .filter(|name| !name.is_empty())
            .map(|name| known.get(name).copied())
            .collect::<Option<Vec<_>>>()
        else {
            continue;
        };
        if tensors.iter().any(|tensor| tensor.name.starts_with(CONSTANT)) {
            continue;
        }
        for tensor in &tensors {
            if !index.entries.iter().any(|entry| entry.name == tensor.name) {
                add(&mut index, tensor, &copy)?;
            }
        }
        let transposed = attribute(node, "transB").and_then(|it| it.i).unwrap_or(0) == 0;
        let epsilon = attribute(node, "epsilon").and_then(|it| it.f).unwrap_or(EPSILON);
        index.layers.push(OnnxLayer {
            kind,
            name: node.name.clone(),
            tensors: tensors.into_iter().map(|tensor| tensor.name.clone()).collect(),
            is_transposed: kind == LayerKind::Linear && transposed,
            epsilon: shortest(epsilon),
        });
    }
    if index.entries.is_empty() {
        return Err("is an ONNX file without weights of layers".into());
    }
    Ok(index)
}

fn attribute<'n>(node: &'n NodeProto, name: &str) -> Option<&'n AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// 1e-5 as a float64, not the float32 next to it.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// Adds a tensor; `copy` has the bytes of the file that its own are part of.
fn add(index: &mut Index, tensor: &TensorProto, copy: &Bytes) -> Result<(), String> {
    let name = &tensor.name;
    if tensor.data_location == EXTERNAL {
        return Err(format!(
            "{name}: its values are in another file; save the model as one file, in PyTorch with \
             torch.onnx.export(..., external_data=False)"
        ));
    }
    let kind = match tensor.data_type {
        FLOAT => Kind::Float,
        DOUBLE => Kind::Double,
        HALF => Kind::Half,
        BFLOAT16 => Kind::BFloat16,
        INT64 => Kind::Int64,
        other => {
            return Err(format!(
                "{name}: is of ONNX's data type {other}; quantised models have no weights to load"
            ));
        }
    };
    let raw = &tensor.raw_data;
    let data = if raw.is_empty() && kind == Kind::Float {
        Data::Inflated(tensor.float_data.iter().flat_map(|value| value.to_le_bytes()).collect())
    } else {
        let start = (raw.as_ptr() as usize).wrapping_sub(copy.as_ptr() as usize);
        match copy.get(start..start.saturating_add(raw.len())) {
            Some(part) if part.as_ptr() == raw.as_ptr() => Data::File(start..start + raw.len()),
            _ => Data::Inflated(raw.to_vec()),
        }
    };
    let storage = Storage { name: name.clone(), data, crc: Cell::new(None) };
    let available = storage.len();
    index.storages.push(storage);
    let layout = Layout { kind, offset: 0, shape: tensor.dims.clone(), stride: None };
    index.entries.push(Entry::new(name.clone(), index.storages.len() - 1, available, layout)?);
    Ok(())
}

/// The tensors of a network's layer: those whose keys differ in the last component only.
struct NetLayer<'p> {
    key: &'p str,
    params: Vec<(&'p str, &'p Param)>,
}

impl<'p> NetLayer<'p> {
    fn all(params: &'p Params) -> Vec<Self> {
        let mut layers: Vec<Self> = Vec::new();
        for param in params.iter() {
            let (key, own) = param.name.rsplit_once('.').unwrap_or(("", &param.name));
            match layers.last_mut().filter(|last| last.key == key) {
                Some(last) => last.params.push((own, param)),
                None => layers.push(Self { key, params: vec![(own, param)] }),
            }
        }
        layers
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        let found = self.params.iter().find(|(own, _)| *own == name);
        found.map(|(_, param)| param.tensor.size())
    }

    fn kind(&self) -> Option<LayerKind> {
        if self.shape("running_mean").is_some() {
            return Some(LayerKind::Normalisation);
        }
        match self.shape("weight")?.len() {
            1 => Some(LayerKind::PRelu),
            2 => Some(LayerKind::Linear),
            4 => Some(LayerKind::Convolution),
            _ => None,
        }
    }
}

/// The file's tensors under the keys of a network, if they have other names; `None` if they have these, or the file
/// is not an ONNX file.
///
/// # Errors
/// The file has other layers than the network.
pub(super) fn state_dict(file: &WeightFile, params: &Params) -> Result<Option<TensorFile>> {
    let is_counter = |param: &Param| param.name.ends_with("num_batches_tracked");
    let layers = file.layers();
    if layers.is_empty() || params.iter().all(|p| is_counter(p) || file.get(&p.name).is_some()) {
        return Ok(None);
    }
    let mut matched = Matched {
        file,
        layers: layers.iter().peekable(),
        number: 0,
        bias: None,
        last: None,
        out: TensorFile::default(),
    };
    for layer in NetLayer::all(params) {
        matched.take(&layer, params)?;
    }
    Ok(Some(matched.out))
}

/// The layers of a file, as far as they have been matched.
struct Matched<'f> {
    file: &'f WeightFile<'f>,
    layers: std::iter::Peekable<std::slice::Iter<'f, OnnxLayer>>,
    number: usize,
    /// That of a convolution which has none in the network: of the batch normalisation folded into it.
    bias: Option<Tensor>,
    /// The kind of the network's last layer.
    last: Option<LayerKind>,
    out: TensorFile,
}

impl Matched<'_> {
    fn take(&mut self, layer: &NetLayer, params: &Params) -> Result<()> {
        let Some(kind) = layer.kind() else { return Ok(()) };
        let last = self.last.replace(kind);
        let next = self.layers.peek().map(|next| next.kind);
        let is_after_product = matches!(last, Some(LayerKind::Convolution | LayerKind::Linear));
        let is_folded = self.bias.is_some() || next != Some(LayerKind::Normalisation);
        if kind == LayerKind::Normalisation && is_after_product && is_folded {
            return self.undo_folding(layer, params);
        }
        let (file, number) = (self.file, self.number + 1);
        let refuse = |found: &str| {
            Error::weights(
                file.path(),
                format!(
                    "layer {} of the ONNX file, {found}, does not fit {} of the net ({} {:?}); give the \
                     file's network with --backbone",
                    number,
                    layer.key,
                    kind.name(),
                    layer.shape("weight").unwrap_or_default(),
                ),
            )
        };
        let Some(found) = self.layers.next_if(|next| next.kind == kind) else {
            let found = self.layers.peek().map_or_else(
                || "which it does not have".to_owned(),
                |next| format!("{} ({})", next.kind.name(), next.name),
            );
            return Err(refuse(&found));
        };
        let mut tensors = Vec::new();
        for name in &found.tensors {
            let entry = self.file.get(name);
            let entry =
                entry.ok_or_else(|| Error::weights(self.file.path(), format!("{name} is gone")))?;
            tensors.push(self.file.tensor(entry)?);
        }
        let mut tensors = tensors.into_iter();
        let mut weight =
            tensors.next().unwrap_or_else(|| Tensor::zeros([0], (Kind::Float, Device::Cpu)));
        let wanted = layer.shape("weight").unwrap_or_default();
        if found.is_transposed && weight.dim() == 2 {
            weight = weight.f_transpose(0, 1)?.f_contiguous()?;
        }
        if kind == LayerKind::PRelu {
            weight = weight.f_flatten(0, -1)?;
        }
        if weight.size() != wanted {
            let shape = weight.size();
            return Err(refuse(&format!("{} ({}, {shape:?})", kind.name(), found.name)));
        }
        self.number = number;
        let bias = tensors.next();
        self.put(layer, "weight", weight);
        match (layer.shape("bias"), bias) {
            (Some(_), Some(bias)) => self.put(layer, "bias", bias),
            (Some(shape), None) => {
                let float = (Kind::Float, Device::Cpu);
                self.put(layer, "bias", Tensor::f_zeros(shape.as_slice(), float)?);
            }
            (None, bias) if kind != LayerKind::Normalisation => self.bias = bias,
            (None, _) => {}
        }
        if kind == LayerKind::Normalisation {
            let (mean, variance) = (tensors.next(), tensors.next());
            let (Some(mean), Some(variance)) = (mean, variance) else {
                return Err(refuse("which has no statistics"));
            };
            let other = found.epsilon - params.epsilon(layer.key).unwrap_or(found.epsilon);
            self.put(layer, "running_mean", mean);
            self.put(layer, "running_var", if other == 0.0 { variance } else { variance + other });
        }
        Ok(())
    }

    /// A batch normalisation that adds the bias it was folded into, and does nothing else.
    fn undo_folding(&mut self, layer: &NetLayer, params: &Params) -> Result<()> {
        let shape = layer.shape("running_mean").unwrap_or_default();
        let float = (Kind::Float, Device::Cpu);
        let bias = match self.bias.take() {
            Some(bias) => bias,
            None => Tensor::f_zeros(shape.as_slice(), float)?,
        };
        let variance = 1.0 - params.epsilon(layer.key).unwrap_or_else(|| shortest(EPSILON));
        for (name, tensor) in [
            ("weight", Tensor::f_ones(shape.as_slice(), float)?),
            ("bias", bias),
            ("running_mean", Tensor::f_zeros(shape.as_slice(), float)?),
            ("running_var", Tensor::f_full(shape.as_slice(), variance, float)?),
        ] {
            if layer.shape(name).is_some() {
                self.put(layer, name, tensor);
            }
        }
        Ok(())
    }

    fn put(&mut self, layer: &NetLayer, name: &str, tensor: Tensor) {
        let key =
            if layer.key.is_empty() { name.to_owned() } else { format!("{}.{name}", layer.key) };
        self.out.tensors.insert(key, tensor);
    }
}
