//! Compares a network with a [`Reference`]: every layer's output, the result, the gradients and the
//! running statistics for the same pictures.
//!
//! The difference of two tensors is relative to the largest value that PyTorch has there:
//! max|a - b| / max|b| over the values in the reference, or |‖a‖ - ‖b‖| / ‖b‖ over all values, if
//! larger. Gradients have a lower bound of [`MIN_GRADIENT`] of the largest gradient in the
//! denominator: a bias before a batch normalisation has a zero gradient, of which both sides have only
//! rounding errors.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tch::{Kind, Tensor};

use super::reference::{Expected, Part, Pass, Precision, Reference};
use crate::models::layers::trace::Trace;
use crate::models::{Backbone, BuildOptions, Mode};
use crate::{Error, Result};

/// Gradients are compared relative to at least this share of the largest gradient of the network.
pub const MIN_GRADIENT: f64 = 1e-6;
/// The weight of the auxiliary head in the loss, as in InceptionV3's paper and the script.
const AUXILIARY: f64 = 0.4;

/// Comparison of one tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What was compared.
    pub part: Part,
    /// The layer or key.
    pub name: String,
    /// Its shape in the reference.
    pub shape: Vec<i64>,
    /// Outcome of the comparison.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Outcome of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// In both.
    Compared {
        /// The relative difference; infinite (in JSON: null) where one is not a number.
        difference: f64,
        /// Where the values are farthest apart.
        place: Vec<i64>,
        /// Visage's value there.
        found: f64,
        /// PyTorch's.
        expected: f64,
    },
    /// Visage's has another shape.
    Shape {
        /// Visage's shape.
        found: Vec<i64>,
    },
    /// Visage has no such layer or gradient.
    Absent,
    /// PyTorch has no such layer.
    Unexpected,
}

impl Comparison {
    /// The relative difference; infinite where there was nothing to compare.
    pub fn difference(&self) -> f64 {
        match self.outcome {
            Outcome::Compared { difference, .. } => difference,
            _ => f64::INFINITY,
        }
    }
}

/// The network of a reference, with random weights.
///
/// # Errors
/// An impossible number of classes or outputs.
pub fn network(reference: &Reference, device: tch::Device) -> Result<Backbone> {
    let about = &reference.about;
    let options = BuildOptions { classes: about.classes, embedding_dim: about.embedding_dim };
    Backbone::build(about.architecture, device, &options)
}

/// Keys, with their shapes, that only PyTorch's state dict has, and that only Visage's has.
pub fn key_differences(reference: &Reference, backbone: &Backbone) -> [Vec<String>; 2] {
    let key = |name: &str, shape: &[i64]| format!("{name} {shape:?}");
    let theirs: Vec<_> =
        reference.about.keys.iter().map(|(name, shape)| key(name, shape)).collect();
    let ours: Vec<_> =
        backbone.params.iter().map(|param| key(&param.name, &param.tensor.size())).collect();
    let only = |these: &[String], those: &[String]| {
        let those: BTreeSet<_> = those.iter().collect();
        these.iter().filter(|key| !those.contains(key)).cloned().collect()
    };
    [only(&theirs, &ours), only(&ours, &theirs)]
}

/// Runs the reference's pictures through `backbone`, which [`network`] built, and compares. With
/// `partial` weights only the layers are compared.
///
/// The backbone's statistics and dtype change with the pass.
///
/// # Errors
/// Pictures of a size the network cannot take, or a reference that is damaged.
pub fn verify(
    backbone: &Backbone,
    reference: &Reference,
    partial: bool,
) -> Result<Vec<Comparison>> {
    let about = &reference.about;
    let kind = about.dtype.kind();
    let mode = Mode { dropout: false, batch_statistics: about.mode == Pass::Train };
    let xs = reference.input.to_device(backbone.device()).to_kind(kind) / 255.0;
    backbone.check_pictures(&xs)?;
    if about.dtype == Precision::Float64 {
        widen(backbone);
    }
    let wanted = |part: Part| !partial || part == Part::Activation;
    let expected: Vec<Expected> = reference
        .expected()
        .filter(|found| found.as_ref().map_or(true, |found| wanted(found.part)))
        .collect::<Result<_>>()?;
    let has_gradients = expected.iter().any(|expected| expected.part == Part::Gradient);
    let found = run(backbone, &xs, mode, about.classes.is_some(), has_gradients)?;

    let largest = |values: &dyn Fn(&Expected) -> f64| {
        let gradients = expected.iter().filter(|expected| expected.part == Part::Gradient);
        gradients.map(values).fold(0.0, f64::max) * MIN_GRADIENT
    };
    let least =
        [largest(&|gradient| greatest(&gradient.values)), largest(&|gradient| gradient.length)];
    let mut compared = Vec::new();
    for expected in &expected {
        let Expected { part, name, shape, .. } = expected;
        let least = if *part == Part::Gradient { least } else { [0.0; 2] };
        let outcome = match found.get(&(*part, name.clone())) {
            None => Outcome::Absent,
            Some(tensor) if tensor.size() != *shape => Outcome::Shape { found: tensor.size() },
            Some(tensor) => compare(tensor, expected, least)?,
        };
        compared.push(Comparison {
            part: *part,
            name: name.clone(),
            shape: shape.clone(),
            outcome,
        });
    }
    let known: BTreeSet<_> =
        expected.iter().map(|expected| (expected.part, &expected.name)).collect();
    for ((part, name), tensor) in &found {
        if *part == Part::Activation && !known.contains(&(*part, name)) {
            let (part, shape) = (Part::Activation, tensor.size());
            compared.push(Comparison {
                part,
                name: name.clone(),
                shape,
                outcome: Outcome::Unexpected,
            });
        }
    }
    Ok(compared)
}

/// All results of a pass, by part and name.
type Found = BTreeMap<(Part, String), Tensor>;

fn run(
    backbone: &Backbone,
    xs: &Tensor,
    mode: Mode,
    classifier: bool,
    gradients: bool,
) -> Result<Found> {
    let forward = || -> Result<(Tensor, Option<Tensor>)> {
        if !classifier {
            return Ok((backbone.embed(xs, mode), None));
        }
        let logits = backbone.logits(xs, mode)?;
        Ok((logits.classes, logits.auxiliary))
    };
    let trace = Trace::start();
    let (output, auxiliary) = if gradients { forward()? } else { tch::no_grad(forward)? };
    let mut found = Found::new();
    for output in trace.finish() {
        found.insert((Part::Activation, output.layer), output.tensor);
    }
    if gradients {
        let mut loss = weighted(&output);
        if let Some(auxiliary) = &auxiliary {
            loss += weighted(auxiliary) * AUXILIARY;
        }
        loss.f_backward()?;
        for (name, parameter) in backbone.params.trainable() {
            let gradient = parameter.grad();
            if gradient.defined() {
                found.insert((Part::Gradient, name), gradient);
            }
        }
    }
    let named = [("output", Some(output)), ("auxiliary", auxiliary)];
    for (name, tensor) in named.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))) {
        found.insert((Part::Output, name.into()), tensor.detach());
    }
    for param in backbone.params.iter().filter(|param| !param.is_parameter) {
        found.insert((Part::Statistic, param.name.clone()), param.tensor.shallow_clone());
    }
    Ok(found)
}

/// The loss of the script: Σ cos(i) x_i, which differs from picture to picture.
fn weighted(xs: &Tensor) -> Tensor {
    let weight = Tensor::arange(xs.numel() as i64, (Kind::Double, xs.device())).cos();
    (xs * weight.to_kind(xs.kind()).view_as(xs)).sum(xs.kind())
}

/// Turns all weights and statistics to float64, as PyTorch's `model.double()`.
fn widen(backbone: &Backbone) {
    for param in backbone.params.iter().filter(|param| param.tensor.kind() == Kind::Float) {
        let wide = param.tensor.detach().to_kind(Kind::Double);
        param.tensor.shallow_clone().set_data(&wide);
    }
}

fn greatest(values: &Tensor) -> f64 {
    if values.numel() == 0 { 0.0 } else { values.abs().max().double_value(&[]) }
}

/// Compares a tensor of the expected shape; `least` bounds the value and the length from below that
/// differences are relative to.
fn compare(tensor: &Tensor, expected: &Expected, least: [f64; 2]) -> Result<Outcome> {
    let whole = tensor.numel() as i64;
    let kept = expected.values.numel() as i64;
    if kept == 0 {
        return Ok(Outcome::Compared { difference: 0.0, place: vec![], found: 0.0, expected: 0.0 });
    }
    let flat = tensor.detach().to_device(tch::Device::Cpu).f_contiguous()?.f_view([-1])?;
    let places = Tensor::arange(kept, (Kind::Int64, tch::Device::Cpu)) * whole;
    let places = places.divide_scalar_mode(kept, "floor");
    let values =
        if kept == whole { flat.shallow_clone() } else { flat.f_index_select(0, &places)? };
    let values = values.to_kind(Kind::Double);
    let apart = (&values - &expected.values).abs();
    // Equal infinities do not differ; a NaN always does.
    let apart = apart.f_masked_fill(&values.f_eq_tensor(&expected.values)?, 0.0)?;
    let apart = apart.nan_to_num(f64::INFINITY, f64::INFINITY, f64::INFINITY);
    let worst = apart.argmax(None, false).int64_value(&[]);
    let share = |apart: f64, scale: f64| if apart == 0.0 { 0.0 } else { apart / scale };
    let by_value = share(apart.double_value(&[worst]), greatest(&expected.values).max(least[0]));
    let length = flat.norm_scalaropt_dtype(2, Kind::Double).double_value(&[]);
    let by_length = share((length - expected.length).abs(), expected.length.max(least[1]));
    // `max` would lose a NaN.
    let difference = if by_length.is_nan() { f64::INFINITY } else { by_value.max(by_length) };
    let mut rest = places.int64_value(&[worst]);
    let mut place: Vec<i64> = Vec::new();
    for &side in expected.shape.iter().rev() {
        place.insert(0, rest % side.max(1));
        rest /= side.max(1);
    }
    let (found, expected) = (values.double_value(&[worst]), expected.values.double_value(&[worst]));
    Ok(Outcome::Compared { difference, place, found, expected })
}

/// Checks that a reference and a model have the same architecture.
///
/// # Errors
/// They differ: names both and the file.
pub fn same_architecture(reference: &Reference, model: &str, name: &str) -> Result<()> {
    let expected = reference.about.architecture.name();
    if expected == name {
        return Ok(());
    }
    let text = format!("is a reference of {expected}; {model} is {name}");
    Err(Error::weights(reference.path(), text))
}
