//! IResNet, the residual networks of ArcFace (Deng et al., 2019), in the form and with the keys of
//! InsightFace's `arcface_torch`.
//!
//! Input `[N, 3, 112, 112]` RGB, (x - 0.5) / 0.5; [`Trunk::features`] is its output `[N, 512]` after the
//! last batch normalisation, the embedding the same vector, L2-normalised.

use tch::Tensor;

use super::Trunk;
use super::layers::{BatchNorm, Bias, Conv2d, ConvSpec, Linear, Mode, NormOptions, PRelu, Weight};
use super::params::Scope;

/// Input size.
pub const INPUT: u32 = 112;
/// Embedding size.
pub const EMBEDDING: i64 = 512;
/// Channels of the first convolution.
const STEM: i64 = 64;
/// Output channels of the four layers; the first unit of each has stride 2.
const CHANNELS: [i64; 4] = [64, 128, 256, 512];
/// Side of the last map.
const SIDE: i64 = 7;

/// A convolution without a bias. arcface_torch draws from N(0, 0.1²) whatever the number of channels,
/// so that an untrained network overflows in evaluation mode; the law of ResNet does not.
fn conv(at: &Scope, spec: ConvSpec) -> Conv2d {
    Conv2d::new(at, spec.weight(Weight::KaimingFanOut).bias(Bias::None))
}

/// Batch normalisation, 3x3, batch normalisation, PReLU, 3x3, batch normalisation, beside a shortcut.
#[derive(Debug)]
struct ResidualUnit {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    prelu: PRelu,
    conv2: Conv2d,
    bn3: BatchNorm,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl ResidualUnit {
    fn new(at: &Scope, inputs: i64, outputs: i64, stride: i64) -> Self {
        let shortcut = |at: Scope| {
            let spec = ConvSpec::new(inputs, outputs, 1).stride(stride);
            (conv(&at.sub(0), spec), BatchNorm::new(&at.sub(1), outputs))
        };
        let last = ConvSpec::new(outputs, outputs, 3).same().stride(stride);
        Self {
            bn1: BatchNorm::new(&at.sub("bn1"), inputs),
            conv1: conv(&at.sub("conv1"), ConvSpec::new(inputs, outputs, 3).same()),
            bn2: BatchNorm::new(&at.sub("bn2"), outputs),
            prelu: PRelu::new(&at.sub("prelu"), outputs),
            conv2: conv(&at.sub("conv2"), last),
            bn3: BatchNorm::new(&at.sub("bn3"), outputs),
            downsample: (stride > 1).then(|| shortcut(at.sub("downsample"))),
        }
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let ys = self.conv1.forward(&self.bn1.forward(xs, mode));
        let ys = self.prelu.forward(&self.bn2.forward(&ys, mode));
        let ys = self.bn3.forward(&self.conv2.forward(&ys), mode);
        match &self.downsample {
            Some((conv, norm)) => ys + norm.forward(&conv.forward(xs), mode),
            None => ys + xs,
        }
    }
}

/// The network.
#[derive(Debug)]
pub struct IResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    prelu: PRelu,
    layers: Vec<Vec<ResidualUnit>>,
    bn2: BatchNorm,
    fc: Linear,
    features: BatchNorm,
}

impl IResNet {
    /// Registers all layers under `root`; `depths` is the number of units of each layer.
    pub fn new(root: &Scope, depths: [i64; 4]) -> Self {
        let (conv1, bn1) = (
            conv(&root.sub("conv1"), ConvSpec::new(3, STEM, 3).same()),
            BatchNorm::new(&root.sub("bn1"), STEM),
        );
        let prelu = PRelu::new(&root.sub("prelu"), STEM);
        let mut inputs = STEM;
        let layers = (1..).zip(CHANNELS).zip(depths).map(|((number, outputs), depth)| {
            let at = root.sub(format!("layer{number}"));
            let units = (0..depth).map(|unit| {
                let stride = if unit == 0 { 2 } else { 1 };
                let built = ResidualUnit::new(&at.sub(unit), inputs, outputs, stride);
                inputs = outputs;
                built
            });
            units.collect()
        });
        let layers = layers.collect();
        Self {
            conv1,
            bn1,
            prelu,
            layers,
            bn2: BatchNorm::new(&root.sub("bn2"), inputs),
            fc: Linear::new(&root.sub("fc"), inputs * SIDE * SIDE, EMBEDDING),
            // Its weight stays at 1: a scale per dimension would change the angles.
            features: BatchNorm::with(
                &root.sub("features"),
                EMBEDDING,
                NormOptions { fixed_weight: true, ..NormOptions::default() },
            ),
        }
    }
}

impl Trunk for IResNet {
    fn stages(&self) -> Vec<Vec<String>> {
        let layers = (1..=self.layers.len()).map(|number| vec![format!("layer{number}")]);
        let [stem, last] = [["conv1", "bn1", "prelu"], ["bn2", "fc", "features"]]
            .map(|blocks| blocks.map(String::from).to_vec());
        std::iter::once(stem).chain(layers).chain([last]).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        match stage.checked_sub(1).map(|number| self.layers.get(number)) {
            // [N, 64, 112, 112]
            None => self.prelu.forward(&self.bn1.forward(&self.conv1.forward(xs), mode)),
            Some(Some(layer)) => {
                layer.iter().fold(xs.shallow_clone(), |xs, unit| unit.forward(&xs, mode))
            }
            // [N, 512, 7, 7] to [N, 512]
            Some(None) => {
                let flat = self.bn2.forward(xs, mode).flatten(1, -1);
                self.features.forward(&self.fc.forward(&flat), mode)
            }
        }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        map.shallow_clone()
    }
}
