//! dlib's face recognition network (`dlib_face_recognition_resnet_model_v1`, Davis E. King, CC0): a
//! residual network of 29 convolutions, after He et al., 2015.
//!
//! Input `[N, 3, 150, 150]` RGB, from which dlib's mean colour is subtracted; output `[N, 128]`. Its
//! per-channel scales are folded into the convolutions, so there is no normalisation layer. dlib
//! compares [`Trunk::features`] (lengths near 1.4, one person below a distance of 0.6); the embedding
//! is that vector, L2-normalised.

use tch::Tensor;

use super::Trunk;
use super::layers::{
    Bias, Conv2d, ConvNormRelu, ConvSpec, Linear, Mode, Weight, Window, avg_pool, global_avg_pool,
    max_pool,
};
use super::params::Scope;

/// Native input size.
pub const INPUT: u32 = 150;
/// Embedding size.
pub const EMBEDDING: i64 = 128;
/// Channels behind the first convolution.
const STEM: i64 = 32;
/// Output channels and stride of each block.
#[rustfmt::skip]
const BLOCKS: [(i64, i64); 14] = [
    (32, 1), (32, 1), (32, 1),
    (64, 2), (64, 1), (64, 1), (64, 1),
    (128, 2), (128, 1), (128, 1),
    (256, 2), (256, 1), (256, 1),
    (256, 2),
];

/// Two 3x3 convolutions beside a shortcut.
#[derive(Debug)]
struct Block {
    first: ConvNormRelu,
    second: Conv2d,
    stride: i64,
}

impl Block {
    fn new(at: &Scope, inputs: i64, outputs: i64, stride: i64) -> Self {
        let spec = |inputs| kaiming(ConvSpec::new(inputs, outputs, 3));
        // dlib pads at stride 1 only.
        let first = spec(inputs).stride(stride).padding(i64::from(stride == 1));
        Self {
            first: ConvNormRelu::of(Conv2d::new(&at.sub("conv1"), first), None),
            second: Conv2d::new(&at.sub("conv2"), spec(outputs).same()),
            stride,
        }
    }

    /// relu(conv2(relu(conv1(x))) + shortcut), the smaller of the two filled up with zeros.
    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let ys = self.second.forward(&self.first.forward(xs, mode));
        if self.stride == 1 {
            return (ys + xs).relu();
        }
        let shortcut = avg_pool(xs, Window::new(2, self.stride));
        let size = |axis: usize| ys.size()[axis].max(shortcut.size()[axis]);
        let size = [size(1), size(2), size(3)];
        (fill_up(&ys, size) + fill_up(&shortcut, size)).relu()
    }
}

/// Zeros behind the last channel, row and column, up to `[channels, height, width]`.
fn fill_up(xs: &Tensor, size: [i64; 3]) -> Tensor {
    let [channels, height, width] = [0, 1, 2].map(|axis| size[axis] - xs.size()[axis + 1]);
    if [channels, height, width] == [0; 3] {
        return xs.shallow_clone();
    }
    xs.constant_pad_nd([0, width, 0, height, 0, channels])
}

/// Without normalisation layers, PyTorch's default initialisation would let the signal die out.
const fn kaiming(spec: ConvSpec) -> ConvSpec {
    spec.weight(Weight::KaimingFanOut).bias(Bias::Zero)
}

/// The network.
#[derive(Debug)]
pub struct DlibResnet {
    stem: ConvNormRelu,
    blocks: Vec<Block>,
    embed: Linear,
}

impl DlibResnet {
    /// Registers all layers under `root`: `conv1`, `blocks.N.conv1`, `blocks.N.conv2`, `fc`.
    pub fn new(root: &Scope) -> Self {
        let stem = Conv2d::new(&root.sub("conv1"), kaiming(ConvSpec::new(3, STEM, 7).stride(2)));
        let (at, mut inputs) = (root.sub("blocks"), STEM);
        let block = |(number, &(outputs, stride)): (usize, &(i64, i64))| {
            let block = Block::new(&at.sub(number), inputs, outputs, stride);
            inputs = outputs;
            block
        };
        let blocks = BLOCKS.iter().enumerate().map(block).collect();
        let fc = root.sub("fc");
        let embed = Linear::with(&fc, inputs, EMBEDDING, Weight::Default, Bias::None);
        Self { stem: ConvNormRelu::of(stem, None), blocks, embed }
    }
}

impl Trunk for DlibResnet {
    fn stages(&self) -> Vec<Vec<String>> {
        let blocks = (0..self.blocks.len()).map(|number| format!("blocks.{number}"));
        let names = ["conv1".to_owned()].into_iter().chain(blocks).chain(["fc".to_owned()]);
        names.map(|name| vec![name]).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        match stage.checked_sub(1).map(|number| self.blocks.get(number)) {
            None => max_pool(&self.stem.forward(xs, mode), Window::new(3, 2)), // [N, 32, 35, 35]
            Some(Some(block)) => block.forward(xs, mode),
            Some(None) => self.embed.forward(&global_avg_pool(xs)), // [N, 256, 2, 2] to [N, 128]
        }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        map.shallow_clone()
    }
}
