//! Visage turns folders of face pictures into a recogniser.
//!
//! It fine-tunes a pretrained trunk on libtorch with metric learning, freezes it, trains a small
//! head, calibrates when to say UNKNOWN, and names a face. No Python runs; its files are PyTorch's.
//!
//! Two faces, embedded with the weights that are part of the crate, and compared:
//!
//! ```
//! use visage::prelude::*;
//!
//! # fn main() -> visage::Result<()> {
//! let model = Recogniser::pretrained(Architecture::OpenFace, Device::Cpu)?;
//! let viewer = Viewer::new(&model.card, FaceSearch::Auto, DetectOptions::default(), Device::Cpu)?;
//! let one = picture::decode("tests/golden/detect/one.png".as_ref())?; // a photo of one face
//! let row = picture::decode("tests/golden/detect/row.png".as_ref())?; // and one of several
//! let (one, row) = (viewer.faces(&one)?, viewer.faces(&row)?); // the largest of each comes first
//! let embeddings = model.embed(&[one[0].clone(), row[0].clone()])?; // [2, 128], of length 1
//! let distance = euclidean(embeddings.row(0), embeddings.row(1)); // 0 to 2; small: one person
//! assert!(distance > 0.5, "{distance}");
//! # Ok(())
//! # }
//! ```
//!
//! Where a library needs nothing of the `visage` program, `default-features = false` leaves out the
//! command line, figures, downloads and TensorBoard files, with what they depend on.
//!
//! ```text
//! picture file -> RGB u8 -> augment -> batch tensor -> trunk -> embedding
//!    embedding -> miner (indices) -> loss (per tuple) -> optimiser step      (train)
//!    embedding -> head -> probability -> threshold -> name or UNKNOWN        (classify)
//!    embedding -> distances -> verification, k-NN, t-SNE                     (evaluate)
//! ```
//!
//! The modules; each imports only from the rows above its own (a test reads this table).
//!
//! | module | contents |
//! |---|---|
//! | [`error`], [`verdict`], [`words`] | error type, same or different, counts, lists and names in sentences |
//! | [`progress`] | messages and progress bars |
//! | [`files`], [`native`] | atomic files, the C++ shim |
//! | [`device`], [`data`], [`models`], [`metric`] | `--device`, pictures and splits, networks, losses and miners |
//! | [`weights`], [`eval`], `figures`, `fetch` | weight files, metrics of embeddings, charts, downloads |
//! | [`detect`] | face detection |
//! | [`recognise`] | model files, and the pipeline from pictures to embeddings and names |
//! | [`train`], [`export`] | training loop, optimisers, schedules, checkpoints, logs; TorchScript and ONNX export |
//! | [`audit`] | checks of data sets |
//! | [`gallery`] | enrolled people: one SQLite file, exact search, a calibrated threshold |
//! | `serve` | the HTTP server over a gallery |
//! | [`prelude`], `cli`, `commands` | what most programs import; the command line, one file per subcommand |

pub mod audit;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod commands;
pub mod data;
pub mod detect;
pub mod device;
pub mod error;
pub mod eval;
pub mod export;
#[cfg(feature = "cli")]
pub mod fetch;
#[cfg(feature = "cli")]
pub mod figures;
pub mod files;
#[cfg(feature = "gallery")]
pub mod gallery;
pub mod metric;
pub mod models;
pub mod native;
pub mod prelude;
pub mod progress;
pub mod recognise;
#[cfg(feature = "serve")]
pub mod serve;
pub mod train;
pub mod verdict;
pub mod weights;
pub mod words;

pub use error::{Error, Result};

/// Runs the `visage` program on the arguments of this process: parse, run, report.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub fn run_command_line() -> std::process::ExitCode {
    let outcome = native::version::check()
        .and_then(|()| cli::parse(std::env::args_os()))
        .map_err(anyhow::Error::from)
        .and_then(commands::run);
    outcome.unwrap_or_else(|error| commands::report(&error))
}

/// The examples of docs/library.md are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/library.md")]
struct LibraryPage;
