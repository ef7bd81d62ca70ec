//! The manifest of data sets, `data/datasets.toml`: what there is, whose it is, how to get it.

use serde::Deserialize;

use crate::{Error, Result};

const MANIFEST: &str = include_str!("../../data/datasets.toml");

/// One data set of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedDataset {
    /// The short name, and its folder below `data/`.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// What the pictures show.
    pub what: String,
    /// The number of people.
    pub identities: usize,
    /// The number of pictures, where it is settled.
    pub pictures: Option<usize>,
    /// Where it comes from, or whom to credit.
    pub source: String,
    /// What it may be used for.
    pub terms: String,
    /// How its files lie, from the project's folder.
    pub layout: String,
    /// How to get it.
    pub how: String,
    /// Whether Visage fetches it by itself.
    pub fetched: bool,
    /// The [fingerprint](super::folder::fingerprint) of its files, where it is fetched.
    pub sha256: Option<String>,
    /// Its OWNER/NAME on Kaggle.
    pub kaggle: Option<String>,
    /// Archives of it, tried in order.
    #[serde(default)]
    pub urls: Vec<String>,
    /// The SHA-256 of the archive, where it is known.
    pub archive_sha256: Option<String>,
    /// The folder of the archive that is the data set: the first of these that is there.
    #[serde(default)]
    pub inside: Vec<String>,
}

/// One file that is downloaded as it is: a list of pairs, somebody's weights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SingleFile {
    /// The short name.
    pub name: String,
    /// The name for people.
    pub title: String,
    /// The name it is stored under.
    pub file: String,
    /// The folder it goes to, from the project's folder.
    pub folder: String,
    /// Where it lies, tried in order; nowhere where only its user can get it.
    #[serde(default)]
    pub urls: Vec<String>,
    /// How its user gets it.
    pub how: Option<String>,
    /// Its SHA-256, or the first digits of it.
    pub sha256: Option<String>,
    /// Whom to credit.
    pub source: String,
    /// What it may be used for.
    pub terms: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    dataset: Vec<PublishedDataset>,
    #[serde(default)]
    file: Vec<SingleFile>,
}

/// All data sets of the manifest, in its order.
///
/// # Errors
/// Where the manifest that was built in is damaged; a test keeps it from that.
pub fn datasets() -> Result<Vec<PublishedDataset>> {
    Ok(manifest()?.dataset)
}

/// The single files of the manifest: lists of pairs.
///
/// # Errors
/// As [`datasets`].
pub fn files() -> Result<Vec<SingleFile>> {
    Ok(manifest()?.file)
}

fn manifest() -> Result<Manifest> {
    toml::from_str(MANIFEST).map_err(|error| Error::Data(format!("data/datasets.toml: {error}")))
}

/// One data set by its short name.
///
/// # Errors
/// Names the known ones where there is none of this name.
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
