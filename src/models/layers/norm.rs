//! Batch normalisation (Ioffe and Szegedy, 2015).

use tch::{Device, Kind, Tensor, no_grad};

use super::{Mode, trace};
use crate::models::params::Scope;
use crate::native::fused::FusedParts;
use crate::native::group::SharedSums;
use crate::native::has_lanes;
use crate::native::norm::norm_relu;

/// The settings of a batch normalisation; the default is PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormOptions {
    /// Added to the variance.
    pub eps: f64,
    /// The share of the newest batch in the running statistics.
    pub momentum: f64,
    /// Whether a learnt weight and bias follow.
    pub affine: bool,
    /// The weight stays as it is in training.
    pub fixed_weight: bool,
}

impl Default for NormOptions {
    fn default() -> Self {
        Self { eps: 1e-5, momentum: 0.1, affine: true, fixed_weight: false }
    }
}

/// y = (x - mean) / sqrt(variance + eps) · weight + bias per channel, over `[N, C, H, W]` or `[N, C]`.
#[derive(Debug)]
pub struct BatchNorm {
    name: String,
    affine: Option<[Tensor; 2]>,
    running_mean: Tensor,
    running_var: Tensor,
    num_batches_tracked: Tensor,
    options: NormOptions,
}

impl BatchNorm {
    /// With PyTorch's defaults: eps 1e-5, momentum 0.1, a weight and a bias.
    pub fn new(at: &Scope, channels: i64) -> Self {
        Self::with(at, channels, NormOptions::default())
    }

    /// PyTorch's start: weight 1, bias 0, mean 0, variance 1.
    pub fn with(at: &Scope, channels: i64, options: NormOptions) -> Self {
        let float = (Kind::Float, Device::Cpu);
        at.epsilon(options.eps);
        let affine = options.affine.then(|| {
            let weight = at.parameter("weight", Tensor::ones([channels], float));
            let weight = weight.set_requires_grad(!options.fixed_weight);
            [weight, at.parameter("bias", Tensor::zeros([channels], float))]
        });
        Self {
            name: at.path().to_owned(),
            affine,
            running_mean: at.buffer("running_mean", Tensor::zeros([channels], float)),
            running_var: at.buffer("running_var", Tensor::ones([channels], float)),
            num_batches_tracked: at
                .buffer("num_batches_tracked", Tensor::zeros([], (Kind::Int64, Device::Cpu))),
            options,
        }
    }

    /// Normalises with the running statistics, or with the batch's where `mode` says so.
    ///
    /// A batch with one value a channel (one picture, a 1x1 map) has no variance. PyTorch refuses
    /// it; here the running statistics serve, unchanged, so that a last, short batch of one
    /// picture neither stops a training run nor leaves NaN in the variance.
    /// Of several processes that share their statistics the batch is that of all.
    pub fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        if mode.batch_statistics
            && let Some(sums) = SharedSums::here()
        {
            return trace::report(&self.name, self.synchronised(xs, &sums));
        }
        let channels = self.running_mean.numel();
        let from_batch = mode.batch_statistics && xs.numel() > channels;
        if from_batch {
            // In place on the shared tensor: the book of parameters sees the count.
            let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        }
        let ys = Tensor::batch_norm(
            xs,
            self.affine.as_ref().map(|[weight, _]| weight),
            self.affine.as_ref().map(|[_, bias]| bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            from_batch,
            self.options.momentum,
            self.options.eps,
            false,
        );
        trace::report(&self.name, ys)
    }

    /// Whether normalisation and ReLU may be one pass: by the running statistics, nobody listening in
    /// between.
    fn is_one_pass(mode: Mode) -> bool {
        !mode.batch_statistics && !trace::is_active()
    }

    /// Whether [`Self::forward_relu`] takes maps like this one in pieces without joining them first.
    pub fn takes_pieces(xs: &Tensor, mode: Mode) -> bool {
        Self::is_one_pass(mode) && has_lanes(xs).unwrap_or(false)
    }

    /// Normalisation and ReLU of the map that `pieces` make along their channels, in one pass where the
    /// running statistics serve and the maps allow it.
    pub fn forward_relu(&self, pieces: &[&Tensor], mode: Mode) -> Tensor {
        if Self::is_one_pass(mode)
            && let Some([weight, bias]) = &self.affine
        {
            let statistics = [&self.running_mean, &self.running_var];
            // What fails here fails again below, where the error is libtorch's usual one.
            let ys = norm_relu(pieces, [weight, bias], statistics, self.options.eps);
            if let Ok(Some(ys)) = ys {
                return ys;
            }
        }
        match pieces {
            [one] => self.forward(one, mode).relu(),
            _ => self.forward(&Tensor::cat(pieces, 1), mode).relu(),
        }
    }

    /// `(x - mean) / sqrt(var + eps) * weight + bias` with mean and variance over all processes, as
    /// PyTorch's `SyncBatchNorm`.
    fn synchronised(&self, xs: &Tensor, shared: &SharedSums) -> Tensor {
        let _ = self.num_batches_tracked.shallow_clone().g_add_scalar_(1);
        let channels = self.running_mean.numel() as i64;
        let dims: Vec<i64> = (0..xs.dim() as i64).filter(|&dim| dim != 1).collect();
        let shape: Vec<i64> =
            (0..xs.dim()).map(|dim| if dim == 1 { channels } else { 1 }).collect();
        let along = |values: &Tensor| values.view(shape.as_slice());
        let values = xs.to_kind(Kind::Float);
        let of_channels =
            |values: &Tensor| values.sum_dim_intlist(dims.as_slice(), false, Kind::Float);
        let own =
            Tensor::full([1], xs.numel() as f64 / channels as f64, (Kind::Float, xs.device()));
        let sums = shared.sum(&Tensor::cat(&[of_channels(&values), own], 0));
        let count = sums.narrow(0, channels, 1).detach();
        let mean = sums.narrow(0, 0, channels) / &count;
        let centred = values - along(&mean);
        let var = shared.sum(&of_channels(&centred.square())) / &count;
        no_grad(|| {
            let momentum = self.options.momentum;
            let unbiased = &var * &count / (&count - 1.0);
            let _ = self.running_mean.shallow_clone().lerp_(&mean, momentum);
            let _ = self.running_var.shallow_clone().lerp_(&unbiased, momentum);
        });
        let mut ys = centred * along(&(var + self.options.eps).rsqrt());
        if let Some([weight, bias]) = &self.affine {
            ys = ys * along(weight) + along(bias);
        }
        ys.to_kind(xs.kind())
    }

    /// A convolution with this normalisation, by its running statistics, behind it.
    pub(super) fn behind<'a>(&'a self, conv: FusedParts<'a>) -> FusedParts<'a> {
        FusedParts {
            affine: self.affine.as_ref().map(|[weight, bias]| [weight, bias]),
            statistics: Some([&self.running_mean, &self.running_var, &self.num_batches_tracked]),
            eps: self.options.eps,
            ..conv
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Params;

    /// The formula by hand, for the values 1, 2, 3, 6 of one channel.
    #[test]
    fn eps_momentum_and_the_unbiased_running_variance() {
        let options =
            NormOptions { eps: 0.5, momentum: 0.25, affine: false, ..NormOptions::default() };
        let (norm, params) = Params::collect(Device::Cpu, |root| BatchNorm::with(root, 1, options));
        assert_eq!(params.parameter_count(), 0);
        let xs = Tensor::from_slice(&[1f32, 2., 3., 6.]).view([4, 1]);
        let ys: Vec<f32> = Vec::try_from(norm.forward(&xs, Mode::TRAIN).view([4])).unwrap();
        for (y, x) in ys.iter().zip([1f32, 2., 3., 6.]) {
            assert!((y - (x - 3.0) / (3.5f32 + 0.5).sqrt()).abs() < 1e-6, "{ys:?}");
        }
        // The mean is 3, the unbiased variance 14/3: each enters with a quarter.
        assert!((norm.running_mean.double_value(&[0]) - 0.75).abs() < 1e-6);
        let variance = norm.running_var.double_value(&[0]);
        assert!((variance - (0.75 + 0.25 * 14.0 / 3.0)).abs() < 1e-6, "{variance}");
        assert_eq!(i64::try_from(&norm.num_batches_tracked).unwrap(), 1);
    }

    #[test]
    fn one_value_a_channel_leaves_the_statistics_alone() {
        let (norm, _) = Params::collect(Device::Cpu, |root| BatchNorm::new(root, 2));
        let xs = Tensor::from_slice(&[5f32, -5.]).view([1, 2]);
        let ys: Vec<f32> = Vec::try_from(norm.forward(&xs, Mode::TRAIN).view([2])).unwrap();
        assert!((ys[0] - 5.0).abs() < 1e-3 && (ys[1] + 5.0).abs() < 1e-3, "{ys:?}");
        assert_eq!(norm.running_var.double_value(&[0]), 1.0);
        assert_eq!(i64::try_from(&norm.num_batches_tracked).unwrap(), 0);
    }
}
