//! Layers with PyTorch's names, defaults and initialisation.

mod conv;
mod conv_norm_relu;
mod init;
mod linear;
mod lrn;
mod norm;
mod pool;
mod prelu;
pub mod trace;

use tch::{Kind, Tensor};

use crate::native::without_autocast;

pub use conv::{Conv2d, ConvSpec};
pub use conv_norm_relu::{ConvNormRelu, layer_by_layer};
pub use init::{Bias, Weight};
pub use linear::Linear;
pub use lrn::CrossMapLrn;
pub use norm::{BatchNorm, NormOptions};
pub use pool::{Window, adaptive_avg_pool, avg_pool, global_avg_pool, l2_pool, max_pool};
pub use prelu::PRelu;

/// What a forward pass may do beside computing: fine-tuning wants dropout without touching the
/// statistics of batch normalisation, so the two switches are separate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Dropout drops.
    pub dropout: bool,
    /// Batch normalisation uses, and updates from, the statistics of the batch.
    pub batch_statistics: bool,
}

impl Mode {
    /// PyTorch's `model.eval()`.
    pub const EVAL: Self = Self { dropout: false, batch_statistics: false };
    /// PyTorch's `model.train()`.
    pub const TRAIN: Self = Self { dropout: true, batch_statistics: true };
}

/// Zeroes each value with `probability` and scales the others by 1 / (1 - probability), where
/// `mode` drops (Srivastava et al., 2014).
pub fn dropout(xs: &Tensor, probability: f64, mode: Mode) -> Tensor {
    xs.dropout(probability, mode.dropout)
}

/// Runs a layer that squares its input: in float32 where that is float16, which ends at 65,504, and
/// in its own kind otherwise. The output has the input's kind.
fn squares_apart(xs: &Tensor, layer: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
    match xs.kind() {
        Kind::Half => without_autocast(|| layer(&xs.to_kind(Kind::Float))).to_kind(Kind::Half),
        _ => layer(xs),
    }
}

/// At least float32: half precision is too coarse for lengths and distances.
fn widened(xs: &Tensor) -> Tensor {
    xs.to_kind(if xs.kind() == Kind::Double { Kind::Double } else { Kind::Float })
}

/// Rows of `[N, D]` scaled to length one, in float32: x / sqrt(Σ x² + 1e-6), the OpenFace port's
/// formula (its epsilon is larger than [`normalize`] has). float64 stays float64.
pub fn unit_rows(xs: &Tensor) -> Tensor {
    let xs = widened(xs);
    let square = xs.square().sum_dim_intlist([1i64].as_slice(), true, xs.kind());
    &xs / (square + 1e-6).sqrt()
}

/// Rows of `[N, D]` scaled to length one, in float32: x / max(‖x‖, 1e-12), as
/// `torch.nn.functional.normalize`. A row of zeros stays zero and gets a finite gradient. float64
/// stays float64.
pub fn normalize(xs: &Tensor) -> Tensor {
    let xs = widened(xs);
    &xs / xs.norm_scalaropt_dim(2, [1i64].as_slice(), true).clamp_min(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_zero_row_has_a_finite_gradient() {
        let rows = Tensor::from_slice(&[0f32, 0., 3., 4.]).view([2, 2]).set_requires_grad(true);
        let unit = normalize(&rows);
        let values: Vec<f32> = Vec::try_from(unit.flatten(0, -1)).unwrap();
        assert_eq!(values, [0., 0., 0.6, 0.8]);
        unit.sum(Kind::Float).backward();
        assert!(bool::try_from(rows.grad().isfinite().all()).unwrap());
    }

    #[test]
    fn dropout_obeys_its_switch_alone() {
        let ones = Tensor::ones([10_000], (Kind::Float, Device::Cpu));
        let still = Mode { dropout: false, batch_statistics: true };
        assert!(dropout(&ones, 0.6, still).equal(&ones));
        let drops = Mode { dropout: true, batch_statistics: false };
        let dropped = dropout(&ones, 0.6, drops);
        let kept = i64::try_from(dropped.count_nonzero(None)).unwrap();
        assert!((3700..4300).contains(&kept), "{kept} of 10000 kept at p = 0.6");
        assert!((f64::try_from(dropped.max()).unwrap() - 2.5).abs() < 1e-6);
    }
}
