//! Loss scaling for float16, whose range is so small that gradients vanish (Micikevicius et al.,
//! "Mixed precision training", 2018).

use tch::Tensor;

use super::optim::Optimizer;
use crate::{Error, Result};

/// The first factor, and what becomes of it: PyTorch's own numbers.
const START: f64 = 65_536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const PATIENCE: u32 = 2000;
/// The names in its state.
const STATE: [&str; 3] = ["scaler.scale", "scaler.good", "scaler.skipped"];

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

    /// What a checkpoint keeps of it, beside [the optimiser's](Optimizer::state): `scaler.scale`,
    /// `scaler.good` (steps since the last change) and `scaler.skipped`, float64 `[]` each; nothing
    /// where it is off.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let Some(scale) = self.scale else { return Vec::new() };
        let values = [scale, f64::from(self.good), self.skipped as f64];
        let named = STATE.iter().zip(values);
        named.map(|(name, value)| ((*name).to_owned(), Tensor::from(value))).collect()
    }

    /// Takes over a state that [`state`](Self::state) gave.
    ///
    /// # Errors
    /// It is not that of a scaler that is as much on as this one, or its numbers cannot be; nothing
    /// is changed then.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let fail = || {
            let text = "the saved state of the loss scaler does not fit; resume with the --precision \
                        it was saved with";
            Error::Config(text.into())
        };
        if self.scale.is_none() {
            return if state.is_empty() { Ok(()) } else { Err(fail()) };
        }
        let value = |wanted: &str| {
            let mut found = state.iter().filter(|(name, _)| name == wanted);
            let (_, tensor) = found.next().filter(|_| found.next().is_none())?;
            f64::try_from(tensor).ok().filter(|value| value.is_finite() && *value >= 0.0)
        };
        let [scale, good, skipped] = STATE.map(value);
        match (scale, good, skipped) {
            (Some(scale), Some(good), Some(skipped))
                if state.len() == STATE.len() && scale > 0.0 && good < f64::from(PATIENCE) =>
            {
                self.scale = Some(scale);
                (self.good, self.skipped) = (good as u32, skipped as u64);
                Ok(())
            }
            _ => Err(fail()),
        }
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

    #[test]
    fn a_saved_state_continues_where_it_was() {
        let (param, mut optimizer) = one(1.0);
        let mut scaler = LossScaler::new(true);
        let mut step = |scaler: &mut LossScaler, factor: f64| {
            optimizer.zero_grad().unwrap();
            scaler.backward(&(param.sum(Kind::Float) * factor));
            scaler.unscale(&optimizer).unwrap()
        };
        assert!(!step(&mut scaler, f64::NAN));
        assert!((1..PATIENCE).all(|_| step(&mut scaler, 1.0)));
        let mut second = LossScaler::new(true);
        second.load_state(&scaler.state()).unwrap();
        // One more good step, and the factor doubles.
        for scaler in [&mut scaler, &mut second] {
            assert!(step(scaler, 1.0));
            assert_eq!((scaler.scale(), scaler.skipped()), (Some(START), 1));
        }
        let mut off = LossScaler::new(false);
        assert!(off.state().is_empty() && off.load_state(&[]).is_ok());
        assert!(off.load_state(&scaler.state()).is_err());
        let mut wrong = scaler.state();
        wrong[0].1 = Tensor::from(f64::NAN);
        for state in [&wrong[..], &wrong[1..], &[]] {
            let said = second.load_state(state).unwrap_err().to_string();
            assert!(said.contains("--precision"), "{said}");
        }
        assert_eq!(second.scale(), Some(START));
    }
}
