//! The data set of a command, with or without `--data`.

use std::path::{Path, PathBuf};

use super::manifest::dataset;
use super::orl::fetch_orl;
use crate::{Error, Result};

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its folder.
    pub path: PathBuf,
    /// Its name: the title in the manifest, or the folder as given.
    pub name: String,
    /// A message if it was not given by the user.
    pub note: Option<String>,
}

/// The folder of `--data`; or `data/avengers` below `project` if it exists; or the ORL faces in
/// `data/orl`, downloaded if necessary.
///
/// # Errors
/// The folder of `--data` is missing, or the download fails.
pub fn resolve(flag: Option<&Path>, project: &Path) -> Result<Source> {
    decide(flag, project, fetch_orl)
}

/// The data set without `--data` and without downloading.
pub fn locate(project: &Path) -> Option<PathBuf> {
    let folder = |name| project.join("data").join(name);
    ["avengers", "orl"].map(folder).into_iter().find(|path| path.is_dir())
}

fn decide(
    flag: Option<&Path>,
    project: &Path,
    fetch: impl FnOnce(&Path) -> Result<()>,
) -> Result<Source> {
    if let Some(path) = flag {
        if !path.is_dir() {
            let what = if path.exists() { "is not a folder" } else { "does not exist" };
            let text = format!(
                "--data {}: {what}; expected a folder with one folder per identity",
                path.display()
            );
            return Err(Error::Config(text));
        }
        let name = path.display().to_string();
        return Ok(Source { path: path.to_path_buf(), name, note: None });
    }
    let (avengers, orl) = (dataset("avengers")?, dataset("orl")?);
    let folder = |name: &str| project.join("data").join(name);
    let path = folder(&avengers.name);
    if path.is_dir() {
        let note = format!("Data: {} in {}", avengers.title, path.display());
        return Ok(Source { path, name: avengers.title, note: Some(note) });
    }
    let path = folder(&orl.name);
    let fetched = !path.is_dir();
    if fetched {
        fetch(&path)?;
    }
    let note = format!(
        "Data: {} in {}{}, because there is neither --data DIR nor data/avengers. For the Avengers \
         set, {}",
        orl.title,
        path.display(),
        if fetched { ", just downloaded with pip" } else { "" },
        avengers.how
    );
    Ok(Source { path, name: orl.title, note: Some(note) })
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;

    fn no_fetch(_: &Path) -> Result<()> {
        panic!("nothing is to be fetched")
    }

    #[test]
    fn the_flag_comes_first_and_must_be_a_folder() {
        let project = tempfile::tempdir().unwrap();
        create_dir_all(project.path().join("data/avengers")).unwrap();
        let faces = project.path().join("faces");
        let error = decide(Some(&faces), project.path(), no_fetch).unwrap_err().to_string();
        assert!(error.contains("--data") && error.contains("does not exist"), "{error}");
        create_dir_all(&faces).unwrap();
        let source = decide(Some(&faces), project.path(), no_fetch).unwrap();
        assert_eq!((source.path, source.note), (faces, None));
    }

    #[test]
    fn avengers_come_before_orl_and_orl_is_fetched_once() {
        let project = tempfile::tempdir().unwrap();
        let fetch = |into: &Path| create_dir_all(into).map_err(|error| Error::io(into, error));
        let first = decide(None, project.path(), fetch).unwrap();
        assert_eq!(first.path, project.path().join("data/orl"));
        let note = first.note.unwrap();
        assert!(note.contains("just downloaded") && note.contains("rawatjitesh"), "{note}");

        let second = decide(None, project.path(), no_fetch).unwrap();
        assert_eq!(second.path, first.path);
        assert!(!second.note.unwrap().contains("fetched"));

        create_dir_all(project.path().join("data/avengers")).unwrap();
        let third = decide(None, project.path(), no_fetch).unwrap();
        assert_eq!(third.path, project.path().join("data/avengers"));
    }

    #[test]
    fn a_failed_fetch_is_the_error() {
        let project = tempfile::tempdir().unwrap();
        let fail = |_: &Path| Err(Error::Data("no network".into()));
        assert_eq!(decide(None, project.path(), fail).unwrap_err().to_string(), "no network");
    }
}
