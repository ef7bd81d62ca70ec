//! Networks, one file per architecture, and the layers they share.
//!
//! A [`Backbone`] carries everything a caller must know to use a trunk: the net and its parameters,
//! the input size, the normalisation and the embedding's length. To add one: a file with a type
//! that implements [`Trunk`], a variant and a row in `architecture.rs`, and its arm in `build`.

pub mod architecture;
mod backbone;
mod compute;
pub mod densenet;
pub mod facenet;
pub mod heads;
pub mod inception_v3;
pub mod input;
pub mod layers;
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

/// A network from pictures to embeddings, as a row of stages: what is below the first stage that
/// trains needs no gradient, and may be computed once.
pub trait Trunk: std::fmt::Debug + Send {
    /// The blocks ([`Params::blocks`]) of each stage, in the order they run. Every parameter but
    /// the classifier's is in exactly one.
    fn stages(&self) -> Vec<Vec<String>>;

    /// One stage: the first takes pictures `[N, 3, H, W]`, already normalised, each other what the
    /// one before gave. The last gives the trunk's map, `[N, C, H', W']`, or `[N, D]` where the
    /// trunk itself ends in a vector.
    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor;

    /// The map to features `[N, D]` of any length.
    fn features(&self, map: &Tensor) -> Tensor;

    /// Features to the embedding: scaled to length one, in float32.
    fn unit(&self, features: &Tensor) -> Tensor {
        layers::normalize(features)
    }

    /// The map through the classifier that the network was published with, `[N, classes]`; none
    /// where it was built without one.
    fn classify(&self, _map: &Tensor, _mode: Mode) -> Option<Tensor> {
        None
    }

    /// Pictures, already normalised, through that classifier.
    fn logits(&self, pictures: &Tensor, mode: Mode) -> Option<Logits> {
        let stages = 0..self.stages().len();
        let map = stages.fold(pictures.shallow_clone(), |xs, at| self.run(at, &xs, mode));
        self.classify(&map, mode).map(|classes| Logits { classes, auxiliary: None })
    }
}

/// What a network's own classifier answers.
#[derive(Debug)]
pub struct Logits {
    /// `[N, classes]`, before the softmax.
    pub classes: Tensor,
    /// `[N, classes]` of InceptionV3's auxiliary head in training.
    pub auxiliary: Option<Tensor>,
}
