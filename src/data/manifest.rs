//! The manifest of data sets, `data/datasets.toml`.

use serde::Deserialize;

use crate::{Error, Result};

const MANIFEST: &str = include_str!("../../data/datasets.toml");

/// A data set of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedDataset {
    /// Short name, and its folder below `data/`.
    pub name: String,
    /// Display name.
    pub title: String,
    /// Description of the pictures.
    pub what: String,
    /// Number of people.
    pub identities: usize,
    /// Number of pictures, if it is fixed.
    pub pictures: Option<usize>,
    /// Source and credits.
    pub source: String,
    /// Terms of use.
    pub terms: String,
    /// Layout of its files, from the project's folder.
    pub layout: String,
    /// How to get it.
    pub how: String,
    /// Whether Visage can download it without arguments.
    pub fetched: bool,
    /// [Fingerprint](super::folder::fingerprint) of its files, if it is downloaded.
    pub sha256: Option<String>,
    /// OWNER/NAME on Kaggle.
    pub kaggle: Option<String>,
    /// URLs of archives, tried in order.
    #[serde(default)]
    pub urls: Vec<String>,
    /// SHA-256 of the archive, if known.
    pub archive_sha256: Option<String>,
    /// The folder within the archive: the first of these that exists.
    #[serde(default)]
    pub inside: Vec<String>,
}

/// A single file, such as a list of pairs or weights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleFile {
    /// Short name.
    pub name: String,
    /// Display name.
    pub title: String,
    /// File name.
    pub file: String,
    /// Target folder, from the project's folder.
    pub folder: String,
    /// URLs, tried in order; empty if it must be downloaded by hand.
    #[serde(default)]
    pub urls: Vec<String>,
    /// How to download it by hand.
    pub how: Option<String>,
    /// Its SHA-256, or a prefix of it.
    pub sha256: Option<String>,
    /// Credits.
    pub source: String,
    /// Terms of use.
    pub terms: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    dataset: Vec<PublishedDataset>,
    #[serde(default)]
    file: Vec<SingleFile>,
}

/// All data sets of the manifest, in order.
///
/// # Errors
/// The embedded manifest is invalid, which a test excludes.
pub fn datasets() -> Result<Vec<PublishedDataset>> {
    Ok(manifest()?.dataset)
}

/// The single files of the manifest.
///
/// # Errors
/// As [`datasets`].
pub fn files() -> Result<Vec<SingleFile>> {
    Ok(manifest()?.file)
}

fn manifest() -> Result<Manifest> {
    toml::from_str(MANIFEST).map_err(|error| Error::Data(format!("data/datasets.toml: {error}")))
}

/// The data set of this short name.
///
/// # Errors
/// There is none; lists the known ones.
pub fn dataset(name: &str) -> Result<PublishedDataset> {
    let mut all = datasets()?;
    match all.iter().position(|known| known.name == name) {
        Some(place) => Ok(all.swap_remove(place)),
        None => {
            let names: Vec<&str> = all.iter().map(|known| known.name.as_str()).collect();
            let text = format!("no data set `{name}`; there are {}", names.join(", "));
            Err(Error::Data(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_complete_and_its_names_are_folders() {
        let all = datasets().unwrap();
        let names: Vec<&str> = all.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["avengers", "orl", "lfw", "celeba"]);
        for set in &all {
            assert!(set.layout.starts_with(&format!("data/{}/", set.name)), "{}", set.name);
            assert!(set.identities > 1 && set.pictures != Some(0), "{}", set.name);
            for text in [&set.title, &set.what, &set.source, &set.terms, &set.how] {
                assert!(!text.is_empty(), "{}", set.name);
            }
            let hexadecimal = |text: &String| {
                text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            };
            assert_eq!(set.sha256.as_ref().is_some_and(hexadecimal), set.fetched, "{}", set.name);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        assert_eq!(dataset("orl").unwrap().pictures, Some(400));
        let error = dataset("orlando").unwrap_err().to_string();
        assert!(
            error.contains("orlando") && error.contains("avengers, orl, lfw, celeba"),
            "{error}"
        );
    }
}
