//! Loss scaling for float16, whose range is so small that gradients vanish (Micikevicius et al.,
//! "Mixed precision training", 2018).

use tch::{Device, Kind, Tensor, no_grad};

use super::optim::Optimizer;
use crate::native::{self, ScaleRule};
use crate::{Error, Result};

/// Initial factor, growth and backoff: PyTorch's defaults.
const START: f64 = 65_536.0;
const RULE: ScaleRule = ScaleRule { growth: 2.0, backoff: 0.5, interval: 2000 };
/// The names in its state.
const STATE: [&str; 3] = ["scaler.scale", "scaler.good", "scaler.skipped"];

/// Multiplies the loss before the backward pass and divides the gradients after it. A step whose
/// gradients are not finite is skipped and the factor halved; after 2000 good steps it doubles.
///
/// All of that happens on the device: the host reads nothing and waits for nothing. A scaler that is
/// off does nothing: the training loop has no second path.
#[derive(Debug)]
pub struct LossScaler {
    on: Option<Numbers>,
}

/// On the device, 0-d.
#[derive(Debug)]
struct Numbers {
    /// Float32.
    scale: Tensor,
    /// Int32: steps since the last change.
    good: Tensor,
    /// Float32.
    skipped: Tensor,
}

impl Numbers {
    fn new([scale, good, skipped]: [f64; 3], device: Device) -> Self {
        let number = |value: f64, kind| Tensor::full([], value, (kind, device));
        Self {
            scale: number(scale, Kind::Float),
            good: number(good, Kind::Int),
            skipped: number(skipped, Kind::Float),
        }
    }

    fn read(&self) -> [f64; 3] {
        [&self.scale, &self.good, &self.skipped].map(|number| number.double_value(&[]))
    }
}

impl LossScaler {
    /// Enabled for float16 only: bfloat16 has the range of float32. `device` holds the parameters.
    pub fn new(is_on: bool, device: Device) -> Self {
        Self { on: is_on.then(|| Numbers::new([START, 0.0, 0.0], device)) }
    }

    /// The current scale; `None` if disabled. The host waits for the device.
    pub fn scale(&self) -> Option<f64> {
        self.on.as_ref().map(|on| on.read()[0])
    }

    /// Steps that were skipped so far. The host waits for the device.
    pub fn skipped(&self) -> u64 {
        self.on.as_ref().map_or(0, |on| on.read()[2] as u64)
    }

    /// State for a checkpoint, next to [the optimiser's](Optimizer::state): `scaler.scale`,
    /// `scaler.good` (steps since the last change) and `scaler.skipped`, float64 `[]` each; nothing
    /// where it is off.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let Some(on) = &self.on else { return Vec::new() };
        let named = STATE.iter().zip(on.read());
        named.map(|(name, value)| ((*name).to_owned(), Tensor::from(value))).collect()
    }

    /// Loads a state returned by [`state`](Self::state).
    ///
    /// # Errors
    /// The state was saved with another precision, or its numbers are invalid; nothing is changed then.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let fail = || {
            let text = "the saved state of the loss scaler does not fit; resume with the --precision \
                        it was saved with";
            Error::Config(text.into())
        };
        let Some(on) = &mut self.on else {
            return if state.is_empty() { Ok(()) } else { Err(fail()) };
        };
        let value = |wanted: &str| {
            let mut found = state.iter().filter(|(name, _)| name == wanted);
            let (_, tensor) = found.next().filter(|_| found.next().is_none())?;
            f64::try_from(tensor).ok().filter(|value| value.is_finite() && *value >= 0.0)
        };
        let [scale, good, skipped] = STATE.map(value);
        match (scale, good, skipped) {
            (Some(scale), Some(good), Some(skipped))
                if state.len() == STATE.len() && scale > 0.0 && good < RULE.interval as f64 =>
            {
                *on = Numbers::new([scale, good, skipped], on.scale.device());
                Ok(())
            }
            _ => Err(fail()),
        }
    }

    /// The backward pass of a loss, 0-d.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn backward(&self, loss: &Tensor) -> Result<()> {
        match &self.on {
            Some(on) => loss.f_mul(&on.scale)?.f_backward()?,
            None => loss.f_backward()?,
        }
        Ok(())
    }

    /// Takes the factor out of the gradients, and adapts it. Where it is on, gives 1 (float32, 0-d) for
    /// a step that must be skipped, else 0: for [`Optimizer::step_with`].
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn unscale(&mut self, optimizer: &Optimizer) -> Result<Option<Tensor>> {
        let Some(Numbers { scale, good, skipped }) = &mut self.on else { return Ok(None) };
        no_grad(|| {
            let found = optimizer.unscale(&scale.reciprocal())?;
            native::update_scale(scale, good, &found, RULE)?;
            // A scale of zero would make every gradient NaN from here on.
            let _ = scale.f_clamp_min_(f64::from(f32::MIN_POSITIVE))?;
            let _ = skipped.f_add_(&found)?;
            Ok(Some(found))
        })
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

    /// Whether the step may be done.
    fn unscale(scaler: &mut LossScaler, optimizer: &Optimizer) -> bool {
        let found = scaler.unscale(optimizer).unwrap();
        found.is_none_or(|found| found.double_value(&[]) == 0.0)
    }

    #[test]
    fn gradients_come_out_as_without_it() {
        let (param, mut optimizer) = one(3.0);
        let mut scaler = LossScaler::new(true, Device::Cpu);
        optimizer.zero_grad().unwrap();
        scaler.backward(&param.square().sum(Kind::Float)).unwrap();
        assert_eq!(param.grad().double_value(&[0]), 6.0 * START);
        assert!(unscale(&mut scaler, &optimizer));
        assert_eq!(param.grad().double_value(&[0]), 6.0);
        assert_eq!((scaler.scale(), scaler.skipped()), (Some(START), 0));
    }

    #[test]
    fn an_overflow_is_skipped_and_halves_the_factor() {
        let (param, mut optimizer) = one(1.0);
        let mut scaler = LossScaler::new(true, Device::Cpu);
        for (round, bad) in [f64::INFINITY, f64::NAN].into_iter().enumerate() {
            optimizer.zero_grad().unwrap();
            scaler.backward(&(param.sum(Kind::Float) * bad)).unwrap();
            assert!(!unscale(&mut scaler, &optimizer));
            assert_eq!(scaler.skipped(), round as u64 + 1);
        }
        assert_eq!(scaler.scale(), Some(START / 4.0));
        assert_eq!(param.double_value(&[0]), 1.0);
        for _ in 0..RULE.interval {
            optimizer.zero_grad().unwrap();
            scaler.backward(&param.sum(Kind::Float)).unwrap();
            assert!(unscale(&mut scaler, &optimizer));
        }
        assert_eq!(scaler.scale(), Some(START / 2.0));
    }

    #[test]
    fn off_it_changes_nothing() {
        let (param, mut optimizer) = one(1.0);
        let mut scaler = LossScaler::new(false, Device::Cpu);
        optimizer.zero_grad().unwrap();
        scaler.backward(&(param.sum(Kind::Float) * f64::INFINITY)).unwrap();
        assert!(unscale(&mut scaler, &optimizer));
        assert_eq!(scaler.scale(), None);
        assert!(param.grad().double_value(&[0]).is_infinite());
    }

    #[test]
    fn a_saved_state_continues_where_it_was() {
        let (param, mut optimizer) = one(1.0);
        let mut scaler = LossScaler::new(true, Device::Cpu);
        let mut step = |scaler: &mut LossScaler, factor: f64| {
            optimizer.zero_grad().unwrap();
            scaler.backward(&(param.sum(Kind::Float) * factor)).unwrap();
            unscale(scaler, &optimizer)
        };
        assert!(!step(&mut scaler, f64::NAN));
        assert!((1..RULE.interval).all(|_| step(&mut scaler, 1.0)));
        let mut second = LossScaler::new(true, Device::Cpu);
        second.load_state(&scaler.state()).unwrap();
        // One more good step, and the factor doubles.
        for scaler in [&mut scaler, &mut second] {
            assert!(step(scaler, 1.0));
            assert_eq!((scaler.scale(), scaler.skipped()), (Some(START), 1));
        }
        let mut off = LossScaler::new(false, Device::Cpu);
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
