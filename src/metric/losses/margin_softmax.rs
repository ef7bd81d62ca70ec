//! The softmax over class centres with a margin: [`arcface`](super::arcface) and
//! [`cosface`](super::cosface).

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;
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
    /// The share of the centres that a batch is compared with.
    class_sample: Option<f64>,
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
        let class_sample = options.class_sample;
        Self { margin, scale: 64.0, reduction, add_margin, class_sample, weight }
    }

    /// Initial centres: N(0, 0.01^2), drawn on the CPU from tch's random state.
    pub fn random_centres(shape: &LossShape) -> Tensor {
        let mut centres = Tensor::empty([shape.classes, shape.dim], (Kind::Float, Device::Cpu));
        centres.normal_(0.0, 0.01).to_device(shape.device).set_requires_grad(true)
    }

    /// The cosines of embeddings `[B, D]` to the centres, float32 `[B, classes]`: the trained
    /// classifier, without margin and scale.
    pub fn cosines(&self, embeddings: &Tensor) -> Tensor {
        Self::cosines_to(embeddings, &self.weight)
    }

    fn cosines_to(embeddings: &Tensor, centres: &Tensor) -> Tensor {
        cosine(embeddings, &centres.to_kind(precise(embeddings).kind()))
    }

    /// The loss of each embedding, float32 `[B]`. With a class sample the softmax is over the sampled
    /// classes only; the centres of the others have a gradient of zero.
    ///
    /// # Panics
    /// When a label is not one of the classes.
    pub fn per_embedding(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let (own, centres) = match self.class_sample {
            None => (labels.shallow_clone(), self.weight.shallow_clone()),
            Some(share) => {
                let (labels, classes) = sampled(labels, self.weight.size()[0], share);
                let classes = Tensor::from_slice(&classes).to_device(self.weight.device());
                (Tensor::from_slice(&labels), self.weight.index_select(0, &classes))
            }
        };
        let own = uploaded(&own, embeddings.device()).unsqueeze(1);
        let cosines = Self::cosines_to(embeddings, &centres);
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

/// The classes that a batch is compared with, in ascending order, and its labels as positions among them: those
/// of the labels, and others, `share` of all `classes` together or more. A function of the labels: every
/// process that sees a batch draws the same, and so does a training that is resumed.
fn sampled(labels: &Tensor, classes: i64, share: f64) -> (Vec<i64>, Vec<i64>) {
    let labels = labels.to_device(Device::Cpu);
    let labels: Vec<i64> = (0..labels.numel() as i64).map(|at| labels.int64_value(&[at])).collect();
    let mut seed = 0u64;
    for &label in &labels {
        seed = (seed.rotate_left(5) ^ label as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    let mut drawn: BTreeSet<i64> = labels.iter().copied().collect();
    let wanted = (share * classes as f64).ceil().min(classes as f64) as usize;
    let mut random = StdRng::seed_from_u64(seed);
    for class in index::sample(&mut random, classes as usize, wanted) {
        if drawn.len() >= wanted {
            break;
        }
        drawn.insert(class as i64);
    }
    let drawn: Vec<i64> = drawn.into_iter().collect();
    let place = |label: &i64| drawn.partition_point(|class| class < label) as i64;
    (labels.iter().map(place).collect(), drawn)
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

#[cfg(test)]
mod tests {
    use super::super::{arcface, cosface};
    use super::*;
    use crate::metric::testing::{close, values};

    #[test]
    fn a_sample_holds_the_batch_and_others_and_is_the_same_again() {
        let labels = Tensor::from_slice(&[700i64, 3, 700, 999]);
        let (places, classes) = sampled(&labels, 1000, 0.1);
        assert_eq!(classes.len(), 100);
        assert!(classes.windows(2).all(|pair| pair[0] < pair[1]));
        let of: Vec<_> = places.iter().map(|&place| classes[place as usize]).collect();
        assert_eq!(of, [700, 3, 700, 999]);
        assert_eq!(sampled(&labels, 1000, 0.1), (places, classes.clone()));
        assert_ne!(sampled(&Tensor::from_slice(&[3i64]), 1000, 0.1).1, classes);
        // Never fewer than the batch has.
        assert_eq!(sampled(&labels, 1000, 1e-9).1, [3, 700, 999]);
    }

    #[test]
    fn the_softmax_is_over_the_sample_and_other_centres_have_no_gradient() {
        let float = (Kind::Float, Device::Cpu);
        let waves =
            |rows: i64, dim: i64| (Tensor::arange(rows * dim, float) * 0.7).sin().view([rows, dim]);
        let labels = Tensor::from_slice(&[5i64, 17, 5]);
        let x = waves(3, 4);
        for build in [arcface as fn(Tensor) -> MarginSoftmaxLoss, cosface] {
            let weight = waves(40, 4).set_requires_grad(true);
            let mut loss = build(weight.shallow_clone());
            loss.class_sample = Some(0.25);
            let (places, classes) = sampled(&labels, 40, 0.25);
            let part = weight.detach().index_select(0, &Tensor::from_slice(&classes));
            let wanted = build(part).per_embedding(&x, &Tensor::from_slice(&places));
            let found = loss.per_embedding(&x, &labels);
            close(&values(&found), &values(&wanted), 1e-6);
            found.sum(Kind::Float).backward();
            let norms = weight.grad().abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
            for (class, norm) in values(&norms).into_iter().enumerate() {
                assert_eq!(norm > 0.0, classes.contains(&(class as i64)), "{class}");
            }
        }
    }
}
