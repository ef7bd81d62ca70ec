//! Pooling, with PyTorch's switches.

use tch::Tensor;

use super::squares_apart;
use crate::native;

/// The window of a pooling layer: square, without padding and the output size rounded down unless said
/// otherwise; averages count the padding (PyTorch's defaults).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    kernel: i64,
    stride: i64,
    padding: i64,
    ceil_mode: bool,
}

impl Window {
    /// `kernel` x `kernel`, moved by `stride`.
    pub const fn new(kernel: i64, stride: i64) -> Self {
        Self { kernel, stride, padding: 0, ceil_mode: false }
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
}

/// The largest value of each window.
pub fn max_pool(xs: &Tensor, at: Window) -> Tensor {
    // What fails there fails again below, where the error is libtorch's usual one.
    let fast = native::max_pool(xs, at.kernel, at.stride, at.padding, at.ceil_mode);
    if let Ok(Some(ys)) = fast {
        return ys;
    }
    xs.max_pool2d([at.kernel; 2], [at.stride; 2], [at.padding; 2], [1, 1], at.ceil_mode)
}

/// The mean of each window.
pub fn avg_pool(xs: &Tensor, at: Window) -> Tensor {
    // The gradient that CUDA computes for channels_last maps with padding is wrong, by as much as it is
    // long (pytorch/pytorch issue 188344; libtorch 2.11 has it). Zeros put around them beforehand avoid it.
    match at.padding > 0 && !at.ceil_mode && xs.device().is_cuda() {
        true => average(&zeros_around(xs, at.padding), at.padding(0)),
        false => average(xs, at),
    }
}

fn average(xs: &Tensor, at: Window) -> Tensor {
    let (kernel, stride, padding) = ([at.kernel; 2], [at.stride; 2], [at.padding; 2]);
    xs.avg_pool2d(kernel, stride, padding, at.ceil_mode, true, None)
}

fn zeros_around(xs: &Tensor, padding: i64) -> Tensor {
    xs.constant_pad_nd([padding; 4])
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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, IndexOp, Kind};

    /// The maxima and the gradient of a weighted sum of them, both float32 in PyTorch's layout.
    fn run(xs: &Tensor, at: Window) -> [Tensor; 2] {
        let xs = xs.detach().set_requires_grad(true);
        let ys = max_pool(&xs, at);
        let count = ys.numel() as i64;
        let weights = Tensor::arange(count, (Kind::Float, Device::Cpu)).cos().view_as(&ys);
        let weights = weights.to_kind(Kind::BFloat16).to_kind(Kind::Float);
        (&ys * weights).sum(Kind::Float).backward();
        [ys.detach(), xs.grad()].map(|tensor| tensor.to_kind(Kind::Float).contiguous())
    }

    #[test]
    fn the_kernel_agrees_with_libtorchs_in_value_and_gradient() {
        // Whole numbers: many are equal, and bfloat16 holds them and the sums of their gradients.
        let xs = Tensor::arange(2 * 19 * 8 * 7, (Kind::Float, Device::Cpu)).view([2, 19, 8, 7]);
        let xs = (xs * 0.37).sin() * 4.0;
        let xs = xs.round();
        let last = native::channels_last(&xs).unwrap();
        for at in [
            Window::new(3, 2).padding(1),
            Window::new(3, 2),
            Window::new(2, 2),
            Window::new(3, 2).ceil(),
            Window::new(3, 1).padding(1).ceil(),
            Window::new(2, 3).padding(1).ceil(),
        ] {
            let [wanted, slope] = run(&xs, at);
            assert!(native::max_pool(&xs, 3, 2, 1, false).unwrap().is_none(), "PyTorch's layout");
            for (kind, bound) in [(Kind::Float, 1e-6), (Kind::BFloat16, 0.02)] {
                let [own, own_slope] = run(&last.to_kind(kind), at);
                assert!(own.equal(&wanted), "{at:?} {kind:?}");
                let apart = (own_slope - &slope).abs().max().double_value(&[]);
                assert!(apart <= bound, "{at:?} {kind:?}: {apart}");
            }
            let kept = tch::no_grad(|| max_pool(&last, at));
            assert!(kept.contiguous().equal(&wanted), "{at:?} without a graph");
        }
        assert!(native::max_pool(&last, 9, 1, 0, false).is_err(), "a window larger than the map");
    }

    /// CUDA's way around libtorch's gradient, on the CPU, whose gradient is right in every layout.
    #[test]
    fn zeros_around_a_map_average_like_padding() {
        for side in [1, 2, 3, 7] {
            let xs = Tensor::arange(2 * 5 * side * side, (Kind::Float, Device::Cpu));
            let xs = native::channels_last(&(xs * 0.7).sin().view([2, 5, side, side])).unwrap();
            let run = |body: &dyn Fn(&Tensor) -> Tensor| {
                let xs = xs.detach().set_requires_grad(true);
                let ys = body(&xs);
                let count = ys.numel() as i64;
                let weights = Tensor::arange(count, (Kind::Float, Device::Cpu)).cos().view_as(&ys);
                (&ys * weights).sum(Kind::Float).backward();
                [ys.detach(), xs.grad()]
            };
            let at = Window::new(3, 1).padding(1);
            let padded = run(&|xs| average(&zeros_around(xs, 1), at.padding(0)));
            for (own, wanted) in padded.iter().zip(&run(&|xs| average(xs, at))) {
                assert_eq!(own.size(), wanted.size());
                let apart = (own - wanted).abs().max().double_value(&[]);
                assert!(apart <= 1e-6, "side {side}: {apart}");
            }
        }
    }

    #[test]
    fn what_is_no_number_wins() {
        let xs = Tensor::zeros([1, 3, 4, 4], (Kind::Float, Device::Cpu));
        let _ = xs.i((0, 1, 1, 1)).fill_(f64::NAN);
        let ys = max_pool(&native::channels_last(&xs).unwrap(), Window::new(2, 2));
        assert_eq!(i64::try_from(ys.isnan().sum(Kind::Int64)).unwrap(), 1);
        assert!(ys.double_value(&[0, 1, 0, 0]).is_nan());
    }
}
