//! VGG (Simonyan and Zisserman, 2014) as torchvision has it: 11, 13, 16 and 19 layers, with and
//! without batch normalisation; keys `features.N.*` and `classifier.{0,3,6}.*`.
//!
//! Input `[N, 3, H, W]` from 32x32 up, ImageNet-normalised. The embedding is the mean of the last
//! convolution's map over its places, `[N, 512]` scaled to length one: the fully connected layers
//! of torchvision's classifier (124 M parameters) know ImageNet's classes and not faces, and the
//! convolutions alone are what most weight files hold. [`Trunk::classify`] computes the classifier.

use tch::Tensor;

use super::Trunk;
use super::layers::{
    BatchNorm, Bias, Conv2d, ConvSpec, Linear, Mode, Weight, Window, adaptive_avg_pool, dropout,
    global_avg_pool, max_pool,
};
use super::params::Scope;

/// The length of the embedding.
pub const EMBEDDING: i64 = 512;
/// The classifier sees the map pooled to this side.
const GRID: i64 = 7;
/// Units of the classifier's hidden layers.
const HIDDEN: i64 = 4096;

/// How many convolutions each of the five stages has; a max pool follows each stage.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Convolutions in the stages of 64, 128, 256, 512 and 512 channels.
    pub depths: [usize; 5],
    /// Batch normalisation behind each convolution.
    pub batch_norm: bool,
}

const CHANNELS: [i64; 5] = [64, 128, 256, 512, 512];

/// One entry of torchvision's `features`; its place in the list is its number in the keys.
#[derive(Debug)]
enum Step {
    Conv(Conv2d),
    Norm(BatchNorm),
    Relu,
    Pool,
}

/// The network.
#[derive(Debug)]
pub struct Vgg {
    features: Vec<Step>,
    classifier: Option<[Linear; 3]>,
}

impl Vgg {
    /// Registers all layers under `root`, with torchvision's initialisation; the classifier only
    /// where `classes` is given.
    pub fn new(root: &Scope, plan: Plan, classes: Option<i64>) -> Self {
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

fn run(steps: &[Step], xs: &Tensor, mode: Mode) -> Tensor {
    steps.iter().fold(xs.shallow_clone(), |xs, step| match step {
        Step::Conv(conv) => conv.forward(&xs),
        Step::Norm(norm) => norm.forward(&xs, mode),
        Step::Relu => xs.relu(),
        Step::Pool => max_pool(&xs, Window::new(2, 2)),
    })
}

fn features(at: &Scope, plan: Plan) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut inputs = 3;
    for (depth, outputs) in plan.depths.into_iter().zip(CHANNELS) {
        for _ in 0..depth {
            let spec = ConvSpec::new(inputs, outputs, 3).same();
            let spec = spec.weight(Weight::KaimingFanOut).bias(Bias::Zero);
            steps.push(Step::Conv(Conv2d::new(&at.sub(steps.len()), spec)));
            if plan.batch_norm {
                steps.push(Step::Norm(BatchNorm::new(&at.sub(steps.len()), outputs)));
            }
            steps.push(Step::Relu);
            inputs = outputs;
        }
        steps.push(Step::Pool);
    }
    steps
}

impl Trunk for Vgg {
    fn stages(&self) -> Vec<Vec<String>> {
        let numbered = |(number, step): (usize, &Step)| match step {
            Step::Conv(_) => Some((true, number)),
            Step::Norm(_) => Some((false, number)),
            Step::Relu | Step::Pool => None,
        };
        let mut stages: Vec<Vec<String>> = Vec::new();
        for (is_first, number) in self.features.iter().enumerate().filter_map(numbered) {
            let block = format!("features.{number}");
            match stages.last_mut() {
                Some(stage) if !is_first => stage.push(block),
                _ => stages.push(vec![block]),
            }
        }
        stages
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        let is_next = |_: &Step, next: &Step| !matches!(next, Step::Conv(_));
        let mut stages = self.features.chunk_by(is_next);
        run(stages.nth(stage).unwrap_or_default(), xs, mode)
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
