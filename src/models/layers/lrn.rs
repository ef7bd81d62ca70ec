//! Local response normalisation across channels.

use tch::{Device, Kind, Tensor};

use super::squares_apart;
use crate::native;

/// Local response normalisation across channels (Krizhevsky et al. 2012), differentiable.
///
/// y = x / (1 + alpha/size · Σ x²)^beta over a window of `size` channels centred on each channel,
/// as `torch.nn.LocalResponseNorm` and Torch7's `SpatialCrossMapLRN`. A kernel of its own does it
/// where the channels of a pixel lie side by side on the CPU; elsewhere the window sum is a 1x1
/// convolution with a banded matrix of ones.
#[derive(Debug)]
pub struct CrossMapLrn {
    /// Ones where |i - j| <= size/2: `[C, C, 1, 1]`; a constant, not part of the state.
    window: Tensor,
    reach: i64,
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
        Self { window, reach, alpha: alpha / size as f64, beta }
    }

    /// `[N, C, H, W]` to the same shape.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        squares_apart(xs, |xs| {
            let fast = native::local_response_norm(xs, self.reach, self.alpha, self.beta);
            // Only a lack of memory can fail there, and the operators below would report it.
            if let Ok(Some(ys)) = fast {
                return ys;
            }
            let window = self.window.to_kind(xs.kind());
            let energy = xs.square().conv2d(&window, None::<&Tensor>, [1], [0], [1], 1);
            xs * (energy * self.alpha + 1.0).pow_tensor_scalar(-self.beta)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that a ReLU may give: some zero, some large enough that the norm matters.
    fn maps() -> Tensor {
        let values = Tensor::arange(2 * 20 * 3 * 5, (Kind::Float, Device::Cpu));
        ((values * 0.7).sin() * 60.0).relu().view([2, 20, 3, 5])
    }

    /// The output and the gradient of a weighted sum of it, both float32 in PyTorch's layout.
    fn run(lrn: &CrossMapLrn, xs: &Tensor) -> [Tensor; 2] {
        let xs = xs.detach().set_requires_grad(true);
        let ys = lrn.forward(&xs);
        let weights = Tensor::arange(600, (Kind::Float, Device::Cpu)).cos().view([2, 20, 3, 5]);
        (&ys * weights).sum(Kind::Float).backward();
        [ys.detach(), xs.grad()].map(|tensor| tensor.to_kind(Kind::Float).contiguous())
    }

    #[test]
    fn the_kernel_agrees_with_libtorchs_operators_in_value_and_gradient() {
        for (size, alpha, beta) in [(5, 1e-1, 0.75), (3, 1e-2, 0.5), (1, 1e-1, 0.75)] {
            let lrn = CrossMapLrn::new(Device::Cpu, 20, size, alpha, beta);
            let wanted = run(&lrn, &maps());
            let last = native::channels_last(&maps()).unwrap();
            assert!(native::local_response_norm(&last, 2, alpha, beta).unwrap().is_some());
            assert!(native::local_response_norm(&maps(), 2, alpha, beta).unwrap().is_none());
            for (kind, bound) in [(Kind::Float, 2e-6), (Kind::BFloat16, 2e-2)] {
                for (own, wanted) in run(&lrn, &last.to_kind(kind)).iter().zip(&wanted) {
                    let largest = wanted.abs().max().double_value(&[]);
                    let apart = (own - wanted).abs().max().double_value(&[]);
                    assert!(apart <= bound * largest, "{size} {kind:?}: {apart} of {largest}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let lrn = CrossMapLrn::new(Device::Cpu, 20, 5, 1e-4, 0.75);
        let broken = native::channels_last(&maps()).unwrap() * f64::NAN;
        for kind in [Kind::Float, Kind::BFloat16] {
            assert!(bool::try_from(lrn.forward(&broken.to_kind(kind)).isnan().all()).unwrap());
        }
    }
}
