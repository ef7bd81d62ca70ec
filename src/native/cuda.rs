//! CUDA: loading libtorch's CUDA library, asynchronous copies, and libtorch's settings for kernels.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::sync::OnceLock;

use tch::{Device, Tensor};

use super::{Message, TensorMut, TensorPtr, check_defined, finish, made, version};
use crate::{Error, Result};

unsafe extern "C" {
    fn visage_upload(tensor: TensorPtr, index: c_int, out: *mut TensorMut) -> Message;
    fn visage_upload_ahead(
        tensor: TensorPtr,
        index: c_int,
        out: *mut TensorMut,
        event: *mut *mut c_void,
    ) -> Message;
    fn visage_upload_finish(copied: TensorPtr, event: *mut c_void) -> Message;
    fn visage_allow_tf32(on: c_int) -> Message;
    fn visage_benchmark_cudnn(on: c_int) -> Message;
    fn visage_deterministic(on: c_int) -> Message;
    fn visage_count_operators_start(handle: *mut u64) -> Message;
    fn visage_count_operators_stop(handle: u64, count: *mut i64) -> Message;
    fn visage_count_waits_start() -> c_int;
    fn visage_count_waits_stop() -> i64;
}

/// Copies a tensor to `device` asynchronously, through pinned memory
/// (`tensor.pin_memory().to(device, non_blocking=True)`); returns the tensor itself if it is there.
///
/// # Errors
/// An error from libtorch: not enough memory on the device.
pub fn upload(tensor: &Tensor, device: Device) -> Result<Tensor> {
    match device {
        Device::Cuda(index) if check_defined(tensor)?.device() == Device::Cpu => {
            // SAFETY: a live CPU tensor; the shim keeps its pinned copy until the device has read it.
            made(|out| unsafe { visage_upload(tensor.as_ptr().cast(), index as c_int, out) })
        }
        _ => Ok(tensor.f_to_device(device)?),
    }
}

/// [`upload`] for code with tch's operators, which panic on errors.
///
/// # Panics
/// Where [`upload`] has an error.
pub fn uploaded(tensor: &Tensor, device: Device) -> Tensor {
    upload(tensor, device).unwrap_or_else(|error| panic!("{error}"))
}

/// The values of a slice as a tensor `[N]` on `device`, [uploaded](upload).
///
/// # Errors
/// As for [`upload`].
pub fn upload_slice<T: tch::kind::Element>(values: &[T], device: Device) -> Result<Tensor> {
    upload(&Tensor::f_from_slice(values)?, device)
}

/// An asynchronous copy to a device, on a separate stream.
#[derive(Debug)]
pub struct Upload {
    copied: Tensor,
    /// Null on the CPU.
    event: *mut c_void,
}

// SAFETY: any thread may wait for libtorch's event, and only one at a time owns it.
unsafe impl Send for Upload {}

impl Upload {
    /// Starts the copy, on any thread.
    ///
    /// # Errors
    /// As for [`upload`].
    pub fn start(tensor: Tensor, device: Device) -> Result<Self> {
        let mut event = std::ptr::null_mut();
        let Device::Cuda(index) = device else {
            return Ok(Self { copied: upload(&tensor, device)?, event });
        };
        let source = check_defined(&tensor)?.as_ptr().cast::<c_void>();
        // SAFETY: a live CPU tensor, and two places to write to.
        let copied =
            made(|out| unsafe { visage_upload_ahead(source, index as c_int, out, &mut event) })?;
        Ok(Self { copied, event })
    }

    /// The copy, for work on this thread's current stream; the host does not wait.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn finish(mut self) -> Result<Tensor> {
        let event = std::mem::replace(&mut self.event, std::ptr::null_mut());
        if !event.is_null() {
            // SAFETY: the event of this copy, handed over once.
            finish(unsafe { visage_upload_finish(self.copied.as_ptr().cast(), event) })?;
        }
        Ok(self.copied.shallow_clone())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.event.is_null() {
            // SAFETY: an event that was not handed over; it is only freed.
            let _ = finish(unsafe { visage_upload_finish(std::ptr::null(), self.event) });
        }
    }
}

/// Enables or disables TensorFloat-32 (10 bits of precision) in float32 convolutions, on GPUs that
/// support it. Matrix products, and so distances and losses, stay float32, as does the CPU.
///
/// # Errors
/// An error from libtorch.
pub fn allow_tf32(on: bool) -> Result<()> {
    // SAFETY: sets switches of libtorch.
    finish(unsafe { visage_allow_tf32(on.into()) })
}

/// Lets cuDNN benchmark its algorithms for each input shape and use the fastest
/// (`torch.backends.cudnn.benchmark`).
///
/// # Errors
/// An error from libtorch.
pub fn benchmark_cudnn(on: bool) -> Result<()> {
    // SAFETY: sets a switch of libtorch.
    finish(unsafe { visage_benchmark_cudnn(on.into()) })
}

/// Enables deterministic kernels (`torch.use_deterministic_algorithms(True, warn_only=True)`): libtorch
/// warns about operators that have none. Call this before any computation: cuBLAS reads its workspace
/// size, set here, when it is initialised.
///
/// # Errors
/// An error from libtorch.
pub fn use_deterministic_algorithms() -> Result<()> {
    const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
    if std::env::var_os(WORKSPACE).is_none() {
        // SAFETY: called at the start of the program, before other threads read the environment.
        unsafe { std::env::set_var(WORKSPACE, ":4096:8") };
    }
    // SAFETY: sets switches of libtorch.
    finish(unsafe { visage_deterministic(1) })
}

/// How often the host waits for the device while `body` runs. On CUDA this is libtorch's own count
/// (`torch.cuda.set_sync_debug_mode`); elsewhere the number of operators of this thread that would wait
/// for an accelerator, not counting copies to and from it.
///
/// # Errors
/// An error from libtorch or `body`.
pub fn count_waits(device: Device, body: impl FnOnce() -> Result<()>) -> Result<u64> {
    if !device.is_cuda() {
        let (mut handle, mut count) = (0, 0);
        // SAFETY: writes one number.
        finish(unsafe { visage_count_operators_start(&mut handle) })?;
        let outcome = body();
        // SAFETY: the handle of the count that runs on this thread, used once; writes one number.
        finish(unsafe { visage_count_operators_stop(handle, &mut count) })?;
        return outcome.map(|()| count.max(0) as u64);
    }
    // SAFETY: sets switches of libtorch; the handler is a static object.
    if unsafe { visage_count_waits_start() } == 0 {
        return Err(Error::Device("libtorch's CUDA library does not count waits".into()));
    }
    let outcome = body();
    // SAFETY: restores the settings.
    let count = unsafe { visage_count_waits_stop() };
    outcome.map(|()| count.max(0) as u64)
}

/// Whether a message of libtorch means that memory ran out, on a GPU or on the host. cuDNN then finds
/// no engine whose workspace fits.
pub fn is_out_of_memory(message: &str) -> bool {
    const PHRASES: [&str; 7] = [
        "out of memory",
        "can't allocate memory",
        "not enough memory",
        "std::bad_alloc",
        "ALLOC_FAILED",
        "ALLOCATION_FAILED",
        "unable to find an engine to execute this computation",
    ];
    PHRASES.iter().any(|phrase| message.contains(phrase))
}

/// Loads libtorch's CUDA library, so that `tch::Cuda` and CUDA tensors work.
///
/// The linker omits it because nothing references it. Call this before anything that may query CUDA
/// (`tch::Cuda::is_available`, `tch::manual_seed`): libtorch queries once and caches the result. Later
/// calls return the first one's result; the library stays loaded.
///
/// # Errors
/// Names the cause and the fix: no driver, no device, a libtorch without CUDA, or a CUDA library
/// that is not installed.
pub fn load() -> Result<()> {
    static RESULT: OnceLock<Result<(), String>> = OnceLock::new();
    let result = RESULT.get_or_init(|| load_from(&version::folder()));
    result.clone().map_err(|reason| Error::Device(format!("CUDA cannot be used: {reason}")))
}

fn load_from(folder: &Path) -> Result<(), String> {
    let path = folder.join("libtorch_cuda.so");
    if !path.exists() {
        return Err(format!(
            "{} does not exist, this libtorch is for the CPU only; \
             run `make libtorch CUDA=1` or point LIBTORCH to one with CUDA, and build again",
            path.display()
        ));
    }
    // The driver first: without it, loading gigabytes of CUDA libraries would be wasted.
    let devices = count_devices()?;
    keep_open(&path.to_string_lossy()).map_err(|reason| {
        format!(
            "{reason}; where a library is missing, libtorch was installed for the CPU: \
             run `make libtorch CUDA=1`"
        )
    })?;
    match tch::Cuda::is_available() {
        true => Ok(()),
        false => Err(format!(
            "the driver has {devices} device(s), but libtorch {} cannot use them: \
             the driver may be too old for its CUDA (see `nvidia-smi`)",
            version::runs_on_text()
        )),
    }
}

/// The number of GPUs that the NVIDIA driver offers this process; none is an error.
#[cfg(unix)]
fn count_devices() -> Result<c_int, String> {
    type Init = unsafe extern "C" fn(flags: u32) -> c_int;
    type Count = unsafe extern "C" fn(count: *mut c_int) -> c_int;
    const FIX: &str = "see whether `nvidia-smi` lists a GPU, or use `--device cpu`";
    let driver = keep_open("libcuda.so.1")
        .map_err(|reason| format!("the NVIDIA driver is not installed ({reason}); {FIX}"))?;
    let mut devices: c_int = 0;
    // SAFETY: the two signatures are the driver API's, unchanged since its first version.
    let status = unsafe {
        let missing = |error: libloading::Error| format!("libcuda.so.1: {error}; {FIX}");
        let init = driver.get::<Init>(b"cuInit\0").map_err(missing)?;
        let count = driver.get::<Count>(b"cuDeviceGetCount\0").map_err(missing)?;
        match init(0) {
            0 => count(&mut devices),
            failed => failed,
        }
    };
    match (status, devices) {
        (0, 1..) => Ok(devices),
        (0 | 100, _) => {
            let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
            let why = visible.map(|ids| format!(" (CUDA_VISIBLE_DEVICES is \"{ids}\")"));
            Err(format!("the NVIDIA driver found no GPU{}; {FIX}", why.unwrap_or_default()))
        }
        _ => Err(format!("the NVIDIA driver does not start (CUDA error {status}); {FIX}")),
    }
}

/// The compute capability of a GPU, such as (8, 0); `None` if the driver does not report it.
#[cfg(unix)]
pub fn compute_capability(index: usize) -> Option<(i32, i32)> {
    type Get = unsafe extern "C" fn(device: *mut c_int, ordinal: c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(value: *mut c_int, which: c_int, device: c_int) -> c_int;
    /// The driver API's numbers for the major and the minor part.
    const MAJOR_MINOR: [c_int; 2] = [75, 76];
    count_devices().ok()?;
    let driver = keep_open("libcuda.so.1").ok()?;
    // SAFETY: the signatures are the driver API's, and `count_devices` has initialised it.
    unsafe {
        let get = driver.get::<Get>(b"cuDeviceGet\0").ok()?;
        let attribute = driver.get::<Attribute>(b"cuDeviceGetAttribute\0").ok()?;
        let mut device = 0;
        if get(&mut device, c_int::try_from(index).ok()?) != 0 {
            return None;
        }
        let mut found = [0; 2];
        for (value, which) in found.iter_mut().zip(MAJOR_MINOR) {
            if attribute(value, which, device) != 0 {
                return None;
            }
        }
        Some((found[0], found[1]))
    }
}

/// No GPU without a driver.
#[cfg(not(unix))]
pub fn compute_capability(_: usize) -> Option<(i32, i32)> {
    None
}

#[cfg(not(unix))]
fn count_devices() -> Result<c_int, String> {
    Err("CUDA is supported on Linux only; use `--device cpu`".into())
}

/// Opens a library with its symbols visible to all others and never closes it: libtorch registers
/// kernels in it, and unloading would leave them dangling.
#[cfg(unix)]
fn keep_open(name: &str) -> Result<&'static libloading::os::unix::Library, String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: only libtorch's or the driver's own initialisers run at load time.
    let opened = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    opened.map(|library| &*Box::leak(Box::new(library))).map_err(|error| error.to_string())
}

#[cfg(not(unix))]
fn keep_open(_: &str) -> Result<(), String> {
    Err("CUDA is supported on Linux only".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[test]
    fn a_missing_cuda_is_explained() {
        match load() {
            Ok(()) => assert!(tch::Cuda::is_available()),
            Err(error) => {
                let text = error.to_string();
                let fixes = ["make libtorch CUDA=1", "--device cpu", "nvidia-smi"];
                assert!(fixes.iter().any(|fix| text.contains(fix)), "{text}");
                assert_eq!(load().unwrap_err().to_string(), text);
            }
        }
        let empty = tempfile::tempdir().unwrap();
        let text = load_from(empty.path()).unwrap_err();
        assert!(text.contains("libtorch_cuda.so") && text.contains("CUDA=1"), "{text}");
    }

    #[test]
    fn on_the_cpu_an_upload_is_the_tensor_itself() {
        let x = Tensor::from_slice(&[1u8, 2, 3]);
        assert_eq!(upload(&x, Device::Cpu).unwrap(), x);
        assert_eq!(upload_slice(&[1u8, 2, 3], Device::Cpu).unwrap(), x);
        let ahead = Upload::start(x.shallow_clone(), Device::Cpu).unwrap();
        let there = std::thread::spawn(move || ahead.finish().unwrap()).join().unwrap();
        assert_eq!(there, x);
        drop(Upload::start(x, Device::Cpu).unwrap());
    }

    #[test]
    fn operators_that_would_wait_are_counted() {
        let x = Tensor::ones([3], (Kind::Float, Device::Cpu));
        let waits = |body: &dyn Fn()| {
            count_waits(Device::Cpu, || {
                body();
                Ok(())
            })
            .unwrap()
        };
        assert_eq!(waits(&|| drop(&x + 1.0)), 0);
        assert_eq!(waits(&|| assert_eq!(x.double_value(&[0]), 1.0)), 1);
        assert_eq!(waits(&|| drop(x.nonzero())), 1);
    }

    #[test]
    fn the_switches_can_be_set_without_a_gpu() {
        allow_tf32(true).unwrap();
        allow_tf32(false).unwrap();
        benchmark_cudnn(true).unwrap();
        benchmark_cudnn(false).unwrap();
    }
}
