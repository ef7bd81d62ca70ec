//! Networks, one file per architecture, and the layers they share.
//!
//! A [`Backbone`] carries everything a caller must know to use a trunk: the net and its parameters,
//! the input size, the normalisation and the embedding's length. To add one: a file with a type
//! that implements [`Trunk`], a variant of [`Architecture`], and its arm in [`Backbone::new`].

pub mod layers;
pub mod openface;
pub mod params;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

pub use layers::Mode;
pub use params::Params;

/// A network from pictures to embeddings.
pub trait Trunk: std::fmt::Debug + Send {
    /// `[N, 3, H, W]`, already normalised, to `[N, D]`.
    fn forward(&self, pictures: &Tensor, mode: Mode) -> Tensor;
}

/// The architectures Visage knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// OpenFace nn4.small2: 3.7 M parameters, 96x96 in, 128-d out on the unit sphere
    #[value(name = "openface")]
    #[serde(rename = "openface")]
    OpenFace,
}

impl Architecture {
    /// The name used by `--backbone` and in model files.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenFace => "openface",
        }
    }
}

/// How a picture becomes a network's input: resize to `size` x `size`, scale to [0, 1], then
/// (x - mean) / std per RGB channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Side of the square input in pixels.
    pub size: u32,
    /// Subtracted from each channel.
    pub mean: [f64; 3],
    /// Divides each channel.
    pub std: [f64; 3],
}

/// A trunk with all that belongs to it.
#[derive(Debug)]
pub struct Backbone {
    /// Which architecture it is.
    pub architecture: Architecture,
    /// Its input size and normalisation.
    pub input: InputSpec,
    /// The length of its embeddings.
    pub embedding_dim: i64,
    /// Its tensors under PyTorch's keys.
    pub params: Params,
    trunk: Box<dyn Trunk>,
    device: Device,
}

impl Backbone {
    /// Builds the architecture with random weights (seed them with `tch::manual_seed`).
    pub fn new(architecture: Architecture, device: Device) -> Self {
        match architecture {
            Architecture::OpenFace => {
                let (trunk, params) = Params::collect(device, |root| {
                    Box::new(openface::OpenFace::new(root, device)) as Box<dyn Trunk>
                });
                let input =
                    InputSpec { size: openface::INPUT as u32, mean: [0.0; 3], std: [1.0; 3] };
                let embedding_dim = openface::EMBEDDING;
                Self { architecture, input, embedding_dim, params, trunk, device }
            }
        }
    }

    /// The device its tensors live on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// RGB pictures `[N, 3, S, S]` in [0, 1] to embeddings `[N, D]`, float32.
    pub fn embed(&self, pictures: &Tensor, mode: Mode) -> Tensor {
        self.trunk.forward(&self.normalise(pictures), mode).to_kind(Kind::Float)
    }

    fn normalise(&self, pictures: &Tensor) -> Tensor {
        if self.input.mean == [0.0; 3] && self.input.std == [1.0; 3] {
            return pictures.shallow_clone();
        }
        let channel = |values: &[f64; 3]| {
            Tensor::from_slice(values)
                .to_kind(Kind::Float)
                .to_device(pictures.device())
                .view([1, 3, 1, 1])
        };
        (pictures - channel(&self.input.mean)) / channel(&self.input.std)
    }
}
