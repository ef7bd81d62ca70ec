//! Weights between the pretrained start and the trained end.
//!
//! Fine-tuning on a few identities makes a trunk better at them and worse at telling strangers from
//! them. The model that is scored and kept is start + share · (trained − start) (Wortsman et al.,
//! "Robust fine-tuning of zero-shot models", 2022); training itself goes on from the trained
//! weights.

use tch::{Kind, Tensor, no_grad};

use crate::models::Params;

/// Swaps a network's weights for the blended ones and back.
#[derive(Debug)]
pub struct WeightInterpolation {
    share: f64,
    /// (the network's tensor, a copy of its start); empty when there is nothing to blend.
    starts: Vec<(Tensor, Tensor)>,
}

impl WeightInterpolation {
    /// Remembers the network as it is now as the start. A `share` of 1 is the trained network
    /// itself and costs nothing.
    pub fn new(params: &Params, share: f64) -> Self {
        let floats = params.iter().filter(|param| param.tensor.kind() == Kind::Float);
        let starts = match share >= 1.0 {
            true => Vec::new(),
            false => floats
                .map(|param| (param.tensor.shallow_clone(), param.tensor.detach().copy()))
                .collect(),
        };
        Self { share, starts }
    }

    /// Runs `body` while the network holds the blended weights, then puts the trained ones back,
    /// to the bit.
    pub fn with<T>(&self, body: impl FnOnce() -> T) -> T {
        let trained: Vec<Tensor> = self.starts.iter().map(|(now, _)| now.detach().copy()).collect();
        no_grad(|| {
            for (now, start) in &self.starts {
                now.shallow_clone().copy_(&start.lerp(now, self.share));
            }
        });
        let result = body();
        no_grad(|| {
            for ((now, _), trained) in self.starts.iter().zip(&trained) {
                now.shallow_clone().copy_(trained);
            }
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn blends_inside_and_restores_outside() {
        let ((), params) = Params::collect(Device::Cpu, |root| {
            let _ = root.parameter("w", Tensor::from_slice(&[0f32, 10.0]));
        });
        let weight = &params.iter().next().unwrap().tensor;
        let blend = WeightInterpolation::new(&params, 0.75);
        no_grad(|| weight.shallow_clone().copy_(&Tensor::from_slice(&[4f32, 2.0])));
        let inside = blend.with(|| Vec::<f32>::try_from(weight.detach().copy()).unwrap());
        assert_eq!(inside, [3.0, 4.0]);
        assert_eq!(Vec::<f32>::try_from(weight.detach()).unwrap(), [4.0, 2.0]);
        assert!(weight.requires_grad());
    }
}
