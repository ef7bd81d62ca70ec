//! A trained model at work: the model file, and pictures to embeddings to names.

mod comparison;
pub mod embedder;
pub mod face_cuts;
mod identifier;
pub mod model_file;
pub mod pair_model;
pub mod pipeline;
pub mod recogniser;
pub mod reply;
pub mod runs;
mod viewer;

pub use comparison::Comparison;
pub use embedder::{Embedder, embed_pictures, embed_stored};
pub use identifier::Identifier;
pub use model_file::{
    Calibration, DataCard, GalleryFace, MeasuredFpir, ModelCard, ModelKind, PairCard,
    StrangerSource, Unknown,
};
pub use pair_model::PairModel;
pub use recogniser::{Answer, Classifier, Head, KnownFaces, Reason, Recogniser};
pub use viewer::{Decoded, FaceSearch, Faces, Located, View, Viewer};
