//! The kinds of data sets that can be opened.

use std::path::Path;
use std::sync::Arc;

use super::celeba::{self, CelebaFiles};
use super::dataset::Dataset;
use super::identity_folders;
use super::mounted;
use super::picture_list;
use super::record_file::RecordFile;
use super::shards::{self, Shards};
use crate::Result;

/// What a data set may be, for messages.
pub const KINDS: &str = "a folder with one folder per identity, a record file (X.rec), WebDataset shards \
                         ('X-{000..003}.tar') or a table (X.csv)";

/// A data set in one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packed {
    /// MXNet's record file.
    Records,
    /// WebDataset shards.
    Shards,
    /// A table of paths and labels.
    Table,
}

impl Packed {
    fn of(path: &Path) -> Option<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str())?;
        let kind = match ending.to_ascii_lowercase().as_str() {
            "rec" => Self::Records,
            "tar" => Self::Shards,
            "csv" => Self::Table,
            _ => return None,
        };
        (!path.is_dir()).then_some(kind)
    }

    fn open(self, path: &Path) -> Result<Arc<dyn Dataset>> {
        Ok(match self {
            Self::Records => Arc::new(RecordFile::open(path)?),
            Self::Shards => Arc::new(Shards::open(path)?),
            Self::Table => Arc::new(picture_list::open(path)?),
        })
    }
}

/// Opens the data set at `root`: a record file (`.rec`), shards (`.tar`) or a table (`.csv`); CelebA under its official names; or else one
/// folder per identity. The pictures of a file can then be read by their paths, too.
///
/// # Errors
/// There is no data set, or its lists cannot be read. No picture is decoded.
pub fn open(root: &Path) -> Result<Arc<dyn Dataset>> {
    if let Some(kind) = Packed::of(root) {
        let dataset = kind.open(root)?;
        mounted::mount(root, dataset.clone());
        return Ok(dataset);
    }
    Ok(match CelebaFiles::find(root) {
        Ok(files) => Arc::new(celeba::open(&files)?),
        Err(_) => Arc::new(identity_folders::open(root)?),
    })
}

/// Opens the data set at `path` if it is a file, so that its pictures can be read by their paths.
///
/// # Errors
/// As for [`open`].
pub fn open_packed(path: &Path) -> Result<Option<Arc<dyn Dataset>>> {
    Packed::of(path).map(|_| open(path)).transpose()
}

/// Whether there could be a data set at `path`.
pub fn exists(path: &Path) -> bool {
    match Packed::of(path) {
        None => path.is_dir(),
        Some(Packed::Shards) => {
            let first = shards::expand(path).ok().and_then(|paths| paths.into_iter().next());
            first.is_some_and(|first| first.is_file())
        }
        Some(_) => path.is_file(),
    }
}
