//! ArcFace: Deng, Guo, Xue and Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face
//! Recognition", 2019.

use std::f64::consts::PI;

use tch::Tensor;

use super::loss::{LossKind, LossOption, LossOptions};
use super::margin_softmax::MarginSoftmaxLoss;

/// Lower bound of the squared sine (angles of 0.02 degrees), below which the gradient of the sine, which
/// would grow without bound, is zero.
const MIN_SQUARED_SINE: f64 = 1e-7;

/// `--loss arcface`. (pytorch-metric-learning counts the margin in degrees, 28.6.)
pub const ARCFACE: LossKind = LossKind {
    name: "arcface",
    help: "A trained centre per identity, with a margin on the angle (Deng et al. 2019)",
    margin: Some((0.5, "radians")),
    options: &[LossOption::ClassSample],
    exact_gradient: true,
    build: |options, shape| {
        let centres = MarginSoftmaxLoss::random_centres(shape);
        Box::new(MarginSoftmaxLoss::new(&ARCFACE, add_margin, options, centres))
    },
};

/// ArcFace over the centres `weight [classes, D]`: the own class has `cos(angle + margin)`, with a
/// margin of 0.5 radians and scale 64.
pub fn arcface(weight: Tensor) -> MarginSoftmaxLoss {
    MarginSoftmaxLoss::new(&ARCFACE, add_margin, &LossOptions::default(), weight)
}

/// Beyond the angle `pi - margin`, where `cos(angle + margin)` would increase again, it is
/// `cos(angle) - margin sin(margin)`, which keeps decreasing. There is no "easy margin" (no margin
/// beyond 90 degrees): it would drop the margin of the hardest embeddings.
fn add_margin(cosine: &Tensor, margin: f64) -> Tensor {
    let squared_sine: Tensor = 1.0 - cosine.square();
    let sine = squared_sine.clamp_min(MIN_SQUARED_SINE).sqrt();
    let added = cosine * margin.cos() - sine * margin.sin();
    let within = cosine.ge((PI - margin).cos());
    added.where_self(&within, &(cosine - margin * margin.sin()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::losses::margin_softmax::check_margin;
    use crate::metric::testing::{close, values};

    #[test]
    fn the_margin_is_added_to_the_angle() {
        let at = Tensor::from_slice(&[0.5f64]);
        close(&values(&add_margin(&at, 0.5)), &[(PI / 3.0 + 0.5).cos()], 1e-12);
        close(&[arcface(at).margin], &[28.6f64.to_radians()], 1e-3);
        check_margin(arcface);
    }
}
