//! The only place that speaks to the C++ shim in `native/`, and to the kernel about mapped files.
//!
//! Every function here is safe to call: shapes, kinds, devices and lengths are compared before a
//! pointer crosses, and a C++ exception comes back as an [`Error`]. The file is long so that all
//! `unsafe` of the crate can be read in one place.

// A C++ function and a library loaded at run time can only be called through `unsafe`; nowhere else
// in the crate is it allowed.
#![allow(unsafe_code)]

pub mod cuda;
pub mod fused;
pub mod profile;
pub mod trace;
pub mod version;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::path::Path;

use tch::{Device, Kind, TchError, Tensor};

use crate::{Error, Result};

type TensorPtr = *const c_void;
type TensorMut = *mut c_void;
type Message = *mut c_char;

unsafe extern "C" {
    fn visage_free(text: Message);
    fn visage_cpu_capability() -> Message;
    fn visage_enter_autocast(state: c_int) -> c_int;
    fn visage_leave_autocast(state: c_int);
    fn visage_channels_last(tensor: TensorPtr, out: *mut TensorMut) -> Message;
    fn visage_set_channels_last(
        count: usize,
        params: *const TensorPtr,
        channels_last: c_int,
    ) -> Message;
    fn visage_has_lanes(tensor: TensorPtr) -> c_int;
    fn visage_max_pool(
        tensor: TensorPtr,
        kernel: i64,
        stride: i64,
        padding: i64,
        ceil: c_int,
        out: *mut TensorMut,
    ) -> Message;
    fn visage_lrn(
        tensor: TensorPtr,
        reach: i64,
        alpha: f64,
        beta: f64,
        out: *mut TensorMut,
    ) -> Message;
    fn visage_unscale(
        count: usize,
        grads: *const TensorPtr,
        found: TensorPtr,
        inverse: TensorPtr,
    ) -> Message;
    fn visage_update_scale(
        scale: TensorPtr,
        good: TensorPtr,
        found: TensorPtr,
        growth: f64,
        backoff: f64,
        interval: i64,
    ) -> Message;
    fn visage_clear_gradients(count: usize, params: *const TensorPtr) -> Message;
    fn visage_fused_adam(
        count: usize,
        params: *const TensorPtr,
        grads: *const TensorPtr,
        averages: *const TensorPtr,
        squares: *const TensorPtr,
        steps: *const TensorPtr,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        decoupled: c_int,
        found: TensorPtr,
    ) -> Message;
    fn visage_fused_sgd(
        count: usize,
        params: *const TensorPtr,
        grads: *const TensorPtr,
        count_momenta: usize,
        momenta: *const TensorPtr,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        nesterov: c_int,
        found: TensorPtr,
    ) -> Message;
}

/// The vector instructions that libtorch's CPU kernels chose: `DEFAULT`, `AVX2`, `AVX512`...
///
/// # Errors
/// When the shim ran out of memory for the answer.
pub fn cpu_capability() -> Result<String> {
    // SAFETY: no arguments; the text is ours to free.
    let text = unsafe { take(visage_cpu_capability()) };
    text.ok_or_else(|| Error::Device("libtorch did not name its CPU kernels".into()))
}

/// Runs `body` with autocast off on this thread, on the CPU and on CUDA alike, and puts back what
/// was set before, also when `body` panics. Nothing happens where autocast is off already.
///
/// Distances and losses need it: autocast would turn a float32 matrix product into a 16-bit one.
pub fn without_autocast<T>(body: impl FnOnce() -> T) -> T {
    in_autocast(0, body)
}

/// A 16-bit kind of number that networks compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Half {
    /// The range of float32 with 8 bits of precision.
    BFloat16,
    /// 11 bits of precision and a small range.
    Float16,
}

/// Runs `body` with autocast to `kind` on this thread for `device`, and puts back what was set
/// before, also when `body` panics; regions may lie in one another.
///
/// What autocast is for: convolutions and matrix products take 16-bit copies of their float32
/// inputs and weights, and gradients come back in float32.
pub fn with_autocast<T>(device: Device, kind: Half, body: impl FnOnce() -> T) -> T {
    let half = c_int::from(kind == Half::Float16);
    in_autocast(if device.is_cuda() { 2 | half << 3 } else { 1 | half << 2 }, body)
}

/// Runs `body` as if inside a 16-bit autocast region of the CPU.
#[cfg(test)]
pub(crate) fn with_cpu_autocast<T>(body: impl FnOnce() -> T) -> T {
    in_autocast(1, body)
}

/// Bits 0 and 1: on for the CPU, for CUDA; bits 2 and 3: float16 for them, else bfloat16.
fn in_autocast<T>(state: c_int, body: impl FnOnce() -> T) -> T {
    /// Autocast is a setting of the thread, so the guard must stay on it (not `Send`).
    struct Restore(c_int, PhantomData<*const ()>);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: sets thread-local flags.
            unsafe { visage_leave_autocast(self.0) };
        }
    }
    // SAFETY: sets thread-local flags.
    let _restore = Restore(unsafe { visage_enter_autocast(state) }, PhantomData);
    body()
}

/// A tensor `[N, C, H, W]` with the channels of a pixel side by side in memory, which is how many
/// convolution kernels read them; the tensor itself where it is so already, or has not four
/// dimensions. Differentiable.
///
/// # Errors
/// What libtorch reports.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    if tensor.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    // SAFETY: a live tensor goes in.
    made(|out| unsafe { visage_channels_last(tensor.as_ptr().cast(), out) })
}

/// Lays out parameters `[out, in, kh, kw]` in that way, or in PyTorch's own again, in place: all who
/// share a parameter see it, and its values do not change.
///
/// # Errors
/// What libtorch reports.
pub fn set_channels_last(params: &[&Tensor], is_last: bool) -> Result<()> {
    let wide: Vec<&Tensor> = params.iter().copied().filter(|param| param.dim() == 4).collect();
    let wide = pointers(&wide);
    // SAFETY: `wide` holds live tensors; the shim reads `wide.len()` of them.
    finish(unsafe { visage_set_channels_last(wide.len(), wide.as_ptr(), is_last.into()) })
}

/// Whether the shim's kernels over the channels of a pixel take the tensor: float32 or bfloat16 maps
/// `[N, C, H, W]` on the CPU that are [`channels_last`].
fn has_lanes(xs: &Tensor) -> bool {
    // SAFETY: a live tensor, looked at.
    unsafe { visage_has_lanes(xs.as_ptr().cast()) != 0 }
}

/// Local response normalisation across channels in one pass: `x_i (1 + alpha Σ x_j²)^-beta` over the
/// channels j up to `reach` from i. Differentiable, once. None for anything but float32 and bfloat16 maps on
/// the CPU that are [`channels_last`].
///
/// # Errors
/// What libtorch reports.
pub fn local_response_norm(
    xs: &Tensor,
    reach: i64,
    alpha: f64,
    beta: f64,
) -> Result<Option<Tensor>> {
    if !has_lanes(xs) {
        return Ok(None);
    }
    made(|out| {
        // SAFETY: a live tensor that the kernel takes.
        unsafe { visage_lrn(xs.as_ptr().cast(), reach.max(0), alpha, beta, out) }
    })
    .map(Some)
}

/// The largest value of each `kernel` x `kernel` window, as PyTorch's `max_pool2d` with the same
/// switches. Differentiable, once. None for what [`local_response_norm`] does not take either, and for
/// windows of more than 15 x 15.
///
/// # Errors
/// What libtorch reports: a window that does not fit into the map.
pub fn max_pool(
    xs: &Tensor,
    kernel: i64,
    stride: i64,
    padding: i64,
    ceil: bool,
) -> Result<Option<Tensor>> {
    if !has_lanes(xs) || kernel > 15 {
        return Ok(None);
    }
    let ceil = c_int::from(ceil);
    made(|out| {
        // SAFETY: a live tensor that the kernel takes; the shim checks the window.
        unsafe { visage_max_pool(xs.as_ptr().cast(), kernel, stride, padding, ceil, out) }
    })
    .map(Some)
}

/// The tensor that a function of the shim makes.
fn made(make: impl FnOnce(*mut TensorMut) -> Message) -> Result<Tensor> {
    let mut out: TensorMut = std::ptr::null_mut();
    finish(make(&mut out))?;
    // SAFETY: on success `out` is a new tensor that is ours, taken over once.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Divides gradients by the scale that the loss was multiplied with. `inverse` is 1 / scale, float32
/// and of one element; `found`, likewise, becomes 1 where a gradient is not finite.
///
/// # Errors
/// What libtorch reports.
pub fn unscale(grads: &[&Tensor], found: &Tensor, inverse: &Tensor) -> Result<()> {
    check_scalars(Kind::Float, &[("found", found), ("inverse", inverse)])?;
    let grads = pointers(grads);
    // SAFETY: live tensors; the kernel checks that the gradients are alike and where they are.
    finish(unsafe { visage_unscale(grads.len(), grads.as_ptr(), raw(found), raw(inverse)) })
}

/// How the scale of a loss follows the gradients' overflows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleRule {
    /// The factor after `interval` steps without an overflow.
    pub growth: f64,
    /// The factor after an overflow.
    pub backoff: f64,
    /// See `growth`.
    pub interval: i64,
}

/// Adapts `scale` (float32) in place: `found` (float32) says whether the last step overflowed, `good`
/// (int32) counts the steps since the last change. All of one element on one device, which nothing
/// waits for.
///
/// # Errors
/// What libtorch reports.
pub fn update_scale(scale: &Tensor, good: &Tensor, found: &Tensor, rule: ScaleRule) -> Result<()> {
    check_scalars(Kind::Float, &[("scale", scale), ("found", found)])?;
    check_scalars(Kind::Int, &[("good", good)])?;
    let ScaleRule { growth, backoff, interval } = rule;
    // SAFETY: three live tensors of the kinds that the kernel reads.
    finish(unsafe {
        visage_update_scale(raw(scale), raw(good), raw(found), growth, backoff, interval)
    })
}

fn check_scalars(kind: Kind, scalars: &[(&str, &Tensor)]) -> Result<()> {
    for (what, scalar) in scalars {
        if !scalar.defined() || scalar.kind() != kind || scalar.numel() != 1 {
            let text = format!("{what} is {scalar:?}, not one number of kind {kind:?}");
            return Err(Error::Torch(TchError::Shape(text)));
        }
    }
    Ok(())
}

/// Makes the gradients of `params` undefined, as PyTorch's `zero_grad(set_to_none=True)` does: a
/// parameter that the next backward pass does not reach is then skipped by the optimiser.
///
/// # Errors
/// What libtorch reports.
pub fn clear_gradients(params: &[&Tensor]) -> Result<()> {
    let params = pointers(params);
    // SAFETY: `params` holds live tensors; the shim reads `params.len()` of them.
    finish(unsafe { visage_clear_gradients(params.len(), params.as_ptr()) })
}

/// The numbers of one Adam or AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// L2 penalty (Adam), or the share of the weights taken off a step per unit of `lr` (AdamW).
    pub weight_decay: f64,
    /// Added to the root in the denominator.
    pub eps: f64,
    /// AdamW's decoupled decay instead of Adam's L2 penalty.
    pub decoupled: bool,
}

/// One Adam or AdamW step over all parameters in one kernel (PyTorch's `fused=True`), in place.
///
/// `averages` and `squares` are the running means; `steps` are float32 scalars with the number of
/// steps done so far, counted up here. Where `found` (float32, 0-d, as [`unscale`] sets it) is 1,
/// nothing is changed.
///
/// # Errors
/// When the lists do not match in length, shape, strides, kind or device.
pub fn fused_adam_step(
    params: &[&Tensor],
    grads: &[&Tensor],
    averages: &[&Tensor],
    squares: &[&Tensor],
    steps: &[&Tensor],
    with: AdamStep,
    found: Option<&Tensor>,
) -> Result<()> {
    let Some(first) = params.first() else { return Ok(()) };
    check_alike("parameter", params, &vec![*first; params.len()], Alike::KindAndDevice)?;
    for (what, tensors) in [("gradient", grads), ("exp_avg", averages), ("exp_avg_sq", squares)] {
        check_alike(what, tensors, params, Alike::Everything)?;
    }
    let scalar = Tensor::zeros([], (Kind::Float, first.device()));
    check_alike("step", steps, &vec![&scalar; params.len()], Alike::Everything)?;
    let found = overflow(found, first)?;
    let [params, grads, averages, squares, steps] =
        [params, grads, averages, squares, steps].map(pointers);
    // SAFETY: five lists of live tensors of equal length, alike in all the kernel relies on.
    finish(unsafe {
        visage_fused_adam(
            params.len(),
            params.as_ptr(),
            grads.as_ptr(),
            averages.as_ptr(),
            squares.as_ptr(),
            steps.as_ptr(),
            with.lr,
            with.beta1,
            with.beta2,
            with.weight_decay,
            with.eps,
            c_int::from(with.decoupled),
            found,
        )
    })
}

/// The numbers of one SGD step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the running sum of gradients; 0 wants no buffers.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
}

/// One SGD step over all parameters in one kernel, in place. `momenta` is empty without momentum
/// and otherwise one buffer a parameter, zero before the first step. `found` as in
/// [`fused_adam_step`].
///
/// # Errors
/// When the lists do not match in length, shape, strides, kind or device.
pub fn fused_sgd_step(
    params: &[&Tensor],
    grads: &[&Tensor],
    momenta: &[&Tensor],
    with: SgdStep,
    found: Option<&Tensor>,
) -> Result<()> {
    let Some(first) = params.first() else { return Ok(()) };
    check_alike("parameter", params, &vec![*first; params.len()], Alike::KindAndDevice)?;
    check_alike("gradient", grads, params, Alike::Everything)?;
    if with.momentum != 0.0 {
        check_alike("momentum_buffer", momenta, params, Alike::Everything)?;
    }
    let momenta = if with.momentum == 0.0 { &[] } else { momenta };
    let found = overflow(found, first)?;
    let [params, grads, momenta] = [params, grads, momenta].map(pointers);
    // SAFETY: lists of live tensors of the lengths given, alike in all the kernel relies on.
    finish(unsafe {
        visage_fused_sgd(
            params.len(),
            params.as_ptr(),
            grads.as_ptr(),
            momenta.len(),
            momenta.as_ptr(),
            with.lr,
            with.momentum,
            with.weight_decay,
            c_int::from(with.nesterov),
            found,
        )
    })
}

/// A file's bytes, mapped into memory: pages are read when they are looked at.
///
/// The bytes are the file's: whoever shortens it while it is mapped ends this process (SIGBUS).
/// Files written by Visage are replaced and never shortened, so they are not affected.
#[derive(Debug)]
pub struct FileMap {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<memmap2::Mmap>,
}

impl FileMap {
    /// Maps a file for reading.
    ///
    /// # Errors
    /// Names the file: it is missing, not readable, or no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |source| Error::io(path, source);
        let file = std::fs::File::open(path).map_err(fail)?;
        let about = file.metadata().map_err(fail)?;
        if !about.is_file() {
            return Err(fail(std::io::Error::other("is not a regular file")));
        }
        if about.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: read-only and private to this process; nothing but bytes is ever made of it, so
        // a writer next door can change what is read but no invariant of a type. A shortened file
        // is the documented exception.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?;
        Ok(Self { map: Some(map) })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Lets the system take back the memory of bytes that were read; they can be read again.
    pub fn release(&self, range: std::ops::Range<usize>) {
        let Some(map) = &self.map else { return };
        if range.start >= range.end || range.end > map.len() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: the map is backed by its file and never written to: a page dropped here comes
        // back from the file with the same bytes when it is next looked at.
        let _ = unsafe {
            map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                range.start,
                range.end - range.start,
            )
        };
    }
}

/// What two tensors must share.
#[derive(Clone, Copy, PartialEq)]
enum Alike {
    KindAndDevice,
    Everything,
}

/// Compares two lists of tensors, one by one, before their memory is walked side by side.
fn check_alike(what: &str, tensors: &[&Tensor], like: &[&Tensor], alike: Alike) -> Result<()> {
    let fail = |text: String| Err(Error::Torch(TchError::Shape(text)));
    if tensors.len() != like.len() {
        return fail(format!("{} parameters, but {} of {what}", like.len(), tensors.len()));
    }
    for (index, (tensor, like)) in tensors.iter().zip(like).enumerate() {
        if !tensor.defined() || !like.defined() {
            return fail(format!("{what} {index} is undefined"));
        }
        // The stride of a dimension of size 1 is never used, and autograd leaves it as it falls.
        let layout = |tensor: &Tensor| {
            let mut strides = tensor.stride();
            let size = tensor.size();
            strides.iter_mut().zip(&size).filter(|(_, n)| **n == 1).for_each(|(s, _)| *s = 0);
            (size, strides)
        };
        if tensor.kind() != like.kind()
            || tensor.device() != like.device()
            || (alike == Alike::Everything && layout(tensor) != layout(like))
        {
            return fail(format!("{what} {index} is {tensor:?}, expected the like of {like:?}"));
        }
    }
    Ok(())
}

/// The mark of an overflow, for a kernel that steps `param`; null where there is none.
fn overflow(found: Option<&Tensor>, param: &Tensor) -> Result<TensorPtr> {
    let Some(found) = found else { return Ok(std::ptr::null()) };
    let like = Tensor::zeros([], (Kind::Float, param.device()));
    check_alike("overflow mark", &[found], &[&like], Alike::Everything)?;
    Ok(raw(found))
}

fn raw(tensor: &Tensor) -> TensorPtr {
    tensor.as_ptr().cast()
}

fn pointers(tensors: &[&Tensor]) -> Vec<TensorPtr> {
    tensors.iter().map(|tensor| raw(tensor)).collect()
}

/// Turns the shim's message, null for success, into a result.
fn finish(message: Message) -> Result<()> {
    // SAFETY: `message` came from the shim just now and is used once.
    match unsafe { take(message) } {
        None => Ok(()),
        Some(text) => Err(Error::Torch(TchError::Torch(text))),
    }
}

/// Copies a text of the shim and frees it.
///
/// # Safety
/// `text` is null or comes from the shim's `message()`, and is not used again.
unsafe fn take(text: Message) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim's texts end in a zero byte.
    let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: allocated by the shim, freed once.
    unsafe { visage_free(text) };
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const STEP: SgdStep = SgdStep { lr: 1.0, momentum: 0.0, weight_decay: 0.0, nesterov: false };

    #[test]
    fn libtorch_names_its_cpu_kernels() {
        assert!(!cpu_capability().unwrap().is_empty());
    }

    #[test]
    fn mismatched_tensors_are_refused_before_the_kernel_runs() {
        let param = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
        let ones = |size: &[i64], kind| Tensor::ones(size, (kind, Device::Cpu));
        let step = |grad: &Tensor| fused_sgd_step(&[&param], &[grad], &[], STEP, None);
        for wrong in [
            ones(&[3, 2], Kind::Float),
            ones(&[2, 3], Kind::Double),
            ones(&[3, 2], Kind::Float).tr(),
            Tensor::new(),
        ] {
            assert!(step(&wrong).is_err(), "{wrong:?}");
        }
        assert!(fused_sgd_step(&[&param], &[], &[], STEP, None).is_err());
        assert_eq!(param.abs().sum(Kind::Float).double_value(&[]), 0.0);
        step(&ones(&[2, 3], Kind::Float)).unwrap();
        assert_eq!(param.sum(Kind::Float).double_value(&[]), -6.0);
    }

    #[test]
    fn a_parameter_with_gaps_is_refused_with_the_c_plus_plus_message() {
        let with_gaps = || Tensor::zeros([4, 4], (Kind::Float, Device::Cpu)).narrow(1, 0, 2);
        let (param, grad) = (with_gaps(), with_gaps());
        let error = fused_sgd_step(&[&param], &[&grad], &[], STEP, None).unwrap_err().to_string();
        assert!(error.contains("make it contiguous"), "{error}");
    }

    #[test]
    fn cleared_gradients_are_undefined() {
        let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        x.sum(Kind::Float).backward();
        assert!(x.grad().defined());
        clear_gradients(&[&x]).unwrap();
        assert!(!x.grad().defined());
    }

    #[test]
    fn autocast_is_off_inside_and_back_afterwards_even_after_a_panic() {
        let product = || {
            let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
            x.matmul(&x).kind()
        };
        with_cpu_autocast(|| {
            assert_ne!(product(), Kind::Float);
            assert_eq!(without_autocast(product), Kind::Float);
            let panicked = std::panic::catch_unwind(|| without_autocast(|| panic!("on purpose")));
            assert!(panicked.is_err());
            assert_ne!(product(), Kind::Float);
        });
        assert_eq!(product(), Kind::Float);
    }

    #[test]
    fn mapped_bytes_come_back_after_their_memory_was_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = FileMap::open(&path).unwrap();
        assert_eq!(map.bytes(), bytes);
        for range in [0..bytes.len(), 5..9, 99_999..100_000, 0..0, 9..100_001] {
            map.release(range);
            assert_eq!(map.bytes(), bytes);
        }
        drop(map);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(FileMap::open(&path).unwrap().bytes(), b"");
        for (wrong, reason) in [(folder.path(), "regular"), (&folder.path().join("no"), "No such")]
        {
            let error = FileMap::open(wrong).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
