//! The keys of a network for the tensors of an ONNX file.
//!
//! PyTorch's exporter keeps the state-dict keys, but folds a batch normalisation into the convolution before it and
//! then calls the new tensors `onnx::Conv_123`; the files of InsightFace have only numbers. [`state_dict`] then takes
//! the layers in the order of execution, which is that in which the networks here register theirs, and undoes
//! the folding.

use std::iter::Peekable;
use std::slice::Iter;

use tch::{Device, Kind, Tensor};

use super::file::WeightFile;
use super::onnx_layer::{EPSILON, LayerKind, OnnxLayer};
use super::tensor_file::TensorFile;
use crate::models::{Param, Params};
use crate::{Error, Result};

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
    matched.keep_others()?;
    Ok(Some(matched.out))
}

/// The layers of a file, as far as they have been matched.
struct Matched<'f> {
    file: &'f WeightFile<'f>,
    layers: Peekable<Iter<'f, OnnxLayer>>,
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
        let wanted = layer.shape("weight").unwrap_or_default();
        let refuse = |found: &str| {
            let (key, kind) = (layer.key, kind.name());
            Error::weights(
                file.path(),
                format!(
                    "layer {number} of the ONNX file, {found}, does not fit {key} of the net ({kind} \
                     {wanted:?}); give the file's network with --backbone"
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
        let mut tensors = self.read(found)?.into_iter().map(|(_, tensor)| tensor);
        let Some(mut weight) = tensors.next() else { return Err(refuse("which has no weight")) };
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
        let variance = 1.0 - params.epsilon(layer.key).unwrap_or(EPSILON);
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

    /// The layers that the network does not have stay under the file's names, for the report: a classifier's
    /// are ignored by its name, others refused.
    fn keep_others(&mut self) -> Result<()> {
        while let Some(other) = self.layers.next() {
            let read = self.read(other)?;
            self.out.tensors.extend(read);
        }
        Ok(())
    }

    /// The tensors of a layer, with the file's names.
    fn read(&self, layer: &OnnxLayer) -> Result<Vec<(String, Tensor)>> {
        let entries = layer.tensors.iter().filter_map(|&place| self.file.entries().get(place));
        entries.map(|entry| Ok((entry.name.clone(), self.file.tensor(entry)?))).collect()
    }

    fn put(&mut self, layer: &NetLayer, name: &str, tensor: Tensor) {
        let key =
            if layer.key.is_empty() { name.to_owned() } else { format!("{}.{name}", layer.key) };
        self.out.tensors.insert(key, tensor);
    }
}
