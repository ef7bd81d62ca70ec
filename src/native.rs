//! Bindings of the C++ shim in `native/`, and memory-mapped files: all `unsafe` code of the crate.
//!
//! Every function here is safe to call: shapes, dtypes, devices and lengths are checked before a pointer
//! is passed on, and a C++ exception is returned as an [`Error`].

// Calls into C++ and into libraries loaded at run time need it; no other module allows it.
#![allow(unsafe_code)]

pub mod cuda;
pub mod distance;
pub mod fused;
pub mod group;
pub mod hamming;
pub mod norm;
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
    fn visage_cpu_capability(text: *mut Message) -> Message;
    fn visage_enter_autocast(state: c_int, before: *mut c_int) -> Message;
    fn visage_leave_autocast(before: c_int) -> Message;
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

/// The vector instructions that libtorch's CPU kernels use: `DEFAULT`, `AVX2`, `AVX512`...
///
/// # Errors
/// An error from libtorch.
pub fn cpu_capability() -> Result<String> {
    // SAFETY: the shim sets the text, which is ours to free.
    text(|text| unsafe { visage_cpu_capability(text) })
}

/// Whether oneDNN convolves in bfloat16 here; where it does not, says that this part of a test is skipped.
#[cfg(test)]
#[allow(clippy::print_stderr)]
pub(crate) fn convolves_bf16() -> bool {
    let is_known = cpu_capability().unwrap().contains("AVX512");
    if !is_known {
        eprintln!("skipped: bfloat16, for which oneDNN needs AVX-512");
    }
    is_known
}

/// Runs `body` with autocast disabled on this thread, for the CPU and CUDA, and restores the previous
/// state, also if `body` panics.
///
/// Used for distances and losses: autocast would turn a float32 matrix product into a 16-bit one.
pub fn without_autocast<T>(body: impl FnOnce() -> T) -> T {
    in_autocast(0, body)
}

/// A 16-bit floating-point dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Half {
    /// The range of float32, 8 bits of precision.
    BFloat16,
    /// A small range, 11 bits of precision.
    Float16,
}

/// Runs `body` under autocast to `kind` on this thread for `device`, and restores the previous state,
/// also if `body` panics. Regions can be nested.
///
/// Under autocast convolutions and matrix products use 16-bit copies of their float32 inputs and
/// weights; gradients are float32.
pub fn with_autocast<T>(device: Device, kind: Half, body: impl FnOnce() -> T) -> T {
    let half = c_int::from(kind == Half::Float16);
    in_autocast(if device.is_cuda() { 2 | half << 3 } else { 1 | half << 2 }, body)
}

/// Runs `body` under 16-bit autocast on the CPU.
#[cfg(test)]
pub(crate) fn with_cpu_autocast<T>(body: impl FnOnce() -> T) -> T {
    in_autocast(1, body)
}

/// `state`, bits 0 and 1: enabled for the CPU, for CUDA; bits 2 and 3: their dtype is float16, not
/// bfloat16.
fn in_autocast<T>(state: c_int, body: impl FnOnce() -> T) -> T {
    /// Autocast is thread-local, so the guard is not `Send`.
    struct Restore(c_int, PhantomData<*const ()>);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: sets thread-local flags.
            let _ = finish(unsafe { visage_leave_autocast(self.0) });
        }
    }
    let mut before = 0;
    // SAFETY: sets thread-local flags and writes one number.
    let entered = finish(unsafe { visage_enter_autocast(state, &mut before) });
    entered.unwrap_or_else(|error| panic!("autocast: {error}"));
    let _restore = Restore(before, PhantomData);
    body()
}

/// The tensor `[N, C, H, W]` in PyTorch's `channels_last` memory format, which many convolution kernels
/// prefer. Tensors in that format already, and those without four dimensions, are returned as they are.
/// Differentiable.
///
/// # Errors
/// The tensor is undefined, or an error from libtorch.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor> {
    if check_defined(tensor)?.dim() != 4 {
        return Ok(tensor.shallow_clone());
    }
    // SAFETY: a live tensor goes in.
    made(|out| unsafe { visage_channels_last(tensor.as_ptr().cast(), out) })
}

/// Converts parameters `[out, in, kh, kw]` to the `channels_last` memory format, or back to the
/// contiguous one, in place: every handle to a parameter sees it, and the values do not change.
///
/// # Errors
/// A parameter is undefined, or an error from libtorch.
pub fn set_channels_last(params: &[&Tensor], is_last: bool) -> Result<()> {
    let mut wide = Vec::new();
    for &param in params {
        if check_defined(param)?.dim() == 4 {
            wide.push(param);
        }
    }
    let wide = pointers(&wide);
    // SAFETY: `wide` holds live tensors; the shim reads `wide.len()` of them.
    finish(unsafe { visage_set_channels_last(wide.len(), wide.as_ptr(), is_last.into()) })
}

/// Whether the shim's `channels_last` kernels support the tensor: float32 or bfloat16 feature maps
/// `[N, C, H, W]` on the CPU in that format.
pub fn has_lanes(xs: &Tensor) -> Result<bool> {
    // SAFETY: a live tensor, only read.
    Ok(unsafe { visage_has_lanes(raw(check_defined(xs)?)) != 0 })
}

/// Local response normalisation across channels in one pass: `x_i (1 + alpha Σ x_j²)^-beta` over the
/// channels j with `|i - j| <= reach`. Differentiable once. Returns `None` unless `xs` is a float32 or
/// bfloat16 feature map on the CPU in the [`channels_last`] format.
///
/// # Errors
/// `xs` is undefined, or an error from libtorch.
pub fn local_response_norm(
    xs: &Tensor,
    reach: i64,
    alpha: f64,
    beta: f64,
) -> Result<Option<Tensor>> {
    if !has_lanes(xs)? {
        return Ok(None);
    }
    // A larger reach adds nothing, but the kernel would allocate memory for it.
    let reach = reach.clamp(0, xs.size()[1]);
    made(|out| {
        // SAFETY: a live tensor that the kernel supports.
        unsafe { visage_lrn(raw(xs), reach, alpha, beta, out) }
    })
    .map(Some)
}

/// Max pooling over `kernel` x `kernel` windows, as PyTorch's `max_pool2d` with the same arguments.
/// Differentiable once. Returns `None` where [`local_response_norm`] does, and for windows larger than
/// 15 x 15.
///
/// # Errors
/// `xs` is undefined, or the window does not fit into the map.
pub fn max_pool(
    xs: &Tensor,
    kernel: i64,
    stride: i64,
    padding: i64,
    ceil: bool,
) -> Result<Option<Tensor>> {
    if !has_lanes(xs)? || kernel > 15 {
        return Ok(None);
    }
    let ceil = c_int::from(ceil);
    made(|out| {
        // SAFETY: a live tensor that the kernel supports; the shim checks the window.
        unsafe { visage_max_pool(raw(xs), kernel, stride, padding, ceil, out) }
    })
    .map(Some)
}

/// The tensor that a function of the shim returns in `out`.
fn made(make: impl FnOnce(*mut TensorMut) -> Message) -> Result<Tensor> {
    let mut out: TensorMut = std::ptr::null_mut();
    finish(make(&mut out))?;
    // SAFETY: on success `out` is a new tensor that is ours, taken over once.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// The text that a function of the shim returns in its argument.
fn text(make: impl FnOnce(*mut Message) -> Message) -> Result<String> {
    let mut text = std::ptr::null_mut();
    finish(make(&mut text))?;
    // SAFETY: null, or a text of the shim that is ours, taken once.
    let text = unsafe { take(text) };
    text.ok_or_else(|| Error::Torch(TchError::Torch("out of memory".into())))
}

fn check_defined(tensor: &Tensor) -> Result<&Tensor> {
    match tensor.defined() {
        true => Ok(tensor),
        false => Err(Error::Torch(TchError::Shape("the tensor is undefined".into()))),
    }
}

/// Divides gradients by the scale of the loss. `inverse` is 1 / scale; `found` is set to 1 if a gradient
/// is not finite. Both are float32 and have one element.
///
/// # Errors
/// An error from libtorch.
pub fn unscale(grads: &[&Tensor], found: &Tensor, inverse: &Tensor) -> Result<()> {
    check_scalars(Kind::Float, &[("found", found), ("inverse", inverse)])?;
    let grads = pointers(grads);
    // SAFETY: live tensors; the kernel checks the dtypes and devices of the gradients.
    finish(unsafe { visage_unscale(grads.len(), grads.as_ptr(), raw(found), raw(inverse)) })
}

/// How the loss scale changes (`torch.amp.GradScaler`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleRule {
    /// Factor after `interval` steps without an overflow.
    pub growth: f64,
    /// Factor after an overflow.
    pub backoff: f64,
    /// Number of steps without an overflow before the scale grows.
    pub interval: i64,
}

/// Updates `scale` (float32) in place: `found` (float32) is 1 if the last step overflowed, `good` (int32)
/// counts the steps since the last change. Each has one element, all on one device; the host does not
/// wait.
///
/// # Errors
/// An error from libtorch.
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

/// Sets the gradients of `params` to undefined, as PyTorch's `zero_grad(set_to_none=True)` does: a
/// parameter without a gradient in the next backward pass is then skipped by the optimiser.
///
/// # Errors
/// A parameter is undefined, or an error from libtorch.
pub fn clear_gradients(params: &[&Tensor]) -> Result<()> {
    params.iter().try_for_each(|param| check_defined(param).map(drop))?;
    let params = pointers(params);
    // SAFETY: `params` holds live tensors; the shim reads `params.len()` of them.
    finish(unsafe { visage_clear_gradients(params.len(), params.as_ptr()) })
}

/// The hyperparameters of one Adam or AdamW step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Weight decay: an L2 penalty (Adam), or decoupled (AdamW).
    pub weight_decay: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// AdamW's decoupled weight decay instead of Adam's L2 penalty.
    pub decoupled: bool,
}

/// One Adam or AdamW step over all parameters in one kernel (PyTorch's `fused=True`), in place.
///
/// `averages` and `squares` are the running means; `steps` are float32 scalars, the number of steps so
/// far, incremented here. If `found` (float32, 0-d, set by [`unscale`]) is 1, nothing changes.
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
    check_match("parameter", params, &vec![*first; params.len()], Match::KindAndDevice)?;
    for (what, tensors) in [("gradient", grads), ("exp_avg", averages), ("exp_avg_sq", squares)] {
        check_match(what, tensors, params, Match::Everything)?;
    }
    let scalar = Tensor::zeros([], (Kind::Float, first.device()));
    check_match("step", steps, &vec![&scalar; params.len()], Match::Everything)?;
    let found = overflow(found, first)?;
    let [params, grads, averages, squares, steps] =
        [params, grads, averages, squares, steps].map(pointers);
    // SAFETY: five lists of live tensors of equal length; shapes, strides and dtypes are checked.
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

/// The hyperparameters of one SGD step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 needs no buffers.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov momentum.
    pub nesterov: bool,
}

/// One SGD step over all parameters in one kernel, in place. `momenta` is empty without momentum
/// and otherwise has one buffer per parameter, zero before the first step. `found` as in
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
    check_match("parameter", params, &vec![*first; params.len()], Match::KindAndDevice)?;
    check_match("gradient", grads, params, Match::Everything)?;
    if with.momentum != 0.0 {
        check_match("momentum_buffer", momenta, params, Match::Everything)?;
    }
    let momenta = if with.momentum == 0.0 { &[] } else { momenta };
    let found = overflow(found, first)?;
    let [params, grads, momenta] = [params, grads, momenta].map(pointers);
    // SAFETY: lists of live tensors of these lengths; shapes, strides and dtypes are checked.
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

/// A memory-mapped file.
///
/// Truncating the file while it is mapped ends this process (SIGBUS). Files written by Visage are
/// replaced and never truncated.
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
        // SAFETY: read-only and private to this process, and read as bytes only, so that another
        // process that writes to the file breaks no invariant of a type. Truncation is documented.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(fail)?;
        Ok(Self { map: Some(map) })
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// Releases the memory of bytes that were read; they can be read again.
    pub fn release(&self, range: std::ops::Range<usize>) {
        let Some(map) = &self.map else { return };
        if range.start >= range.end || range.end > map.len() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: the map is backed by its file and never written to: a page dropped here is read
        // from the file again, with the same bytes.
        let _ = unsafe {
            map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                range.start,
                range.end - range.start,
            )
        };
    }
}

/// What two tensors must have in common.
#[derive(Clone, Copy, PartialEq)]
enum Match {
    KindAndDevice,
    Everything,
}

/// Compares two lists of tensors pairwise, before a kernel reads their memory.
fn check_match(what: &str, tensors: &[&Tensor], like: &[&Tensor], required: Match) -> Result<()> {
    let fail = |text: String| Err(Error::Torch(TchError::Shape(text)));
    if tensors.len() != like.len() {
        return fail(format!("{} parameters, but {} of {what}", like.len(), tensors.len()));
    }
    for (index, (tensor, like)) in tensors.iter().zip(like).enumerate() {
        if !tensor.defined() || !like.defined() {
            return fail(format!("{what} {index} is undefined"));
        }
        // The stride of a dimension of size 1 is never used, and autograd leaves it arbitrary.
        let layout = |tensor: &Tensor| {
            let mut strides = tensor.stride();
            let size = tensor.size();
            strides.iter_mut().zip(&size).filter(|(_, n)| **n == 1).for_each(|(s, _)| *s = 0);
            (size, strides)
        };
        if tensor.kind() != like.kind()
            || tensor.device() != like.device()
            || (required == Match::Everything && layout(tensor) != layout(like))
        {
            return fail(format!("{what} {index} is {tensor:?}, expected the same as {like:?}"));
        }
    }
    Ok(())
}

/// The overflow flag for a kernel that updates `param`; null if there is none.
fn overflow(found: Option<&Tensor>, param: &Tensor) -> Result<TensorPtr> {
    let Some(found) = found else { return Ok(std::ptr::null()) };
    let like = Tensor::zeros([], (Kind::Float, param.device()));
    check_match("overflow flag", &[found], &[&like], Match::Everything)?;
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

/// Copies a text of the shim, and frees it.
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
    fn an_undefined_tensor_is_an_error() {
        let none = Tensor::new();
        let one = Tensor::ones([1], (Kind::Float, Device::Cpu));
        let rule = ScaleRule { growth: 2.0, backoff: 0.5, interval: 1 };
        let errors = [
            channels_last(&none).map(drop),
            set_channels_last(&[&none], true),
            max_pool(&none, 2, 2, 0, false).map(drop),
            local_response_norm(&none, 2, 1e-4, 0.75).map(drop),
            unscale(&[&none], &one, &one),
            unscale(&[&one], &none, &one),
            update_scale(&none, &one, &one, rule),
            clear_gradients(&[&none]),
            fused_sgd_step(&[&none], &[&one], &[], STEP, None),
            cuda::upload(&none, Device::Cpu).map(drop),
            cuda::Upload::start(Tensor::new(), Device::Cpu).map(drop),
        ];
        for (at, outcome) in errors.into_iter().enumerate() {
            assert!(outcome.is_err(), "{at}");
        }
    }

    #[test]
    fn windows_of_any_size_are_computed_or_refused() {
        let xs = Tensor::randn([2, 3, 4, 5], (Kind::Float, Device::Cpu));
        let xs = channels_last(&xs).unwrap();
        let norm = |reach| local_response_norm(&xs, reach, 1.0, 0.75).unwrap().unwrap();
        assert_eq!(norm(i64::MAX), norm(3));
        assert_eq!(norm(i64::MIN), norm(0));
        for (kernel, padding) in [(i64::MIN, 0), (0, 0), (2, i64::MAX), (2, i64::MIN), (6, 0)] {
            assert!(max_pool(&xs, kernel, 1, padding, true).is_err(), "{kernel} {padding}");
        }
        assert!(max_pool(&xs, 2, 0, 0, true).is_err());
        let pooled = max_pool(&xs, 2, i64::MAX, 0, true).unwrap().unwrap();
        assert_eq!(pooled.size(), [2, 3, 1, 1]);
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
    fn released_bytes_can_be_read_again() {
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
