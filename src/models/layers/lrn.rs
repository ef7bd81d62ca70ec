//! Local response normalisation across channels.

use tch::{Device, Kind, Tensor};

use super::squares_apart;

/// Local response normalisation across channels (Krizhevsky et al. 2012), differentiable.
///
/// y = x / (1 + alpha/size · Σ x²)^beta over a window of `size` channels centred on each channel,
/// as `torch.nn.LocalResponseNorm` and Torch7's `SpatialCrossMapLRN`. The window sum is a 1x1
/// convolution with a banded matrix of ones: one fast call in either memory layout.
#[derive(Debug)]
pub struct CrossMapLrn {
    /// Ones where |i - j| <= size/2: `[C, C, 1, 1]`; a constant, not part of the state.
    window: Tensor,
    alpha: f64,
    beta: f64,
}

impl CrossMapLrn {
    /// A window of `size` (odd) channels; `alpha` is divided by `size`, as in PyTorch.
    pub fn new(device: Device, channels: i64, size: i64, alpha: f64, beta: f64) -> Self {
        let reach = size / 2;
        let window = Tensor::ones([channels, channels], (Kind::Float, device))
            .tril(reach)
            .triu(-reach)
            .view([channels, channels, 1, 1]);
        Self { window, alpha: alpha / size as f64, beta }
    }

    /// `[N, C, H, W]` to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        squares_apart(xs, |xs| {
            let window = self.window.to_kind(xs.kind());
            let energy = xs.square().conv2d(&window, None::<&Tensor>, [1], [0], [1], 1);
            xs * (energy * self.alpha + 1.0).pow_tensor_scalar(-self.beta)
        })
    }
}
