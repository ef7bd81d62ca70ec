//! Class centres on the sphere with a margin: Deng, Guo, Xue and Zafeiriou, "ArcFace", 2019; Wang et
//! al., "CosFace", 2018.

use std::f64::consts::PI;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{LossOutput, Reduction};
use crate::metric::distance::{cosine, precise};

/// The least squared sine: below it (angles under 0.02 degrees) the angle's part of the gradient is
/// left out, which would grow without bound there.
const LEAST_SQUARED_SINE: f64 = 1e-7;

/// Where the margin is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
pub enum MarginKind {
    /// On the angle: cos(angle + margin) (Deng et al. 2019)
    #[default]
    #[value(name = "arcface")]
    #[serde(rename = "arcface")]
    ArcFace,
    /// On the cosine: cos(angle) - margin (Wang et al. 2018)
    #[value(name = "cosface")]
    #[serde(rename = "cosface")]
    CosFace,
}

impl MarginKind {
    /// The paper's margin: 0.5 radians for ArcFace, a cosine of 0.35 for CosFace.
    /// (pytorch-metric-learning counts ArcFace's in degrees, 28.6.)
    pub fn default_margin(self) -> f64 {
        match self {
            Self::ArcFace => 0.5,
            Self::CosFace => 0.35,
        }
    }

    /// The cosine to the own class, made harder by the margin.
    ///
    /// ArcFace beyond the angle `pi - margin`, where `cos(angle + margin)` would rise again, goes on
    /// as `cos(angle) - margin sin(margin)`: it keeps falling, so the farthest pictures are still
    /// pulled. There is no "easy margin" (no margin at all beyond 90 degrees): it would spare
    /// exactly the pictures that are most wrong.
    fn harder(self, cosine: &Tensor, margin: f64) -> Tensor {
        match self {
            Self::CosFace => cosine - margin,
            Self::ArcFace => {
                let squared_sine: Tensor = 1.0 - cosine.square();
                let sine = squared_sine.clamp_min(LEAST_SQUARED_SINE).sqrt();
                let added = cosine * margin.cos() - sine * margin.sin();
                let within = cosine.ge((PI - margin).cos());
                added.where_self(&within, &(cosine - margin * margin.sin()))
            }
        }
    }
}

/// One trained centre a class, and the cross-entropy of the scaled cosines to them, the own class's
/// made harder by a margin: `-log softmax(scale * c)_y`, with `c_y` as [`MarginKind`] says and `c_j`
/// the cosine to class `j`.
///
/// The centres are the caller's to register, so that an optimiser and a checkpoint see them:
/// `MarginHead::new(kind, scope.parameter("weight", MarginHead::start(classes, dimensions)))`.
#[derive(Debug)]
pub struct MarginHead {
    /// Where the margin is put.
    pub kind: MarginKind,
    /// The margin: radians (ArcFace) or a cosine (CosFace).
    pub margin: f64,
    /// What cosines are multiplied by before the softmax.
    pub scale: f64,
    /// What the sum over pictures is divided by.
    pub reduction: Reduction,
    /// `[classes, D]`, of any length.
    weight: Tensor,
}

impl MarginHead {
    /// A head over the centres `weight [classes, D]`, with the paper's margin and scale 64.
    pub fn new(kind: MarginKind, weight: Tensor) -> Self {
        let (margin, reduction) = (kind.default_margin(), Reduction::Mean);
        Self { kind, margin, scale: 64.0, reduction, weight }
    }

    /// Centres to start from: N(0, 0.01^2), float32 `[classes, dimensions]` on the CPU, from tch's
    /// random state.
    pub fn start(classes: i64, dimensions: i64) -> Tensor {
        Tensor::empty([classes, dimensions], (Kind::Float, Device::Cpu)).normal_(0.0, 0.01)
    }

    /// The cosines of embeddings `[B, D]` to the centres, float32 `[B, classes]`: the head's answer
    /// outside of training, without margin and scale.
    pub fn cosines(&self, embeddings: &Tensor) -> Tensor {
        cosine(embeddings, &self.weight)
    }

    /// The loss over embeddings `[B, D]` and labels, int64 `[B]`, from 0 to the number of classes.
    ///
    /// # Panics
    /// When a label is not one of the classes.
    pub fn over(&self, embeddings: &Tensor, labels: &Tensor) -> LossOutput {
        self.reduction.reduce(&self.per_picture(embeddings, labels))
    }

    /// The loss of each picture, float32 `[B]`.
    ///
    /// # Panics
    /// When a label is not one of the classes.
    pub fn per_picture(&self, embeddings: &Tensor, labels: &Tensor) -> Tensor {
        let own = labels.to_device(embeddings.device()).unsqueeze(1);
        let cosines = precise(&self.cosines(embeddings));
        let harder = self.kind.harder(&cosines.gather(1, &own, false), self.margin);
        let logits = cosines.scatter(1, &own, &harder) * self.scale;
        let kind = logits.kind();
        -logits.log_softmax(1, kind).gather(1, &own, false).squeeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};

    #[test]
    fn the_margin_falls_all_the_way_and_its_gradient_is_finite() {
        for kind in MarginKind::value_variants() {
            let cosine = Tensor::linspace(1.0, -1.0, 2001, (Kind::Double, Device::Cpu));
            let cosine = cosine.set_requires_grad(true);
            let harder = kind.harder(&cosine, kind.default_margin());
            let found = values(&harder);
            assert!(found.windows(2).all(|pair| pair[1] < pair[0]), "{kind:?}");
            harder.sum(Kind::Double).backward();
            let slopes = values(&cosine.grad());
            assert!(slopes.iter().all(|g| g.is_finite() && *g > 0.0 && *g < 2000.0), "{kind:?}");
        }
        let at = Tensor::from_slice(&[0.5f64]);
        let wanted = (PI / 3.0 + 0.5).cos();
        close(&values(&MarginKind::ArcFace.harder(&at, 0.5)), &[wanted], 1e-12);
    }

    #[test]
    fn a_picture_on_its_centre_or_opposite_has_a_finite_loss_and_gradient() {
        let centres = Tensor::from_slice2(&[[1.0f32, 0.0], [0.0, 1.0]]);
        for kind in MarginKind::value_variants() {
            let weight = centres.copy().set_requires_grad(true);
            let head = MarginHead::new(*kind, weight.shallow_clone());
            let x = Tensor::from_slice2(&[[3.0f32, 0.0], [-1.0, 0.0], [0.0, 0.0]]);
            let x = x.set_requires_grad(true);
            let output = head.over(&x, &Tensor::from_slice(&[0i64, 0, 1]));
            assert!(output.loss.double_value(&[]).is_finite());
            output.loss.backward();
            for gradient in [x.grad(), weight.grad()] {
                assert!(values(&gradient).iter().all(|g| g.is_finite()), "{kind:?}");
            }
        }
    }

    #[test]
    fn names_are_the_command_lines() {
        for kind in MarginKind::value_variants() {
            let flag = kind.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), flag.get_name());
        }
    }
}
