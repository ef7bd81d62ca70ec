//! `--device`, `--precision` and the default number of threads.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::native::{Half, cuda};
use crate::{Error, Result};

/// The value of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA if available, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device, by index.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = |number: &str| number.parse().ok();
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(index).map(Self::Cuda),
        }
        .ok_or_else(|| "expected cpu, cuda, cuda:N or auto".to_owned())
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl DeviceChoice {
    /// The device to compute on. TensorFloat-32 is disabled until [`Precision::set_up`] allows it.
    ///
    /// # Errors
    /// CUDA was requested and cannot be used; names what is missing.
    pub fn resolve(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => match cuda::load() {
                Ok(()) => Self::Cuda(0).resolve(),
                Err(_) => Ok(Device::Cpu),
            },
            Self::Cuda(index) => {
                cuda::load().map_err(|error| {
                    Error::Device(format!("--device {self}: {error}; `--device cpu` works here"))
                })?;
                let count = tch::Cuda::device_count();
                if index as i64 >= count {
                    return Err(Error::Device(format!(
                        "--device {self}: there are {count} CUDA devices, numbered from 0"
                    )));
                }
                cuda::allow_tf32(false)?;
                Ok(Device::Cuda(index))
            }
        }
    }
}

/// The CPUs that this process may use, by its affinity and the quota of its container.
pub fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Limits libtorch's threads to the CPUs that this process may use. libtorch itself ignores the CPU
/// quota of a container (cgroup `cpu.max` or `cpu.cfs_quota_us`). OMP_NUM_THREADS takes precedence.
pub fn limit_threads() {
    let available = available_cpus();
    let set = std::env::var_os("OMP_NUM_THREADS").is_some();
    if let Some(threads) = lower_limit(tch::get_num_threads(), available, set) {
        tch::set_num_threads(threads);
    }
}

/// The number of threads to set; `None` if there are no more threads than CPUs, or the user chose.
fn lower_limit(threads: i32, available: usize, set: bool) -> Option<i32> {
    let available = i32::try_from(available).ok()?;
    (!set && available < threads).then_some(available)
}

/// The device as on the command line: `cpu`, `cuda:0`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The dtype of convolutions and matrix products. Weights, gradients, statistics, distances and losses
/// are always float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 where the device is fast at it, f16 on older GPUs, else f32
    #[default]
    Auto,
    /// float32 throughout
    F32,
    /// float32 whose convolutions round their inputs to TensorFloat-32 on GPUs that have it
    Tf32,
    /// bfloat16: the range of float32 with 8 bits of precision
    Bf16,
    /// float16: 11 bits of precision and a small range, so that the loss is scaled
    F16,
}

impl Precision {
    /// The 16-bit dtype to compute in on a device; `None` for float32.
    pub fn resolve(self, device: Device) -> Option<Half> {
        match self {
            Self::F32 | Self::Tf32 => None,
            Self::Bf16 => Some(Half::BFloat16),
            Self::F16 => Some(Half::Float16),
            Self::Auto => match device {
                Device::Cuda(index) => match cuda::compute_capability(index) {
                    Some((8.., _)) => Some(Half::BFloat16),
                    Some((7, _)) => Some(Half::Float16), // the first with tensor cores
                    _ => None,
                },
                _ => has_fast_bf16().then_some(Half::BFloat16),
            },
        }
    }

    /// [`resolve`](Self::resolve), and allows or forbids TensorFloat-32 in libtorch.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn set_up(self, device: Device) -> Result<Option<Half>> {
        cuda::allow_tf32(self == Self::Tf32)?;
        Ok(self.resolve(device))
    }

    /// Replaces `auto` by what it stands for on a device.
    pub fn explicit(self, device: Device) -> Self {
        match (self, self.resolve(device)) {
            (Self::Auto, None) => Self::F32,
            (Self::Auto, Some(Half::BFloat16)) => Self::Bf16,
            (Self::Auto, Some(Half::Float16)) => Self::F16,
            (given, _) => given,
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

/// Whether the processor has bfloat16 instructions.
#[cfg(target_arch = "x86_64")]
fn has_fast_bf16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Whether the processor has bfloat16 instructions.
#[cfg(target_arch = "aarch64")]
fn has_fast_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

/// Whether the processor has bfloat16 instructions.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_fast_bf16() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_have_one_name_in_files_and_in_messages() {
        use Precision::{Auto, Bf16, F16, F32, Tf32};
        for precision in [Auto, F32, Tf32, Bf16, F16] {
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.name());
        }
    }

    #[test]
    fn no_more_threads_than_the_cpu_quota_allows() {
        assert_eq!(lower_limit(16, 2, false), Some(2));
        assert_eq!(lower_limit(2, 2, false), None);
        assert_eq!(lower_limit(1, 2, false), None);
        assert_eq!(lower_limit(16, 2, true), None);
    }

    #[test]
    fn the_flag_is_parsed_and_printed() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
