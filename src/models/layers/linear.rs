//! A fully connected layer.

use tch::Tensor;

use super::{Bias, Weight, trace};
use crate::models::params::Scope;

/// y = x Wᵀ + b.
#[derive(Debug)]
pub struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Weight `[out, in]` and bias `[out]`, both U(-b, b) with b = 1/sqrt(in), as PyTorch.
    pub fn new(at: &Scope, inputs: i64, outputs: i64) -> Self {
        Self::with(at, inputs, outputs, Weight::Default, Bias::Default)
    }

    /// The same with other first values, or without a bias.
    pub fn with(at: &Scope, inputs: i64, outputs: i64, weight: Weight, bias: Bias) -> Self {
        let weight = weight.draw(at, &[outputs, inputs]);
        let bias = bias.draw(at, outputs, inputs);
        Self {
            name: at.path().to_owned(),
            weight: at.parameter("weight", weight),
            bias: bias.map(|bias| at.parameter("bias", bias)),
        }
    }

    /// Its tensors by name, not copied.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let all = [("weight", Some(&self.weight)), ("bias", self.bias.as_ref())];
        let named = |(name, tensor): (&str, Option<&Tensor>)| {
            Some((name.to_owned(), tensor?.shallow_clone()))
        };
        all.into_iter().filter_map(named).collect()
    }

    /// `[N, in]` to `[N, out]`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        trace::report(&self.name, xs.linear(&self.weight, self.bias.as_ref()))
    }
}
