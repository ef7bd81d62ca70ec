//! Optimisers: Adam, AdamW and SGD through libtorch's fused kernels, with PyTorch's semantics and a
//! state that can be saved and loaded.

mod config;
#[cfg(test)]
mod cycling;
mod rates;

use std::collections::BTreeSet;

use tch::{Device, Kind, Tensor, no_grad};

use super::named::copy_all;
use crate::native::{self, AdamStep, SgdStep, clear_gradients, fused_adam_step, fused_sgd_step};
use crate::{Error, Result};

pub use config::{OptimizerConfig, OptimizerKind};
pub use rates::StepRates;

/// An optimiser over named parameters.
///
/// A parameter without a gradient is skipped, keeps its moments, and counts its own steps, as in
/// PyTorch.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    slots: Vec<Slot>,
}

/// A parameter and its optimiser state.
#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    memory: Memory,
    /// Its learning rate, as a share of the step's.
    share: f64,
}

#[derive(Debug)]
enum Memory {
    Adam { average: Tensor, square: Tensor, step: Tensor },
    Sgd { momentum: Option<Tensor> },
}

impl Memory {
    fn new(config: &OptimizerConfig, param: &Tensor) -> Self {
        let zeros = || no_grad(|| param.zeros_like());
        match config.kind {
            OptimizerKind::Adam | OptimizerKind::AdamW => Self::Adam {
                average: zeros(),
                square: zeros(),
                step: Tensor::zeros([], (Kind::Float, param.device())),
            },
            OptimizerKind::Sgd => Self::Sgd { momentum: (config.momentum > 0.0).then(zeros) },
        }
    }

    /// The tensors under PyTorch's names for them.
    fn named(&self) -> Vec<(&'static str, &Tensor)> {
        match self {
            Self::Adam { average, square, step } => {
                vec![("exp_avg", average), ("exp_avg_sq", square), ("step", step)]
            }
            Self::Sgd { momentum } => {
                momentum.iter().map(|buffer| ("momentum_buffer", buffer)).collect()
            }
        }
    }
}

impl Optimizer {
    /// An optimiser with fresh moments over `params`, which stay the caller's (the tensors are
    /// shared, not copied).
    ///
    /// # Errors
    /// When a setting is impossible, a name is there twice, or the parameters are not all of one
    /// device and one of float32 and float64.
    pub fn new(config: OptimizerConfig, params: Vec<(String, Tensor)>) -> Result<Self> {
        config.validate()?;
        let mut names = BTreeSet::new();
        let first = params.first().map(|(_, param)| (param.kind(), param.device()));
        for (name, param) in &params {
            if !names.insert(name) {
                return Err(Error::Config(format!("the optimiser got parameter {name} twice")));
            }
            if !matches!(param.kind(), Kind::Float | Kind::Double)
                || Some((param.kind(), param.device())) != first
            {
                return Err(Error::Config(format!(
                    "parameter {name} is {:?} on {:?}; the optimiser needs all parameters in \
                     float32 on one device (autocast keeps them so)",
                    param.kind(),
                    param.device()
                )));
            }
        }
        let slots = params
            .into_iter()
            .map(|(name, param)| Slot {
                memory: Memory::new(&config, &param),
                name,
                param,
                share: 1.0,
            })
            .collect();
        Ok(Self { config, slots })
    }

    /// The settings it was made with.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Makes all gradients undefined (PyTorch's `set_to_none=True`), so that a parameter the next
    /// backward pass does not reach is skipped.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn zero_grad(&mut self) -> Result<()> {
        clear_gradients(&self.slots.iter().map(|slot| &slot.param).collect::<Vec<_>>())
    }

    /// Gives each parameter a share of the step's learning rate, by its name (1 before): lower
    /// layers of a pretrained trunk usually need a lower rate than upper ones.
    pub fn scale_rates(&mut self, share: impl Fn(&str) -> f64) {
        for slot in &mut self.slots {
            slot.share = share(&slot.name);
        }
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        self.slots.first().map_or(Device::Cpu, |slot| slot.param.device())
    }

    /// One step with this learning rate (usually the base rate times the schedule's factor).
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        self.step_with(StepRates::lr(lr), None)
    }

    /// One step with these rates (usually [`Schedule::rates`](super::schedule::Schedule::rates)).
    /// Where `found`, as [`unscale`](Self::unscale) gives it, is 1, nothing changes; the host does not
    /// wait to learn it.
    ///
    /// # Errors
    /// When a momentum is given to SGD that was made without one; an error from libtorch.
    pub fn step_with(&mut self, rates: StepRates, found: Option<&Tensor>) -> Result<()> {
        let config = self.config.with(rates)?;
        let mut moved = self.with_gradient();
        moved.sort_by(|(a, _), (b, _)| a.share.total_cmp(&b.share));
        // A fused kernel takes one learning rate.
        for group in moved.chunk_by(|(a, _), (b, _)| a.share == b.share) {
            let share = group.first().map_or(1.0, |(slot, _)| slot.share);
            step_group(&config, group, rates.lr * share, found)?;
        }
        Ok(())
    }

    /// Multiplies all gradients by `inverse` (float32, 0-d); gives 1 (float32, 0-d) where one of them is
    /// not finite, else 0.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn unscale(&self, inverse: &Tensor) -> Result<Tensor> {
        let grads: Vec<Tensor> =
            self.with_gradient().into_iter().map(|(_, gradient)| gradient).collect();
        let found = Tensor::zeros([], (Kind::Float, self.device()));
        if !grads.is_empty() {
            native::unscale(&grads.iter().collect::<Vec<_>>(), &found, inverse)?;
        }
        Ok(found)
    }

    /// Scales all gradients so that their norm taken together is at most `max`, and returns the
    /// norm before that, a float32 scalar on the parameters' device (nothing waits for it). Zero
    /// where there is no gradient. As in PyTorch, a norm that is not finite spoils all gradients.
    pub fn clip_grad_norm(&mut self, max: f64) -> Tensor {
        no_grad(|| {
            let total = self.grad_norm();
            let factor = ((&total + 1e-6).reciprocal() * max).clamp_max(1.0);
            for mut grad in self.grads() {
                let _ = grad.multiply_(&factor);
            }
            total
        })
    }

    /// The norm of all gradients taken together, as for [`clip_grad_norm`](Self::clip_grad_norm).
    pub fn grad_norm(&self) -> Tensor {
        no_grad(|| {
            let norms: Vec<Tensor> = self.grads().map(|grad| grad.norm()).collect();
            match norms.is_empty() {
                true => Tensor::zeros([], (Kind::Float, self.device())),
                false => Tensor::stack(&norms, 0).norm().to_kind(Kind::Float),
            }
        })
    }

    fn grads(&self) -> impl Iterator<Item = Tensor> {
        self.gradients().map(|(_, grad)| grad)
    }

    /// The parameters by their names, in the order in which they were given.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), &slot.param))
    }

    /// The gradients that there are, by the names of their parameters; not copied.
    pub fn gradients(&self) -> impl Iterator<Item = (&str, Tensor)> {
        let all = self.slots.iter().map(|slot| (slot.name.as_str(), slot.param.grad()));
        all.filter(|(_, grad)| grad.defined())
    }

    /// A copy of the optimiser state, in the order of the parameters:
    /// `NAME.exp_avg`, `NAME.exp_avg_sq` and `NAME.step`, or `NAME.momentum_buffer`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.entries().map(|(name, tensor)| (name, tensor.detach().copy())).collect()
    }

    /// Takes over a state that [`state`](Self::state) gave, on any device.
    ///
    /// # Errors
    /// Lists every tensor that is missing, unknown, there twice or of another shape or kind;
    /// nothing is changed then.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let live: Vec<_> =
            self.entries().map(|(name, live)| (name, live.shallow_clone())).collect();
        copy_all(state, &live).map_err(|wrong| {
            Error::Config(format!(
                "the saved optimiser state does not fit; resume with the --optimizer and --freeze \
                 it was saved with:\n  {}",
                wrong.join("\n  ")
            ))
        })
    }

    fn entries(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.slots.iter().flat_map(|slot| {
            let named = slot.memory.named().into_iter();
            named.map(|(part, tensor)| (format!("{}.{part}", slot.name), tensor))
        })
    }

    /// The parameters that have a gradient, each with it. Autograd gives a gradient the memory
    /// layout of its parameter, which the fused kernels rely on (and `native` checks).
    fn with_gradient(&self) -> Vec<(&Slot, Tensor)> {
        self.slots
            .iter()
            .map(|slot| (slot, slot.param.grad()))
            .filter(|(_, grad)| grad.defined())
            .collect()
    }
}

/// One step of the parameters `moved`, each with its gradient, at one learning rate.
fn step_group(
    config: &OptimizerConfig,
    moved: &[(&Slot, Tensor)],
    lr: f64,
    found: Option<&Tensor>,
) -> Result<()> {
    let params: Vec<&Tensor> = moved.iter().map(|(slot, _)| &slot.param).collect();
    let grads: Vec<&Tensor> = moved.iter().map(|(_, grad)| grad).collect();
    // Column `index` of the slots' tensors, in the order of `Memory::named`.
    let column = |index: usize| -> Vec<&Tensor> {
        moved
            .iter()
            .filter_map(|(slot, _)| slot.memory.named().get(index).map(|entry| entry.1))
            .collect()
    };
    match config.kind {
        OptimizerKind::Adam | OptimizerKind::AdamW => fused_adam_step(
            &params,
            &grads,
            &column(0),
            &column(1),
            &column(2),
            AdamStep {
                lr,
                beta1: config.beta1,
                beta2: config.beta2,
                weight_decay: config.weight_decay,
                eps: config.eps,
                decoupled: config.kind == OptimizerKind::AdamW,
            },
            found,
        ),
        OptimizerKind::Sgd => fused_sgd_step(
            &params,
            &grads,
            &column(0),
            SgdStep {
                lr,
                momentum: config.momentum,
                weight_decay: config.weight_decay,
                nesterov: config.nesterov,
            },
            found,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn golden() -> Value {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/optim.json"
        )))
        .unwrap()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn tensor(value: &Value, shape: &Value) -> Tensor {
        let shape: Vec<i64> = numbers(shape).iter().map(|&x| x as i64).collect();
        Tensor::from_slice(&numbers(value)).to_kind(Kind::Float).view(shape.as_slice())
    }

    fn params(golden: &Value) -> Vec<(String, Tensor)> {
        ["a", "b", "c"]
            .map(|name| {
                let start = tensor(&golden["start"][name], &golden["shapes"][name]);
                (name.to_owned(), start.set_requires_grad(true))
            })
            .into()
    }

    fn share(params: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
        params.iter().map(|(name, param)| (name.clone(), param.shallow_clone())).collect()
    }

    /// Gives the parameters the golden gradients of a step: `sum(param * gradient)` backwards.
    fn backward(golden: &Value, params: &[(String, Tensor)], step: usize) {
        for (name, param) in params {
            let gradient = &golden["gradients"][step][name];
            if !gradient.is_null() {
                let gradient = tensor(gradient, &golden["shapes"][name]);
                (param * gradient).sum(Kind::Float).backward();
            }
        }
    }

    fn train(
        golden: &Value,
        optimizer: &mut Optimizer,
        params: &[(String, Tensor)],
        steps: std::ops::Range<usize>,
    ) {
        for step in steps {
            optimizer.zero_grad().unwrap();
            backward(golden, params, step);
            optimizer.step(golden["learning_rates"][step].as_f64().unwrap()).unwrap();
        }
    }

    fn config(settings: &Value) -> OptimizerConfig {
        let kind = serde_json::from_value(settings["kind"].clone()).unwrap();
        let mut all = serde_json::to_value(OptimizerConfig::new(kind)).unwrap();
        for (name, value) in settings.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn cases(golden: &Value) -> Vec<(&String, &Value)> {
        golden.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("case ")).collect()
    }

    fn bits(params: &[(String, Tensor)]) -> Vec<u32> {
        params
            .iter()
            .flat_map(|(_, param)| Vec::<f32>::try_from(param.detach().flatten(0, -1)).unwrap())
            .map(f32::to_bits)
            .collect()
    }

    #[test]
    fn five_steps_end_where_pytorchs_do() {
        let golden = golden();
        assert_eq!(cases(&golden).len(), 8);
        for (name, case) in cases(&golden) {
            let params = params(&golden);
            let mut optimizer = Optimizer::new(config(&case["settings"]), share(&params)).unwrap();
            train(&golden, &mut optimizer, &params, 0..5);
            for (param, value) in &params {
                let wanted = numbers(&case["end"][param]);
                let found = Vec::<f32>::try_from(value.detach().flatten(0, -1)).unwrap();
                for (found, wanted) in found.iter().zip(&wanted) {
                    let error = (f64::from(*found) - wanted).abs();
                    assert!(error < 1e-6, "{name}, {param}: {found}, wanted {wanted}");
                }
            }
        }
    }

    /// A share of the rate is what PyTorch's parameter groups do: the same as stepping alone with
    /// that rate.
    #[test]
    fn a_share_of_the_rate_is_a_rate_of_its_own() {
        let golden = golden();
        for (name, case) in cases(&golden) {
            let (together, alone) = (params(&golden), params(&golden));
            let mut both = Optimizer::new(config(&case["settings"]), share(&together)).unwrap();
            both.scale_rates(|name| if name == "b" { 0.25 } else { 1.0 });
            train(&golden, &mut both, &together, 0..5);
            let pick = |keep: fn(&str) -> bool| -> Vec<_> {
                share(&alone).into_iter().filter(|(name, _)| keep(name)).collect()
            };
            let settings = config(&case["settings"]);
            let mut rest = Optimizer::new(settings, pick(|name| name != "b")).unwrap();
            let mut own = Optimizer::new(settings, pick(|name| name == "b")).unwrap();
            for step in 0..5 {
                rest.zero_grad().unwrap();
                own.zero_grad().unwrap();
                backward(&golden, &alone, step);
                let lr = golden["learning_rates"][step].as_f64().unwrap();
                rest.step(lr).unwrap();
                own.step(0.25 * lr).unwrap();
            }
            assert_eq!(bits(&together), bits(&alone), "{name}");
            let plain = params(&golden);
            let mut optimizer = Optimizer::new(settings, share(&plain)).unwrap();
            train(&golden, &mut optimizer, &plain, 0..5);
            assert_ne!(bits(&together[1..2]), bits(&plain[1..2]), "{name}: no effect");
        }
    }

    #[test]
    fn a_saved_state_continues_bit_for_bit() {
        let golden = golden();
        for (name, case) in cases(&golden) {
            let config = config(&case["settings"]);
            let straight = params(&golden);
            let mut optimizer = Optimizer::new(config, share(&straight)).unwrap();
            train(&golden, &mut optimizer, &straight, 0..3);
            let state = optimizer.state();
            let resumed: Vec<(String, Tensor)> = straight
                .iter()
                .map(|(name, param)| (name.clone(), param.detach().copy().set_requires_grad(true)))
                .collect();
            train(&golden, &mut optimizer, &straight, 3..5);
            let mut second = Optimizer::new(config, share(&resumed)).unwrap();
            second.load_state(&state).unwrap();
            train(&golden, &mut second, &resumed, 3..5);
            assert_eq!(bits(&resumed), bits(&straight), "{name}");
            assert_eq!(bits(&second.state()), bits(&optimizer.state()), "{name}");
        }
    }

    #[test]
    fn parameters_without_a_gradient_keep_still_and_count_their_own_steps() {
        let golden = golden();
        let params = params(&golden);
        let config = OptimizerConfig::new(OptimizerKind::AdamW);
        let mut optimizer = Optimizer::new(config, share(&params)).unwrap();
        let before = bits(&params[2..]);
        train(&golden, &mut optimizer, &params, 0..2);
        assert_eq!(bits(&params[2..]), before);
        train(&golden, &mut optimizer, &params, 2..5);
        let state = optimizer.state();
        let steps: Vec<(&str, f64)> = state
            .iter()
            .filter(|(name, _)| name.ends_with(".step"))
            .map(|(name, step)| (name.as_str(), step.double_value(&[])))
            .collect();
        assert_eq!(steps, [("a.step", 5.0), ("b.step", 4.0), ("c.step", 3.0)]);
    }

    #[test]
    fn a_state_that_does_not_fit_is_listed_and_changes_nothing() {
        let golden = golden();
        let params = params(&golden);
        let config = OptimizerConfig::default();
        let mut optimizer = Optimizer::new(config, share(&params)).unwrap();
        train(&golden, &mut optimizer, &params, 0..3);
        let before = optimizer.state();
        let mut state = Optimizer::new(config, share(&params)).unwrap().state();
        drop(state.remove(0));
        state[3].1 = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        state.push(("d.exp_avg".into(), Tensor::new()));
        state.push(("d.exp_avg".into(), Tensor::new()));
        let error = optimizer.load_state(&state).unwrap_err().to_string();
        for part in [
            "a.exp_avg: missing",
            "b.exp_avg_sq: Float [2], expected Float [5]",
            "d.exp_avg: there twice",
            "d.exp_avg: not part",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(bits(&optimizer.state()), bits(&before));
    }

    #[test]
    fn gradients_are_clipped_to_their_norm_taken_together() {
        let param = |values: &[f32]| Tensor::from_slice(values).set_requires_grad(true);
        let params = vec![
            ("x".to_owned(), param(&[1.0, 1.0])),
            ("y".to_owned(), param(&[1.0])),
            ("without".to_owned(), param(&[1.0])),
        ];
        let mut optimizer = Optimizer::new(OptimizerConfig::default(), share(&params)).unwrap();
        assert_eq!(optimizer.clip_grad_norm(1.0).double_value(&[]), 0.0);
        // Gradients (2, 3) and 6: a norm of 7.
        let slope = Tensor::from_slice(&[2.0f32, 3.0]);
        ((&params[0].1 * slope).sum(Kind::Float) + (&params[1].1 * 6.0).sum(Kind::Float))
            .backward();
        let gradient = |i: usize| Vec::<f32>::try_from(params[i].1.grad()).unwrap();
        assert_eq!(optimizer.clip_grad_norm(10.0).double_value(&[]), 7.0);
        assert_eq!(gradient(0), [2.0, 3.0]);
        assert_eq!(optimizer.clip_grad_norm(3.5).double_value(&[]), 7.0);
        for (found, wanted) in gradient(0).iter().chain(&gradient(1)).zip([1.0, 1.5, 3.0]) {
            assert!((found - wanted).abs() < 1e-5, "{found}");
        }
        assert!(!params[2].1.grad().defined());
    }

    #[test]
    fn layouts_of_parameters_and_gradients_do_not_matter() {
        let start = || Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3, 1, 1]);
        let leaf = |tensor: Tensor| tensor.detach().set_requires_grad(true);
        // A dense layout that is not the usual one, as channels-last weights have.
        let odd = leaf(start().transpose(0, 1).contiguous().transpose(0, 1));
        let usual = leaf(start());
        for param in [&odd, &usual] {
            let named = vec![("x".to_owned(), param.shallow_clone())];
            let mut optimizer = Optimizer::new(OptimizerConfig::default(), named).unwrap();
            for _ in 0..2 {
                optimizer.zero_grad().unwrap();
                // The gradient comes back through a permutation, with strides of its own.
                param.permute([0, 2, 3, 1]).pow_tensor_scalar(3).sum(Kind::Float).backward();
                optimizer.step(0.1).unwrap();
            }
        }
        assert_ne!(odd.stride(), usual.stride());
        assert_ne!(usual.grad().stride(), usual.stride());
        assert!((odd - usual).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn parameters_that_cannot_be_stepped_are_refused() {
        let config = OptimizerConfig::default();
        let param = |name: &str, kind| (name.to_owned(), Tensor::zeros([1], (kind, Device::Cpu)));
        let twice = vec![param("w", Kind::Float), param("w", Kind::Float)];
        let error = Optimizer::new(config, twice).unwrap_err().to_string();
        assert!(error.contains("w twice"), "{error}");
        for kind in [Kind::Int64, Kind::BFloat16, Kind::Double] {
            let mixed = vec![param("v", Kind::Float), param("n", kind)];
            let error = Optimizer::new(config, mixed).unwrap_err().to_string();
            assert!(error.contains("parameter n is"), "{error}");
        }
        assert!(Optimizer::new(config, Vec::new()).unwrap().step(0.1).is_ok());
    }
}
