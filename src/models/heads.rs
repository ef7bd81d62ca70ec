//! Heads of siamese networks, on top of a shared trunk.
//!
//! A head has a tower, from a picture to a vector, and optionally a join, from two vectors to a logit.
//! Without a join the output is the Euclidean distance of the two vectors.
//!
//! | head | tower | join |
//! |---|---|---|
//! | `projection` | features, dense to D | |
//! | `euclidean` | features, (dense, batch norm, leaky ReLU) twice, dense to D | |
//! | `concat` | features | (dense, batch norm, leaky ReLU) twice, dense to 1 |
//! | `conv` | map, max pool, 3x3 to 512, dropout, max pool, 3x3 to 256, global max pool | dense to 256, dropout, dense to 1 |
//! | `passport` | VGG's classifier to 1000, dense to 512, ReLU, dropout, dense to D | |

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::backbone::{Backbone, BuildOptions};
use super::layers::{BatchNorm, Conv2d, ConvSpec, Linear, Mode, Window, dropout, max_pool};
use super::params::Scope;
use super::{Architecture, Params};
use crate::{Error, Result};

/// Key prefix of a head's tensors in a model file.
pub const HEAD_PREFIX: &str = "head";
/// Units of the two hidden layers of `euclidean` and `concat`.
const HIDDEN: [i64; 2] = [512, 256];
/// Channels of the two convolutions of `conv`, and units of its hidden layer.
const CONV: [i64; 3] = [512, 256, 256];
/// Units of the hidden layer of `passport`.
const PASSPORT: i64 = 512;
/// Number of classes of the trunk's classifier that `passport` uses.
const CLASSES: i64 = 1000;
/// Dropout of `conv` and `passport`.
const DROPOUT: f64 = 0.5;

/// Kinds of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// One dense layer; Euclidean distance of the two vectors
    Projection,
    /// Dense, batch norm and leaky ReLU twice, then dense; Euclidean distance
    Euclidean,
    /// The features of both pictures concatenated; layers as in `euclidean`, to one logit
    Concat,
    /// Two convolutions with pooling on the trunk's feature map, then dense layers to one logit
    Conv,
    /// VGG's fully connected layers to 1000, then 512, then the vector; Euclidean distance
    Passport,
}

impl HeadKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Projection, Self::Euclidean, Self::Concat, Self::Conv, Self::Passport];

    /// Default size of the vectors; `None` for heads with a fixed size.
    pub fn default_dim(self) -> Option<i64> {
        match self {
            Self::Projection => Some(32),
            Self::Euclidean => Some(128),
            Self::Passport => Some(108),
            Self::Concat | Self::Conv => None,
        }
    }

    /// Whether the output is a logit (large: same person), not a distance.
    pub fn gives_logit(self) -> bool {
        matches!(self, Self::Concat | Self::Conv)
    }

    /// Its name on the command line and in model files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Projection => "projection",
            Self::Euclidean => "euclidean",
            Self::Concat => "concat",
            Self::Conv => "conv",
            Self::Passport => "passport",
        }
    }
}

/// Dense, batch normalisation, leaky ReLU (slope 0.01) for each hidden width; then dense.
#[derive(Debug)]
struct Dense {
    hidden: Vec<(Linear, BatchNorm)>,
    last: Linear,
}

impl Dense {
    fn new(at: &Scope, inputs: i64, widths: &[i64], outputs: i64) -> Self {
        let mut inputs = inputs;
        let mut hidden = Vec::new();
        for (number, &width) in (1..).zip(widths) {
            let dense = Linear::new(&at.sub(format!("dense{number}")), inputs, width);
            hidden.push((dense, BatchNorm::new(&at.sub(format!("norm{number}")), width)));
            inputs = width;
        }
        Self { hidden, last: Linear::new(&at.sub("last"), inputs, outputs) }
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let hidden = self.hidden.iter().fold(xs.shallow_clone(), |xs, (dense, norm)| {
            norm.forward(&dense.forward(&xs), mode).leaky_relu()
        });
        self.last.forward(&hidden)
    }
}

#[derive(Debug)]
enum Tower {
    Features,
    Dense(Dense),
    Conv([Conv2d; 2]),
    Passport([Linear; 2]),
}

#[derive(Debug)]
enum Join {
    Dense(Dense),
    Dropout([Linear; 2]),
}

/// A trunk with a head.
#[derive(Debug)]
pub struct PairNet {
    /// The trunk.
    pub backbone: Backbone,
    /// The head's tensors, under `head.`.
    pub params: Params,
    kind: HeadKind,
    dim: i64,
    tower: Tower,
    join: Option<Join>,
}

impl PairNet {
    /// Builds a trunk and a head with random weights. `dim` is the size of the vectors, if the head
    /// allows it; `input_size` the side of the pictures.
    ///
    /// # Errors
    /// A size is out of range, or the head does not fit the trunk.
    pub fn build(
        architecture: Architecture,
        kind: HeadKind,
        dim: Option<i64>,
        input_size: Option<u32>,
        device: Device,
    ) -> Result<Self> {
        let name = architecture.name();
        let fail = |text: String| Err(Error::Config(text));
        let is_vgg = architecture.info().classifier == ["classifier."] && name.starts_with("vgg");
        if kind == HeadKind::Passport && !is_vgg {
            return fail(format!("--head passport stands on VGG's classifier; {name} has none"));
        }
        match (dim, kind.default_dim()) {
            (Some(dim), Some(_)) if !(1..=65_536).contains(&dim) => {
                return fail(format!("--embedding-dim {dim}: expected 1 to 65536"));
            }
            (Some(dim), None) => {
                let head = kind.name();
                return fail(format!(
                    "--embedding-dim {dim}: --head {head} has no vector to choose the length of"
                ));
            }
            _ => {}
        }
        let classes = (kind == HeadKind::Passport).then_some(CLASSES);
        let options = BuildOptions { classes, embedding_dim: None };
        let mut backbone = Backbone::build(architecture, device, &options)?;
        if let Some(side) = input_size {
            backbone.set_input_size(side)?;
        }
        let inputs = backbone.embedding_dim;
        let out = dim.or(kind.default_dim()).unwrap_or(inputs);
        // Only this head needs the size of the map, which takes a pass through the trunk.
        if kind == HeadKind::Conv
            && let map = backbone.map_size()
            && !matches!(map[..], [_, _, h, w] if h.min(w) >= 4)
        {
            let side = backbone.input.size;
            return fail(format!(
                "--head conv needs a map of 4x4 or more; {name} gives {map:?} at {side} pixels"
            ));
        }
        let ((tower, join, dim), params) = Params::collect(device, |root| {
            let at = root.sub(HEAD_PREFIX);
            match kind {
                HeadKind::Projection => {
                    (Tower::Dense(Dense::new(&at, inputs, &[], out)), None, out)
                }
                HeadKind::Euclidean => {
                    (Tower::Dense(Dense::new(&at, inputs, &HIDDEN, out)), None, out)
                }
                HeadKind::Concat => {
                    let join = Dense::new(&at, 2 * inputs, &HIDDEN, 1);
                    (Tower::Features, Some(Join::Dense(join)), inputs)
                }
                HeadKind::Conv => {
                    let conv = |name: &str, inputs, outputs| {
                        Conv2d::new(&at.sub(name), ConvSpec::new(inputs, outputs, 3).same())
                    };
                    let [first, second, hidden] = CONV;
                    let tower = [conv("conv1", inputs, first), conv("conv2", first, second)];
                    let join = [
                        Linear::new(&at.sub("dense1"), 2 * second, hidden),
                        Linear::new(&at.sub("last"), hidden, 1),
                    ];
                    (Tower::Conv(tower), Some(Join::Dropout(join)), second)
                }
                HeadKind::Passport => {
                    let tower = [
                        Linear::new(&at.sub("dense1"), CLASSES, PASSPORT),
                        Linear::new(&at.sub("last"), PASSPORT, out),
                    ];
                    (Tower::Passport(tower), None, out)
                }
            }
        });
        Ok(Self { backbone, params, kind, dim, tower, join })
    }

    /// The kind of the head.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// Size of [`vectors`](Self::vectors).
    pub fn dim(&self) -> i64 {
        self.dim
    }

    /// Trainable parameters: those of the trunk that are not frozen, and the head's.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let mut params = self.backbone.params.trainable();
        params.extend(self.params.trainable());
        params
    }

    /// From the feature maps before the trunk's stage `first` (0: pictures in [0, 1]) to one vector per
    /// picture, float32 `[N, D]`.
    ///
    /// # Errors
    /// The trunk has no classifier, which the head needs.
    pub fn vectors(&self, first: usize, maps: &Tensor, trunk: Mode, head: Mode) -> Result<Tensor> {
        let map = self.backbone.map_from(first, maps, trunk);
        let (compute, device) = (self.backbone.compute(), self.backbone.device());
        let vectors = compute.run(device, head, || self.tower(&map, head))?;
        Ok(vectors.to_kind(Kind::Float))
    }

    fn tower(&self, map: &Tensor, head: Mode) -> Result<Tensor> {
        Ok(match &self.tower {
            Tower::Features => self.backbone.features(map, head),
            Tower::Dense(dense) => dense.forward(&self.backbone.features(map, head), head),
            Tower::Conv([first, second]) => {
                let pool = |xs: &Tensor| max_pool(xs, Window::new(2, 2));
                let xs = dropout(&first.forward(&pool(map)).relu(), DROPOUT, head);
                second.forward(&pool(&xs)).relu().amax([2i64, 3].as_slice(), false)
            }
            Tower::Passport([hidden, last]) => {
                let classes = self.backbone.classify(map, head)?;
                last.forward(&dropout(&hidden.forward(&classes).relu(), DROPOUT, head))
            }
        })
    }

    /// Vectors `[N, D]` of pairs of pictures to logits `[N]`, large for the same person; `None` if the
    /// output is the distance.
    pub fn join(&self, a: &Tensor, b: &Tensor, head: Mode) -> Option<Tensor> {
        let join = self.join.as_ref()?;
        let both = Tensor::cat(&[a, b], 1);
        let (compute, device) = (self.backbone.compute(), self.backbone.device());
        let logits = compute.run(device, head, || match join {
            Join::Dense(dense) => dense.forward(&both, head),
            Join::Dropout([hidden, last]) => {
                last.forward(&dropout(&hidden.forward(&both).relu(), DROPOUT, head))
            }
        });
        Some(logits.squeeze_dim(1).to_kind(Kind::Float))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(name: &str, kind: HeadKind, dim: Option<i64>, side: u32) -> Result<PairNet> {
        let architecture = Architecture::try_from(name.to_owned()).unwrap();
        tch::manual_seed(1);
        PairNet::build(architecture, kind, dim, Some(side), Device::Cpu)
    }

    fn pictures(count: i64, side: i64) -> Tensor {
        tch::manual_seed(2);
        Tensor::rand([count, 3, side, side], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn every_head_answers_and_learns() {
        for kind in HeadKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            let (trunk, side) = match kind {
                HeadKind::Conv => ("inception-v3", 171),
                HeadKind::Passport => ("vgg11", 32),
                _ => ("densenet121", 32),
            };
            let net = build(trunk, kind, None, side).unwrap();
            net.backbone.params.freeze(&net.backbone.params.blocks()).unwrap();
            let xs = pictures(4, side.into());
            let vectors = net.vectors(0, &xs, Mode::EVAL, Mode::TRAIN).unwrap();
            assert_eq!(vectors.size(), [4, net.dim()], "{kind:?}");
            let (a, b) = (vectors.narrow(0, 0, 2), vectors.narrow(0, 2, 2));
            let logits = net.join(&a, &b, Mode::TRAIN);
            assert_eq!(logits.is_some(), kind.gives_logit(), "{kind:?}");
            let answer =
                logits.unwrap_or_else(|| (&a - &b).square().sum_dim_intlist(1, false, None));
            assert_eq!(answer.size(), [2], "{kind:?}");
            answer.square().sum(None).backward();
            for (key, tensor) in net.params.trainable() {
                assert!(key.starts_with("head."), "{key}");
                assert!(tensor.grad().defined(), "{kind:?}: {key} has no gradient");
            }
        }
    }

    /// The layers by hand, from the head's own tensors.
    #[test]
    fn the_euclidean_tower_is_dense_norm_leaky_twice_then_dense() {
        let net = build("densenet121", HeadKind::Euclidean, Some(6), 32).unwrap();
        let xs = pictures(5, 32);
        let map = net.backbone.map_from(0, &xs, Mode::EVAL);
        let mut expected = net.backbone.features(&map, Mode::EVAL);
        let tensor = |key: String| {
            net.params.iter().find(|param| param.name == key).unwrap().tensor.shallow_clone()
        };
        for number in [1, 2] {
            let dense = |part: &str| tensor(format!("head.dense{number}.{part}"));
            expected = expected.linear(&dense("weight"), Some(&dense("bias")));
            let (mean, variance) =
                (expected.mean_dim(0, true, None), expected.var_dim(0, false, true));
            expected = (&expected - mean) / (variance + 1e-5).sqrt(); // weight 1 and bias 0 at first
            expected = expected.maximum(&(&expected * 0.01));
        }
        let last = |part: &str| tensor(format!("head.last.{part}"));
        let expected = expected.linear(&last("weight"), Some(&last("bias")));
        let found = net.vectors(0, &xs, Mode::EVAL, Mode::TRAIN).unwrap();
        let apart = (found - expected).abs().max().double_value(&[]);
        assert!(apart < 1e-5, "{apart:e}");
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let text = |net: Result<PairNet>| net.unwrap_err().to_string();
        let passport = text(build("densenet121", HeadKind::Passport, None, 32));
        assert!(passport.contains("VGG's classifier"), "{passport}");
        let small = text(build("inception-v3", HeadKind::Conv, None, 75));
        assert!(small.contains("4x4") && small.contains("75 pixels"), "{small}");
        let vector = text(build("openface", HeadKind::Conv, None, 96));
        assert!(vector.contains("4x4"), "{vector}");
        let dim = text(build("densenet121", HeadKind::Concat, Some(8), 32));
        assert!(dim.contains("--embedding-dim 8"), "{dim}");
        let zero = text(build("densenet121", HeadKind::Projection, Some(0), 32));
        assert!(zero.contains("1 to 65536"), "{zero}");
    }
}
