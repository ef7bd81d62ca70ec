//! Batch normalisation by running statistics and ReLU in one pass.

use std::ptr;

use tch::Tensor;

use super::{Message, TensorMut, TensorPtr, check_defined, finish, raw};
use crate::Result;

unsafe extern "C" {
    fn visage_norm_relu(
        pieces: *const TensorPtr,
        count: i64,
        weight: TensorPtr,
        bias: TensorPtr,
        mean: TensorPtr,
        var: TensorPtr,
        eps: f64,
        out: *mut TensorMut,
    ) -> Message;
}

/// `max(0, (x - mean) / sqrt(var + eps) * weight + bias)` per channel of the map that `pieces` make along
/// their channels, each `[N, C_i, H, W]`; `affine` is weight and bias, `statistics` mean and variance, `[C]`
/// each with the sum C of all C_i. Differentiable once. Returns `None` unless all pieces are float32 or all
/// bfloat16, on the CPU and in the [`channels_last`](super::channels_last) format.
///
/// # Errors
/// A tensor is undefined, or an error from libtorch.
pub fn norm_relu(
    pieces: &[&Tensor],
    affine: [&Tensor; 2],
    statistics: [&Tensor; 2],
    eps: f64,
) -> Result<Option<Tensor>> {
    for tensor in pieces.iter().chain(&affine).chain(&statistics) {
        check_defined(tensor)?;
    }
    let pointers: Vec<TensorPtr> = pieces.iter().map(|piece| raw(piece)).collect();
    let ([weight, bias], [mean, var]) = (affine.map(raw), statistics.map(raw));
    let mut out: TensorMut = ptr::null_mut();
    // SAFETY: live tensors, as many pieces as `count` says; `out` lives through the call.
    finish(unsafe {
        let count = pointers.len() as i64;
        visage_norm_relu(pointers.as_ptr(), count, weight, bias, mean, var, eps, &mut out)
    })?;
    // SAFETY: where `out` is not null it is a new tensor that is ours, taken over once.
    Ok((!out.is_null()).then(|| unsafe { Tensor::from_ptr(out.cast()) }))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::native::channels_last;

    /// Numbers that are the same every time: libtorch's generator is shared by all tests.
    fn waves(shape: &[i64], speed: f64) -> Tensor {
        let count: i64 = shape.iter().product();
        (Tensor::arange(count, (Kind::Double, Device::Cpu)) * speed)
            .sin()
            .to_kind(Kind::Float)
            .reshape(shape)
    }

    struct Layer {
        affine: [Tensor; 2],
        statistics: [Tensor; 2],
    }

    impl Layer {
        fn new(channels: i64) -> Self {
            let affine = [waves(&[channels], 0.7) + 0.2, waves(&[channels], 1.3) * 0.5];
            let statistics = [waves(&[channels], 2.1), waves(&[channels], 0.9).square() + 0.1];
            Self { affine: affine.map(|tensor| tensor.set_requires_grad(true)), statistics }
        }

        fn apart(&self, pieces: &[&Tensor]) -> Tensor {
            let ([weight, bias], [mean, var]) = (&self.affine, &self.statistics);
            let (weight, bias, mean, var) = (Some(weight), Some(bias), Some(mean), Some(var));
            let map = Tensor::cat(pieces, 1);
            Tensor::batch_norm(&map, weight, bias, mean, var, false, 0.1, 1e-5, false).relu()
        }

        fn fused(&self, pieces: &[&Tensor]) -> Option<Tensor> {
            let ([weight, bias], [mean, var]) = (&self.affine, &self.statistics);
            norm_relu(pieces, [weight, bias], [mean, var], 1e-5).unwrap()
        }

        /// The output, then the gradients of pieces, weight and bias.
        fn run(&self, fused: bool, pieces: &[Tensor]) -> Vec<Tensor> {
            let pieces: Vec<Tensor> =
                pieces.iter().map(|piece| piece.detach().set_requires_grad(true)).collect();
            let views: Vec<&Tensor> = pieces.iter().collect();
            let ys = if fused { self.fused(&views).unwrap() } else { self.apart(&views) };
            let slopes = channels_last(&waves(&ys.size(), 0.37)).unwrap().to_kind(ys.kind());
            let inputs: Vec<&Tensor> = views.into_iter().chain(&self.affine).collect();
            let grads =
                Tensor::run_backward(&[(&ys * slopes).sum(Kind::Float)], &inputs, false, false);
            [ys].into_iter().chain(grads).collect()
        }
    }

    fn pieces(channels: &[i64], kind: Kind) -> Vec<Tensor> {
        let map = |(number, &channels): (usize, &i64)| {
            let values = waves(&[3, channels, 11, 13], 0.11 + number as f64);
            channels_last(&values).unwrap().to_kind(kind)
        };
        channels.iter().enumerate().map(map).collect()
    }

    #[test]
    fn it_agrees_with_libtorch_in_value_and_gradient() {
        for channels in [&[40][..], &[5, 32, 32], &[64, 3]] {
            let layer = Layer::new(channels.iter().sum());
            for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 2e-2)] {
                let pieces = pieces(channels, kind);
                let (own, wanted) = (layer.run(true, &pieces), layer.run(false, &pieces));
                assert_eq!(own.len(), wanted.len());
                for (own, wanted) in own.iter().zip(&wanted) {
                    assert_eq!((own.size(), own.kind()), (wanted.size(), wanted.kind()));
                    let (own, wanted) = (own.to_kind(Kind::Float), wanted.to_kind(Kind::Float));
                    let far = (&own - &wanted).abs().max() / wanted.abs().max();
                    let far = far.double_value(&[]);
                    assert!(far < tolerance, "{channels:?} {kind:?}: {far}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_asked_for_has_no_gradient_and_nan_stays() {
        let layer = Layer::new(6);
        let pieces = pieces(&[6], Kind::Float);
        let frozen = Layer { affine: layer.affine.map(|t| t.detach()), ..layer };
        assert!(!frozen.fused(&[&pieces[0]]).unwrap().requires_grad());
        let xs = pieces[0].detach().set_requires_grad(true);
        let ys = frozen.fused(&[&xs]).unwrap();
        ys.sum(Kind::Float).backward();
        assert!(xs.grad().defined() && !frozen.affine[0].grad().defined());
        let _ = tch::no_grad(|| pieces[0].get(1).get(2).fill_(f64::NAN));
        let ys = frozen.fused(&[&pieces[0]]).unwrap();
        assert_eq!(i64::try_from(ys.isnan().sum(Kind::Int64)).unwrap(), 11 * 13);
    }

    #[test]
    fn other_maps_are_left_to_libtorch() {
        let layer = Layer::new(8);
        let own = pieces(&[8], Kind::Float).remove(0);
        assert!(layer.fused(&[&own]).is_some());
        assert!(layer.fused(&[&own.contiguous()]).is_none(), "PyTorch's layout");
        assert!(layer.fused(&[&own.to_kind(Kind::Half)]).is_none(), "float16");
        assert!(layer.fused(&[&own, &own]).is_none(), "channels");
        assert!(layer.fused(&[]).is_none());
        let halves = pieces(&[4, 4], Kind::Float);
        assert!(layer.fused(&[&halves[0], &halves[1]]).is_some());
        let mixed = [&halves[0], &halves[1].to_kind(Kind::BFloat16)];
        assert!(layer.fused(&mixed).is_none(), "two dtypes");
        let short = Layer { affine: Layer::new(4).affine, ..layer };
        assert!(short.fused(&[&own]).is_none(), "a weight of another length");
    }
}
