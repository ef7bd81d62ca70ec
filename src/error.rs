//! The one error type of the library. Every variant names the thing that is wrong (a file, a
//! tensor, a flag) and, where Visage knows it, what to do about it.

use std::path::{Path, PathBuf};

/// What can go wrong inside the library.
///
/// The text of an error is complete without its source chain: it is printed once, as
/// `error: {err}`, and must let its reader act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written, created or renamed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not a picture that can be decoded.
    #[error("{}: cannot be read as a picture: {reason}", path.display())]
    Picture {
        /// The picture file.
        path: PathBuf,
        /// The decoder's reason.
        reason: String,
    },
    /// A dataset folder, split file or sampler setting that cannot work.
    #[error("{0}")]
    Data(String),
    /// A weight file that does not fit, with everything that is wrong about it.
    #[error("{}: {reason}", path.display())]
    Weights {
        /// The weight file.
        path: PathBuf,
        /// Every mismatch, one a line.
        reason: String,
    },
    /// A setting (flag or configuration key) with an impossible value.
    #[error("{0}")]
    Config(String),
    /// A device that was asked for and cannot be used.
    #[error("{0}")]
    Device(String),
    /// A signal ended a training, which can go on.
    #[error("stopped by a signal; go on with: {resume}")]
    Interrupted {
        /// The signal's number.
        signal: u8,
        /// The command that goes on.
        resume: String,
    },
    /// A training went wrong for good. Its run folder has the best model before that.
    #[error("the training stopped in {cause}; the best model, of epoch {best_epoch}, is {}", model.display())]
    Stopped {
        /// The epoch, and what was wrong with it.
        cause: String,
        /// The best model.
        model: PathBuf,
        /// Its epoch; 0 is the untouched start.
        best_epoch: usize,
    },
    /// An error raised by libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with the path it happened on.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A weight-file error.
    pub fn weights(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Weights { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }
}
