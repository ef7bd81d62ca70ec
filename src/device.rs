//! `--device`: which device a command computes on, and why not when it cannot.

use std::fmt;
use std::str::FromStr;

use tch::Device;

use crate::{Error, Result, native};

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA where it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// One CUDA device; a failure to use it is an error.
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
    /// The device to compute on.
    ///
    /// # Errors
    /// CUDA was asked for and cannot be used: the sentence names what is missing.
    pub fn resolve(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(match native::load_cuda() {
                Ok(()) => Device::Cuda(0),
                Err(_) => Device::Cpu,
            }),
            Self::Cuda(index) => {
                native::load_cuda().map_err(|error| {
                    Error::Device(format!("--device {self}: {error}; `--device cpu` works here"))
                })?;
                let count = tch::Cuda::device_count();
                if index as i64 >= count {
                    return Err(Error::Device(format!(
                        "--device {self}: there are {count} CUDA devices, numbered from 0"
                    )));
                }
                Ok(Device::Cuda(index))
            }
        }
    }
}

/// A device as people write it: `cpu`, `cuda:0`.
pub fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_read_and_written_back() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
