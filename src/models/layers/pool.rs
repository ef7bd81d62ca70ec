//! Pooling, with PyTorch's switches.

use tch::Tensor;

use super::squares_apart;

/// The window of a pooling layer: square, without padding, the output size rounded down and, for
/// averages, the padding counted, unless said otherwise (PyTorch's defaults).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    kernel: i64,
    stride: i64,
    padding: i64,
    ceil_mode: bool,
    count_include_pad: bool,
}

impl Window {
    /// `kernel` x `kernel`, moved by `stride`.
    pub const fn new(kernel: i64, stride: i64) -> Self {
        Self { kernel, stride, padding: 0, ceil_mode: false, count_include_pad: true }
    }

    /// Rows and columns around the map: zeros for averages, minus infinity for maxima.
    pub const fn padding(mut self, padding: i64) -> Self {
        self.padding = padding;
        self
    }

    /// Rounds the output size up: PyTorch's `ceil_mode=True`.
    pub const fn ceil(mut self) -> Self {
        self.ceil_mode = true;
        self
    }

    /// Divides an average by the values inside the map: PyTorch's `count_include_pad=False`.
    pub const fn count_inside_only(mut self) -> Self {
        self.count_include_pad = false;
        self
    }
}

/// The largest value of each window.
pub fn max_pool(xs: &Tensor, at: Window) -> Tensor {
    xs.max_pool2d([at.kernel; 2], [at.stride; 2], [at.padding; 2], [1, 1], at.ceil_mode)
}

/// The mean of each window.
pub fn avg_pool(xs: &Tensor, at: Window) -> Tensor {
    let (kernel, stride, padding) = ([at.kernel; 2], [at.stride; 2], [at.padding; 2]);
    xs.avg_pool2d(kernel, stride, padding, at.ceil_mode, at.count_include_pad, None)
}

/// Means over a grid of `side` x `side` nearly equal windows, whatever the size of the map.
pub fn adaptive_avg_pool(xs: &Tensor, side: i64) -> Tensor {
    xs.adaptive_avg_pool2d([side; 2])
}

/// The mean over the whole map: `[N, C, H, W]` to `[N, C]`.
pub fn global_avg_pool(xs: &Tensor) -> Tensor {
    adaptive_avg_pool(xs, 1).flatten(1, -1)
}

/// L2 pooling: the root of the sum of squares over `kernel` x `kernel` windows, no padding.
///
/// `torch.nn.LPPool2d(2, kernel, stride)`, with one difference: behind a ReLU whole windows are
/// zero, where the root has an infinite slope and PyTorch's gradient becomes NaN. The sum is held
/// at 1e-12 from below, which stops the gradient there and changes a zero output to 1e-6.
pub fn l2_pool(xs: &Tensor, kernel: i64, stride: i64) -> Tensor {
    squares_apart(xs, |xs| {
        let mean = avg_pool(&(xs * xs), Window::new(kernel, stride));
        (mean * (kernel * kernel) as f64).clamp_min(1e-12).sqrt()
    })
}
