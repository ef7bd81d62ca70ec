//! The weights that are scored and saved, where they are not the trained ones.
//!
//! Fine-tuning on a few identities makes a trunk better at them and worse at telling strangers from
//! them: `--blend` keeps start + share · (trained − start) (Wortsman et al., "Robust fine-tuning of
//! zero-shot models", 2022). `--model-ema` puts the exponential moving average of the weights in the
//! place of the trained ones (Polyak and Juditsky, 1992; timm's `ModelEma`). Training itself goes on
//! from the trained weights.

use tch::{Device, Kind, Tensor, no_grad};

use crate::models::Param;

/// Swaps a network's weights for those to score and save, and back.
#[derive(Debug)]
pub struct WeightInterpolation {
    share: f64,
    decay: Option<f64>,
    /// How often the average was updated: `[]`, on the CPU.
    updates: Tensor,
    /// Empty when the trained network itself is kept.
    slots: Vec<Slot>,
}

/// One float tensor of the network, parameter or running statistic.
#[derive(Debug)]
struct Slot {
    now: Tensor,
    /// A copy of its start; none with a share of 1.
    start: Option<Tensor>,
    /// The moving average; none without a decay.
    average: Option<Tensor>,
}

impl WeightInterpolation {
    /// Keeps the current weights as the start. A `share` of 1 without a `decay` is the
    /// trained network itself and costs nothing.
    pub fn new<'a>(
        params: impl IntoIterator<Item = &'a Param>,
        share: f64,
        decay: Option<f64>,
    ) -> Self {
        let params = params.into_iter();
        let floats = params.filter(|param| param.tensor.kind() == Kind::Float);
        let (blends, averages) = (share < 1.0, decay.is_some());
        let slot = |tensor: &Tensor| Slot {
            now: tensor.shallow_clone(),
            start: blends.then(|| tensor.detach().copy()),
            average: averages.then(|| tensor.detach().copy()),
        };
        let slots = match blends || averages {
            true => floats.map(|param| slot(&param.tensor)).collect(),
            false => Vec::new(),
        };
        let updates = Tensor::zeros([], (Kind::Int64, Device::Cpu));
        Self { share, decay, updates, slots }
    }

    /// What it keeps besides the network's own weights, by number: the starts and the averages.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let kept = |(at, Slot { start, average, .. }): (usize, &Slot)| {
            let named = |what: &str, tensor: &Option<Tensor>| {
                tensor.as_ref().map(|tensor| (format!("{what}.{at}"), tensor.shallow_clone()))
            };
            [named("start", start), named("average", average)]
        };
        let updates = self.decay.map(|_| ("updates".to_owned(), self.updates.shallow_clone()));
        self.slots.iter().enumerate().flat_map(kept).flatten().chain(updates).collect()
    }

    /// Whether the weights to keep are the trained ones.
    pub fn keeps_trained(&self) -> bool {
        self.slots.iter().all(|slot| slot.start.is_none() && slot.average.is_none())
    }

    /// After the n-th optimiser step, from 1 on: `average = d * average + (1 - d) * weight` with
    /// `d = min(decay, (1 + n) / (10 + n))`, as TensorFlow's moving average with `num_updates`: a short
    /// training would otherwise end with an average that is mostly its start.
    pub fn update(&mut self) {
        let Some(decay) = self.decay else { return };
        no_grad(|| {
            let _ = self.updates.g_add_scalar_(1);
            let updates = self.updates.int64_value(&[]) as f64;
            let decay = decay.min((1.0 + updates) / (10.0 + updates));
            for Slot { now, average, .. } in &mut self.slots {
                if let Some(average) = average {
                    let _ = average.lerp_(now, 1.0 - decay);
                }
            }
        });
    }

    /// Runs `body` while the network holds the weights to keep, `start + share (average - start)`
    /// (without a decay the trained weights are the average). Then, and after a panic, the trained ones
    /// are put back, to the bit.
    pub fn with<T>(&self, body: impl FnOnce() -> T) -> T {
        let trained = self.slots.iter().map(|slot| slot.now.detach().copy()).collect();
        let _restore = Restore { slots: &self.slots, trained };
        no_grad(|| {
            for Slot { now, start, average } in &self.slots {
                let end = average.as_ref().unwrap_or(now);
                let kept = start.as_ref().map(|start| start.lerp(end, self.share));
                now.shallow_clone().copy_(kept.as_ref().unwrap_or(end));
            }
        });
        body()
    }
}

/// Puts the trained weights back when it is dropped.
struct Restore<'a> {
    slots: &'a [Slot],
    trained: Vec<Tensor>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        no_grad(|| {
            for (slot, trained) in self.slots.iter().zip(&self.trained) {
                // A panic here, during another one, would end the process.
                let _ = slot.now.shallow_clone().f_copy_(trained);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Params;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn params(start: &[f32]) -> Params {
        Params::collect(Device::Cpu, |root| {
            let _ = root.parameter("w", Tensor::from_slice(start));
        })
        .1
    }

    fn set(params: &Params, values: &[f32]) {
        let weight = params.iter().next().unwrap().tensor.shallow_clone();
        no_grad(|| { weight }.copy_(&Tensor::from_slice(values)));
    }

    fn get(params: &Params) -> Vec<f32> {
        Vec::try_from(params.iter().next().unwrap().tensor.detach().copy()).unwrap()
    }

    #[test]
    fn blends_inside_and_restores_outside() {
        let params = params(&[0.0, 10.0]);
        let blend = WeightInterpolation::new(params.iter(), 0.75, None);
        set(&params, &[4.0, 2.0]);
        assert_eq!(blend.with(|| get(&params)), [3.0, 4.0]);
        assert_eq!(get(&params), [4.0, 2.0]);
        assert!(params.iter().next().unwrap().tensor.requires_grad());
    }

    #[test]
    fn the_trained_weights_are_back_after_a_panic() {
        let params = params(&[0.0]);
        let blend = WeightInterpolation::new(params.iter(), 0.5, None);
        set(&params, &[4.0]);
        let panicked = catch_unwind(AssertUnwindSafe(|| blend.with(|| panic!("in the body"))));
        assert!(panicked.is_err());
        assert_eq!(get(&params), [4.0]);
    }

    #[test]
    fn the_average_follows_a_plain_loop_and_is_what_is_blended() {
        for (share, decay) in [(1.0, 0.9), (0.75, 0.25)] {
            let params = params(&[1.0]);
            let mut blend = WeightInterpolation::new(params.iter(), share, Some(decay));
            let mut average = 1.0f64;
            for step in 1..=5 {
                let weight = f64::from(step * step);
                set(&params, &[weight as f32]);
                blend.update();
                let step = f64::from(step);
                let decay = f64::min(decay, (1.0 + step) / (10.0 + step));
                average = decay * average + (1.0 - decay) * weight;
            }
            let wanted = 1.0 + share * (average - 1.0);
            let found = f64::from(blend.with(|| get(&params))[0]);
            assert!((found - wanted).abs() < 1e-5, "{found}, {wanted}");
            assert_eq!(get(&params), [25.0]);
        }
        let params = params(&[1.0]);
        assert!(WeightInterpolation::new(params.iter(), 1.0, None).slots.is_empty());
    }
}
