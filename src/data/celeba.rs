//! CelebA as published: a folder of pictures, and text files with identities and parts.
//!
//! ```text
//! img_align_celeba/000001.jpg ... the pictures (or one folder deeper)
//! identity_CelebA.txt lines of `000001.jpg 2880`
//! list_eval_partition.txt lines of `000001.jpg 0`: 0 train, 1 validation, 2 test; optional
//! ```
//!
//! Both text files may start with a row count and a header, and may be comma-separated
//! (`list_eval_partition.csv`). Source: Liu et al., Deep Learning Face Attributes in the Wild, 2015.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::disjoint::disjoint;
use super::picture::{hidden, is_picture};
use super::split::Part;
use super::store::Fitting;
use super::{Face, FaceFolder, Progress};
use crate::words::{count, identities};
use crate::{Error, Result};

/// The folder of aligned pictures.
const PICTURES: &str = "img_align_celeba";
const IDENTITIES: &str = "identity_CelebA.txt";
const PARTITIONS: [&str; 2] = ["list_eval_partition.txt", "list_eval_partition.csv"];

/// The part of a picture in the official or the random split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CelebaPart {
    /// Training.
    Train,
    /// Validation: chooses the best epoch and the thresholds.
    Validation,
    /// Test: evaluated once, at the end; only in the official split.
    Test,
}

/// Paths of the data set's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CelebaFiles {
    /// Folder of pictures.
    pub pictures: PathBuf,
    /// Identity file.
    pub identities: PathBuf,
    /// Partition file.
    pub partition: Option<PathBuf>,
}

impl CelebaFiles {
    /// Finds the files in a folder by their official names.
    ///
    /// # Errors
    /// Names the missing file and its source.
    pub fn find(folder: &Path) -> Result<Self> {
        let mut pictures = folder.join(PICTURES);
        if pictures.join(PICTURES).is_dir() {
            pictures = pictures.join(PICTURES);
        }
        let identities = folder.join(IDENTITIES);
        for (path, there) in [(&pictures, pictures.is_dir()), (&identities, identities.is_file())] {
            if !there {
                return Err(Error::Data(format!(
                    "{}: is missing; a CelebA folder holds {PICTURES} and {IDENTITIES}, both from \
                     the data set's own page",
                    path.display()
                )));
            }
        }
        let partition = PARTITIONS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        Ok(Self { pictures, identities, partition })
    }
}

/// The labelled pictures that are on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Celeba {
    /// The pictures, sorted by name; `identity` indexes [`identities`](Self::identities).
    pub pictures: Vec<Face>,
    /// The official identity numbers, ascending.
    pub identities: Vec<u32>,
    /// The part of each picture.
    pub parts: Vec<CelebaPart>,
    /// Number of rows of the identity file without a picture.
    pub missing: usize,
    /// Number of pictures without a row.
    pub unnamed: usize,
    /// Remarks, one sentence each.
    pub notes: Vec<String>,
}

impl Celeba {
    /// Keeps the pictures for which `keep` returns true.
    pub fn retain(&mut self, keep: impl Fn(&Face, CelebaPart) -> bool) {
        let both =
            std::mem::take(&mut self.pictures).into_iter().zip(std::mem::take(&mut self.parts));
        (self.pictures, self.parts) = both.filter(|(face, part)| keep(face, *part)).unzip();
    }

    /// Reads the lists and looks for the pictures, without decoding them.
    ///
    /// Without a partition file identities are [split](disjoint), `val_fraction` of them for
    /// validation; with one, `val_fraction` and `seed` are ignored.
    ///
    /// # Errors
    /// A line cannot be parsed, a picture is missing in the partition file, or no picture of the list
    /// exists. Rows without a picture are only counted.
    pub fn open(files: &CelebaFiles, val_fraction: f64, seed: u64) -> Result<Self> {
        let owners = read_rows(&files.identities, "an identity number")?;
        let found = find_pictures(&files.pictures)?;
        let mut named: Vec<(&str, &Path, u32)> = owners
            .iter()
            .filter_map(|(name, row)| {
                let stem = stem(name);
                found.get(stem).map(|path| (stem, path.as_path(), row.value))
            })
            .collect();
        named.sort_unstable();
        if named.is_empty() {
            return Err(Error::Data(format!(
                "{}: none of its {} has a picture in {}; unpack {PICTURES} there",
                files.identities.display(),
                count(owners.len(), "row"),
                files.pictures.display()
            )));
        }
        let numbers: BTreeSet<u32> = named.iter().map(|&(_, _, number)| number).collect();
        let identities: Vec<u32> = numbers.into_iter().collect();
        let pictures: Vec<Face> = named
            .iter()
            .map(|&(_, path, number)| Face {
                path: path.to_path_buf(),
                identity: identities.binary_search(&number).unwrap_or_default(),
            })
            .collect();
        let parts = match &files.partition {
            Some(file) => official(file, &named)?,
            None => {
                let of_people = disjoint(identities.len(), val_fraction, seed)?;
                let part = |face: &Face| match of_people[face.identity] {
                    Part::Train => CelebaPart::Train,
                    Part::Validation => CelebaPart::Validation,
                };
                pictures.iter().map(part).collect()
            }
        };
        let (missing, unnamed) = (owners.len() - named.len(), found.len() - named.len());
        let mut celeba = Self { pictures, identities, parts, missing, unnamed, notes: Vec::new() };
        celeba.note(files);
        Ok(celeba)
    }

    /// Decodes the pictures, [fitted](super::picture::fit) to one size, and returns the part of each
    /// one, in the order of the result. Unreadable pictures are left out and listed, or an error with
    /// `strict`.
    ///
    /// # Errors
    /// As [`FaceFolder::of_files`].
    pub fn read(
        &self,
        strict: bool,
        fitting: impl Into<Fitting>,
        progress: Progress,
    ) -> Result<(FaceFolder, Vec<CelebaPart>)> {
        let mut named: Vec<(String, Vec<PathBuf>)> =
            self.identities.iter().map(|number| (number.to_string(), Vec::new())).collect();
        for face in &self.pictures {
            named[face.identity].1.push(face.path.clone());
        }
        let root = self.pictures.first().and_then(|face| face.path.parent());
        let root = root.unwrap_or(Path::new(""));
        let folder =
            FaceFolder::of_files(root, &named, self.notes.clone(), strict, fitting, progress)?;
        let by_path: HashMap<&Path, CelebaPart> = self
            .pictures
            .iter()
            .zip(&self.parts)
            .map(|(face, part)| (face.path.as_path(), *part))
            .collect();
        let parts = folder.pictures.iter().filter_map(|face| by_path.get(face.path.as_path()));
        let parts = parts.copied().collect();
        Ok((folder, parts))
    }

    /// The identity of each picture.
    pub fn labels(&self) -> Vec<usize> {
        self.pictures.iter().map(|face| face.identity).collect()
    }

    /// The pictures of one part, in order.
    pub fn indices(&self, part: CelebaPart) -> Vec<usize> {
        (0..self.parts.len()).filter(|&picture| self.parts[picture] == part).collect()
    }

    fn note(&mut self, files: &CelebaFiles) {
        if self.missing > 0 {
            self.notes.push(format!(
                "{} of {} without a picture in {}: only a part of the data set is used",
                count(self.missing, "row"),
                files.identities.display(),
                files.pictures.display()
            ));
        }
        if self.unnamed > 0 {
            let which = count(self.unnamed, "picture");
            self.notes.push(format!("{which} without an identity ignored"));
        }
        let mut first = BTreeMap::new();
        let mut torn = BTreeSet::new();
        for (face, part) in self.pictures.iter().zip(&self.parts) {
            if first.entry(face.identity).or_insert(*part) != part {
                torn.insert(face.identity);
            }
        }
        if !torn.is_empty() {
            self.notes.push(format!(
                "{} with pictures in more than one official part: pairs never cross the parts, but \
                 these people are not new to the model",
                identities(torn.len())
            ));
        }
    }
}

/// The official part of each picture.
fn official(file: &Path, named: &[(&str, &Path, u32)]) -> Result<Vec<CelebaPart>> {
    let rows = read_rows(file, "0 (train), 1 (validation) or 2 (test)")?;
    let by_stem: HashMap<&str, &Row> = rows.iter().map(|(name, row)| (stem(name), row)).collect();
    let part = |&(name, path, _): &(&str, &Path, u32)| match by_stem.get(name) {
        Some(Row { value: 0, .. }) => Ok(CelebaPart::Train),
        Some(Row { value: 1, .. }) => Ok(CelebaPart::Validation),
        Some(Row { value: 2, .. }) => Ok(CelebaPart::Test),
        Some(Row { value, line }) => Err(Error::Data(format!(
            "{}: line {line}: part {value} is not 0 (train), 1 (validation) or 2 (test)",
            file.display()
        ))),
        None => Err(Error::Data(format!(
            "{}: no row for {}; use the official file, or remove it to make a random split",
            file.display(),
            path.display()
        ))),
    };
    named.iter().map(part).collect()
}

/// A number and its line.
#[derive(Debug)]
struct Row {
    value: u32,
    line: usize,
}

/// Reads rows of `NAME NUMBER` after at most two header lines.
fn read_rows(file: &Path, second: &str) -> Result<BTreeMap<String, Row>> {
    let content = std::fs::read(file).map_err(|source| Error::io(file, source))?;
    let text = String::from_utf8_lossy(&content);
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (line, content) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let wrong = |what: String| Error::Data(format!("{}: line {line}: {what}", file.display()));
        let fields: Vec<&str> = content
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|field| !field.is_empty())
            .collect();
        let row = match fields.as_slice() {
            [] => continue,
            &[name, value] if is_picture(Path::new(name)) => {
                value.parse().ok().map(|value| (name, value))
            }
            _ => None,
        };
        let Some((name, value)) = row else {
            if line <= 2 && rows.is_empty() && !fields.iter().any(|f| is_picture(Path::new(f))) {
                continue; // how many rows there are, or what the columns are called
            }
            let shown: String = content.chars().take(60).collect();
            let text = format!("`{shown}`; a row is a picture's name and {second}, `000001.jpg 1`");
            return Err(wrong(text));
        };
        if let Some(Row { line: first, .. }) = rows.get(name) {
            return Err(wrong(format!("{name} is already in line {first}; remove one of them")));
        }
        rows.insert(name.to_owned(), Row { value, line });
    }
    if rows.is_empty() {
        let text = format!("{}: no rows; expected `000001.jpg 1` a line", file.display());
        return Err(Error::Data(text));
    }
    Ok(rows)
}

/// The pictures of a folder by file stem (the PNG version keeps the .jpg of the lists).
fn find_pictures(folder: &Path) -> Result<HashMap<String, PathBuf>> {
    let fail = |source| Error::io(folder, source);
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().filter(|name| !hidden(name)).and_then(|name| name.to_str());
        if let Some(name) = name.filter(|_| is_picture(&path)) {
            found.insert(stem(name).to_owned(), path);
        }
    }
    Ok(found)
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{part, shared};
    use super::*;

    fn folder(identities: &str, partition: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(PICTURES)).unwrap();
        for picture in 1..=8 {
            std::fs::write(root.path().join(PICTURES).join(format!("{picture:06}.jpg")), "")
                .unwrap();
        }
        std::fs::write(root.path().join(IDENTITIES), identities).unwrap();
        if let Some(text) = partition {
            std::fs::write(root.path().join("list_eval_partition.txt"), text).unwrap();
        }
        root
    }

    fn open(root: &Path) -> Result<Celeba> {
        Celeba::open(&CelebaFiles::find(root)?, 0.5, 1)
    }

    const ROWS: &str = "000001.jpg 30\n000002.jpg 4\n000003.jpg 30\n000004.jpg 7\n000005.jpg 9\n\
                        000006.jpg 9\n000007.jpg 12\n000099.jpg 12\n";

    #[test]
    fn headings_commas_and_carriage_returns_are_read_alike() {
        let plain = open(folder(ROWS, None).path()).unwrap();
        assert_eq!(plain.identities, [4, 7, 9, 12, 30]);
        assert_eq!(plain.labels(), [4, 0, 4, 1, 2, 2, 3]);
        assert_eq!((plain.missing, plain.unnamed), (1, 1));
        assert!(plain.notes[0].starts_with("1 row of"), "{:?}", plain.notes);
        let counted = format!("8\n{ROWS}");
        let headed = format!("8\nimage_id identity\n{ROWS}");
        let table =
            format!("image_id,identity\r\n{}", ROWS.replace(' ', ",").replace('\n', "\r\n"));
        for text in [counted, headed, table] {
            let other = open(folder(&text, None).path()).unwrap();
            assert_eq!((other.labels(), &other.parts), (plain.labels(), &plain.parts), "{text}");
        }
    }

    #[test]
    fn the_drawn_split_is_between_people() {
        let celeba = open(folder(ROWS, None).path()).unwrap();
        for (a, b) in celeba.pictures.iter().zip(&celeba.parts) {
            for (c, d) in celeba.pictures.iter().zip(&celeba.parts) {
                assert!(a.identity != c.identity || b == d);
            }
        }
        assert!(!celeba.indices(CelebaPart::Train).is_empty());
        assert!(!celeba.indices(CelebaPart::Validation).is_empty());
    }

    #[test]
    fn the_official_partition_is_kept_and_torn_people_are_noted() {
        let parts: String =
            (1..=8).map(|picture| format!("{picture:06}.jpg {}\n", picture % 3)).collect();
        let celeba = open(folder(ROWS, Some(&parts)).path()).unwrap();
        use CelebaPart::{Test, Train, Validation};
        assert_eq!(celeba.parts, [Validation, Test, Train, Validation, Test, Train, Validation]);
        assert!(
            celeba.notes.iter().any(|note| note.contains("2 identities")),
            "{:?}",
            celeba.notes
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_with_file_line_and_fix() {
        let says = |identities: &str, partition: Option<&str>, parts: &[&str]| {
            let error = open(folder(identities, partition).path()).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part} in {error}");
            }
        };
        says("000001.jpg 1\n000002.jpg\n", None, &[IDENTITIES, "line 2", "`000001.jpg 1`"]);
        says("000001.jpg x\n", None, &["line 1", "an identity number"]);
        says("000001.jpg 1\n000001.jpg 2\n", None, &["line 2", "already in line 1"]);
        says("12\n", None, &["no rows"]);
        says("900000.jpg 1\n", None, &["none of its 1 row", PICTURES]);
        says("\n\n\nnonsense\n", None, &["line 4"]);
        says(ROWS, Some("000001.jpg 5\n"), &["list_eval_partition.txt", "line 1", "part 5"]);
        says(ROWS, Some("000001.jpg 1\n"), &["no row for", "000002.jpg", "remove it"]);
        let empty = tempfile::tempdir().unwrap();
        let error = CelebaFiles::find(empty.path()).unwrap_err().to_string();
        assert!(error.contains("img_align_celeba: is missing"), "{error}");
    }

    #[test]
    fn decoded_pictures_keep_their_people_and_parts() {
        let root = folder(ROWS, None);
        for picture in [1, 2, 3, 5, 6, 7] {
            let path = root.path().join(PICTURES).join(format!("{picture:06}.jpg"));
            let png = path.with_extension("png");
            part(picture, 0.0, 0.0, 100.0, 20).save(&png).unwrap();
            std::fs::rename(png, path).unwrap();
        }
        let celeba = open(root.path()).unwrap();
        let (faces, parts) = celeba.read(false, 16, &|_, _| {}).unwrap();
        assert_eq!(faces.identities, ["4", "9", "12", "30"]);
        assert_eq!((faces.labels(), faces.unreadable.len()), (vec![0, 1, 1, 2, 3, 3], 1));
        for (face, part) in faces.pictures.iter().zip(&parts) {
            let own = celeba.pictures.iter().position(|other| other.path == face.path).unwrap();
            assert_eq!(celeba.parts[own], *part);
            let number = celeba.identities[celeba.pictures[own].identity].to_string();
            assert_eq!(faces.identities[face.identity], number);
        }
        assert_eq!(parts.len(), 6);
        assert!(celeba.read(true, 16, &|_, _| {}).unwrap_err().to_string().contains("000004.jpg"));
    }

    #[test]
    fn the_real_slice_is_whole() {
        let Some(root) = shared("celeba") else { return };
        let celeba = Celeba::open(&CelebaFiles::find(&root).unwrap(), 0.2, 7).unwrap();
        assert_eq!((celeba.pictures.len(), celeba.identities.len()), (1307, 120));
        assert_eq!((celeba.missing, celeba.unnamed, celeba.notes.len()), (0, 0, 0));
        let held_back: BTreeSet<usize> = celeba
            .indices(CelebaPart::Validation)
            .into_iter()
            .map(|picture| celeba.pictures[picture].identity)
            .collect();
        assert_eq!(held_back.len(), 24);
        // The first row of the file: 000114.jpg 7256.
        assert!(celeba.pictures[0].path.ends_with("000114.jpg"));
        assert_eq!(celeba.identities[celeba.pictures[0].identity], 7256);
    }
}
