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

use super::dataset::{FileList, Part, Record};
use super::picture::{hidden, is_picture};
use crate::words::{count, identities};
use crate::{Error, Result};

/// The folder of aligned pictures.
const PICTURES: &str = "img_align_celeba";
const IDENTITIES: &str = "identity_CelebA.txt";
const PARTITIONS: [&str; 2] = ["list_eval_partition.txt", "list_eval_partition.csv"];

/// Where the files of the data set lie.
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

/// Lists the pictures that are on disk, by identity and by name. Those of the official test part are left
/// out. No picture is decoded.
///
/// # Errors
/// Names the file and the line that cannot be read; a picture without a row in the partition
/// file; a folder without any picture of the list. Rows without a picture are counted only.
pub fn open(files: &CelebaFiles) -> Result<FileList> {
    let owners = read_rows(&files.identities, "an identity number")?;
    let found = find_pictures(&files.pictures)?;
    let mut named: Vec<(u32, &str, &Path)> = owners
        .iter()
        .filter_map(|(name, row)| {
            let stem = stem(name);
            found.get(stem).map(|path| (row.value, stem, path.as_path()))
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
    let parts = match &files.partition {
        Some(file) => official(file, &named)?,
        None => vec![OfficialPart::None; named.len()],
    };
    let mut notes = Vec::new();
    for (number, text) in [
        (owners.len() - named.len(), "listed without a file: a slice of the data set"),
        (found.len() - named.len(), "without an identity left out"),
        (
            parts.iter().filter(|part| **part == OfficialPart::Test).count(),
            "of the official test part left out",
        ),
    ] {
        if number > 0 {
            notes.push(format!("{} {text}", count(number, "picture")));
        }
    }
    let (mut numbers, mut records) = (Vec::new(), Vec::new());
    for (&(number, _, path), part) in named.iter().zip(parts) {
        let part = match part {
            OfficialPart::None => None,
            OfficialPart::Train => Some(Part::Train),
            OfficialPart::Validation => Some(Part::Validation),
            OfficialPart::Test => continue,
        };
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
        records.push(Record { path: path.to_path_buf(), identity: numbers.len() - 1, part });
    }
    let mut first = BTreeMap::new();
    let mut torn = BTreeSet::new();
    for record in &records {
        if first.entry(record.identity).or_insert(record.part) != &record.part {
            torn.insert(record.identity);
        }
    }
    if !torn.is_empty() {
        notes.push(format!(
            "{} with pictures in more than one official part: pairs never cross the parts, but \
             these people are not new to the model",
            identities(torn.len())
        ));
    }
    let identities = numbers.iter().map(ToString::to_string).collect();
    Ok(FileList { root: files.pictures.clone(), identities, records, notes })
}

/// What the official partition says of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OfficialPart {
    /// There is no partition file.
    None,
    Train,
    Validation,
    Test,
}

/// The official part of each named picture.
fn official(file: &Path, named: &[(u32, &str, &Path)]) -> Result<Vec<OfficialPart>> {
    let rows = read_rows(file, "0 (train), 1 (validation) or 2 (test)")?;
    let by_stem: HashMap<&str, &PictureRow> =
        rows.iter().map(|(name, row)| (stem(name), row)).collect();
    let part = |&(_, name, path): &(u32, &str, &Path)| match by_stem.get(name) {
        Some(PictureRow { value: 0, .. }) => Ok(OfficialPart::Train),
        Some(PictureRow { value: 1, .. }) => Ok(OfficialPart::Validation),
        Some(PictureRow { value: 2, .. }) => Ok(OfficialPart::Test),
        Some(PictureRow { value, line }) => Err(Error::Data(format!(
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
struct PictureRow {
    value: u32,
    line: usize,
}

/// Reads rows of `NAME NUMBER` after at most two header lines.
fn read_rows(file: &Path, second: &str) -> Result<BTreeMap<String, PictureRow>> {
    let content = std::fs::read(file).map_err(|source| Error::io(file, source))?;
    let text = String::from_utf8_lossy(&content);
    let mut rows: BTreeMap<String, PictureRow> = BTreeMap::new();
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
        if let Some(PictureRow { line: first, .. }) = rows.get(name) {
            return Err(wrong(format!("{name} is already in line {first}; remove one of them")));
        }
        rows.insert(name.to_owned(), PictureRow { value, line });
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
    use std::sync::Arc;

    use super::super::FaceFolder;
    use super::super::dataset::Dataset;
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

    fn find(root: &Path) -> Result<FileList> {
        open(&CelebaFiles::find(root)?)
    }

    const ROWS: &str = "000001.jpg 30\n000002.jpg 4\n000003.jpg 30\n000004.jpg 7\n000005.jpg 9\n\
                        000006.jpg 9\n000007.jpg 12\n000099.jpg 12\n";

    #[test]
    fn headings_commas_and_carriage_returns_are_read_alike() {
        let plain = find(folder(ROWS, None).path()).unwrap();
        assert_eq!(plain.identities, ["4", "7", "9", "12", "30"]);
        let rows = |celeba: &FileList| -> Vec<_> {
            let name = |record: &Record| record.path.file_name().map(ToOwned::to_owned);
            celeba.records.iter().map(|record| (record.identity, name(record))).collect()
        };
        let owners: Vec<_> = plain.records.iter().map(|record| record.identity).collect();
        assert_eq!(owners, [0, 1, 2, 2, 3, 4, 4]);
        assert!(plain.records[0].path.ends_with("000002.jpg") && plain.records[0].part.is_none());
        assert!(plain.notes[0].starts_with("1 picture listed"), "{:?}", plain.notes);
        assert!(plain.notes[1].starts_with("1 picture without"), "{:?}", plain.notes);
        let counted = format!("8\n{ROWS}");
        let headed = format!("8\nimage_id identity\n{ROWS}");
        let table =
            format!("image_id,identity\r\n{}", ROWS.replace(' ', ",").replace('\n', "\r\n"));
        for text in [counted, headed, table] {
            let other = find(folder(&text, None).path()).unwrap();
            assert_eq!(rows(&other), rows(&plain), "{text}");
        }
    }

    #[test]
    fn the_official_partition_is_kept_without_its_test_part_and_torn_people_are_noted() {
        let parts: String =
            (1..=8).map(|picture| format!("{picture:06}.jpg {}\n", picture % 3)).collect();
        let celeba = find(folder(ROWS, Some(&parts)).path()).unwrap();
        let parts: Vec<_> = celeba.records.iter().filter_map(|record| record.part).collect();
        use Part::{Train, Validation};
        // 000004, 000006, 000007, 000001, 000003.
        assert_eq!(parts, [Validation, Train, Validation, Validation, Train]);
        assert_eq!(celeba.identities, ["7", "9", "12", "30"]);
        for note in ["2 pictures of the official test part left out", "1 identity with pictures in"]
        {
            assert!(celeba.notes.iter().any(|found| found.starts_with(note)), "{:?}", celeba.notes);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_file_line_and_fix() {
        let says = |identities: &str, partition: Option<&str>, parts: &[&str]| {
            let error = find(folder(identities, partition).path()).unwrap_err().to_string();
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
        says(ROWS, Some("000002.jpg 5\n"), &["list_eval_partition.txt", "line 1", "part 5"]);
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
        let celeba: Arc<dyn Dataset> = Arc::new(find(root.path()).unwrap());
        let faces = FaceFolder::decode(&celeba, false, 16, &|_, _| {}).unwrap();
        assert_eq!(faces.identities, ["4", "9", "12", "30"]);
        assert_eq!((faces.labels(), faces.unreadable.len()), (vec![0, 1, 1, 2, 3, 3], 1));
        assert_eq!(faces.parts, None);
        for face in &faces.pictures {
            let mut records = (0..celeba.len()).filter_map(|number| celeba.record(number));
            let own = records.find(|record| record.path == face.path).unwrap();
            assert_eq!(faces.identities[face.identity], celeba.identities()[own.identity]);
        }
        let error = FaceFolder::decode(&celeba, true, 16, &|_, _| {}).unwrap_err().to_string();
        assert!(error.contains("000004.jpg"), "{error}");
    }

    #[test]
    fn the_real_slice_is_whole() {
        let Some(root) = shared("celeba") else { return };
        let celeba = find(&root).unwrap();
        assert_eq!((celeba.records.len(), celeba.identities.len()), (1307, 120));
        assert!(celeba.notes.is_empty(), "{:?}", celeba.notes);
        // A row of the file: 000114.jpg 7256.
        let first = celeba.records.iter().find(|record| record.path.ends_with("000114.jpg"));
        assert_eq!(celeba.identities[first.unwrap().identity], "7256");
    }
}
