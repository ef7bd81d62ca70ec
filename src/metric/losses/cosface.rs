//! CosFace: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", 2018.

use tch::Tensor;

use super::loss::{LossKind, LossOption, LossOptions};
use super::margin_softmax::MarginSoftmaxLoss;

/// `--loss cosface`.
pub const COSFACE: LossKind = LossKind {
    name: "cosface",
    help: "The same with a margin on the cosine (Wang et al. 2018)",
    margin: Some((0.35, "of the cosine")),
    options: &[LossOption::ClassSample],
    exact_gradient: true,
    build: |options, shape| {
        let centres = MarginSoftmaxLoss::random_centres(shape);
        Box::new(MarginSoftmaxLoss::new(&COSFACE, subtract_margin, options, centres))
    },
};

/// CosFace over the centres `weight [classes, D]`: the own class has `cos(angle) - margin`, with a
/// margin of 0.35 and scale 64.
pub fn cosface(weight: Tensor) -> MarginSoftmaxLoss {
    MarginSoftmaxLoss::new(&COSFACE, subtract_margin, &LossOptions::default(), weight)
}

fn subtract_margin(cosine: &Tensor, margin: f64) -> Tensor {
    cosine - margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::losses::margin_softmax::check_margin;

    #[test]
    fn the_margin_is_harmless_everywhere() {
        check_margin(cosface);
    }
}
