//! Data sets: pictures with labels.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::celeba::{Celeba, CelebaFiles};
use super::folder::Folder;
use super::picture;
use super::split::Part;
use crate::Result;

/// One picture of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its file, or its name inside the data set: what messages, splits and tables say.
    pub path: PathBuf,
    /// Index of its identity.
    pub identity: usize,
    /// The part of the split that the data set itself assigns.
    pub part: Option<Part>,
}

/// A set of labelled pictures. To add a kind of data set, implement this and list it in [`open`]: every
/// trainer then takes it.
pub trait Dataset: Debug + Send + Sync {
    /// The folder or file it was opened from.
    fn root(&self) -> &Path;

    /// The names of the identities, each once.
    fn identities(&self) -> &[String];

    /// The pictures, in the order of their identities. Either all have a part or none has.
    fn records(&self) -> &[Record];

    /// What is remarkable about the data set, one sentence each.
    fn notes(&self) -> &[String];

    /// The encoded picture (PNG, JPEG, ...); any thread may read.
    ///
    /// # Errors
    /// Names what cannot be read.
    fn content(&self, record: &Record) -> Result<Vec<u8>> {
        picture::read(&record.path)
    }
}

/// Opens the data set at `root`: CelebA under its official names, or else one folder per identity.
///
/// # Errors
/// There is no data set, or its lists cannot be read. No picture is decoded.
pub fn open(root: &Path) -> Result<Arc<dyn Dataset>> {
    Ok(match CelebaFiles::find(root) {
        Ok(files) => Arc::new(Celeba::open(&files)?),
        Err(_) => Arc::new(Folder::open(root)?),
    })
}
