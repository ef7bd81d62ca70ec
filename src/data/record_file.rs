//! MXNet's record files: pictures with labels in one file (`X.rec`), where each begins (`X.idx`), and what
//! they are called (`X.lst`, optional).
//!
//! The face sets (MS1MV2, Glint360K) begin with a record without a picture and end with one for each
//! identity; these are passed over.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::dataset::{Dataset, Record, missing};
use super::pairs_file::below;
use super::record_index::{Found, PictureEntry, RecordIndex};
use super::record_io::{Header, record};
use crate::native::FileMap;
use crate::{Error, Result};

/// An opened record file.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    records: FileMap,
    names: Option<Names>,
    index: RecordIndex,
}

impl RecordFile {
    /// Opens `X.rec`. The first time, every record is visited, and an index is written beside the file,
    /// or else to the cache folder.
    ///
    /// Identities are in the order of their labels. They have the names of the folders in `X.lst` where
    /// each label has one folder, or else the label. Pictures of an identity are in the order of their
    /// numbers.
    ///
    /// # Errors
    /// Names the file, and the record that is damaged or has a label that is not a whole number.
    pub fn open(path: &Path) -> Result<Self> {
        let records = FileMap::open(path)?;
        let (positions, list) = (path.with_extension("idx"), path.with_extension("lst"));
        let files = [path, &positions, &list];
        let files: Vec<_> = files.iter().filter(|file| file.is_file()).map(PathBuf::from).collect();
        let names = list.is_file().then(|| Names::open(&list)).transpose()?;
        let index = RecordIndex::open(path, &files, || {
            find(path, &positions, records.bytes(), names.as_ref())
        })?;
        if index.len() == 0 {
            return Err(Error::Data(format!("{}: contains no pictures", path.display())));
        }
        let names = names.filter(|_| index.named);
        Ok(Self { path: path.to_path_buf(), records, names, index })
    }

    /// The path of a picture: that of the record file, and the picture's name.
    fn name(&self, entry: PictureEntry) -> PathBuf {
        match self.names.as_ref().and_then(|names| names.at(entry.tag)) {
            Some(name) => self.path.join(name),
            None => {
                let identity = self.index.identities.get(entry.identity as usize);
                let identity = identity.map_or("", String::as_str);
                self.path.join(identity).join(format!("{:08}", entry.tag))
            }
        }
    }
}

impl Dataset for RecordFile {
    fn root(&self) -> &Path {
        &self.path
    }

    fn identities(&self) -> &[String] {
        &self.index.identities
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn record(&self, number: usize) -> Option<Record> {
        let entry = self.index.get(number)?;
        Some(Record { path: self.name(entry), identity: entry.identity as usize, part: None })
    }

    fn notes(&self) -> &[String] {
        &self.index.notes
    }

    fn content(&self, number: usize) -> Result<Cow<'_, [u8]>> {
        let entry = self.index.get(number).ok_or_else(|| missing(&self.path, number))?;
        let read = || {
            let (data, _) = record(self.records.bytes(), entry.place as usize)?;
            let start = Header::of(&data)?.picture;
            if data.len() - start != entry.length as usize {
                return Err("it has changed since the index was made".into());
            }
            Ok(match data {
                Cow::Borrowed(data) => Cow::Borrowed(&data[start..]),
                Cow::Owned(data) => Cow::Owned(data[start..].to_vec()),
            })
        };
        read().map_err(|reason: String| Error::Picture {
            path: self.name(entry),
            reason: format!("the record at byte {}: {reason}", entry.place),
        })
    }
}

/// Visits every record.
fn find(path: &Path, positions: &Path, records: &[u8], names: Option<&Names>) -> Result<Found> {
    let mut found = Found::default();
    found.entries = match positions.is_file() {
        true => listed(positions)?,
        false => {
            found.notes.push(format!(
                "{}: is missing; the records of {} were counted one by one",
                positions.display(),
                path.display()
            ));
            counted(path, records)?
        }
    };
    found.entries.par_iter_mut().try_for_each(|entry| {
        visit(records, entry).map_err(|what| {
            let (path, key, place) = (path.display(), entry.tag, entry.place);
            Error::Data(format!("{path}: record {key} at byte {place}: {what}"))
        })
    })?;
    found.entries.retain(|entry| entry.length > 0);
    let entries = &mut found.entries;
    entries.par_sort_unstable_by_key(|entry| (entry.identity, entry.tag));
    match names.map(|names| names.give(entries)).transpose()? {
        Some(true) => found.named = true,
        Some(false) => found.notes.push(format!(
            "{}: does not name every picture once; pictures are called by their numbers",
            path.with_extension("lst").display()
        )),
        None => {}
    }
    let name =
        |entry: &PictureEntry| names.and_then(|names| names.at(entry.tag)).unwrap_or_default();
    let labels = number_identities(entries);
    let folders =
        found.named.then(|| folders(entries, labels.len(), |entry| Cow::Borrowed(name(entry))));
    let folders = folders.flatten();
    found.identities = folders.unwrap_or_else(|| labels.iter().map(ToString::to_string).collect());
    Ok(found)
}

/// Replaces the labels of sorted entries by the index of the identity; returns the labels.
pub(super) fn number_identities(entries: &mut [PictureEntry]) -> Vec<u32> {
    let mut labels = Vec::new();
    for entry in entries {
        if labels.last() != Some(&entry.identity) {
            labels.push(entry.identity);
        }
        entry.identity = labels.len() as u32 - 1;
    }
    labels
}

/// The folder of each identity's pictures: the first one in their names. `None` unless each identity has
/// one, and all are different.
pub(super) fn folders<'a>(
    entries: &[PictureEntry],
    identities: usize,
    name: impl Fn(&PictureEntry) -> Cow<'a, str>,
) -> Option<Vec<String>> {
    let mut folders: Vec<String> = Vec::with_capacity(identities);
    for entry in entries {
        let name = name(entry);
        let (folder, _) = name.split_once('/')?;
        match folders.get(entry.identity as usize) {
            Some(first) if first != folder => return None,
            Some(_) => {}
            None => folders.push(folder.to_owned()),
        }
    }
    let different: HashSet<&String> = folders.iter().collect();
    (different.len() == identities).then_some(folders)
}

/// Where the records begin, from the index file: lines of a number, a tab and a byte.
fn listed(positions: &Path) -> Result<Vec<PictureEntry>> {
    let file = FileMap::open(positions)?;
    let mut entries = Vec::new();
    for (line, text) in (1..).zip(file.bytes().split(|&byte| byte == b'\n')) {
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let entry = || {
            let (tag, place) = std::str::from_utf8(text).ok()?.split_once('\t')?;
            let (tag, place) = (tag.trim().parse().ok()?, place.trim().parse().ok()?);
            Some(PictureEntry { place, tag, ..PictureEntry::default() })
        };
        let entry = entry().ok_or_else(|| {
            let shown: String = String::from_utf8_lossy(text).chars().take(60).collect();
            Error::Data(format!(
                "{}: line {line}: `{shown}` is not a record's number, a tab and its first byte; remove \
                 the file to have the records counted",
                positions.display()
            ))
        })?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Where the records begin, found one after the other.
fn counted(path: &Path, records: &[u8]) -> Result<Vec<PictureEntry>> {
    let (mut entries, mut at) = (Vec::new(), 0);
    while at < records.len() {
        let number = entries.len() as u64;
        let (_, next) = record(records, at).map_err(|what| {
            Error::Data(format!("{}: record {number} at byte {at}: {what}", path.display()))
        })?;
        entries.push(PictureEntry { place: at as u64, tag: number, ..PictureEntry::default() });
        at = next;
    }
    Ok(entries)
}

/// Reads the label of a record, and how long its picture is: 0 where it has none.
fn visit(records: &[u8], entry: &mut PictureEntry) -> Result<(), String> {
    let at = usize::try_from(entry.place).ok().filter(|&at| at <= records.len());
    let at = at.ok_or("the file ends before it: it is cut off, or the .idx is of another file")?;
    let (data, _) = record(records, at)?;
    let header = Header::of(&data)?;
    entry.length = (data.len() - header.picture) as u32;
    if entry.length > 0 {
        entry.identity = whole(header.label).ok_or_else(|| {
            format!("its label is {}; an identity is a whole number from 0", header.label)
        })?;
    }
    Ok(())
}

/// A label that is a whole number; a float counts up to 2^24 without gaps.
fn whole(label: f32) -> Option<u32> {
    ((0.0..=16_777_216.0).contains(&label) && label.fract() == 0.0).then_some(label as u32)
}

/// A list of names: lines of a record's number, its label and its path, separated by tabs.
#[derive(Debug)]
struct Names {
    path: PathBuf,
    file: FileMap,
}

impl Names {
    fn open(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), file: FileMap::open(path)? })
    }

    /// The name in the line that begins at this byte.
    fn at(&self, place: u64) -> Option<&str> {
        let rest = self.file.bytes().get(usize::try_from(place).ok()?..)?;
        let line = rest.split(|&byte| byte == b'\n').next()?;
        std::str::from_utf8(line).ok()?.trim_end().rsplit_once('\t').map(|(_, name)| name)
    }

    /// Replaces the number in every entry by the place of its line. False, and nothing is replaced, if
    /// a picture has no line or a number has two.
    fn give(&self, entries: &mut [PictureEntry]) -> Result<bool> {
        let (mut lines, mut at) = (Vec::new(), 0);
        for (number, line) in (1..).zip(self.file.bytes().split(|&byte| byte == b'\n')) {
            let place = at as u64;
            at += line.len() + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let key = line.split(|&byte| byte == b'\t').next().unwrap_or_default();
            let key = std::str::from_utf8(key).ok().and_then(|key| key.trim().parse::<u64>().ok());
            let (Some(key), Some(name)) = (key, self.at(place)) else { return Ok(false) };
            if below(name).is_none() {
                let (list, name) = (self.path.display(), name.escape_default());
                return Err(Error::Data(format!(
                    "{list}: line {number}: `{name}` leads out of the data set; names are relative"
                )));
            }
            lines.push((key, place));
        }
        lines.par_sort_unstable();
        if lines.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Ok(false);
        }
        let line = |key: u64| {
            let place = lines.binary_search_by_key(&key, |&(key, _)| key).ok()?;
            Some(lines[place].1)
        };
        if !entries.par_iter().all(|entry| line(entry.tag).is_some()) {
            return Ok(false);
        }
        entries.par_iter_mut().for_each(|entry| entry.tag = line(entry.tag).unwrap_or_default());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record_io::framed;
    use super::*;

    /// Record 0 and the identity records of a face set, whose labels are ranges of records.
    fn ranges(id: u64, labels: [f32; 2]) -> Vec<u8> {
        let mut record = framed(0, id, &labels.map(f32::to_le_bytes).concat());
        record[8] = 2;
        record
    }

    /// Writes `faces.rec` and `faces.idx`; returns where the records begin.
    fn write(root: &Path, records: &[Vec<u8>]) -> PathBuf {
        let path = root.join("faces.rec");
        std::fs::write(&path, records.concat()).unwrap();
        let (mut at, mut index) = (0, String::new());
        for (number, record) in records.iter().enumerate() {
            index += &format!("{number}\t{at}\n");
            at += record.len();
        }
        std::fs::write(root.join("faces.idx"), index).unwrap();
        path
    }

    /// Two identities (7 and 12) as the face sets have them.
    fn face_set() -> Vec<Vec<u8>> {
        vec![
            ranges(0, [4.0, 6.0]),
            framed(7, 1, b"one"),
            framed(7, 2, &0xced7_230a_u32.to_le_bytes().repeat(3)),
            framed(12, 3, b"three"),
            ranges(4, [1.0, 3.0]),
            ranges(5, [3.0, 4.0]),
        ]
    }

    fn contents(set: &RecordFile) -> Vec<(String, usize, Vec<u8>)> {
        (0..set.len())
            .map(|number| {
                let record = set.record(number).unwrap();
                let name = record.path.strip_prefix(set.root()).unwrap().to_str().unwrap().into();
                (name, record.identity, set.content(number).unwrap().into_owned())
            })
            .collect()
    }

    #[test]
    fn the_records_of_identities_are_passed_over_with_and_without_idx() {
        let root = tempfile::tempdir().unwrap();
        let path = write(root.path(), &face_set());
        let set = RecordFile::open(&path).unwrap();
        assert_eq!((set.identities(), set.notes().len()), (&["7", "12"].map(String::from)[..], 0));
        let wanted = [
            ("7/00000001".into(), 0, b"one".to_vec()),
            ("7/00000002".into(), 0, 0xced7_230a_u32.to_le_bytes().repeat(3)),
            ("12/00000003".into(), 1, b"three".to_vec()),
        ];
        assert_eq!(contents(&set), wanted);
        assert!(set.record(3).is_none() && set.content(3).is_err());
        std::fs::remove_file(root.path().join("faces.idx")).unwrap();
        let counted = RecordFile::open(&path).unwrap();
        assert_eq!(contents(&counted), wanted);
        assert!(counted.notes()[0].contains("faces.idx: is missing"), "{:?}", counted.notes());
    }

    #[test]
    fn pictures_have_their_names_and_the_folders_are_the_identities() {
        let root = tempfile::tempdir().unwrap();
        let records = [framed(1, 0, b"b"), framed(0, 1, b"a1"), framed(0, 2, b"a2")];
        let path = write(root.path(), &records);
        let list = root.path().join("faces.lst");
        std::fs::write(&list, "2\t0.0\tann/2.jpg\n0\t1.000\tzoe/1.jpg\n1\t0\tann/1.jpg\n").unwrap();
        let set = RecordFile::open(&path).unwrap();
        assert_eq!(set.identities(), ["ann", "zoe"]);
        let names: Vec<_> = contents(&set).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["ann/1.jpg", "ann/2.jpg", "zoe/1.jpg"]);
        // Two folders of one label: its number is the name.
        std::fs::write(&list, "1\t0.0\tann/2.jpg\n0\t1.0\tzoe/1.jpg\n2\t0\tbob/1.jpg\n").unwrap();
        assert_eq!(RecordFile::open(&path).unwrap().identities(), ["0", "1"]);
        std::fs::write(&list, "1\t0.0\tann/2.jpg\n").unwrap();
        let set = RecordFile::open(&path).unwrap();
        assert!(set.notes()[0].contains("does not name every picture"), "{:?}", set.notes());
        assert_eq!(contents(&set)[0].0, "0/00000001");
        std::fs::write(&list, "1\t0.0\t../2.jpg\n").unwrap();
        let error = RecordFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("faces.lst: line 1: `../2.jpg` leads out of"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_record() {
        let root = tempfile::tempdir().unwrap();
        let says = |path: &Path, parts: &[&str]| {
            let error = RecordFile::open(path).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part} in {error}");
            }
        };
        says(&root.path().join("gone.rec"), &["gone.rec"]);
        let path = write(root.path(), &face_set());
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        says(&path, &["faces.rec: record 5 at byte", "cut off"]);
        std::fs::write(&path, &whole[..80]).unwrap();
        says(&path, &["faces.rec: record", "cut off"]);
        std::fs::remove_file(root.path().join("faces.idx")).unwrap();
        std::fs::write(&path, b"no record file").unwrap();
        says(&path, &["record 0 at byte 0", "in place of ced7230a"]);
        std::fs::write(&path, b"").unwrap();
        says(&path, &["contains no pictures"]);
        let mut half = framed(7, 1, b"x");
        half[12..16].copy_from_slice(&1.5_f32.to_le_bytes());
        let path = write(root.path(), &[half]);
        says(&path, &["record 0", "its label is 1.5; an identity is a whole number"]);
        std::fs::write(root.path().join("faces.idx"), "0\t0\n1 x\n").unwrap();
        says(&path, &["faces.idx: line 2: `1 x`", "remove the file"]);
    }

    #[test]
    fn damage_is_an_error_or_a_picture_that_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let path = write(root.path(), &face_set());
        let whole = std::fs::read(&path).unwrap();
        let opened = RecordFile::open(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            for bytes in [&whole[..at], &bytes] {
                // Replaced, as a file that is mapped must not be cut.
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, bytes).unwrap();
                if let Ok(set) = RecordFile::open(&path) {
                    (0..set.len()).for_each(|number| drop(set.content(number)));
                }
                // An index that fits a file that was damaged afterwards.
                let records = FileMap::open(&path).unwrap();
                let index = RecordIndex::open(&path, &[], || {
                    Ok(Found {
                        entries: (0..3).filter_map(|number| opened.index.get(number)).collect(),
                        ..Found::default()
                    })
                });
                let set =
                    RecordFile { path: path.clone(), records, names: None, index: index.unwrap() };
                (0..3).for_each(|number| drop(set.content(number)));
            }
        }
    }
}
