//! Convolution, batch normalisation and ReLU in one pass.

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::Tensor;

use super::{Message, TensorMut, TensorPtr, check_defined, made, raw};
use crate::Result;

unsafe extern "C" {
    fn visage_fuses(xs: TensorPtr) -> c_int;
    fn visage_fused_run(
        state: *mut *mut c_void,
        xs: TensorPtr,
        parts: *const TensorPtr,
        stride: i64,
        padding_high: i64,
        padding_wide: i64,
        eps: f64,
        out: *mut TensorMut,
    ) -> Message;
    fn visage_fused_free(state: *mut c_void);
}

/// The tensors and settings of a convolution and the batch normalisation after it.
#[derive(Debug, Clone, Copy)]
pub struct FusedParts<'a> {
    /// `[out, in, kh, kw]`
    pub weight: &'a Tensor,
    /// `[out]`
    pub bias: Option<&'a Tensor>,
    /// Weight and bias of the normalisation, `[out]` each.
    pub affine: Option<[&'a Tensor; 2]>,
    /// Running mean and variance, `[out]` each, and the number of batches tracked; `None` without
    /// normalisation.
    pub statistics: Option<[&'a Tensor; 3]>,
    /// Added to the variance.
    pub eps: f64,
    /// Stride, both height and width.
    pub stride: i64,
    /// Zero padding: rows, columns.
    pub padding: [i64; 2],
}

/// Folded and reordered weights of a layer: made in the first call, in the layout that suits its input
/// shape, and again after any of the tensors they were made from has changed.
#[derive(Debug)]
pub struct FusedConv {
    /// Null before the first call; freed once, on drop.
    state: *mut c_void,
}

// SAFETY: the state holds tensors, which are `Send`, and is not shared.
unsafe impl Send for FusedConv {}

impl Default for FusedConv {
    fn default() -> Self {
        Self { state: ptr::null_mut() }
    }
}

impl FusedConv {
    /// Frees the weights; the next [`run`](Self::run) folds them again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// `relu(norm(conv(xs)))` in one pass. Returns `None` where that is not possible: it needs
    /// `no_grad`, float32 or bfloat16 (the autocast dtype where that is enabled), and a feature map
    /// `[N, in, H, W]` on the CPU in the `channels_last` format.
    ///
    /// # Errors
    /// `xs` is undefined, or an error from libtorch.
    pub fn run(&mut self, xs: &Tensor, parts: FusedParts) -> Result<Option<Tensor>> {
        // SAFETY: a live tensor, only read.
        if unsafe { visage_fuses(raw(check_defined(xs)?)) } == 0 {
            return Ok(None);
        }
        let pointers = [
            Some(parts.weight),
            parts.bias,
            parts.affine.map(|[weight, _]| weight),
            parts.affine.map(|[_, bias]| bias),
            parts.statistics.map(|[mean, ..]| mean),
            parts.statistics.map(|[_, variance, _]| variance),
            parts.statistics.map(|[.., batches]| batches),
        ]
        .map(|part| part.map_or(ptr::null(), raw));
        let [high, wide] = parts.padding;
        made(|out| {
            // SAFETY: live tensors or null; the shim reads seven of them, and libtorch checks their
            // shapes.
            unsafe {
                visage_fused_run(
                    &mut self.state,
                    raw(xs),
                    pointers.as_ptr(),
                    parts.stride,
                    high,
                    wide,
                    parts.eps,
                    out,
                )
            }
        })
        .map(Some)
    }
}

impl Drop for FusedConv {
    fn drop(&mut self) {
        // SAFETY: null or the shim's, freed once.
        unsafe { visage_fused_free(self.state) };
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::native::{channels_last, convolves_bf16, local_response_norm, max_pool};

    /// A convolution and nothing else.
    fn plain(weight: &Tensor, padding: i64) -> FusedParts<'_> {
        FusedParts {
            weight,
            bias: None,
            affine: None,
            statistics: None,
            eps: 0.0,
            stride: 1,
            padding: [padding; 2],
        }
    }

    /// libtorch throws on a query of a sparse tensor's memory format.
    #[test]
    fn sparse_tensors_are_left_to_libtorch_and_undefined_ones_are_errors() {
        let map = Tensor::ones([1, 2, 4, 4], (Kind::Float, Device::Cpu));
        let sparse = map.to_sparse_sparse_dim(4);
        let weight = Tensor::ones([2, 2, 1, 1], (Kind::Float, Device::Cpu));
        let parts = plain(&weight, 0);
        let mut fused = FusedConv::default();
        assert!(max_pool(&sparse, 2, 2, 0, false).unwrap().is_none());
        assert!(local_response_norm(&sparse, 2, 1e-4, 0.75).unwrap().is_none());
        assert!(tch::no_grad(|| fused.run(&sparse, parts)).unwrap().is_none());
        assert!(fused.run(&Tensor::new(), parts).is_err());
        let map = channels_last(&map).unwrap();
        assert!(tch::no_grad(|| fused.run(&map, parts)).unwrap().is_some());
    }

    #[test]
    fn nan_in_the_map_is_kept() {
        for kind in [Kind::Float, Kind::BFloat16] {
            if kind == Kind::BFloat16 && !convolves_bf16() {
                continue;
            }
            let weight = Tensor::randn([8, 16, 3, 3], (kind, Device::Cpu));
            let map = Tensor::randn([2, 16, 12, 12], (kind, Device::Cpu));
            let _ = map.get(1).get(3).get(5).get(6).fill_(f64::NAN);
            let parts = plain(&weight, 1);
            let map = channels_last(&map).unwrap();
            let run = || FusedConv::default().run(&map, parts);
            let found = tch::no_grad(run).unwrap().unwrap().isnan();
            assert_eq!(found.sum(Kind::Int64).int64_value(&[]), 8 * 9, "{kind:?}");
            assert!(bool::try_from(found.get(1).select(1, 4).select(1, 5).all()).unwrap());
        }
    }
}
