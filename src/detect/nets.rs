//! The three networks of MTCNN (Zhang et al., 2016), with facenet-pytorch's key names.
//!
//! | network | input | output |
//! |---|---|---|
//! | P-Net | every 12x12 window of a picture, in steps of 2 pixels | face?, box |
//! | R-Net | candidates, 24x24 | face?, box |
//! | O-Net | candidates, 48x48 | face?, box, five landmarks |
//!
//! Pixels are (p - 127.5) / 128. Pooling rounds up (`ceil_mode`). The channels_last format is several
//! times faster on a CPU, with the same results.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::models::Params;
use crate::models::layers::{Conv2d, ConvSpec, Linear, Window, max_pool};
use crate::models::params::Scope;
use crate::weights::{TensorFile, load};
use crate::{Error, Result};

/// max(0, x) + w min(0, x) with one w per channel (He et al., 2015).
#[derive(Debug)]
struct Prelu {
    weight: Tensor,
}

impl Prelu {
    /// Registers `weight` `[channels]`, initialised to 0.25 as in PyTorch.
    fn new(at: &Scope, channels: i64) -> Self {
        let weight = Tensor::full([channels], 0.25, (Kind::Float, Device::Cpu));
        Self { weight: at.parameter("weight", weight) }
    }

    fn forward(&self, xs: &Tensor) -> Tensor {
        xs.prelu(&self.weight)
    }
}

/// `conv{N}`, `prelu{N}`, and optionally max pooling.
#[derive(Debug)]
struct CascadeLayer {
    conv: Conv2d,
    prelu: Prelu,
    pool: Option<Window>,
}

impl CascadeLayer {
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

fn chain(stages: &[CascadeLayer], xs: &Tensor) -> Tensor {
    stages.iter().fold(xs.shallow_clone(), |xs, stage| stage.forward(&xs))
}

/// The probability of "face" in a softmax over (no face, face), at every position.
fn face(logits: &Tensor) -> Tensor {
    logits.softmax(1, Kind::Float).select(1, 1)
}

/// The proposal network.
#[derive(Debug)]
pub struct PNet {
    stages: [CascadeLayer; 3],
    face: Conv2d,
    shift: Conv2d,
}

impl PNet {
    /// Side of the receptive field of an output, in pixels.
    pub const WINDOW: usize = 12;
    /// Stride of the outputs, in pixels.
    pub const STRIDE: usize = 2;
    /// Channels after the first convolution: 10, and 6 that are always zero. Vector units process 8 or
    /// 16 channels at a time; 10 take one and a half times as long as 16.
    const WIDTH: i64 = 16;

    pub fn new(at: &Scope) -> Self {
        Self {
            stages: [
                CascadeLayer::new(at, 1, ConvSpec::new(3, Self::WIDTH, 3), Some(Window::new(2, 2))),
                CascadeLayer::new(at, 2, ConvSpec::new(Self::WIDTH, 16, 3), None),
                CascadeLayer::new(at, 3, ConvSpec::new(16, 32, 3), None),
            ],
            face: Conv2d::new(&at.sub("conv4_1"), ConvSpec::new(32, 2, 1)),
            shift: Conv2d::new(&at.sub("conv4_2"), ConvSpec::new(32, 4, 1)),
        }
    }

    /// Pads the tensors of a file, by key, with the channels that are always zero.
    fn widen(tensors: &mut BTreeMap<String, Tensor>) {
        for (key, axis) in [
            ("pnet.conv1.weight", 0),
            ("pnet.conv1.bias", 0),
            ("pnet.prelu1.weight", 0),
            ("pnet.conv2.weight", 1),
        ] {
            let Some(tensor) = tensors.get_mut(key) else { continue };
            let mut shape = tensor.size();
            // A shape that differs from the published file's is reported when loading.
            let Some(length) = shape.get_mut(axis).filter(|length| **length < Self::WIDTH) else {
                continue;
            };
            *length = Self::WIDTH - *length;
            let zeros = Tensor::zeros(shape, (tensor.kind(), tensor.device()));
            *tensor = Tensor::cat(&[&*tensor, &zeros], axis as i64);
        }
    }

    /// `[N, 3, H, W]` to probabilities `[N, H', W']` and shifts of the four box edges relative to the
    /// box side, `[N, 4, H', W']`.
    pub fn forward(&self, xs: &Tensor) -> (Tensor, Tensor) {
        let xs = chain(&self.stages, xs);
        (face(&self.face.forward(&xs)), self.shift.forward(&xs))
    }
}

/// The convolutions and the dense layer that R-Net and O-Net have in common.
#[derive(Debug)]
struct Body {
    stages: Vec<CascadeLayer>,
    dense: Linear,
    prelu: Prelu,
}

impl Body {
    /// `[N, 3, S, S]` to features `[N, D]`. The map is flattened in the order column, row, channel.
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
                CascadeLayer::new(at, 1, ConvSpec::new(3, 28, 3), pool),
                CascadeLayer::new(at, 2, ConvSpec::new(28, 48, 3), pool),
                CascadeLayer::new(at, 3, ConvSpec::new(48, 64, 2), None),
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
                CascadeLayer::new(at, 1, ConvSpec::new(3, 32, 3), pool),
                CascadeLayer::new(at, 2, ConvSpec::new(32, 64, 3), pool),
                CascadeLayer::new(at, 3, ConvSpec::new(64, 64, 3), Some(Window::new(2, 2))),
                CascadeLayer::new(at, 4, ConvSpec::new(64, 128, 2), None),
            ],
            dense: Linear::new(&at.sub("dense5"), 1152, 256),
            prelu: Prelu::new(&at.sub("prelu5"), 256),
        };
        let face = Linear::new(&at.sub("dense6_1"), 256, 2);
        let shift = Linear::new(&at.sub("dense6_2"), 256, 4);
        Self { body, face, shift, landmarks: Linear::new(&at.sub("dense6_3"), 256, 10) }
    }

    /// `[N, 3, 48, 48]` to probabilities `[N]`, edge shifts `[N, 4]` and landmarks `[N, 10]`: five x,
    /// then five y, relative to the box.
    pub fn forward(&self, xs: &Tensor) -> (Tensor, Tensor, Tensor) {
        let xs = self.body.forward(xs);
        (face(&self.face.forward(&xs)), self.shift.forward(&xs), self.landmarks.forward(&xs))
    }
}

/// The three networks: `pnet.`, `rnet.` and `onet.`, followed by facenet-pytorch's keys.
#[derive(Debug)]
pub struct Nets {
    pub pnet: PNet,
    pub rnet: RNet,
    pub onet: ONet,
}

impl Nets {
    /// Loads the networks on `device` from `file`, which holds facenet-pytorch's three state dicts.
    ///
    /// # Errors
    /// The file does not fit.
    pub fn load(device: Device, mut file: TensorFile) -> Result<Self> {
        let (nets, params) = Params::collect_unset(device, Self::new);
        PNet::widen(&mut file.tensors);
        let report = load::load(&params, &file, &[]);
        if !report.is_strict() {
            return Err(Error::weights("mtcnn", format!("does not fit MTCNN: {report}")));
        }
        params.freeze_all();
        Ok(nets)
    }

    fn new(root: &Scope) -> Self {
        Self {
            pnet: PNet::new(&root.sub("pnet")),
            rnet: RNet::new(&root.sub("rnet")),
            onet: ONet::new(&root.sub("onet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::manifest;

    #[test]
    fn the_silent_channels_change_nothing() {
        let file = manifest::tool("mtcnn").unwrap();
        let of = |key: &str| file.tensors[&format!("pnet.{key}")].shallow_clone();
        let xs = Tensor::arange(3 * 31 * 26, (Kind::Float, Device::Cpu)).sin().view([1, 3, 31, 26]);
        // The net written out, with its ten channels.
        let conv = |xs: &Tensor, key: &str| {
            let bias = of(&format!("{key}.bias"));
            xs.conv2d(&of(&format!("{key}.weight")), Some(&bias), [1, 1], [0, 0], [1, 1], 1)
        };
        let ys = conv(&xs, "conv1").prelu(&of("prelu1.weight"));
        let ys = ys.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], true);
        let ys = conv(&ys, "conv2").prelu(&of("prelu2.weight"));
        let ys = conv(&ys, "conv3").prelu(&of("prelu3.weight"));
        let wanted =
            (conv(&ys, "conv4_1").softmax(1, Kind::Float).select(1, 1), conv(&ys, "conv4_2"));
        let nets = Nets::load(Device::Cpu, file).unwrap();
        let found = tch::no_grad(|| nets.pnet.forward(&xs));
        assert_eq!(found.0.size(), [1, 11, 8]);
        assert!(found.0.allclose(&wanted.0, 1e-5, 1e-6, false));
        assert!(found.1.allclose(&wanted.1, 1e-5, 1e-6, false));
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_by_key() {
        let mut file = manifest::tool("mtcnn").unwrap();
        file.tensors.remove("onet.dense6_3.bias");
        file.tensors
            .insert("pnet.conv2.weight".into(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
        let error = Nets::load(Device::Cpu, file).unwrap_err().to_string();
        assert!(
            error.contains("onet.dense6_3.bias") && error.contains("pnet.conv2.weight"),
            "{error}"
        );
    }
}
