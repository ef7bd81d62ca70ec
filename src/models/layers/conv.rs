//! 2-d convolution.

use tch::Tensor;

use super::{Bias, Weight, trace};
use crate::models::params::Scope;
use crate::native::fused::FusedParts;

/// The shape and the first values of a convolution: a square kernel, stride 1, no padding, one group, a
/// bias and PyTorch's initialisation, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvSpec {
    inputs: i64,
    outputs: i64,
    kernel: [i64; 2],
    stride: i64,
    padding: [i64; 2],
    groups: i64,
    weight: Weight,
    bias: Bias,
}

impl ConvSpec {
    /// A `kernel` x `kernel` convolution.
    pub const fn new(inputs: i64, outputs: i64, kernel: i64) -> Self {
        Self::rectangle(inputs, outputs, [kernel; 2])
    }

    /// A convolution with a kernel of `[height, width]`.
    pub const fn rectangle(inputs: i64, outputs: i64, kernel: [i64; 2]) -> Self {
        let (weight, bias) = (Weight::Default, Bias::Default);
        Self { inputs, outputs, kernel, stride: 1, padding: [0; 2], groups: 1, weight, bias }
    }

    /// Number of output channels.
    pub const fn outputs(&self) -> i64 {
        self.outputs
    }

    /// Stride in both directions.
    pub const fn stride(mut self, stride: i64) -> Self {
        self.stride = stride;
        self
    }

    /// Zeros around the map: `padding` rows and columns on every side.
    pub const fn padding(mut self, padding: i64) -> Self {
        self.padding = [padding; 2];
        self
    }

    /// Half the kernel as padding, so that stride 1 keeps the size of the map.
    pub const fn same(mut self) -> Self {
        self.padding = [self.kernel[0] / 2, self.kernel[1] / 2];
        self
    }

    /// The channels fall into so many groups, which do not see one another.
    pub const fn groups(mut self, groups: i64) -> Self {
        self.groups = groups;
        self
    }

    /// Initialisation of the weight.
    pub const fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Initialisation of the bias, or no bias.
    pub const fn bias(mut self, bias: Bias) -> Self {
        self.bias = bias;
        self
    }
}

/// 2-d convolution.
#[derive(Debug)]
pub struct Conv2d {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: [i64; 2],
    groups: i64,
}

impl Conv2d {
    /// Registers `weight` `[out, in / groups, kh, kw]` and, where there is one, `bias` `[out]`.
    pub fn new(at: &Scope, spec: ConvSpec) -> Self {
        let ConvSpec { inputs, outputs, kernel: [high, wide], stride, padding, groups, .. } = spec;
        let inputs = inputs / groups;
        let weight = spec.weight.draw(at, &[outputs, inputs, high, wide]);
        let bias = spec.bias.draw(at, outputs, inputs * high * wide);
        Self {
            name: at.path().to_owned(),
            weight: at.parameter("weight", weight),
            bias: bias.map(|bias| at.parameter("bias", bias)),
            stride,
            padding,
            groups,
        }
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    pub fn forward(&self, xs: &Tensor) -> Tensor {
        let stride = [self.stride; 2];
        let ys =
            xs.conv2d(&self.weight, self.bias.as_ref(), stride, self.padding, [1, 1], self.groups);
        trace::report(&self.name, ys)
    }

    /// What it computes with, and nothing behind it; none for a convolution in groups.
    pub(super) fn parts(&self) -> Option<FusedParts<'_>> {
        (self.groups == 1).then_some(FusedParts {
            weight: &self.weight,
            bias: self.bias.as_ref(),
            affine: None,
            statistics: None,
            eps: 0.0,
            stride: self.stride,
            padding: self.padding,
        })
    }
}
