//! The softmax over class centres with a margin: [`arcface`](super::arcface) and
//! [`cosface`](super::cosface).

use tch::{Device, Kind, Tensor};

use super::loss::{Loss, LossKind, LossOptions, LossShape};
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::{cosine, precise};
use crate::metric::miners::tuples::Tuples;
use crate::native::cuda::uploaded;

/// Applies the margin to the cosine of the target class.
pub(super) type AddMargin = fn(cosine: &Tensor, margin: f64) -> Tensor;

/// One trained centre per class, and the cross-entropy of the scaled cosines to them, with a margin on
/// the target class: `-log softmax(scale * c)_y`, with `c_j` the cosine to class `j`.
///
/// The centres are [`Loss::parameters`] `centres.weight`.
#[derive(Debug)]
pub struct MarginSoftmaxLoss {
    /// The margin: radians (ArcFace) or a cosine (CosFace).
    pub margin: f64,
    /// The factor of cosines before the softmax.
    pub scale: f64,
    /// What the sum over embeddings is divided by.
    pub reduction: Reduction,
    add_margin: AddMargin,
    /// `[classes, D]`, not normalised.
    weight: Tensor,
}

impl MarginSoftmaxLoss {
    /// The loss over the centres `weight [classes, D]`, with the margin of `kind` where none is given
    /// and scale 64.
    pub(super) fn new(
        kind: &LossKind,
        add_margin: AddMargin,
        options: &LossOptions,
        weight: Tensor,
    ) -> Self {
        let (margin, reduction) = (kind.margin(options), options.reduction);
        Self { margin, scale: 64.0, reduction, add_margin, weight }
    }

    /// Initial centres: N(0, 0.01^2), drawn on the CPU from tch's random state.
    pub fn random_centres(shape: &LossShape) -> Tensor {
        let mut centres = Tensor::empty([shape.classes, shape.dim], (Kind::Float, Device::Cpu));
        centres.normal_(0.0, 0.01).to_device(shape.device).set_requires_grad(true)
    }

    /// The cosines of embeddings `[B, D]` to the centres, float32 `[B, classes]`: the trained
    /// classifier, without margin and scale.
    pub fn cosines(&self, embeddings: &Tensor) -> Tensor {
        cosine(embeddings, &self.weight.to_kind(precise(embeddings).kind()))
    }

    /// The loss of each embedding, float32 `[B]`.
    ///
    /// # Panics
    /// When a label is not one of the classes.
    pub fn per_embedding(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let own = uploaded(labels, embeddings.device()).unsqueeze(1);
        let cosines = self.cosines(embeddings);
        let with_margin = (self.add_margin)(&cosines.gather(1, &own, false), self.margin);
        let logits = cosines.scatter(1, &own, &with_margin) * self.scale;
        let kind = logits.kind();
        -logits.log_softmax(1, kind).gather(1, &own, false).squeeze_dim(1)
    }
}

impl Loss for MarginSoftmaxLoss {
    /// # Panics
    /// When a label is not one of the classes.
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, _: &Tuples) -> LossOutput {
        self.reduction.reduce(&self.per_embedding(embeddings, labels))
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        vec![("centres.weight".into(), self.weight.shallow_clone())]
    }
}

/// Tests a margin.
#[cfg(test)]
pub(super) fn check_margin(build: fn(Tensor) -> MarginSoftmaxLoss) {
    use crate::metric::testing::values;

    let centres = Tensor::from_slice2(&[[1.0f32, 0.0], [0.0, 1.0]]);
    let weight = centres.set_requires_grad(true);
    let loss = build(weight.shallow_clone());

    // It is decreasing, with a finite slope.
    let cosine = Tensor::linspace(1.0, -1.0, 2001, (Kind::Double, Device::Cpu));
    let cosine = cosine.set_requires_grad(true);
    let with_margin = (loss.add_margin)(&cosine, loss.margin);
    assert!(values(&with_margin).windows(2).all(|pair| pair[1] < pair[0]));
    with_margin.sum(Kind::Double).backward();
    assert!(values(&cosine.grad()).iter().all(|g| g.is_finite() && *g > 0.0 && *g < 2000.0));

    // An embedding on its centre, opposite to it, or at the origin has a finite loss and gradient.
    let x = Tensor::from_slice2(&[[3.0f32, 0.0], [-1.0, 0.0], [0.0, 0.0]]);
    let x = x.set_requires_grad(true);
    let output = loss.forward(&x, &Tensor::from_slice(&[0i64, 0, 1]), &Tuples::All);
    assert!(output.loss.double_value(&[]).is_finite());
    output.loss.backward();
    for gradient in [x.grad(), weight.grad()] {
        assert!(values(&gradient).iter().all(|g| g.is_finite()));
    }
}
