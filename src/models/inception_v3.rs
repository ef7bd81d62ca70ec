//! InceptionV3 (Szegedy et al., 2016) as in torchvision; keys `Conv2d_1a_3x3.conv.weight`,
//! `Mixed_5b.branch1x1.*`, …, `AuxLogits.*`, `fc.*`.
//!
//! Input `[N, 3, H, W]` of at least 75x75 (natively 299x299), ImageNet-normalised: like torchvision's
//! pretrained model (`transform_input=True`) the network converts it to (x - 0.5) / 0.5 for its
//! TensorFlow weights. The embedding is the input of `fc`, the global average of the last feature map,
//! L2-normalised. [`Trunk::logits`] adds torchvision's auxiliary head if `mode` uses batch statistics,
//! as `model.train()` does, for inputs of at least 299 pixels; torchvision fails for smaller ones.

use std::ops::Range;

use tch::Tensor;

use super::input::{IMAGENET_MEAN, IMAGENET_STD, per_channel};
use super::layers::{
    Bias, ConvNormRelu, ConvSpec, Linear, Mode, Weight, Window, avg_pool, dropout, global_avg_pool,
    max_pool,
};
use super::params::Scope;
use super::{Logits, Trunk};

/// Embedding size.
pub const EMBEDDING: i64 = 2048;
/// Input channels of the auxiliary head, after `Mixed_6e`.
const AUXILIARY: i64 = 768;
/// Minimum map size for the auxiliary head.
const AUXILIARY_SIDE: i64 = 17;

/// torchvision truncates at ±2, twenty standard deviations: the same as a normal distribution.
const INIT: Weight = Weight::Normal(0.1);

type Named = (&'static str, ConvSpec);

/// A branch of a block, as a row of a table.
enum Branch {
    /// Consecutive convolutions.
    Chain(Vec<Named>),
    /// The same, followed by two parallel ones.
    Fork(Vec<Named>, [Named; 2]),
    /// A 3x3 average pool with `same` padding, then one convolution.
    Average(Named),
    /// A 3x3 max pool with stride 2.
    Maximum,
}

fn conv(inputs: i64, outputs: i64, kernel: i64) -> ConvSpec {
    ConvSpec::new(inputs, outputs, kernel).weight(INIT)
}

fn bar(inputs: i64, outputs: i64, kernel: [i64; 2]) -> ConvSpec {
    ConvSpec::rectangle(inputs, outputs, kernel).weight(INIT).same()
}

/// 35x35 maps.
fn block_a(inputs: i64, pooled: i64) -> Vec<Branch> {
    vec![
        Branch::Chain(vec![("branch1x1", conv(inputs, 64, 1))]),
        Branch::Chain(vec![
            ("branch5x5_1", conv(inputs, 48, 1)),
            ("branch5x5_2", conv(48, 64, 5).same()),
        ]),
        Branch::Chain(vec![
            ("branch3x3dbl_1", conv(inputs, 64, 1)),
            ("branch3x3dbl_2", conv(64, 96, 3).same()),
            ("branch3x3dbl_3", conv(96, 96, 3).same()),
        ]),
        Branch::Average(("branch_pool", conv(inputs, pooled, 1))),
    ]
}

/// 35x35 to 17x17.
fn block_b(inputs: i64) -> Vec<Branch> {
    vec![
        Branch::Chain(vec![("branch3x3", conv(inputs, 384, 3).stride(2))]),
        Branch::Chain(vec![
            ("branch3x3dbl_1", conv(inputs, 64, 1)),
            ("branch3x3dbl_2", conv(64, 96, 3).same()),
            ("branch3x3dbl_3", conv(96, 96, 3).stride(2)),
        ]),
        Branch::Maximum,
    ]
}

/// 17x17 maps; 7x7 kernels as pairs of 1x7 and 7x1.
fn block_c(inputs: i64, wide: i64) -> Vec<Branch> {
    vec![
        Branch::Chain(vec![("branch1x1", conv(inputs, 192, 1))]),
        Branch::Chain(vec![
            ("branch7x7_1", conv(inputs, wide, 1)),
            ("branch7x7_2", bar(wide, wide, [1, 7])),
            ("branch7x7_3", bar(wide, 192, [7, 1])),
        ]),
        Branch::Chain(vec![
            ("branch7x7dbl_1", conv(inputs, wide, 1)),
            ("branch7x7dbl_2", bar(wide, wide, [7, 1])),
            ("branch7x7dbl_3", bar(wide, wide, [1, 7])),
            ("branch7x7dbl_4", bar(wide, wide, [7, 1])),
            ("branch7x7dbl_5", bar(wide, 192, [1, 7])),
        ]),
        Branch::Average(("branch_pool", conv(inputs, 192, 1))),
    ]
}

/// 17x17 to 8x8.
fn block_d(inputs: i64) -> Vec<Branch> {
    vec![
        Branch::Chain(vec![
            ("branch3x3_1", conv(inputs, 192, 1)),
            ("branch3x3_2", conv(192, 320, 3).stride(2)),
        ]),
        Branch::Chain(vec![
            ("branch7x7x3_1", conv(inputs, 192, 1)),
            ("branch7x7x3_2", bar(192, 192, [1, 7])),
            ("branch7x7x3_3", bar(192, 192, [7, 1])),
            ("branch7x7x3_4", conv(192, 192, 3).stride(2)),
        ]),
        Branch::Maximum,
    ]
}

/// 8x8 maps.
fn block_e(inputs: i64) -> Vec<Branch> {
    vec![
        Branch::Chain(vec![("branch1x1", conv(inputs, 320, 1))]),
        Branch::Fork(
            vec![("branch3x3_1", conv(inputs, 384, 1))],
            [("branch3x3_2a", bar(384, 384, [1, 3])), ("branch3x3_2b", bar(384, 384, [3, 1]))],
        ),
        Branch::Fork(
            vec![
                ("branch3x3dbl_1", conv(inputs, 448, 1)),
                ("branch3x3dbl_2", conv(448, 384, 3).same()),
            ],
            [
                ("branch3x3dbl_3a", bar(384, 384, [1, 3])),
                ("branch3x3dbl_3b", bar(384, 384, [3, 1])),
            ],
        ),
        Branch::Average(("branch_pool", conv(inputs, 192, 1))),
    ]
}

/// A built branch: pooling, then consecutive convolutions, then parallel ones whose outputs are
/// concatenated.
#[derive(Debug)]
struct Built {
    pool: Option<Pool>,
    chain: Vec<ConvNormRelu>,
    ends: Vec<ConvNormRelu>,
}

#[derive(Debug, Clone, Copy)]
enum Pool {
    Average,
    Maximum,
}

impl Built {
    fn new(at: &Scope, plan: Branch) -> Self {
        let conv = |(name, spec): Named| ConvNormRelu::basic(&at.sub(name), spec);
        let all = |list: Vec<Named>| list.into_iter().map(conv).collect();
        let (pool, chain, ends) = match plan {
            Branch::Chain(chain) => (None, all(chain), vec![]),
            Branch::Fork(chain, ends) => (None, all(chain), all(ends.into())),
            Branch::Average(only) => (Some(Pool::Average), vec![conv(only)], vec![]),
            Branch::Maximum => (Some(Pool::Maximum), vec![], vec![]),
        };
        Self { pool, chain, ends }
    }

    fn forward(&self, xs: &Tensor, mode: Mode, outputs: &mut Vec<Tensor>) {
        let xs = match self.pool {
            None => xs.shallow_clone(),
            Some(Pool::Average) => avg_pool(xs, Window::new(3, 1).padding(1)),
            Some(Pool::Maximum) => max_pool(xs, Window::new(3, 2)),
        };
        let xs = self.chain.iter().fold(xs, |xs, conv| conv.forward(&xs, mode));
        if self.ends.is_empty() {
            outputs.push(xs);
        } else {
            outputs.extend(self.ends.iter().map(|end| end.forward(&xs, mode)));
        }
    }
}

#[derive(Debug)]
struct Mixed(Vec<Built>);

impl Mixed {
    fn new(root: &Scope, name: &str, plan: Vec<Branch>) -> Self {
        let at = root.sub(name);
        Self(plan.into_iter().map(|branch| Built::new(&at, branch)).collect())
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let mut outputs = Vec::new();
        for branch in &self.0 {
            branch.forward(xs, mode, &mut outputs);
        }
        Tensor::cat(&outputs, 1)
    }
}

/// The auxiliary head, a second classifier used in training.
#[derive(Debug)]
struct Auxiliary {
    conv0: ConvNormRelu,
    conv1: ConvNormRelu,
    fc: Linear,
}

impl Auxiliary {
    /// torchvision intends a standard deviation of 0.01 for `conv1`, but its initialisation ignores
    /// that and uses 0.1, as here.
    fn new(at: &Scope, classes: i64) -> Self {
        Self {
            conv0: ConvNormRelu::basic(&at.sub("conv0"), conv(AUXILIARY, 128, 1)),
            conv1: ConvNormRelu::basic(&at.sub("conv1"), conv(128, AUXILIARY, 5)),
            fc: Linear::with(
                &at.sub("fc"),
                AUXILIARY,
                classes,
                Weight::Normal(0.001),
                Bias::Default,
            ),
        }
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let xs = self.conv0.forward(&avg_pool(xs, Window::new(5, 3)), mode);
        self.fc.forward(&global_avg_pool(&self.conv1.forward(&xs, mode)))
    }
}

/// The first convolutions, and whether a max pool follows.
fn stem() -> [(&'static str, ConvSpec, bool); 5] {
    [
        ("Conv2d_1a_3x3", conv(3, 32, 3).stride(2), false),
        ("Conv2d_2a_3x3", conv(32, 32, 3), false),
        ("Conv2d_2b_3x3", conv(32, 64, 3).same(), true),
        ("Conv2d_3b_1x1", conv(64, 80, 1), false),
        ("Conv2d_4a_3x3", conv(80, 192, 3), true),
    ]
}

/// The blocks before the auxiliary head.
fn middle() -> [(&'static str, Vec<Branch>); 8] {
    [
        ("Mixed_5b", block_a(192, 32)),
        ("Mixed_5c", block_a(256, 64)),
        ("Mixed_5d", block_a(288, 64)),
        ("Mixed_6a", block_b(288)),
        ("Mixed_6b", block_c(AUXILIARY, 128)),
        ("Mixed_6c", block_c(AUXILIARY, 160)),
        ("Mixed_6d", block_c(AUXILIARY, 160)),
        ("Mixed_6e", block_c(AUXILIARY, 192)),
    ]
}

/// The blocks after it.
fn end() -> [(&'static str, Vec<Branch>); 3] {
    [
        ("Mixed_7a", block_d(AUXILIARY)),
        ("Mixed_7b", block_e(1280)),
        ("Mixed_7c", block_e(EMBEDDING)),
    ]
}

/// The network.
#[derive(Debug)]
pub struct InceptionV3 {
    /// Convolutions, and whether a max pool follows.
    stem: Vec<(ConvNormRelu, bool)>,
    /// `Mixed_5b` to `Mixed_7c`.
    mixed: Vec<Mixed>,
    /// The auxiliary head and `fc`.
    classifier: Option<(Auxiliary, Linear)>,
}

impl InceptionV3 {
    /// Registers all layers under `root`, with torchvision's initialisation; with `classes` including
    /// the two classifiers.
    pub fn new(root: &Scope, classes: Option<i64>) -> Self {
        let stem =
            stem().map(|(name, spec, pools)| (ConvNormRelu::basic(&root.sub(name), spec), pools));
        let mixed = |(name, plan)| Mixed::new(root, name, plan);
        let mut mixed: Vec<_> = middle().into_iter().map(mixed).collect();
        let auxiliary = classes.map(|classes| Auxiliary::new(&root.sub("AuxLogits"), classes));
        mixed.extend(end().into_iter().map(|(name, plan)| Mixed::new(root, name, plan)));
        let fc = classes
            .map(|classes| Linear::with(&root.sub("fc"), EMBEDDING, classes, INIT, Bias::Default));
        Self { stem: stem.into(), mixed, classifier: auxiliary.zip(fc) }
    }
}

/// ImageNet's normalisation to (x - 0.5) / 0.5, per channel.
fn transform_input(xs: &Tensor) -> Tensor {
    let channels = |value: &dyn Fn(usize) -> f64| per_channel(&[0, 1, 2].map(value), xs);
    let scale = channels(&|c| IMAGENET_STD[c] / 0.5);
    let shift = channels(&|c| (IMAGENET_MEAN[c] - 0.5) / 0.5);
    xs * scale + shift
}

impl Trunk for InceptionV3 {
    fn stages(&self) -> Vec<Vec<String>> {
        let stem = stem().map(|(name, ..)| name);
        let mixed = middle().into_iter().chain(end()).map(|(name, _)| name);
        stem.into_iter().chain(mixed).map(|name| vec![name.into()]).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        let Some(block) = stage.checked_sub(self.stem.len()) else {
            let (conv, pools) = &self.stem[stage];
            let xs = if stage == 0 { &transform_input(xs) } else { xs };
            let map = conv.forward(xs, mode);
            return if *pools { max_pool(&map, Window::new(3, 2)) } else { map };
        };
        self.mixed[block].forward(xs, mode)
    }

    fn features(&self, map: &Tensor) -> Tensor {
        global_avg_pool(map)
    }

    fn classify(&self, map: &Tensor, mode: Mode) -> Option<Tensor> {
        let (_, fc) = self.classifier.as_ref()?;
        Some(fc.forward(&dropout(&global_avg_pool(map), 0.5, mode)))
    }

    fn logits(&self, pictures: &Tensor, mode: Mode) -> Option<Logits> {
        let (auxiliary, _) = self.classifier.as_ref()?;
        let through = |xs: Tensor, stages: Range<usize>| {
            stages.fold(xs, |xs, stage| self.run(stage, &xs, mode))
        };
        let (middle, all) = (self.stem.len() + middle().len(), self.stem.len() + self.mixed.len());
        let xs = through(pictures.shallow_clone(), 0..middle);
        let large = xs.size().iter().skip(2).all(|side| *side >= AUXILIARY_SIDE);
        let auxiliary = (mode.batch_statistics && large).then(|| auxiliary.forward(&xs, mode));
        Some(Logits { classes: self.classify(&through(xs, middle..all), mode)?, auxiliary })
    }
}
