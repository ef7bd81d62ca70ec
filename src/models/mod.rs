//! Networks, one file per architecture, and the layers they share.
//!
//! A [`Backbone`] carries everything a caller must know to use a trunk: the net and its parameters,
//! the input size, the normalisation and the embedding's length. To add one: a file with a type
//! that implements [`Trunk`], a variant and a row in `architecture.rs`, and its arm in `build`.

pub mod architecture;
mod backbone;
pub mod densenet;
pub mod facenet;
pub mod inception_v3;
pub mod input;
pub mod layers;
pub mod openface;
pub mod params;
pub mod vgg;

use tch::Tensor;

pub use architecture::{Architecture, ArchitectureInfo, KnownWeights};
pub use backbone::{Backbone, BuildOptions, EMBEDDING_LAYER, Stage};
pub use input::{InputSizes, InputSpec};
pub use layers::Mode;
pub use params::Params;

/// A network from pictures to embeddings, as a row of stages: what is below the first stage that
/// trains needs no gradient, and may be computed once.
pub trait Trunk: std::fmt::Debug + Send {
    /// The blocks ([`Params::blocks`]) of each stage, in the order they run. Every parameter but
    /// the classifier's is in exactly one.
    fn stages(&self) -> Vec<Vec<String>>;

    /// One stage: the first takes pictures `[N, 3, H, W]`, already normalised, each other what the
    /// one before gave, and the last gives embeddings `[N, D]` of length one.
    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor;

    /// The same pictures through the classifier that the network was published with; none where it
    /// was built without one.
    fn logits(&self, _pictures: &Tensor, _mode: Mode) -> Option<Logits> {
        None
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
