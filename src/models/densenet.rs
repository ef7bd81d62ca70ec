//! DenseNet-BC (Huang et al., 2017) as in torchvision: 121, 161, 169 and 201 layers; keys
//! `features.conv0.weight`, `features.denseblock1.denselayer1.norm1.*`, …, `classifier.*`.
//!
//! Input `[N, 3, H, W]` of at least 29x29, ImageNet-normalised. The embedding is the classifier's
//! input, the global average of the last feature map, L2-normalised.

use tch::Tensor;

use super::Trunk;
use super::layers::{
    BatchNorm, Bias, Conv2d, ConvNormRelu, ConvSpec, Linear, Mode, Weight, Window, avg_pool,
    global_avg_pool, max_pool,
};
use super::params::Scope;

/// Channels of a bottleneck relative to the growth rate.
const BOTTLENECK: i64 = 4;

/// The hyperparameters of a variant.
#[derive(Debug, Clone, Copy)]
pub struct DenseNetConfig {
    /// Channels after the first convolution.
    pub stem: i64,
    /// Growth rate: channels added by each layer.
    pub growth: i64,
    /// Number of layers in each block.
    pub depths: [i64; 4],
}

/// A convolution without bias, with He initialisation.
fn conv(at: &Scope, name: &str, spec: ConvSpec) -> Conv2d {
    Conv2d::new(&at.sub(name), spec.weight(Weight::KaimingFanIn).bias(Bias::None))
}

/// A dense layer, pre-activated: normalisation and ReLU before each convolution.
#[derive(Debug)]
struct Layer {
    norm: BatchNorm,
    reduce: ConvNormRelu,
    grow: Conv2d,
}

impl Layer {
    fn new(at: &Scope, inputs: i64, growth: i64) -> Self {
        let wide = BOTTLENECK * growth;
        let norm = BatchNorm::new(&at.sub("norm1"), inputs);
        let reduce = conv(at, "conv1", ConvSpec::new(inputs, wide, 1));
        let reduce = ConvNormRelu::of(reduce, Some(BatchNorm::new(&at.sub("norm2"), wide)));
        Self { norm, reduce, grow: conv(at, "conv2", ConvSpec::new(wide, growth, 3).same()) }
    }

    fn forward(&self, pieces: &[&Tensor], mode: Mode) -> Tensor {
        self.grow.forward(&self.reduce.forward(&self.norm.forward_relu(pieces, mode), mode))
    }
}

/// The transition between two blocks, which halves the map.
#[derive(Debug)]
struct Transition {
    norm: BatchNorm,
    conv: Conv2d,
}

impl Transition {
    fn new(at: &Scope, inputs: i64, outputs: i64) -> Self {
        let norm = BatchNorm::new(&at.sub("norm"), inputs);
        Self { norm, conv: conv(at, "conv", ConvSpec::new(inputs, outputs, 1)) }
    }

    fn forward(&self, pieces: &[&Tensor], mode: Mode) -> Tensor {
        let xs = self.conv.forward(&self.norm.forward_relu(pieces, mode));
        avg_pool(&xs, Window::new(2, 2))
    }
}

/// A dense block.
#[derive(Debug)]
struct Block {
    layers: Vec<Layer>,
    end: BlockEnd,
}

/// What follows a block.
#[derive(Debug)]
enum BlockEnd {
    Transition(Transition),
    /// `norm5`, after the last one.
    Norm(BatchNorm),
}

impl Block {
    /// Each layer gets the input and the output of all layers before it. They stay in pieces where the
    /// normalisation in front of every convolution puts them side by side.
    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let stay = BatchNorm::takes_pieces(xs, mode);
        let mut pieces = vec![xs.shallow_clone()];
        for layer in &self.layers {
            let ys = layer.forward(&pieces.iter().collect::<Vec<_>>(), mode);
            pieces.push(ys);
            if !stay {
                pieces = vec![Tensor::cat(&pieces, 1)];
            }
        }
        let pieces: Vec<&Tensor> = pieces.iter().collect();
        match &self.end {
            BlockEnd::Transition(transition) => transition.forward(&pieces, mode),
            BlockEnd::Norm(norm) => norm.forward_relu(&pieces, mode),
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct DenseNet {
    stem: ConvNormRelu,
    blocks: Vec<Block>,
    classifier: Option<Linear>,
}

impl DenseNet {
    /// Registers all layers under `root`, with torchvision's initialisation; with `classes` including
    /// the classifier.
    pub fn new(root: &Scope, plan: DenseNetConfig, classes: Option<i64>) -> Self {
        let at = root.sub("features");
        let conv0 = conv(&at, "conv0", ConvSpec::new(3, plan.stem, 7).stride(2).same());
        let stem = ConvNormRelu::of(conv0, Some(BatchNorm::new(&at.sub("norm0"), plan.stem)));
        let mut channels = plan.stem;
        let mut blocks = Vec::new();
        for (number, depth) in (1..).zip(plan.depths) {
            let place = at.sub(format!("denseblock{number}"));
            let layers = (1..=depth)
                .map(|number| {
                    let at = place.sub(format!("denselayer{number}"));
                    let inputs = channels;
                    channels += plan.growth;
                    Layer::new(&at, inputs, plan.growth)
                })
                .collect();
            let end = if number < plan.depths.len() {
                let at = at.sub(format!("transition{number}"));
                let inputs = channels;
                channels /= 2;
                BlockEnd::Transition(Transition::new(&at, inputs, channels))
            } else {
                BlockEnd::Norm(BatchNorm::new(&at.sub("norm5"), channels))
            };
            blocks.push(Block { layers, end });
        }
        let classifier = classes.map(|classes| {
            let at = root.sub("classifier");
            Linear::with(&at, channels, classes, Weight::Default, Bias::Zero)
        });
        Self { stem, blocks, classifier }
    }

    fn stem(&self, pictures: &Tensor, mode: Mode) -> Tensor {
        max_pool(&self.stem.forward(pictures, mode), Window::new(3, 2).padding(1))
    }
}

impl Trunk for DenseNet {
    fn stages(&self) -> Vec<Vec<String>> {
        let mut stages = vec![vec!["features.conv0".into(), "features.norm0".into()]];
        for (number, block) in (1..).zip(&self.blocks) {
            let last = match block.end {
                BlockEnd::Transition(_) => format!("features.transition{number}"),
                BlockEnd::Norm(_) => "features.norm5".into(),
            };
            stages.push(vec![format!("features.denseblock{number}"), last]);
        }
        stages
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        match stage.checked_sub(1).and_then(|number| self.blocks.get(number)) {
            Some(block) => block.forward(xs, mode),
            None => self.stem(xs, mode),
        }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        global_avg_pool(map)
    }

    fn classify(&self, map: &Tensor, _: Mode) -> Option<Tensor> {
        self.classifier.as_ref().map(|classifier| classifier.forward(&global_avg_pool(map)))
    }
}
