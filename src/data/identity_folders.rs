//! Data sets with one folder of pictures per identity, also in torchvision's layout with `train/` and
//! `val/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::dataset::{FileList, Part, Record};
use super::picture::{Walk, hidden, is_picture, walk_counting};
use crate::words::{count, enumerate};
use crate::{Error, Result};

/// Lists the identities below `root` and their pictures, both sorted.
///
/// # Errors
/// It is not such a folder: says what is there, and what is expected.
pub fn open(root: &Path) -> Result<FileList> {
    let (mut notes, mut ignored) = (Vec::new(), Walk::default());
    let layout = TrainVal::find(root);
    let named = match &layout {
        Some(layout) => layout.list(root, &mut notes, &mut ignored)?,
        None => list_identities(root, &mut notes, &mut ignored)?,
    };
    notes.extend(ignored.note(root));
    let validation = layout.map(|layout| root.join(layout.validation));
    let part = |path: &Path| {
        let held_back = path.starts_with(validation.as_ref()?);
        Some(if held_back { Part::Validation } else { Part::Train })
    };
    let (identities, files): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    let record = |(identity, path): (_, PathBuf)| Record { part: part(&path), path, identity };
    let records = files.into_iter().enumerate();
    let records = records.flat_map(|(owner, files)| files.into_iter().map(move |f| (owner, f)));
    let records = records.map(record).collect();
    Ok(FileList { root: root.to_path_buf(), identities, records, notes })
}

/// The identity folders with pictures and their files, both sorted. Files of other formats are counted
/// in `ignored`.
fn list_identities(
    root: &Path,
    notes: &mut Vec<String>,
    ignored: &mut Walk,
) -> Result<Vec<(String, Vec<PathBuf>)>> {
    const LAYOUT: &str = "expected one folder per identity with its pictures in it, as in \
                          DIR/NAME/picture.png";
    if !root.is_dir() {
        let what = if root.exists() { "is not a folder" } else { "does not exist" };
        return Err(Error::Data(format!("{}: {what}; {LAYOUT}", root.display())));
    }
    let mut named = Vec::new();
    let (mut empty, mut loose) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root).map_err(|source| Error::io(root, source))? {
        let entry = entry.map_err(|source| Error::io(root, source))?;
        let (path, name) = (entry.path(), entry.file_name());
        if hidden(&name) {
            continue;
        }
        if !path.is_dir() {
            match is_picture(&path) {
                true => loose += 1,
                false => ignored.pass_over(&path),
            }
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        let files = walk_counting(&path, ignored)?;
        if files.is_empty() { empty.push(name) } else { named.push((name, files)) }
    }
    if named.is_empty() {
        let found = match (loose, empty.len()) {
            (0, 0) => "it is empty".to_string(),
            (0, folders) => format!("no picture in its {}", count(folders, "folder")),
            (pictures, _) => format!("{} directly in it", count(pictures, "picture")),
        };
        return Err(Error::Data(format!("{}: no identities: {found}; {LAYOUT}", root.display())));
    }
    named.sort();
    empty.sort();
    if !empty.is_empty() {
        let names: Vec<&str> = empty.iter().map(String::as_str).collect();
        let text = format!(
            "{} without pictures ignored: {}",
            count(empty.len(), "folder"),
            enumerate(&names)
        );
        notes.push(text);
    }
    if loose > 0 {
        let which = count(loose, "picture");
        notes.push(format!("{which} directly in {} ignored: no identity", root.display()));
    }
    Ok(named)
}

/// Sub-folders with validation pictures in torchvision's layout.
const VALIDATION: [&str; 3] = ["val", "valid", "validation"];

/// The sub-folders of torchvision's layout: `train/` and `val/`, each with one folder per identity, and
/// perhaps `test/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainVal {
    /// The name of the folder with the training pictures.
    pub train: String,
    /// The name of the folder with the validation pictures.
    pub validation: String,
    /// The name of the folder with the test pictures.
    pub test: Option<String>,
}

impl TrainVal {
    /// The layout of `root`, if it has this one: nothing but these folders.
    pub fn find(root: &Path) -> Option<Self> {
        let (mut train, mut validation, mut test) = (None, None, None);
        for entry in std::fs::read_dir(root).ok()?.flatten() {
            if hidden(&entry.file_name()) || !entry.path().is_dir() {
                continue;
            }
            let name = entry.file_name().into_string().ok()?;
            let part = match name.to_ascii_lowercase().as_str() {
                "train" => &mut train,
                "test" => &mut test,
                other if VALIDATION.contains(&other) => &mut validation,
                _ => return None,
            };
            if part.replace(name).is_some() {
                return None;
            }
        }
        let (train, validation) = (train?, validation?);
        let is_layout = [&train, &validation].iter().all(|part| has_folders(&root.join(part)));
        is_layout.then_some(Self { train, validation, test })
    }

    /// Lists the identities of both parts.
    fn list(
        &self,
        root: &Path,
        notes: &mut Vec<String>,
        ignored: &mut Walk,
    ) -> Result<Vec<(String, Vec<PathBuf>)>> {
        let mut named = BTreeMap::<String, Vec<PathBuf>>::new();
        for part in [&self.train, &self.validation] {
            for (name, files) in list_identities(&root.join(part), notes, ignored)? {
                named.entry(name).or_default().extend(files);
            }
        }
        named.values_mut().for_each(|files| files.sort());
        notes.push(self.note(root));
        Ok(named.into_iter().collect())
    }

    /// Says how `root` was read.
    pub fn note(&self, root: &Path) -> String {
        let Self { train, validation, test } = self;
        let left_out = test.as_ref().map(|test| format!("; {test}/ is left out"));
        let left_out = left_out.unwrap_or_default();
        format!("{}: {train}/ and {validation}/ hold the identities{left_out}", root.display())
    }
}

pub(super) fn has_folders(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.path().is_dir() && !hidden(&entry.file_name()))
    })
}
