//! The ReLU with a learnt slope below zero (He et al., 2015).

use tch::{Device, Kind, Tensor};

use super::trace;
use crate::models::params::Scope;

/// y = x above zero and w x below, with a slope w per channel, over `[N, C, H, W]`.
#[derive(Debug)]
pub struct PRelu {
    name: String,
    weight: Tensor,
}

impl PRelu {
    /// Registers `weight` `[channels]`, 0.25 as in PyTorch.
    pub fn new(at: &Scope, channels: i64) -> Self {
        let slopes = Tensor::full([channels], 0.25, (Kind::Float, Device::Cpu));
        Self { name: at.path().to_owned(), weight: at.parameter("weight", slopes) }
    }

    /// The same shape, the same dtype.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        // Autocast leaves the slopes in float32 on the CPU, and prelu takes one dtype only.
        let ys = match self.weight.kind() == xs.kind() {
            true => xs.prelu(&self.weight),
            false => xs.prelu(&self.weight.to_kind(xs.kind())),
        };
        trace::report(&self.name, ys)
    }
}
