//! Convolution, batch normalisation and ReLU in one pass.

use std::ffi::{c_int, c_void};
use std::ptr;

use tch::Tensor;

use super::{Message, TensorMut, TensorPtr, made};
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

/// What a convolution, and the batch normalisation behind it, compute with.
#[derive(Debug, Clone, Copy)]
pub struct FusedParts<'a> {
    /// `[out, in, kh, kw]`
    pub weight: &'a Tensor,
    /// `[out]`
    pub bias: Option<&'a Tensor>,
    /// Weight and bias of the normalisation, `[out]` each.
    pub affine: Option<[&'a Tensor; 2]>,
    /// Running mean and variance, `[out]` each, and the number of batches in them; none where there is
    /// no normalisation.
    pub statistics: Option<[&'a Tensor; 3]>,
    /// Added to the variance.
    pub eps: f64,
    /// In both directions.
    pub stride: i64,
    /// Rows and columns of zeros around the map.
    pub padding: [i64; 2],
}

/// Folded and reordered weights, made at the first call and again whenever a tensor they were made of
/// has changed: a copy of the layer's own, in the order that suits the first call's maps.
#[derive(Debug)]
pub struct FusedConv {
    /// Null before the first call; freed once, on drop.
    state: *mut c_void,
}

// SAFETY: the state holds tensors, which are `Send`, and nobody else knows it.
unsafe impl Send for FusedConv {}

impl Default for FusedConv {
    fn default() -> Self {
        Self { state: ptr::null_mut() }
    }
}

impl FusedConv {
    /// Frees the weights until the next call of [`run`](Self::run).
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// `relu(norm(conv(xs)))` in one pass, where that is possible: without gradients, in float32 or
    /// bfloat16 (autocast's kind where that is on), for maps `[N, in, H, W]` on the CPU with the
    /// channels of a pixel side by side. None for anything else.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn run(&mut self, xs: &Tensor, parts: FusedParts) -> Result<Option<Tensor>> {
        // SAFETY: a live tensor, looked at.
        if unsafe { visage_fuses(xs.as_ptr().cast()) } == 0 {
            return Ok(None);
        }
        let raw = |tensor: Option<&Tensor>| {
            tensor.map_or(ptr::null(), |tensor| tensor.as_ptr().cast::<c_void>())
        };
        let pointers = [
            raw(Some(parts.weight)),
            raw(parts.bias),
            raw(parts.affine.map(|[weight, _]| weight)),
            raw(parts.affine.map(|[_, bias]| bias)),
            raw(parts.statistics.map(|[mean, ..]| mean)),
            raw(parts.statistics.map(|[_, variance, _]| variance)),
            raw(parts.statistics.map(|[.., batches]| batches)),
        ];
        let [high, wide] = parts.padding;
        made(|out| {
            // SAFETY: live tensors or null; the shim reads seven of them, and libtorch compares their
            // shapes.
            unsafe {
                visage_fused_run(
                    &mut self.state,
                    xs.as_ptr().cast(),
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
    use crate::native::{channels_last, local_response_norm, max_pool};

    /// libtorch throws where such tensors are asked for their device or layout.
    #[test]
    fn tensors_without_a_layout_are_left_to_libtorch() {
        let map = Tensor::ones([1, 2, 4, 4], (Kind::Float, Device::Cpu));
        let sparse = map.to_sparse_sparse_dim(4);
        let weight = Tensor::ones([2, 2, 1, 1], (Kind::Float, Device::Cpu));
        let parts = FusedParts {
            weight: &weight,
            bias: None,
            affine: None,
            statistics: None,
            eps: 0.0,
            stride: 1,
            padding: [0; 2],
        };
        let mut fused = FusedConv::default();
        for xs in [Tensor::new(), sparse] {
            assert!(max_pool(&xs, 2, 2, 0, false).unwrap().is_none());
            assert!(local_response_norm(&xs, 2, 1e-4, 0.75).unwrap().is_none());
            assert!(tch::no_grad(|| fused.run(&xs, parts)).unwrap().is_none());
        }
        let map = channels_last(&map).unwrap();
        assert!(tch::no_grad(|| fused.run(&map, parts)).unwrap().is_some());
    }
}
