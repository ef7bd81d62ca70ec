//! WebDataset shards: tar archives with the picture `KEY.jpg` (or .jpeg, .png, .webp, ...) and its label in
//! `KEY.cls`, or in `KEY.json` as `{"label": 3}`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::dataset::{Dataset, Record, missing};
use super::pairs_file::below;
use super::picture::is_picture;
use super::record_file::{folders, number_identities};
use super::record_index::{Found, PictureEntry, RecordIndex};
use super::tar_members::{Member, member};
use crate::native::FileMap;
use crate::words::count;
use crate::{Error, Result};

/// Bits of an index entry's place that count bytes; the others are the number of the shard.
const BYTES: u32 = 48;
/// The most shards: what the other bits count.
const MOST: usize = 1 << (64 - BYTES);

/// The files that a pattern names: `shards-{000..003}.tar`, `{train,val}.tar`, or one file.
///
/// # Errors
/// The pattern names too many files.
pub fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    if pattern.is_file() {
        return Ok(vec![pattern.to_path_buf()]);
    }
    let mut done = Vec::new();
    let mut rest = vec![pattern.to_string_lossy().into_owned()];
    while let Some(text) = rest.pop() {
        if done.len() + rest.len() >= MOST {
            let text = format!("{}: names more than {MOST} files", pattern.display());
            return Err(Error::Config(text));
        }
        match choices(&text) {
            None => done.push(PathBuf::from(text)),
            Some(choices) => rest.extend(choices.into_iter().rev()),
        }
    }
    Ok(done)
}

/// The text with the first braces replaced by each of their choices; `None` without braces.
fn choices(text: &str) -> Option<Vec<String>> {
    let (before, rest) = text.split_once('{')?;
    let (inside, after) = rest.split_once('}')?;
    let range = || {
        let (first, last) = inside.split_once("..")?;
        let is_padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
        let width = if is_padded { first.len().max(last.len()) } else { 0 };
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        let numbers = first..=last.min(first.saturating_add(MOST as u64));
        Some(numbers.map(|number| format!("{number:0width$}")).collect::<Vec<_>>())
    };
    let list = || inside.contains(',').then(|| inside.split(',').map(str::to_owned).collect());
    let inner = range().or_else(list)?;
    Some(inner.into_iter().map(|choice| format!("{before}{choice}{after}")).collect())
}

/// Opened shards.
#[derive(Debug)]
pub struct Shards {
    pattern: PathBuf,
    paths: Vec<PathBuf>,
    files: Vec<FileMap>,
    index: RecordIndex,
}

impl Shards {
    /// Opens the shards that a pattern names. The first time, every member is visited, and an index is
    /// written beside them, or else to the cache folder.
    ///
    /// Identities are in the order of their labels. They have the names of the folders in the keys
    /// where each label has one folder, or else the label. Pictures of an identity are in the order of
    /// the archives.
    ///
    /// # Errors
    /// Names the file, and the member that is cut off, has no label or one that is not a whole number.
    pub fn open(pattern: &Path) -> Result<Self> {
        let paths = expand(pattern)?;
        let files = paths.iter().map(|path| FileMap::open(path)).collect::<Result<Vec<_>>>()?;
        let index = RecordIndex::open(pattern, &paths, || find(&paths, &files))?;
        if index.len() == 0 {
            let text = format!(
                "{}: contains no pictures; a sample is KEY.jpg (or .png, .webp) and KEY.cls with its \
                 label",
                pattern.display()
            );
            return Err(Error::Data(text));
        }
        Ok(Self { pattern: pattern.to_path_buf(), paths, files, index })
    }
}

/// The name of the member at an entry's place.
fn name(files: &[FileMap], entry: &PictureEntry) -> String {
    let file = files.get((entry.place >> BYTES) as usize).map_or(&[][..], FileMap::bytes);
    let start = entry.place & ((1 << BYTES) - 1);
    match member(file, start as usize) {
        Ok(Some(member)) => plain(&member.name).to_owned(),
        _ => format!("byte {start}"),
    }
}

impl Dataset for Shards {
    fn root(&self) -> &Path {
        &self.pattern
    }

    fn identities(&self) -> &[String] {
        &self.index.identities
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn record(&self, number: usize) -> Option<Record> {
        let entry = self.index.get(number)?;
        let path = self.pattern.join(name(&self.files, &entry));
        Some(Record { path, identity: entry.identity as usize, part: None })
    }

    fn notes(&self) -> &[String] {
        &self.index.notes
    }

    fn content(&self, number: usize) -> Result<Cow<'_, [u8]>> {
        let entry = self.index.get(number).ok_or_else(|| missing(&self.pattern, number))?;
        let shard = (entry.place >> BYTES) as usize;
        let bytes = || {
            let start = usize::try_from(entry.tag).ok()?;
            let end = start.checked_add(entry.length as usize)?;
            self.files.get(shard)?.bytes().get(start..end)
        };
        bytes().map(Cow::Borrowed).ok_or_else(|| {
            let path =
                self.paths.get(shard).unwrap_or(&self.pattern).join(name(&self.files, &entry));
            Error::Picture { path, reason: "the shard ends before it".into() }
        })
    }
}

/// What was found of one sample.
#[derive(Default)]
struct Sample {
    key: String,
    picture: Option<PictureEntry>,
    label: Option<u32>,
}

/// What was found in one shard: the pictures with their labels, and how many samples have no picture.
type Scanned = (Vec<PictureEntry>, usize);

/// Visits every member.
fn find(paths: &[PathBuf], files: &[FileMap]) -> Result<Found> {
    let scan = |(shard, file): (usize, &FileMap)| {
        scan(shard, file.bytes())
            .map_err(|what| Error::Data(format!("{}: {what}", paths[shard].display())))
    };
    let scanned: Result<Vec<Scanned>> = files.par_iter().enumerate().map(scan).collect();
    let (entries, bare): (Vec<_>, Vec<_>) = scanned?.into_iter().unzip();
    let (mut entries, bare) = (entries.concat(), bare.iter().sum());
    entries.par_sort_unstable_by_key(|entry| (entry.identity, entry.place));
    let labels = number_identities(&mut entries);
    let folders = folders(&entries, labels.len(), |entry| name(files, entry).into());
    let identities = folders.unwrap_or_else(|| labels.iter().map(ToString::to_string).collect());
    let note = format!("{} without a picture ignored", count(bare, "sample"));
    let notes = Vec::from_iter((bare > 0).then_some(note));
    Ok(Found { entries, identities, notes, named: true })
}

fn scan(shard: usize, file: &[u8]) -> Result<Scanned, String> {
    let (mut entries, mut bare) = (Vec::new(), 0);
    let mut finish = |sample: Sample| match sample {
        Sample { picture: Some(picture), label: Some(label), .. } => {
            entries.push(PictureEntry { identity: label, ..picture });
            Ok(())
        }
        Sample { picture: Some(_), label: None, key } => Err(format!(
            "{}: has no label; put it in KEY.cls, or in KEY.json as {{\"label\": 3}}",
            key.escape_debug()
        )),
        Sample { label: Some(_), .. } => {
            bare += 1;
            Ok(())
        }
        Sample { .. } => Ok(()),
    };
    let (mut sample, mut at) = (Sample::default(), 0);
    while let Some(member) = member(file, at)? {
        at = member.next;
        let Some((key, ending)) = key(&member.name) else { continue };
        if key != sample.key {
            finish(std::mem::take(&mut sample))?;
            sample.key = key.to_owned();
        }
        take(&mut sample, ending, shard, &member)?;
    }
    finish(sample)?;
    Ok((entries, bare))
}

/// Adds a member to its sample.
fn take(sample: &mut Sample, ending: &str, shard: usize, member: &Member) -> Result<(), String> {
    let wrong = |what: &str| format!("member {}: {what}", member.name.escape_debug());
    let label = |text: &str| {
        text.parse::<u32>().map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            wrong(&format!("the label `{shown}` is not a whole number from 0"))
        })
    };
    match ending {
        "cls" => sample.label = Some(label(String::from_utf8_lossy(member.content).trim())?),
        "json" => {
            let json: serde_json::Value = serde_json::from_slice(member.content)
                .map_err(|error| wrong(&format!("is no JSON: {error}")))?;
            if let (None, Some(found)) = (sample.label, json.get("label")) {
                sample.label = Some(label(found.to_string().trim_matches('"'))?);
            }
        }
        _ if is_picture(Path::new(&member.name)) && sample.picture.is_none() => {
            if below(&member.name).is_none() {
                return Err(wrong("leads out of the data set; keys are relative"));
            }
            let length = u32::try_from(member.content.len());
            sample.picture = Some(PictureEntry {
                place: (shard as u64) << BYTES | member.start as u64,
                tag: member.place as u64,
                length: length.map_err(|_| wrong("is larger than 4 GiB"))?,
                identity: 0,
            });
        }
        _ => {}
    }
    Ok(())
}

/// The key of a member and the ending behind it: they meet at the first dot of the file name. `None` for
/// WebDataset's own members and those without an ending.
fn key(name: &str) -> Option<(&str, &str)> {
    let name = plain(name);
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.').filter(|&dot| dot > 0)?;
    let is_meta = file == 0 && name.starts_with("__") && name.ends_with("__");
    (!is_meta).then(|| (&name[..dot], &name[dot + 1..]))
}

/// The name without a leading `./`, as `tar cf X.tar .` writes it.
fn plain(name: &str) -> &str {
    name.trim_start_matches("./")
}

#[cfg(test)]
mod tests {
    use super::super::tar_members::{END, framed};
    use super::*;

    fn shard(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            members.iter().flat_map(|(name, content)| framed(name, content)).collect();
        bytes.extend(END);
        bytes
    }

    fn contents(set: &Shards) -> Vec<(String, usize, Vec<u8>)> {
        (0..set.len())
            .map(|number| {
                let record = set.record(number).unwrap();
                let name = record.path.strip_prefix(set.root()).unwrap().to_str().unwrap().into();
                (name, record.identity, set.content(number).unwrap().into_owned())
            })
            .collect()
    }

    #[test]
    fn patterns_are_expanded_as_shells_do() {
        let names = |pattern: &str| -> Vec<String> {
            let found = expand(Path::new(pattern)).unwrap();
            found.into_iter().map(|path| path.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("a-{008..011}.tar"), ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]);
        assert_eq!(names("{b,a}-{9..10}.tar"), ["b-9.tar", "b-10.tar", "a-9.tar", "a-10.tar"]);
        assert_eq!(names("x.tar"), ["x.tar"]);
        assert_eq!(names("x{y.tar"), ["x{y.tar"]);
        assert!(names("x{3..1}.tar").is_empty());
        assert!(expand(Path::new("x{0..999999999}.tar")).is_err());
    }

    #[test]
    fn samples_of_all_shards_are_one_data_set() {
        let root = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: Vec<u8>| std::fs::write(root.path().join(name), bytes).unwrap();
        write(
            "s-0.tar",
            shard(&[
                ("__meta__", b"x"),
                ("./zoe/1.jpg", b"z1"),
                ("./zoe/1.json", br#"{"label": 5, "name": "zoe"}"#),
                ("ann/2.jpg", b"a2"),
                ("ann/2.cls", b"0\n"),
                ("alone.cls", b"3"),
            ]),
        );
        write("s-1.tar", shard(&[("ann/1.cls", b"0"), ("ann/1.seg.PNG", b"a1")]));
        let pattern = root.path().join("s-{0..1}.tar");
        let wanted = [
            ("ann/2.jpg".to_owned(), 0, b"a2".to_vec()),
            ("ann/1.seg.PNG".into(), 0, b"a1".to_vec()),
            ("zoe/1.jpg".into(), 1, b"z1".to_vec()),
        ];
        for _ in 0..2 {
            let set = Shards::open(&pattern).unwrap();
            assert_eq!(set.identities(), ["ann", "zoe"]);
            assert_eq!(contents(&set), wanted);
            assert_eq!(set.notes(), ["1 sample without a picture ignored"]);
        }
        assert!(root.path().join("s-{0..1}.tar.visage-index").is_file());
        write(
            "one.tar",
            shard(&[("a.jpg", b"x"), ("a.cls", b"10"), ("b.jpg", b"y"), ("b.cls", b"9")]),
        );
        let set = Shards::open(&root.path().join("one.tar")).unwrap();
        assert_eq!(set.identities(), ["9", "10"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_member() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s.tar");
        let says = |bytes: &[u8], parts: &[&str]| {
            std::fs::write(&path, bytes).unwrap();
            let error = Shards::open(&path).unwrap_err().to_string();
            for part in parts.iter().chain(&["s.tar"]) {
                assert!(error.contains(part), "{part} in {error}");
            }
        };
        let whole = shard(&[("a/1.jpg", &[7; 900]), ("a/1.cls", b"0")]);
        says(&whole[..1000], &["member a/1.jpg: 900 bytes are announced", "cut off"]);
        says(&whole[..2000], &["cut off"]);
        says(&shard(&[("a/1.jpg", b"x"), ("a/1.cls", b"x1")]), &["a/1.cls", "`x1` is not a whole"]);
        says(&shard(&[("a/1.jpg", b"x"), ("a/1.json", br#"{"label": 1.5}"#)]), &["`1.5`"]);
        says(&shard(&[("a/1.jpg", b"x"), ("a/1.json", b"{")]), &["a/1.json: is no JSON"]);
        says(&shard(&[("a/1.jpg", b"x"), ("b/1.cls", b"0")]), &["a/1: has no label"]);
        says(&shard(&[("../1.jpg", b"x"), ("../1.cls", b"0")]), &["../1.jpg", "leads out of"]);
        says(&shard(&[("a.txt", b"x")]), &["contains no pictures"]);
        says(b"this is no archive", &["cut off"]);
        let gone = root.path().join("gone-{0..1}.tar");
        assert!(Shards::open(&gone).unwrap_err().to_string().contains("gone-0.tar"));
    }

    #[test]
    fn damage_is_an_error_or_a_picture_that_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("s.tar");
        let whole =
            shard(&[("a/1.jpg", b"one"), ("a/1.cls", b"0"), ("b/1.json", br#"{"label":1}"#)]);
        for at in (0..whole.len()).step_by(3) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            for bytes in [&whole[..at], &bytes] {
                let _ = std::fs::remove_file(&path);
                std::fs::write(&path, bytes).unwrap();
                if let Ok(set) = Shards::open(&path) {
                    (0..set.len()).for_each(|number| drop(set.content(number)));
                }
            }
        }
    }
}
