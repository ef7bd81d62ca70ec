//! Profiles libtorch's operators.

use super::{Message, finish, text};
use crate::Result;

unsafe extern "C" {
    fn visage_profile_start(handle: *mut u64) -> Message;
    fn visage_profile_stop(handle: u64, text: *mut Message) -> Message;
}

/// The time of one operator, summed over its calls.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorTime {
    /// Its name, such as `aten::mkldnn_convolution`.
    pub name: String,
    /// How often it ran.
    pub calls: u64,
    /// Self time in seconds, without the operators that it called.
    pub seconds: f64,
}

/// Runs `body` and times libtorch's operators on all threads, the slowest first. On a GPU this is the
/// time to launch kernels, not to run them.
///
/// Must not be nested: the times would be wrong.
///
/// # Errors
/// An error from libtorch or `body`.
pub fn profile(body: impl FnOnce() -> Result<()>) -> Result<Vec<OperatorTime>> {
    struct Measuring(Option<u64>);
    impl Measuring {
        fn stop(&mut self) -> Result<String> {
            let Some(handle) = self.0.take() else { return Ok(String::new()) };
            // SAFETY: the handle of a running measurement, used once.
            text(|text| unsafe { visage_profile_stop(handle, text) })
        }
    }
    impl Drop for Measuring {
        fn drop(&mut self) {
            // In a panic the result is discarded.
            let _ = self.stop();
        }
    }
    let mut handle = 0;
    // SAFETY: writes one number.
    finish(unsafe { visage_profile_start(&mut handle) })?;
    let mut measuring = Measuring(Some(handle));
    body()?;
    let text = measuring.stop()?;
    let mut rows: Vec<_> = text.lines().filter_map(row).collect();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    Ok(rows)
}

fn row(line: &str) -> Option<OperatorTime> {
    let mut words = line.splitn(3, ' ');
    let (calls, seconds) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(OperatorTime { name: words.next()?.to_owned(), calls, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn operators_are_counted_with_their_own_time() {
        let x = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
        let rows = profile(|| {
            (0..3).for_each(|_| drop(x.matmul(&x)));
            Ok(())
        })
        .unwrap();
        let of = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert!(of("aten::mm").calls >= 3 && of("aten::matmul").calls >= 3);
        assert!(rows.iter().all(|row| row.seconds >= 0.0), "{rows:?}");
        assert!(rows.windows(2).all(|pair| pair[0].seconds >= pair[1].seconds));
        assert!(profile(|| Ok(())).is_ok());
    }
}
