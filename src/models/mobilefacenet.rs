//! MobileFaceNet (Chen et al., 2018), in the form and with the keys of InsightFace's `arcface_torch`
//! (`get_mbf`: twice the channels of the paper).
//!
//! Input `[N, 3, 112, 112]` RGB, (x - 0.5) / 0.5; [`Trunk::features`] is its output `[N, 512]`, the
//! embedding the same vector, L2-normalised.

use tch::Tensor;

use super::Trunk;
use super::layers::{BatchNorm, Bias, Conv2d, ConvSpec, Linear, Mode, PRelu, Weight};
use super::params::Scope;

/// Input size.
pub const INPUT: u32 = 112;
/// Embedding size.
pub const EMBEDDING: i64 = 512;
/// Channels behind the last 1x1 convolution.
const LAST: i64 = 512;

/// Convolution, batch normalisation and, where there is one, PReLU: `layers.0`, `layers.1`, `layers.2`.
#[derive(Debug)]
struct Unit(Conv2d, BatchNorm, Option<PRelu>);

impl Unit {
    /// `ConvBlock`.
    fn new(at: &Scope, spec: ConvSpec) -> Self {
        let Self(conv, norm, _) = Self::linear(at, spec);
        Self(conv, norm, Some(PRelu::new(&at.sub("layers").sub(2), spec.outputs())))
    }

    /// `LinearBlock`.
    fn linear(at: &Scope, spec: ConvSpec) -> Self {
        let at = at.sub("layers");
        let conv = Conv2d::new(&at.sub(0), spec.weight(Weight::KaimingFanOut).bias(Bias::None));
        Self(conv, BatchNorm::new(&at.sub(1), spec.outputs()), None)
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let Self(conv, norm, prelu) = self;
        let ys = norm.forward(&conv.forward(xs), mode);
        prelu.as_ref().map(|prelu| prelu.forward(&ys)).unwrap_or(ys)
    }
}

/// 1x1 to `wide` channels, 3x3 within each channel, 1x1 to `outputs` channels.
#[derive(Debug)]
struct DepthWise([Unit; 3]);

impl DepthWise {
    fn new(at: &Scope, inputs: i64, wide: i64, outputs: i64, stride: i64) -> Self {
        let at = at.sub("layers");
        let each = ConvSpec::new(wide, wide, 3).same().stride(stride).groups(wide);
        Self([
            Unit::new(&at.sub(0), ConvSpec::new(inputs, wide, 1)),
            Unit::new(&at.sub(1), each),
            Unit::linear(&at.sub(2), ConvSpec::new(wide, outputs, 1)),
        ])
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        self.0.iter().fold(xs.shallow_clone(), |xs, unit| unit.forward(&xs, mode))
    }
}

/// An entry of `layers`.
#[derive(Debug)]
enum Layer {
    Unit(Box<Unit>),
    /// With stride 2.
    Down(Box<DepthWise>),
    /// Each beside a shortcut.
    Residual(Vec<DepthWise>),
}

impl Layer {
    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        match self {
            Self::Unit(unit) => unit.forward(xs, mode),
            Self::Down(down) => down.forward(xs, mode),
            Self::Residual(blocks) => {
                blocks.iter().fold(xs.shallow_clone(), |xs, block| block.forward(&xs, mode) + &xs)
            }
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct MobileFaceNet {
    layers: Vec<Layer>,
    conv_sep: Unit,
    /// 7x7 within each channel, the whole map.
    pool: Unit,
    embed: Linear,
    norm: BatchNorm,
}

impl MobileFaceNet {
    /// Registers all layers under `root`: `layers.N`, `conv_sep`, `features`.
    pub fn new(root: &Scope) -> Self {
        let layers = root.sub("layers");
        let at = |number: i64| layers.sub(number);
        let unit = |number, spec| Layer::Unit(Box::new(Unit::new(&at(number), spec)));
        let down = |number, inputs, wide, outputs| {
            Layer::Down(Box::new(DepthWise::new(&at(number), inputs, wide, outputs, 2)))
        };
        let residual = |number, count, channels, wide| {
            let list = at(number).sub("layers");
            let block = |n: i64| DepthWise::new(&list.sub(n), channels, wide, channels, 1);
            Layer::Residual((0..count).map(block).collect())
        };
        let layers = vec![
            unit(0, ConvSpec::new(3, 128, 3).same().stride(2)),
            unit(1, ConvSpec::new(128, 128, 3).same().groups(64)),
            down(2, 128, 128, 128),
            residual(3, 4, 128, 128),
            down(4, 128, 256, 256),
            residual(5, 6, 256, 256),
            down(6, 256, 512, 256),
            residual(7, 2, 256, 256),
        ];
        let conv_sep = Unit::new(&root.sub("conv_sep"), ConvSpec::new(256, LAST, 1));
        let at = root.sub("features").sub("layers");
        let pool = Unit::linear(&at.sub(0), ConvSpec::new(LAST, LAST, 7).groups(LAST));
        let embed = Linear::with(&at.sub(2), LAST, EMBEDDING, Weight::KaimingFanOut, Bias::None);
        Self { layers, conv_sep, pool, embed, norm: BatchNorm::new(&at.sub(3), EMBEDDING) }
    }
}

impl Trunk for MobileFaceNet {
    fn stages(&self) -> Vec<Vec<String>> {
        let layers = (0..self.layers.len()).map(|number| format!("layers.{number}"));
        let names = layers.chain(["conv_sep", "features.layers"].map(String::from));
        names.map(|name| vec![name]).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        match self.layers.get(stage) {
            Some(layer) => layer.forward(xs, mode),
            None if stage == self.layers.len() => self.conv_sep.forward(xs, mode), // [N, 512, 7, 7]
            None => {
                let flat = self.pool.forward(xs, mode).flatten(1, -1);
                self.norm.forward(&self.embed.forward(&flat), mode)
            }
        }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        map.shallow_clone()
    }
}
