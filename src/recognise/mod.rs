//! A trained model at work: the model file, and pictures to embeddings to names.

pub mod model_file;
pub mod recogniser;

pub use model_file::{Calibration, DataCard, GalleryFace, ModelCard, ModelKind, Unknown};
pub use recogniser::{Answer, Classifier, Gallery, Head, Recogniser};
