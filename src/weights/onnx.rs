//! ONNX files as weights.
//!
//! The tensors of a network's layers are the file's entries, under the file's names; `onnx_names` knows
//! what becomes of names that are not the network's.

use std::cell::Cell;
use std::collections::HashMap;

use prost::Message;
use prost::bytes::Bytes;
use tch::Kind;

use super::index::{Index, WeightFormat};
use super::onnx_file::{
    AttributeProto, BFLOAT16, DOUBLE, FLOAT, HALF, INT64, ModelProto, NodeProto, TensorProto,
};
use super::onnx_layer::{EPSILON, LayerKind, OnnxLayer};
use super::stored::{Data, Entry, Layout, Storage};

/// Prefix of the constants in the files of `visage export`, such as the window of a local response normalisation.
const CONSTANT: &str = "constant_";
/// `data_location` of values in another file.
const EXTERNAL: i32 = 1;
/// First bytes of the fields that may follow the version, the first field.
const SECOND_FIELD: [u8; 8] = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72];

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
    let (mut copies, mut places) = (HashMap::new(), HashMap::new());
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
        if tensors.is_empty() || tensors.iter().any(|tensor| tensor.name.starts_with(CONSTANT)) {
            continue;
        }
        let mut own = Vec::new();
        for tensor in tensors {
            let place = match places.get(tensor.name.as_str()) {
                Some(&place) => place,
                None => add(&mut index, tensor, &copy)?,
            };
            places.insert(tensor.name.as_str(), place);
            own.push(place);
        }
        let transposed = attribute(node, "transB").and_then(|it| it.i).unwrap_or(0) == 0;
        let epsilon = attribute(node, "epsilon").and_then(|it| it.f);
        index.layers.push(OnnxLayer {
            kind,
            name: node.name.clone(),
            tensors: own,
            is_transposed: kind == LayerKind::Linear && transposed,
            epsilon: epsilon.map_or(EPSILON, shortest),
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

/// Adds a tensor and returns its place; `copy` has the bytes of the file that its own are part of.
fn add(index: &mut Index, tensor: &TensorProto, copy: &Bytes) -> Result<usize, String> {
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
    Ok(index.entries.len() - 1)
}
