//! A trained model at work: the model file, and pictures to embeddings to names.

mod comparison;
pub mod embedder;
pub mod model_file;
pub mod pair_model;
mod photo;
pub mod recogniser;
pub mod runs;

pub use comparison::Comparison;
pub use embedder::Embedder;
pub use model_file::{Calibration, DataCard, GalleryFace, ModelCard, ModelKind, PairCard, Unknown};
pub use pair_model::PairModel;
pub use photo::{FaceSearch, Part, View, Viewer};
pub use recogniser::{Answer, Classifier, Gallery, Head, Recogniser};
