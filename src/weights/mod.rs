//! Readers and writers of tensor files, and the report of what fitted.
//!
//! [`WeightFile`] opens any format by its content and reads values when asked; [`TensorFile`] holds
//! them all. [`load`] fits either to a net.

mod checkpoint;
pub mod dtype;
mod file;
mod index;
pub mod load;
pub mod manifest;
mod npz;
mod pickle;
pub mod reference;
pub mod rename;
pub mod stats;
mod stored;
mod tensor_file;
mod torch_save;
pub mod verify;
mod write_pth;
mod zip;

pub use file::WeightFile;
pub use index::Format;
pub use load::LoadReport;
pub use manifest::Source;
pub use stored::Entry;
pub use tensor_file::TensorFile;

/// Prefix of a classifier head's keys in a model file (`classifier.weight`, `classifier.bias`).
pub const HEAD: &str = "classifier.";
/// Prefix of the training embeddings that a classifier's model file carries.
pub const GALLERY: &str = "gallery.";
/// Prefixes of all that a model file holds beside its trunk: a classifier's, and a pair network's head.
pub const BESIDE_TRUNK: [&str; 3] = [HEAD, GALLERY, "head."];
