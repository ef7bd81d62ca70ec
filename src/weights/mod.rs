//! Readers and writers of tensor files, and strict loading with a report.
//!
//! [`WeightFile`] opens any format and reads values on demand; [`TensorFile`] holds all values in
//! memory. [`load`] loads either into a net.

mod checkpoint;
pub mod dtype;
mod file;
mod index;
pub mod load;
pub mod manifest;
mod npz;
mod onnx;
pub(crate) mod onnx_file;
mod onnx_layer;
mod onnx_names;
mod pickle;
pub mod reference;
pub mod rename;
mod run;
pub mod stats;
mod stored;
mod tensor_file;
mod torch_save;
mod trunk;
pub mod verify;
mod write_pth;
mod zip;

pub use file::{MAPPED, WeightFile};
pub use index::WeightFormat;
pub use load::{BESIDE_TRUNK, GALLERY, HEAD, LoadReport};
pub use manifest::Source;
pub use run::{BEST, model_path};
pub use stored::Entry;
pub(crate) use stored::bytes_of;
pub use tensor_file::TensorFile;
pub use trunk::{Bare, Built, load_into};
