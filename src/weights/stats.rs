//! Statistics of a tensor, and the difference of two, in parts of a million values.

use tch::{Kind, Tensor};

use crate::Result;

const CHUNK: i64 = 1 << 20;

/// Mean, standard deviation and range of a tensor's finite values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Number of finite values.
    pub finite: usize,
    /// Number of values.
    pub count: usize,
    /// Mean of the finite values; 0 where there are none.
    pub mean: f64,
    /// Their population standard deviation.
    pub std: f64,
    /// Minimum.
    pub min: f64,
    /// Maximum.
    pub max: f64,
}

impl Stats {
    /// Whether every value is finite.
    pub fn is_finite(&self) -> bool {
        self.finite == self.count
    }
}

/// The values as float64, in parts.
fn parts(tensor: &Tensor) -> Result<impl Iterator<Item = Result<Tensor>>> {
    let flat = tensor.detach().f_contiguous()?.f_view([-1])?;
    let count = flat.numel() as i64;
    Ok((0..count).step_by(CHUNK as usize).map(move |start| {
        let part = flat.f_narrow(0, start, CHUNK.min(count - start))?;
        Ok(part.f_to_kind(Kind::Double)?)
    }))
}

/// Computes the statistics in one pass.
///
/// # Errors
/// An error from libtorch, such as out of memory.
pub fn stats(tensor: &Tensor) -> Result<Stats> {
    let mut all = Stats { count: tensor.numel(), ..Stats::default() };
    let (mut squares, mut seen) = (0.0, 0.0); // squares: of the deviations from the mean
    for part in parts(tensor)? {
        let part = part?;
        let finite = part.f_masked_select(&part.f_isfinite()?)?;
        let count = finite.numel();
        if count == 0 {
            continue;
        }
        let mean = finite.f_mean(Kind::Double)?;
        let spread = (&finite - &mean).square().sum(Kind::Double).double_value(&[]);
        let mean = mean.double_value(&[]);
        let (min, max) = (finite.min().double_value(&[]), finite.max().double_value(&[]));
        (all.min, all.max) = match all.finite {
            0 => (min, max),
            _ => (all.min.min(min), all.max.max(max)),
        };
        // Combines means and squared deviations of two parts (Chan, Golub and LeVeque 1983).
        let (new, shift) = (count as f64, mean - all.mean);
        squares += spread + shift * shift * seen * new / (seen + new);
        all.mean += shift * new / (seen + new);
        seen += new;
        all.finite += count;
    }
    if seen > 0.0 {
        all.std = (squares / seen).sqrt();
    }
    Ok(all)
}

/// The largest absolute difference between two tensors of one shape, and how many values differ.
///
/// Equal infinities and two NaNs do not differ; a NaN and a number differ by infinity.
///
/// # Errors
/// An error from libtorch, such as for different shapes.
pub fn difference(a: &Tensor, b: &Tensor) -> Result<(f64, usize)> {
    let (mut most, mut differing) = (0f64, 0);
    for (a, b) in parts(a)?.zip(parts(b)?) {
        let (a, b) = (a?, b?);
        let both_nan = a.isnan().logical_and(&b.isnan());
        let differ = a.f_ne_tensor(&b)?.logical_and(&both_nan.logical_not());
        let count = differ.sum(Kind::Int64).int64_value(&[]);
        if count > 0 {
            let distance = (a.masked_select(&differ) - b.masked_select(&differ)).abs();
            let distance = distance.nan_to_num(f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY);
            most = most.max(distance.max().double_value(&[]));
            differing += usize::try_from(count).unwrap_or_default();
        }
    }
    Ok((most, differing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn parts_add_up_to_the_whole() {
        // 0, 1, ..., n - 1 over two parts: mean (n - 1) / 2, variance (n² - 1) / 12.
        let n = CHUNK + 1001;
        let ramp = Tensor::arange(n, (Kind::Double, Device::Cpu));
        let found = stats(&ramp).unwrap();
        let n = n as f64;
        assert!((found.mean - (n - 1.0) / 2.0).abs() < 1e-6, "{found:?}");
        assert!((found.std / ((n * n - 1.0) / 12.0).sqrt() - 1.0).abs() < 1e-12, "{found:?}");
        assert_eq!((found.min, found.max, found.is_finite()), (0.0, n - 1.0, true));
    }

    #[test]
    fn values_that_are_no_numbers_are_counted_and_left_out() {
        let values = Tensor::from_slice(&[1.0, f64::NAN, 3.0, f64::INFINITY]);
        let found = stats(&values).unwrap();
        assert_eq!((found.finite, found.count, found.mean, found.std), (2, 4, 2.0, 1.0));
        assert_eq!(stats(&Tensor::from_slice::<f64>(&[])).unwrap(), Stats::default());
    }

    #[test]
    fn differences_know_nan_and_infinity() {
        let t = Tensor::from_slice::<f64>;
        let (nan, infinity) = (f64::NAN, f64::INFINITY);
        for (a, b, expected) in [
            ([1.0, 2.0], [1.0, 2.0], (0.0, 0)),
            ([1.0, 2.0], [1.5, 0.0], (2.0, 2)),
            ([nan, infinity], [nan, infinity], (0.0, 0)),
            ([nan, 1.0], [1.0, 1.0], (infinity, 1)),
            ([infinity, 1.0], [-infinity, 1.0], (infinity, 1)),
        ] {
            assert_eq!(difference(&t(&a), &t(&b)).unwrap(), expected, "{a:?} {b:?}");
        }
    }
}
