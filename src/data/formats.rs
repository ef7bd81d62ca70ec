//! The kinds of data sets that can be opened.

use std::path::Path;
use std::sync::Arc;

use super::celeba::{self, CelebaFiles};
use super::dataset::Dataset;
use super::identity_folders;
use crate::Result;

/// Opens the data set at `root`: CelebA under its official names, or else one folder per identity.
///
/// # Errors
/// There is no data set, or its lists cannot be read. No picture is decoded.
pub fn open(root: &Path) -> Result<Arc<dyn Dataset>> {
    Ok(match CelebaFiles::find(root) {
        Ok(files) => Arc::new(celeba::open(&files)?),
        Err(_) => Arc::new(identity_folders::open(root)?),
    })
}
