//! The data set of a command, with or without `--data`.

use std::path::{Path, PathBuf};

use super::formats;
use super::manifest::dataset;
use crate::{Error, Result};

/// A data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its folder or file.
    pub path: PathBuf,
    /// What a report calls it: the folder as given, or the title and the folder of the default.
    pub name: String,
}

/// Decides which data to use: the folder or file of `--data`; else `data/avengers` below `project`; else the
/// ORL faces in `data/orl`.
///
/// # Errors
/// That of `--data` is missing, or none is given and neither data set is there.
pub fn resolve(flag: Option<&Path>, project: &Path) -> Result<Source> {
    if let Some(path) = flag {
        if !formats::exists(path) {
            let what = if path.exists() { "is not a data set" } else { "does not exist" };
            let text = format!("--data {}: {what}; expected {}", path.display(), formats::KINDS);
            return Err(Error::Config(text));
        }
        let name = path.display().to_string();
        return Ok(Source { path: path.to_path_buf(), name });
    }
    let avengers = dataset("avengers")?;
    let path = locate(project).ok_or_else(|| {
        Error::Config(format!(
            "no data: give --data DIR (one folder of pictures per identity), or download the ORL faces \
             (400 pictures of 40 people) with `visage fetch orl`; for the Avengers set, {}",
            avengers.how
        ))
    })?;
    let title = dataset(&path.file_name().unwrap_or_default().to_string_lossy())?.title;
    let name = format!("{title} in {} (--data DIR names another folder)", path.display());
    Ok(Source { path, name })
}

/// The data a command uses without `--data`.
pub fn locate(project: &Path) -> Option<PathBuf> {
    let folder = |name| project.join("data").join(name);
    ["avengers", "orl"].map(folder).into_iter().find(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;

    use super::*;

    #[test]
    fn the_flag_comes_first_and_must_be_a_folder() {
        let project = tempfile::tempdir().unwrap();
        create_dir_all(project.path().join("data/avengers")).unwrap();
        let faces = project.path().join("faces");
        let error = resolve(Some(&faces), project.path()).unwrap_err().to_string();
        assert!(error.contains("--data") && error.contains("does not exist"), "{error}");
        create_dir_all(&faces).unwrap();
        let source = resolve(Some(&faces), project.path()).unwrap();
        assert_eq!((source.name, source.path), (faces.display().to_string(), faces));
    }

    #[test]
    fn avengers_come_before_orl_and_without_both_the_way_to_data_is_named() {
        let project = tempfile::tempdir().unwrap();
        let error = resolve(None, project.path()).unwrap_err().to_string();
        assert!(error.contains("--data DIR") && error.contains("visage fetch orl"), "{error}");
        for name in ["orl", "avengers"] {
            let path = project.path().join("data").join(name);
            create_dir_all(&path).unwrap();
            let source = resolve(None, project.path()).unwrap();
            assert_eq!(source.path, path);
            assert!(source.name.contains(" in ") && source.name.contains("--data DIR"));
        }
    }
}
