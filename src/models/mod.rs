//! Networks, one file per architecture, and shared layers.
//!
//! A [`Backbone`] has all that is needed to use a trunk: the network and its parameters, input size,
//! normalisation and embedding size. To add one: a file with a type that implements [`Trunk`], a
//! variant and a row in `architecture.rs`, and its arm in `build`.

pub mod architecture;
mod backbone;
mod compute;
pub mod densenet;
pub mod dlib_resnet;
pub mod facenet;
pub mod heads;
pub mod inception_v3;
pub mod input;
pub mod iresnet;
pub mod layers;
pub mod mobilefacenet;
pub mod openface;
pub mod params;
pub mod vgg;

use tch::Tensor;

pub use architecture::{Architecture, ArchitectureInfo, KnownWeights};
pub use backbone::{Backbone, BuildOptions, EMBEDDING_LAYER, Stage};
pub use compute::Compute;
pub use heads::{HEAD_PREFIX, HeadKind, PairNet};
pub use input::{InputSizes, InputSpec};
pub use layers::Mode;
pub use params::{Param, Params, is_below};

/// A network from pictures to embeddings, as a sequence of stages: the output of the stages below the
/// first trained one needs no gradient and can be cached.
pub trait Trunk: std::fmt::Debug + Send {
    /// The blocks ([`Params::blocks`]) of each stage, in order. Every parameter except the classifier's
    /// is in exactly one.
    fn stages(&self) -> Vec<Vec<String>>;

    /// Runs one stage: the first takes normalised pictures `[N, 3, H, W]`, others the output of the one
    /// before. The last returns the trunk's output, `[N, C, H', W']`, or `[N, D]` if the trunk ends in
    /// a vector.
    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor;

    /// The trunk's output to features `[N, D]`.
    fn features(&self, map: &Tensor) -> Tensor;

    /// Features to the L2-normalised embedding, in float32.
    fn unit(&self, features: &Tensor) -> Tensor {
        layers::normalize(features)
    }

    /// The trunk's output through the network's own classifier, `[N, classes]`; `None` without
    /// classifier.
    fn classify(&self, _map: &Tensor, _mode: Mode) -> Option<Tensor> {
        None
    }

    /// Normalised pictures through that classifier.
    fn logits(&self, pictures: &Tensor, mode: Mode) -> Option<Logits> {
        let stages = 0..self.stages().len();
        let map = stages.fold(pictures.shallow_clone(), |xs, at| self.run(at, &xs, mode));
        self.classify(&map, mode).map(|classes| Logits { classes, auxiliary: None })
    }
}

/// Output of a network's own classifier.
#[derive(Debug)]
pub struct Logits {
    /// `[N, classes]`, before the softmax.
    pub classes: Tensor,
    /// `[N, classes]` of InceptionV3's auxiliary head in training.
    pub auxiliary: Option<Tensor>,
}
