//! One training step, the same for every kind of training.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tch::{Device, Tensor, no_grad};

use super::named::forever;
use super::optim::{Optimizer, StepRates};
use super::scaler::LossScaler;
use super::world::World;
use crate::Result;

/// A named 0-d tensor for the log; it stays on the device.
pub type Figure = (&'static str, Tensor);

/// What the forward pass of a batch gives.
pub struct Forward<'a> {
    /// The loss, 0-d, with its graph.
    pub loss: Tensor,
    /// Further figures of the batch.
    pub measures: Vec<Figure>,
    /// What remains to be done after the backward pass of the loss, before the optimiser steps.
    pub after: Option<Box<dyn FnOnce() -> Result<()> + 'a>>,
}

impl From<Tensor> for Forward<'_> {
    fn from(loss: Tensor) -> Self {
        Self { loss, measures: Vec::new(), after: None }
    }
}

/// Result of a training step.
#[derive(Debug)]
pub struct Step {
    /// `loss`, then the measures of the forward pass, then `grad_norm` where gradients are clipped;
    /// without a graph.
    pub figures: Vec<Figure>,
    /// The norm of all gradients together, where it was computed.
    pub grad_norm: Option<Tensor>,
    /// With a loss scaler: 1 (float32, 0-d) where the gradients overflowed and nothing was changed.
    pub skipped: Option<Tensor>,
}

impl Step {
    /// The loss as a number. The host waits for the device.
    pub fn loss(&self) -> f64 {
        self.figures.first().map_or(f64::NAN, |(_, loss)| loss.double_value(&[]))
    }
}

/// Turns forward passes into steps of an optimiser: clears the gradients, runs the backward pass of
/// the (scaled) loss, takes the scale out, clips and steps. The host waits for nothing.
#[derive(Debug)]
pub struct Stepper<'a> {
    /// What it steps.
    pub optimizer: &'a mut Optimizer,
    clip: Option<f64>,
    /// Computes the gradient norm even without clipping.
    pub measures_norm: bool,
    /// Enabled for float16.
    pub scaler: LossScaler,
    /// The processes that step together.
    pub world: Rc<World>,
    /// Names of the parameters whose gradient is whole in each of them.
    pub whole: BTreeSet<String>,
}

impl<'a> Stepper<'a> {
    /// Steps in float32 or bfloat16, without clipping.
    pub fn new(optimizer: &'a mut Optimizer) -> Self {
        Self::with(optimizer, None, false)
    }

    /// `clip` is the largest norm of all gradients together; `scale_loss` is for float16.
    pub fn with(optimizer: &'a mut Optimizer, clip: Option<f64>, scale_loss: bool) -> Self {
        let scaler = LossScaler::new(scale_loss, optimizer.device());
        let (world, whole) = Default::default();
        Self { optimizer, clip, measures_norm: false, scaler, world, whole }
    }

    /// One step. `forward` is called once the gradients of the last step are gone.
    ///
    /// # Errors
    /// An error from `forward` or libtorch.
    pub fn step<'b>(
        &mut self,
        rates: StepRates,
        forward: impl FnOnce() -> Result<Forward<'b>>,
    ) -> Result<Step> {
        self.optimizer.zero_grad()?;
        let Forward { loss, measures, after } = forward()?;
        let sum = || self.world.sum_gradients(self.optimizer, |name| self.whole.contains(name));
        // Gradients that are complete after this pass are summed while it goes on.
        let during = after.is_none().then(sum).transpose()?;
        self.world.check(self.scaler.backward(&loss))?;
        after.map_or(Ok(()), |after| after())?;
        during.map_or_else(sum, Ok)?.end()?;
        let skipped = self.scaler.unscale(self.optimizer)?;
        let mut figures = vec![("loss", loss.detach())];
        figures.extend(measures.into_iter().map(|(name, value)| (name, value.detach())));
        let grad_norm = match self.clip {
            Some(largest) => {
                let norm = self.optimizer.clip_grad_norm(largest);
                figures.push(("grad_norm", norm.shallow_clone()));
                Some(norm)
            }
            None => self.measures_norm.then(|| self.optimizer.grad_norm()),
        };
        self.optimizer.step_with(rates, skipped.as_ref())?;
        Ok(Step { figures, grad_norm, skipped })
    }
}

/// The name of the number of skipped steps in a checkpoint.
const SKIPPED: &str = "skipped";

/// Running sums of the figures of an epoch, on the device; read once at its end.
#[derive(Default)]
pub struct Totals {
    sums: Vec<Figure>,
    steps: u64,
    skipped: Option<Tensor>,
}

impl Totals {
    /// Adds a step. Skipped steps do not count in the means.
    pub fn add(&mut self, step: &Step) {
        no_grad(|| {
            let counted = |value: &Tensor| match &step.skipped {
                Some(skipped) => value.masked_fill(&skipped.gt(0.0), 0.0),
                None => value.shallow_clone(),
            };
            for (at, (name, value)) in step.figures.iter().enumerate() {
                match self.sums.get_mut(at) {
                    Some((_, sum)) => *sum += counted(value),
                    None => self.sums.push((*name, counted(value).copy())),
                }
            }
            if let Some(skipped) = &step.skipped {
                match &mut self.skipped {
                    Some(sum) => *sum += skipped,
                    None => self.skipped = Some(skipped.copy()),
                }
            }
        });
        self.steps += 1;
    }

    /// Number of steps, the figures' names, and the sums, for a checkpoint.
    pub fn state(&self) -> (u64, Vec<String>, Vec<(String, Tensor)>) {
        let names = self.sums.iter().map(|(name, _)| (*name).to_owned());
        let numbered = self.sums.iter().enumerate();
        let mut tensors: Vec<_> =
            numbered.map(|(at, (_, sum))| (at.to_string(), sum.shallow_clone())).collect();
        tensors.extend(self.skipped.iter().map(|sum| (SKIPPED.to_owned(), sum.shallow_clone())));
        (self.steps, names.collect(), tensors)
    }

    /// The sums of [`state`](Self::state), on `device`.
    pub fn restore(
        (steps, names): &(u64, Vec<String>),
        tensors: Vec<(String, Tensor)>,
        device: Device,
    ) -> Self {
        let mut tensors: BTreeMap<_, _> =
            tensors.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
        let sums = names
            .iter()
            .enumerate()
            .filter_map(|(at, name)| Some((forever(name), tensors.remove(&at.to_string())?)));
        let sums = sums.collect();
        Self { sums, steps: *steps, skipped: tensors.remove(SKIPPED) }
    }

    /// The sum of the losses. The host waits for the device.
    pub fn loss(&self) -> Option<f64> {
        self.sums.first().map(|(_, sum)| sum.double_value(&[]))
    }

    /// Steps that changed the parameters. The host waits for the device.
    pub fn kept(&self) -> f64 {
        let skipped = self.skipped.as_ref().map_or(0.0, |sum| sum.double_value(&[]));
        self.steps as f64 - skipped
    }

    /// The means over the steps that were not skipped; NaN where there is none.
    pub fn means(&self) -> Vec<(&'static str, f64)> {
        let kept = self.kept();
        let mean = |sum: &Tensor| f64::try_from(sum).unwrap_or(f64::NAN) / kept;
        self.sums.iter().map(|(name, sum)| (*name, mean(sum))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::cuda;
    use crate::train::optim::{OptimizerConfig, OptimizerKind};
    use tch::{Device, Kind};

    fn one() -> (Tensor, Optimizer) {
        let param = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        let named = vec![("p".to_owned(), param.shallow_clone())];
        (param, Optimizer::new(OptimizerConfig::new(OptimizerKind::Adam), named).unwrap())
    }

    fn rates() -> StepRates {
        StepRates::lr(0.1)
    }

    #[test]
    fn a_step_that_overflows_changes_nothing_and_has_no_part_in_the_means() {
        for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Sgd] {
            let param = Tensor::from_slice(&[1f32]).set_requires_grad(true);
            let named = vec![("p".to_owned(), param.shallow_clone())];
            let config = OptimizerConfig { momentum: 0.9, ..OptimizerConfig::new(kind) };
            let mut optimizer = Optimizer::new(config, named).unwrap();
            let (fresh, mut totals) = (optimizer.state(), Totals::default());
            let mut stepper = Stepper::with(&mut optimizer, Some(5.0), true);
            for factor in [f64::INFINITY, f64::NAN] {
                let loss = || Ok((param.sum(Kind::Float) * factor).into());
                totals.add(&stepper.step(rates(), loss).unwrap());
            }
            assert_eq!((param.double_value(&[0]), totals.kept()), (1.0, 0.0), "{kind:?}");
            assert!(totals.means()[0].1.is_nan());
            assert_eq!(stepper.scaler.skipped(), 2);
            totals
                .add(&stepper.step(rates(), || Ok((param.sum(Kind::Float) * 3.0).into())).unwrap());
            assert_eq!(totals.kept(), 1.0);
            assert_eq!(totals.means()[0], ("loss", 3.0));
            let (name, norm) = totals.means()[1];
            assert!(name == "grad_norm" && (norm - 3.0).abs() < 1e-6, "{norm}");
            drop(stepper);
            // As if the two had never been.
            let other = Tensor::from_slice(&[1f32]).set_requires_grad(true);
            let named = vec![("p".to_owned(), other.shallow_clone())];
            let mut plain = Optimizer::new(config, named).unwrap();
            assert_eq!(plain.state(), fresh);
            let mut stepper = Stepper::with(&mut plain, Some(5.0), true);
            stepper.step(rates(), || Ok((other.sum(Kind::Float) * 3.0).into())).unwrap();
            assert_eq!(other, param, "{kind:?}");
            assert_eq!(plain.state(), optimizer.state(), "{kind:?}");
        }
    }

    #[test]
    fn what_remains_is_done_between_the_backward_pass_and_the_step() {
        let (param, mut optimizer) = one();
        let mut stepper = Stepper::new(&mut optimizer);
        let figures = stepper.step(rates(), || {
            let (loss, own) = (param.sum(Kind::Float), param.shallow_clone());
            let after = move || {
                assert_eq!((own.grad().double_value(&[0]), own.double_value(&[0])), (1.0, 1.0));
                (own.sum(Kind::Float) * 2.0).backward();
                Ok(())
            };
            Ok(Forward { after: Some(Box::new(after)), ..Forward::from(loss) })
        });
        assert_eq!(figures.unwrap().figures.len(), 1);
        assert_eq!(param.grad().double_value(&[0]), 3.0);
        assert!(param.double_value(&[0]) < 1.0);
    }

    #[test]
    fn the_host_waits_for_nothing() {
        let (param, mut optimizer) = one();
        let mut totals = Totals::default();
        let mut stepper = Stepper::with(&mut optimizer, Some(1.0), true);
        let mut step = || {
            let step = stepper.step(rates(), || Ok(param.square().sum(Kind::Float).into()))?;
            totals.add(&step);
            Ok(())
        };
        step().unwrap();
        assert_eq!(cuda::count_waits(Device::Cpu, step).unwrap(), 0);
    }
}
