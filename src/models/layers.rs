//! Layers with PyTorch's names, defaults and initialisation.

use tch::{Device, Kind, Tensor};

use super::params::Scope;

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

/// 2-d convolution with a bias.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv2d {
    /// Weight `[out, in, k, k]` and bias `[out]`, both U(-b, b) with b = 1/sqrt(in·k·k), as PyTorch.
    pub fn new(at: &Scope, inputs: i64, outputs: i64, kernel: i64, stride: i64, pad: i64) -> Self {
        let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
        Self {
            weight: at.parameter("weight", at.uniform(&[outputs, inputs, kernel, kernel], bound)),
            bias: at.parameter("bias", at.uniform(&[outputs], bound)),
            stride,
            padding: pad,
        }
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        xs.conv2d(&self.weight, Some(&self.bias), stride, padding, [1, 1], 1)
    }
}

/// Batch normalisation over `[N, C, H, W]` or `[N, C]`; eps 1e-5, momentum 0.1.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
}

impl BatchNorm {
    /// PyTorch's start: weight 1, bias 0, mean 0, variance 1.
    pub fn new(at: &Scope, channels: i64) -> Self {
        let float = (Kind::Float, Device::Cpu);
        Self {
            weight: at.parameter("weight", Tensor::ones([channels], float)),
            bias: at.parameter("bias", Tensor::zeros([channels], float)),
            running_mean: at.buffer("running_mean", Tensor::zeros([channels], float)),
            running_var: at.buffer("running_var", Tensor::ones([channels], float)),
            num_batches_tracked: at
                .buffer("num_batches_tracked", Tensor::zeros([], (Kind::Int64, Device::Cpu))),
        }
    }

    /// Normalises with the running statistics, or with the batch's where `mode` says so.
    pub fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        if mode.batch_statistics {
            // In place on the shared tensor: the book of parameters sees the count.
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        Tensor::batch_norm(
            xs,
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            mode.batch_statistics,
            0.1,
            1e-5,
            false,
        )
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Weight `[out, in]` and bias `[out]`, both U(-b, b) with b = 1/sqrt(in), as PyTorch.
    pub fn new(at: &Scope, inputs: i64, outputs: i64) -> Self {
        let bound = 1.0 / (inputs as f64).sqrt();
        Self {
            weight: at.parameter("weight", at.uniform(&[outputs, inputs], bound)),
            bias: at.parameter("bias", at.uniform(&[outputs], bound)),
        }
    }

    /// `[N, in]` to `[N, out]`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        xs.linear(&self.weight, Some(&self.bias))
    }
}

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
        let energy = xs.square().conv2d(&self.window, None::<&Tensor>, [1], [0], [1], 1);
        xs * (energy * self.alpha + 1.0).pow_tensor_scalar(-self.beta)
    }
}

/// L2 pooling: the root of the sum of squares over `kernel` x `kernel` windows, no padding.
///
/// `torch.nn.LPPool2d(2, kernel, stride)`, with one difference: behind a ReLU whole windows are
/// zero, where the root has an infinite slope and PyTorch's gradient becomes NaN. The sum is held
/// at 1e-12 from below, which stops the gradient there and changes a zero output to 1e-6.
pub fn l2_pool(xs: &Tensor, kernel: i64, stride: i64) -> Tensor {
    let (window, step) = ([kernel; 2], [stride; 2]);
    let mean = xs.square().avg_pool2d(window, step, [0, 0], false, true, None);
    (mean * (kernel * kernel) as f64).clamp_min(1e-12).sqrt()
}

/// Max pooling without dilation, rounding the output size down.
pub fn max_pool(xs: &Tensor, kernel: i64, stride: i64, padding: i64) -> Tensor {
    xs.max_pool2d([kernel; 2], [stride; 2], [padding; 2], [1, 1], false)
}

/// Rows of `[N, D]` scaled to length one, in float32: x / sqrt(Σ x² + 1e-6), the OpenFace port's
/// formula (its epsilon is larger than `torch.nn.functional.normalize` has).
pub fn unit_rows(xs: &Tensor) -> Tensor {
    let xs = xs.to_kind(Kind::Float);
    let square = xs.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
    &xs / (square + 1e-6).sqrt()
}
