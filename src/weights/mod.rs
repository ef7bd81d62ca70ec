//! Readers and writers of tensor files, and the report of what fitted.

pub mod load;
pub mod manifest;
mod tensor_file;

pub use load::LoadReport;
pub use manifest::Source;
pub use tensor_file::TensorFile;

/// Prefix of a classifier head's keys in a model file (`classifier.weight`, `classifier.bias`).
pub const HEAD: &str = "classifier.";
/// Prefix of the training embeddings that a classifier's model file carries.
pub const GALLERY: &str = "gallery.";
