//! A run folder is accepted as its best model where a model file is expected.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The best model in the folder of a training run.
pub const BEST: &str = "best.safetensors";

/// The model file of a flag that takes a file or a run folder.
///
/// # Errors
/// A folder without a model.
pub fn model_path(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let best = path.join(BEST);
    match best.is_file() {
        true => Ok(best),
        false => Err(Error::Config(format!(
            "{}: the folder has no {BEST}; give the folder of a training run, or a model file",
            path.display()
        ))),
    }
}
