//! The three networks of MTCNN (Zhang et al., 2016), with facenet-pytorch's key names.
//!
//! | net | sees | says |
//! |---|---|---|
//! | P-Net | every 12x12 window of a picture, in steps of 2 pixels | face?, box |
//! | R-Net | candidates, 24x24 | face?, box |
//! | O-Net | candidates, 48x48 | face?, box, five landmarks |
//!
//! Pixels are (p - 127.5) / 128. Pools round their size up. Inputs are best laid out
//! channels-last: the same numbers, several times faster on a CPU.

use tch::{Device, Kind, Tensor};

use crate::models::layers::{Conv2d, ConvSpec, Linear, Window, max_pool};
use crate::models::params::Scope;

/// max(0, x) + w min(0, x), one w a channel (He et al., 2015).
#[derive(Debug)]
struct Prelu {
    weight: Tensor,
}

impl Prelu {
    /// Registers `weight` `[channels]`, 0.25 at first, as PyTorch.
    fn new(at: &Scope, channels: i64) -> Self {
        let weight = Tensor::full([channels], 0.25, (Kind::Float, Device::Cpu));
        Self { weight: at.parameter("weight", weight) }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        xs.prelu(&self.weight)
    }
}

/// `conv{N}`, `prelu{N}`, and perhaps a pool behind them.
#[derive(Debug)]
struct Stage {
    conv: Conv2d,
    prelu: Prelu,
    pool: Option<Window>,
}

impl Stage {
    fn new(at: &Scope, number: u32, spec: ConvSpec, pool: Option<Window>) -> Self {
        Self {
            conv: Conv2d::new(&at.sub(format!("conv{number}")), spec),
            prelu: Prelu::new(&at.sub(format!("prelu{number}")), spec.outputs()),
            pool: pool.map(Window::ceil),
        }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        let ys = self.prelu.forward(&self.conv.forward(xs));
        self.pool.map_or_else(|| ys.shallow_clone(), |window| max_pool(&ys, window))
    }
}

fn chain(stages: &[Stage], xs: &Tensor) -> Tensor {
    stages.iter().fold(xs.shallow_clone(), |xs, stage| stage.forward(&xs))
}

/// The share of "face" in a softmax over (no face, face), for every place.
fn face(logits: &Tensor) -> Tensor {
    logits.softmax(1, Kind::Float).select(1, 1)
}

/// The proposal network.
#[derive(Debug)]
pub struct PNet {
    stages: [Stage; 3],
    face: Conv2d,
    shift: Conv2d,
}

impl PNet {
    /// Side of the window that one output sees, in pixels.
    pub const WINDOW: usize = 12;
    /// Pixels from one window to the next.
    pub const STRIDE: usize = 2;

    pub fn new(at: &Scope) -> Self {
        Self {
            stages: [
                Stage::new(at, 1, ConvSpec::new(3, 10, 3), Some(Window::new(2, 2))),
                Stage::new(at, 2, ConvSpec::new(10, 16, 3), None),
                Stage::new(at, 3, ConvSpec::new(16, 32, 3), None),
            ],
            face: Conv2d::new(&at.sub("conv4_1"), ConvSpec::new(32, 2, 1)),
            shift: Conv2d::new(&at.sub("conv4_2"), ConvSpec::new(32, 4, 1)),
        }
    }

    /// `[N, 3, H, W]` to probabilities `[N, H', W']` and the shifts of the boxes' four edges, in box
    /// sides, `[N, 4, H', W']`.
    pub fn forward(&self, xs: &Tensor) -> (Tensor, Tensor) {
        let xs = chain(&self.stages, xs);
        (face(&self.face.forward(&xs)), self.shift.forward(&xs))
    }
}

/// The convolutions and the dense layer that R-Net and O-Net have in common.
#[derive(Debug)]
struct Body {
    stages: Vec<Stage>,
    dense: Linear,
    prelu: Prelu,
}

impl Body {
    /// `[N, 3, S, S]` to features `[N, D]`. The map is flattened by column, row, channel.
    fn forward(&self, xs: &Tensor) -> Tensor {
        let map = chain(&self.stages, xs).permute([0, 3, 2, 1]);
        self.prelu.forward(&self.dense.forward(&map.flatten(1, -1)))
    }
}

/// The refinement network.
#[derive(Debug)]
pub struct RNet {
    body: Body,
    face: Linear,
    shift: Linear,
}

impl RNet {
    /// Side of the input in pixels.
    pub const SIDE: usize = 24;

    pub fn new(at: &Scope) -> Self {
        let pool = Some(Window::new(3, 2));
        let body = Body {
            stages: vec![
                Stage::new(at, 1, ConvSpec::new(3, 28, 3), pool),
                Stage::new(at, 2, ConvSpec::new(28, 48, 3), pool),
                Stage::new(at, 3, ConvSpec::new(48, 64, 2), None),
            ],
            dense: Linear::new(&at.sub("dense4"), 576, 128),
            prelu: Prelu::new(&at.sub("prelu4"), 128),
        };
        let face = Linear::new(&at.sub("dense5_1"), 128, 2);
        Self { body, face, shift: Linear::new(&at.sub("dense5_2"), 128, 4) }
    }

    /// `[N, 3, 24, 24]` to probabilities `[N]` and edge shifts `[N, 4]`.
    pub fn forward(&self, xs: &Tensor) -> (Tensor, Tensor) {
        let xs = self.body.forward(xs);
        (face(&self.face.forward(&xs)), self.shift.forward(&xs))
    }
}

/// The output network.
#[derive(Debug)]
pub struct ONet {
    body: Body,
    face: Linear,
    shift: Linear,
    landmarks: Linear,
}

impl ONet {
    /// Side of the input in pixels.
    pub const SIDE: usize = 48;

    pub fn new(at: &Scope) -> Self {
        let pool = Some(Window::new(3, 2));
        let body = Body {
            stages: vec![
                Stage::new(at, 1, ConvSpec::new(3, 32, 3), pool),
                Stage::new(at, 2, ConvSpec::new(32, 64, 3), pool),
                Stage::new(at, 3, ConvSpec::new(64, 64, 3), Some(Window::new(2, 2))),
                Stage::new(at, 4, ConvSpec::new(64, 128, 2), None),
            ],
            dense: Linear::new(&at.sub("dense5"), 1152, 256),
            prelu: Prelu::new(&at.sub("prelu5"), 256),
        };
        let face = Linear::new(&at.sub("dense6_1"), 256, 2);
        let shift = Linear::new(&at.sub("dense6_2"), 256, 4);
        Self { body, face, shift, landmarks: Linear::new(&at.sub("dense6_3"), 256, 10) }
    }

    /// `[N, 3, 48, 48]` to probabilities `[N]`, edge shifts `[N, 4]` and landmarks `[N, 10]`: five x,
    /// then five y, as shares of the box.
    pub fn forward(&self, xs: &Tensor) -> (Tensor, Tensor, Tensor) {
        let xs = self.body.forward(xs);
        (face(&self.face.forward(&xs)), self.shift.forward(&xs), self.landmarks.forward(&xs))
    }
}

/// The three nets in one book of tensors: `pnet.`, `rnet.`, `onet.` before facenet-pytorch's keys.
#[derive(Debug)]
pub struct Nets {
    pub pnet: PNet,
    pub rnet: RNet,
    pub onet: ONet,
}

impl Nets {
    pub fn new(root: &Scope) -> Self {
        Self {
            pnet: PNet::new(&root.sub("pnet")),
            rnet: RNet::new(&root.sub("rnet")),
            onet: ONet::new(&root.sub("onet")),
        }
    }
}
