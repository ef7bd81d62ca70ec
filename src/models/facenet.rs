//! FaceNet's InceptionResnetV1 as in facenet-pytorch (Schroff et al., 2015; Szegedy et al., 2016); keys
//! `conv2d_1a.conv.weight`, `repeat_1.0.branch0.*`, …, `last_bn.*`, `logits.*`.
//!
//! Input `[N, 3, H, W]` of at least 75x75 (natively 160x160), `(255 x - 127.5) / 128`. The embedding is
//! facenet-pytorch's: 512-d, L2-normalised. In training there is 60 % dropout before the last linear
//! layer.

use tch::Tensor;

use super::Trunk;
use super::layers::{
    BatchNorm, Bias, Conv2d, ConvNormRelu, ConvSpec, Linear, Mode, NormOptions, Weight, Window,
    dropout, global_avg_pool, max_pool,
};
use super::params::Scope;

/// Embedding size.
pub const EMBEDDING: i64 = 512;
/// Channels of the last feature map.
const FEATURES: i64 = 1792;
/// Dropout before the last linear layer.
const DROPOUT: f64 = 0.6;

type Branch = &'static [ConvSpec];

const fn conv(inputs: i64, outputs: i64, kernel: i64) -> ConvSpec {
    ConvSpec::new(inputs, outputs, kernel)
}

/// A kernel of `[height, width]` with `same` padding.
const fn bar(channels: i64, kernel: [i64; 2]) -> ConvSpec {
    ConvSpec::rectangle(channels, channels, kernel).same()
}

/// Convolutions before the residual blocks; a 3x3 max pool with stride 2 precedes `conv2d_3b`.
const STEM: [(&str, ConvSpec); 6] = [
    ("conv2d_1a", conv(3, 32, 3).stride(2)),
    ("conv2d_2a", conv(32, 32, 3)),
    ("conv2d_2b", conv(32, 64, 3).same()),
    ("conv2d_3b", conv(64, 80, 1)),
    ("conv2d_4a", conv(80, 192, 3)),
    ("conv2d_4b", conv(192, 256, 3).stride(2)),
];
const POOL_BEFORE: &str = "conv2d_3b";

/// A residual block: x + scale · projection(branches(x)), followed by a ReLU in most.
struct Residual {
    channels: i64,
    branches: &'static [Branch],
    scale: f64,
}

const BLOCK35: Residual = Residual {
    channels: 256,
    branches: &[
        &[conv(256, 32, 1)],
        &[conv(256, 32, 1), conv(32, 32, 3).same()],
        &[conv(256, 32, 1), conv(32, 32, 3).same(), conv(32, 32, 3).same()],
    ],
    scale: 0.17,
};
const BLOCK17: Residual = Residual {
    channels: 896,
    branches: &[&[conv(896, 128, 1)], &[conv(896, 128, 1), bar(128, [1, 7]), bar(128, [7, 1])]],
    scale: 0.10,
};
const BLOCK8: Residual = Residual {
    channels: FEATURES,
    branches: &[
        &[conv(FEATURES, 192, 1)],
        &[conv(FEATURES, 192, 1), bar(192, [1, 3]), bar(192, [3, 1])],
    ],
    scale: 0.20,
};
/// The last block has scale 1 and no ReLU.
const LAST: Residual = Residual { scale: 1.0, ..BLOCK8 };

/// A reduction: branches with stride 2, concatenated with a 3x3 max pool with stride 2.
const MIXED_6A: [Branch; 2] = [
    &[conv(256, 384, 3).stride(2)],
    &[conv(256, 192, 1), conv(192, 192, 3).same(), conv(192, 256, 3).stride(2)],
];
const MIXED_7A: [Branch; 3] = [
    &[conv(896, 256, 1), conv(256, 384, 3).stride(2)],
    &[conv(896, 256, 1), conv(256, 256, 3).stride(2)],
    &[conv(896, 256, 1), conv(256, 256, 3).same(), conv(256, 256, 3).stride(2)],
];

/// The branches of a block; single convolutions have no number in their keys.
#[derive(Debug)]
struct Branches(Vec<Vec<ConvNormRelu>>);

impl Branches {
    fn new(at: &Scope, plan: &[Branch]) -> Self {
        let branch = |(number, specs): (usize, &Branch)| {
            let at = at.sub(format!("branch{number}"));
            match specs {
                [only] => vec![ConvNormRelu::basic(&at, *only)],
                _ => specs
                    .iter()
                    .enumerate()
                    .map(|(number, spec)| ConvNormRelu::basic(&at.sub(number), *spec))
                    .collect(),
            }
        };
        Self(plan.iter().enumerate().map(branch).collect())
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Vec<Tensor> {
        let chain = |branch: &Vec<ConvNormRelu>| {
            branch.iter().fold(xs.shallow_clone(), |xs, conv| conv.forward(&xs, mode))
        };
        self.0.iter().map(chain).collect()
    }
}

#[derive(Debug)]
struct ResidualBlock {
    branches: Branches,
    project: Conv2d,
    scale: f64,
}

impl ResidualBlock {
    fn new(at: &Scope, plan: &Residual) -> Self {
        let joined = plan.branches.iter().filter_map(|branch| branch.last());
        let joined = joined.map(ConvSpec::outputs).sum();
        Self {
            branches: Branches::new(at, plan.branches),
            project: Conv2d::new(&at.sub("conv2d"), conv(joined, plan.channels, 1)),
            scale: plan.scale,
        }
    }

    /// Without the ReLU.
    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let joined = Tensor::cat(&self.branches.forward(xs, mode), 1);
        self.project.forward(&joined) * self.scale + xs
    }
}

/// Consecutive blocks, and the reduction after them.
#[derive(Debug)]
struct BlockStage {
    repeat: Vec<ResidualBlock>,
    reduce: Option<Branches>,
}

impl BlockStage {
    fn new(root: &Scope, name: &str, count: usize, plan: &Residual) -> Self {
        let at = root.sub(name);
        let repeat = (0..count).map(|number| ResidualBlock::new(&at.sub(number), plan)).collect();
        Self { repeat, reduce: None }
    }

    fn reduced(mut self, root: &Scope, name: &str, plan: &[Branch]) -> Self {
        self.reduce = Some(Branches::new(&root.sub(name), plan));
        self
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let xs = xs.shallow_clone();
        let xs = self.repeat.iter().fold(xs, |xs, block| block.forward(&xs, mode).relu());
        let Some(reduce) = &self.reduce else { return xs };
        let mut maps = reduce.forward(&xs, mode);
        maps.push(max_pool(&xs, Window::new(3, 2)));
        Tensor::cat(&maps, 1)
    }
}

/// The network.
#[derive(Debug)]
pub struct FaceNet {
    stem: Vec<(bool, ConvNormRelu)>,
    stages: [BlockStage; 3],
    last: ResidualBlock,
    last_linear: Linear,
    last_bn: BatchNorm,
    logits: Option<Linear>,
}

impl FaceNet {
    /// Registers all layers under `root`, with PyTorch's default initialisation; with `classes`
    /// including `logits`.
    pub fn new(root: &Scope, classes: Option<i64>) -> Self {
        let stem = |(name, spec): (&str, ConvSpec)| {
            (name == POOL_BEFORE, ConvNormRelu::basic(&root.sub(name), spec))
        };
        let norm = NormOptions { eps: 1e-3, ..NormOptions::default() };
        Self {
            stem: STEM.into_iter().map(stem).collect(),
            stages: [
                BlockStage::new(root, "repeat_1", 5, &BLOCK35).reduced(root, "mixed_6a", &MIXED_6A),
                BlockStage::new(root, "repeat_2", 10, &BLOCK17)
                    .reduced(root, "mixed_7a", &MIXED_7A),
                BlockStage::new(root, "repeat_3", 5, &BLOCK8),
            ],
            last: ResidualBlock::new(&root.sub("block8"), &LAST),
            last_linear: Linear::with(
                &root.sub("last_linear"),
                FEATURES,
                EMBEDDING,
                Weight::Default,
                Bias::None,
            ),
            last_bn: BatchNorm::with(&root.sub("last_bn"), EMBEDDING, norm),
            logits: classes.map(|classes| Linear::new(&root.sub("logits"), EMBEDDING, classes)),
        }
    }

    fn stem(&self, index: usize, xs: &Tensor, mode: Mode) -> Tensor {
        let (pool_first, conv) = &self.stem[index];
        match pool_first {
            true => conv.forward(&max_pool(xs, Window::new(3, 2)), mode),
            false => conv.forward(xs, mode),
        }
    }

    /// The embedding before normalisation.
    fn embedding(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let xs = dropout(&global_avg_pool(xs), DROPOUT, mode);
        self.last_bn.forward(&self.last_linear.forward(&xs), mode)
    }
}

impl Trunk for FaceNet {
    fn stages(&self) -> Vec<Vec<String>> {
        const REST: [&[&str]; 5] = [
            &["repeat_1", "mixed_6a"],
            &["repeat_2", "mixed_7a"],
            &["repeat_3"],
            &["block8"],
            &["last_linear", "last_bn"],
        ];
        let stem = STEM.iter().map(|(name, _)| vec![(*name).to_owned()]);
        let rest = REST.iter().map(|blocks| blocks.iter().copied().map(String::from).collect());
        stem.chain(rest).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        match stage.checked_sub(self.stem.len()) {
            None => self.stem(stage, xs, mode),
            Some(block) if block < self.stages.len() => self.stages[block].forward(xs, mode),
            Some(block) if block == self.stages.len() => self.last.forward(xs, mode),
            Some(_) => self.embedding(xs, mode),
        }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        map.shallow_clone()
    }

    fn classify(&self, map: &Tensor, _: Mode) -> Option<Tensor> {
        self.logits.as_ref().map(|logits| logits.forward(map))
    }
}
