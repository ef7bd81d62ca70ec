//! Visage turns folders of face pictures into a recogniser.
//!
//! It fine-tunes a pretrained trunk on libtorch with metric learning, freezes it, trains a small
//! head, calibrates when to say UNKNOWN, and names a face. No Python runs; its files are PyTorch's.
//!
//! ```text
//! picture file -> RGB u8 -> augment -> batch tensor -> trunk -> embedding
//!    embedding -> miner (indices) -> loss (per tuple) -> optimiser step      (train)
//!    embedding -> head -> probability -> threshold -> name or UNKNOWN        (classify)
//!    embedding -> distances -> verification, k-NN, t-SNE                     (evaluate)
//! ```
//!
//! The rooms, in the order in which they may import each other (a test keeps it so):
//!
//! | room | what lives there |
//! |---|---|
//! | [`error`], [`verdict`], [`files`], [`native`], [`device`] | the error type, same or different, atomic files, the C++ shim, `--device` |
//! | [`data`], [`models`], [`weights`], [`metric`] | pictures and splits, networks, tensor files, losses and miners |
//! | [`fetch`] | data sets and weights over the network, and archives unpacked |
//! | [`eval`], [`figures`], [`detect`] | pure functions over embeddings, pictures of the results, faces on photos |
//! | [`audit`] | what is wrong with a data set |
//! | [`recognise`] | the model file, and a loaded model naming faces |
//! | [`train`], [`export`] | the loop, optimisers, schedules, checkpoints, logs; TorchScript and ONNX files |
//! | [`cli`], [`commands`] | the command line, one file a subcommand |

pub mod audit;
pub mod cli;
pub mod commands;
pub mod data;
pub mod detect;
pub mod device;
pub mod error;
pub mod eval;
pub mod export;
pub mod fetch;
pub mod figures;
pub mod files;
pub mod metric;
pub mod models;
pub mod native;
pub mod recognise;
pub mod train;
pub mod verdict;
pub mod weights;
pub mod words;

pub use error::{Error, Result};
