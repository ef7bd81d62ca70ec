//! Data sets: pictures with labels.

use std::borrow::Cow;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::{Error, Result};

/// Part of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Training.
    Train,
    /// Validation: chooses the best epoch and the thresholds.
    Validation,
}

impl Part {
    /// Its name in split files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

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

/// A set of labelled pictures. To add a kind of data set, implement this and list it in
/// [`formats::open`](super::formats::open): every trainer then takes it.
pub trait Dataset: Debug + Send + Sync {
    /// The folder or file it was opened from.
    fn root(&self) -> &Path;

    /// The names of the identities, each once.
    fn identities(&self) -> &[String];

    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are no pictures.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A picture; `None` behind the last one. They are in the order of their identities. Either all have
    /// a part or none has.
    fn record(&self, number: usize) -> Option<Record>;

    /// What is remarkable about the data set, one sentence each.
    fn notes(&self) -> &[String];

    /// The encoded picture (PNG, JPEG, ...) of a record; any thread may read.
    ///
    /// # Errors
    /// Names what cannot be read.
    fn content(&self, number: usize) -> Result<Cow<'_, [u8]>>;

    /// The part of a decoded picture that is used: all of it, unless the data set knows where a face is.
    /// `number` is that of its record.
    fn part(&self, number: usize, picture: RgbImage) -> RgbImage {
        let _ = number;
        picture
    }
}

impl dyn Dataset + '_ {
    /// The paths of the pictures, in order.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.len()).filter_map(|number| Some(self.record(number)?.path))
    }
}

/// A data set whose pictures are files: what a kind of data set makes of its folders and lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileList {
    /// See [`Dataset::root`].
    pub root: PathBuf,
    /// See [`Dataset::identities`].
    pub identities: Vec<String>,
    /// See [`Dataset::record`].
    pub records: Vec<Record>,
    /// See [`Dataset::notes`].
    pub notes: Vec<String>,
}

impl Dataset for FileList {
    fn root(&self) -> &Path {
        &self.root
    }

    fn identities(&self) -> &[String] {
        &self.identities
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn record(&self, number: usize) -> Option<Record> {
        self.records.get(number).cloned()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn content(&self, number: usize) -> Result<Cow<'_, [u8]>> {
        let record = self.records.get(number).ok_or_else(|| missing(&self.root, number))?;
        let content = std::fs::read(&record.path);
        content.map(Cow::Owned).map_err(|source| Error::io(&record.path, source))
    }
}

/// That there is no such picture.
pub(super) fn missing(root: &Path, number: usize) -> Error {
    Error::Data(format!("{}: no picture {number}", root.display()))
}
