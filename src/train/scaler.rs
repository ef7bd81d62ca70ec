//! Loss scaling for float16, whose range is so small that gradients vanish (Micikevicius et al.,
//! "Mixed precision training", 2018).

use tch::Tensor;

use super::optim::Optimizer;
use crate::Result;

/// The first factor, and what becomes of it: PyTorch's own numbers.
const START: f64 = 65_536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const PATIENCE: u32 = 2000;

/// Multiplies the loss before the backward pass and divides the gradients after it. A step whose
/// gradients are not finite is skipped and the factor halved; after 2000 good steps it doubles.
///
/// One that is off does nothing: the training loop has no second path.
#[derive(Debug)]
pub struct LossScaler {
    scale: Option<f64>,
    good: u32,
    skipped: u64,
}

impl LossScaler {
    /// On for float16 alone: bfloat16 has the range of float32.
    pub fn new(is_on: bool) -> Self {
        Self { scale: is_on.then_some(START), good: 0, skipped: 0 }
    }

    /// The factor; none where it is off.
    pub fn scale(&self) -> Option<f64> {
        self.scale
    }

    /// Steps that were skipped so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The backward pass of a loss.
    pub fn backward(&self, loss: &Tensor) {
        match self.scale {
            Some(scale) => (loss * scale).backward(),
            None => loss.backward(),
        }
    }

    /// Takes the factor out of the gradients and says whether the step may be done. Where it is on,
    /// the host waits for the device here.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn unscale(&mut self, optimizer: &Optimizer) -> Result<bool> {
        let Some(scale) = self.scale else { return Ok(true) };
        let is_finite = optimizer.unscale(1.0 / scale)?;
        if is_finite {
            self.good += 1;
            if self.good == PATIENCE {
                (self.scale, self.good) = (Some(scale * GROWTH), 0);
            }
        } else {
            self.skipped += 1;
            (self.scale, self.good) = (Some((scale * BACKOFF).max(f64::MIN_POSITIVE)), 0);
        }
        Ok(is_finite)
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::train::optim::{OptimizerConfig, OptimizerKind};

    fn one(value: f32) -> (Tensor, Optimizer) {
        let param = Tensor::from_slice(&[value]).set_requires_grad(true);
        let config = OptimizerConfig::new(OptimizerKind::Adam);
        let named = vec![("p".to_owned(), param.shallow_clone())];
        (param, Optimizer::new(config, named).unwrap())
    }

    #[test]
    fn gradients_come_out_as_without_it() {
        let (param, mut optimizer) = one(3.0);
        let mut scaler = LossScaler::new(true);
        optimizer.zero_grad().unwrap();
        scaler.backward(&param.square().sum(Kind::Float));
        assert_eq!(param.grad().double_value(&[0]), 6.0 * START);
        assert!(scaler.unscale(&optimizer).unwrap());
        assert_eq!(param.grad().double_value(&[0]), 6.0);
        assert_eq!((scaler.scale(), scaler.skipped()), (Some(START), 0));
    }

    #[test]
    fn an_overflow_is_skipped_and_halves_the_factor() {
        let (param, mut optimizer) = one(1.0);
        let mut scaler = LossScaler::new(true);
        for (round, bad) in [f64::INFINITY, f64::NAN].into_iter().enumerate() {
            optimizer.zero_grad().unwrap();
            scaler.backward(&(param.sum(Kind::Float) * bad));
            assert!(!scaler.unscale(&optimizer).unwrap());
            assert_eq!(scaler.skipped(), round as u64 + 1);
        }
        assert_eq!(scaler.scale(), Some(START / 4.0));
        assert_eq!(param.double_value(&[0]), 1.0);
        for _ in 0..PATIENCE {
            optimizer.zero_grad().unwrap();
            scaler.backward(&param.sum(Kind::Float));
            assert!(scaler.unscale(&optimizer).unwrap());
        }
        assert_eq!(scaler.scale(), Some(START / 2.0));
    }

    #[test]
    fn off_it_changes_nothing() {
        let (param, mut optimizer) = one(1.0);
        let mut scaler = LossScaler::new(false);
        optimizer.zero_grad().unwrap();
        scaler.backward(&(param.sum(Kind::Float) * f64::INFINITY));
        assert!(scaler.unscale(&optimizer).unwrap());
        assert_eq!(scaler.scale(), None);
        assert!(param.grad().double_value(&[0]).is_infinite());
    }
}
