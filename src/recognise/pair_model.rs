//! The model file of a pair network, and the network at work on pictures.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::model_file::{ModelCard, ModelKind, PairCard};
use crate::models::{Compute, HEAD_PREFIX, Mode, PairNet};
use crate::weights::{self, TensorFile};
use crate::{Error, Result};

/// A loaded pair network.
#[derive(Debug)]
pub struct PairModel {
    /// What there is to know about it.
    pub card: ModelCard,
    /// The part of the card that is about pairs.
    pub pair: PairCard,
    /// The frozen network.
    pub net: PairNet,
}

impl PairModel {
    /// Reads a model file written by `train-pairs`, or by `train-triplet --triplets`.
    ///
    /// # Errors
    /// The file is missing, broken, no pair network, or its tensors do not fit its card.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let mut file = TensorFile::read(path)?;
        let card = ModelCard::of(path, &file)?;
        let pair = card.pair.clone().ok_or_else(|| {
            Error::weights(path, "its model card describes no pair network; train-pairs makes one")
        })?;
        let dim = pair.head.default_dim().map(|_| card.embedding_dim);
        let (architecture, side) = (card.architecture, card.input.size);
        let mut net = PairNet::build(architecture, pair.head, dim, Some(side), device)?;
        if (&card.input, card.embedding_dim) != (&net.backbone.input, net.dim()) {
            return Err(Error::weights(path, "its input or its vectors are not this version's"));
        }
        weights::manifest::load_trunk(&net.backbone, path, &file)?;
        file.tensors.retain(|name, _| name.starts_with(HEAD_PREFIX));
        let report = weights::load::load(&net.params, &file, &[]);
        if !report.is_strict() {
            let head = pair.head.name();
            return Err(Error::weights(path, format!("does not fit the head {head}: {report}")));
        }
        net.backbone.set_compute(Compute::fast(None))?;
        net.backbone.params.freeze_all();
        net.params.freeze_all();
        Ok(Self { card, pair, net })
    }
}

/// The answer of a pair network as a distance, larger for less alike: the Euclidean distance of
/// the two vectors, or the negated logit. A join that sees the two in an order is asked in both
/// and the mean counts, so that `(a, b)` and `(b, a)` get one answer.
///
/// # Errors
/// An error from libtorch.
pub fn distances(net: &PairNet, a: &Tensor, b: &Tensor) -> Result<Vec<f32>> {
    let found = tch::no_grad(|| match net.join(a, b, Mode::EVAL) {
        None => Ok((a - b).square().f_sum_dim_intlist(1, false, Kind::Float)?.sqrt()),
        Some(logits) => {
            let other = net.join(b, a, Mode::EVAL).unwrap_or_else(|| logits.shallow_clone());
            Ok::<_, Error>((logits + other) * -0.5)
        }
    })?;
    Ok(Vec::try_from(found.to_device(Device::Cpu).to_kind(Kind::Float))?)
}

/// Writes a pair network, whole or not at all: trunk and head under their keys, the card in the
/// metadata.
///
/// # Errors
/// Names the path and what failed.
pub fn write(path: &Path, card: &ModelCard, net: &PairNet) -> Result<()> {
    let mut file = TensorFile::default();
    file.tensors.extend(net.backbone.params.snapshot());
    file.tensors.extend(net.params.snapshot());
    debug_assert_eq!(card.kind, ModelKind::Pairs);
    card.store(&mut file);
    file.write(path)
}
