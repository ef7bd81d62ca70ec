//! Packed data sets, whose pictures are read by path as if they were files.
//!
//! The picture `NAME/1.jpg` of the record file `faces.rec` has the path `faces.rec/NAME/1.jpg`. What takes
//! paths of pictures (the detector's and the embedding pipeline) reads these alike.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use super::dataset::Dataset;
use crate::{Error, Result};

/// The data sets that this process has opened.
static MOUNTED: RwLock<Vec<Arc<Mounted>>> = RwLock::new(Vec::new());

/// A packed data set, or a list of picture files.
#[derive(Debug)]
struct Mounted {
    /// The file that was opened.
    path: PathBuf,
    dataset: Arc<dyn Dataset>,
    /// The number of each picture by its path; made when the first is asked for.
    numbers: OnceLock<HashMap<PathBuf, u32>>,
}

impl Mounted {
    fn number(&self, path: &Path) -> Option<usize> {
        let paths = || self.dataset.as_ref().paths().zip(0..).collect();
        self.numbers.get_or_init(paths).get(path).map(|&number| number as usize)
    }
}

/// Makes the pictures of a data set readable by their paths. A data set of the same name is replaced.
pub(super) fn mount(path: &Path, dataset: Arc<dyn Dataset>) {
    let new = Mounted { path: path.to_path_buf(), dataset, numbers: OnceLock::new() };
    let mut all = MOUNTED.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.retain(|mounted| mounted.path != path);
    all.push(Arc::new(new));
}

fn find(is_it: impl Fn(&Mounted) -> bool) -> Option<Arc<Mounted>> {
    let all = MOUNTED.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.iter().find(|mounted| is_it(mounted)).cloned()
}

/// The content of a picture file, or of a picture of a mounted data set.
///
/// # Errors
/// Names the path.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    match find(|mounted| path.starts_with(&mounted.path)) {
        None => std::fs::read(path).map_err(|source| Error::io(path, source)),
        Some(mounted) => match mounted.number(path) {
            Some(number) => mounted.dataset.content(number).map(std::borrow::Cow::into_owned),
            None => Err(Error::io(path, std::io::ErrorKind::NotFound.into())),
        },
    }
}

/// Whether a path is that of a picture in a packed data set.
pub(super) fn is_inside(path: &Path) -> bool {
    find(|mounted| path != mounted.path && path.starts_with(&mounted.path)).is_some()
}

/// Whether there is a picture file or a picture of a mounted data set at `path`.
pub(super) fn exists(path: &Path) -> bool {
    match find(|mounted| path.starts_with(&mounted.path)) {
        None => path.is_file(),
        Some(mounted) => mounted.number(path).is_some(),
    }
}

/// The pictures of the data set that was opened from `path`.
pub(super) fn list(path: &Path) -> Option<Vec<PathBuf>> {
    find(|mounted| mounted.path == path).map(|mounted| mounted.dataset.as_ref().paths().collect())
}

/// The name of the identity of a picture of a mounted data set.
pub(super) fn owner(path: &Path) -> Option<String> {
    let mounted = find(|mounted| mounted.number(path).is_some())?;
    let record = mounted.dataset.record(mounted.number(path)?)?;
    mounted.dataset.identities().get(record.identity).cloned()
}
