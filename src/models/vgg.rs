//! VGG (Simonyan and Zisserman, 2014) as in torchvision: 11, 13, 16 and 19 layers, with and without
//! batch normalisation; keys `features.N.*` and `classifier.{0,3,6}.*`.
//!
//! Input `[N, 3, H, W]` of at least 32x32, ImageNet-normalised. The embedding is the global average of
//! the last feature map, `[N, 512]`, L2-normalised: the fully connected layers of torchvision's
//! classifier (124 M parameters) are specific to ImageNet's classes, and many weight files have only
//! the convolutions. [`Trunk::classify`] computes the classifier.

use std::ops::Range;

use tch::Tensor;

use super::Trunk;
use super::layers::{
    BatchNorm, Bias, Conv2d, ConvNormRelu, ConvSpec, Linear, Mode, Weight, Window,
    adaptive_avg_pool, dropout, global_avg_pool, max_pool,
};
use super::params::Scope;

/// Embedding size.
pub const EMBEDDING: i64 = 512;
/// Side of the pooled map, the classifier's input.
const GRID: i64 = 7;
/// Units of the classifier's hidden layers.
const HIDDEN: i64 = 4096;

/// Number of convolutions in each of the five stages; a max pool follows each stage.
#[derive(Debug, Clone, Copy)]
pub struct VggConfig {
    /// Convolutions in the stages of 64, 128, 256, 512 and 512 channels.
    pub depths: [usize; 5],
    /// Batch normalisation after each convolution.
    pub batch_norm: bool,
}

const CHANNELS: [i64; 5] = [64, 128, 256, 512, 512];

/// A convolution with its normalisation.
#[derive(Debug)]
struct ConvUnit {
    /// The indices of its convolution and normalisation in torchvision's `features`.
    numbers: Range<usize>,
    conv: ConvNormRelu,
    /// Whether a max pool follows.
    pools: bool,
}

/// The network.
#[derive(Debug)]
pub struct Vgg {
    features: Vec<ConvUnit>,
    classifier: Option<[Linear; 3]>,
}

impl Vgg {
    /// Registers all layers under `root`, with torchvision's initialisation; the classifier only
    /// where `classes` is given.
    pub fn new(root: &Scope, plan: VggConfig, classes: Option<i64>) -> Self {
        Self {
            features: features(&root.sub("features"), plan),
            classifier: classes.map(|classes| {
                let layer = |name, inputs, outputs| {
                    let at = root.sub("classifier").sub(name);
                    Linear::with(&at, inputs, outputs, Weight::Normal(0.01), Bias::Zero)
                };
                [
                    layer("0", EMBEDDING * GRID * GRID, HIDDEN),
                    layer("3", HIDDEN, HIDDEN),
                    layer("6", HIDDEN, classes),
                ]
            }),
        }
    }
}

fn features(at: &Scope, plan: VggConfig) -> Vec<ConvUnit> {
    let mut units = Vec::new();
    // torchvision's numbers: convolution, normalisation where there is one, ReLU; and pools.
    let (mut number, mut inputs) = (0, 3);
    for (depth, outputs) in plan.depths.into_iter().zip(CHANNELS) {
        for layer in 1..=depth {
            let spec = ConvSpec::new(inputs, outputs, 3).same();
            let spec = spec.weight(Weight::KaimingFanOut).bias(Bias::Zero);
            let numbers = number..number + 1 + usize::from(plan.batch_norm);
            let conv = Conv2d::new(&at.sub(number), spec);
            let norm = plan.batch_norm.then(|| BatchNorm::new(&at.sub(number + 1), outputs));
            let pools = layer == depth;
            number = numbers.end + 1 + usize::from(pools);
            units.push(ConvUnit { numbers, conv: ConvNormRelu::of(conv, norm), pools });
            inputs = outputs;
        }
    }
    units
}

impl Trunk for Vgg {
    fn stages(&self) -> Vec<Vec<String>> {
        let name = |number: usize| format!("features.{number}");
        self.features.iter().map(|unit| unit.numbers.clone().map(name).collect()).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        let Some(unit) = self.features.get(stage) else { return xs.shallow_clone() };
        let xs = unit.conv.forward(xs, mode);
        if unit.pools { max_pool(&xs, Window::new(2, 2)) } else { xs }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        global_avg_pool(map)
    }

    fn classify(&self, map: &Tensor, mode: Mode) -> Option<Tensor> {
        let [first, second, last] = self.classifier.as_ref()?;
        let xs = adaptive_avg_pool(map, GRID).flatten(1, -1);
        let xs = dropout(&first.forward(&xs).relu(), 0.5, mode);
        let xs = dropout(&second.forward(&xs).relu(), 0.5, mode);
        Some(last.forward(&xs))
    }
}
