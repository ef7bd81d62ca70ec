//! Packs a data set into MXNet's record file or WebDataset shards: the pictures' own bytes, in order.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dataset::{Dataset, Record, missing};
use super::picture::{decode_bytes, is_picture};
use super::record_io::{self, Header, LARGEST};
use super::shards;
use super::tar_members::{self, END, member};
use crate::files::{refuse_existing, write_atomically, write_checked};
use crate::native::FileMap;
use crate::words::count;
use crate::{Error, Result};

/// Pictures that are read together.
const TOGETHER: usize = 128;
/// The largest label that a record's 32-bit float holds.
const LABELS: usize = 1 << 24;

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// A shard is closed when it holds this many bytes.
    pub shard_size: u64,
    /// Overwrite what exists.
    pub force: bool,
}

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PackSummary {
    /// Number of pictures.
    pub pictures: usize,
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// How many of them an interrupted run had written.
    pub kept: usize,
    /// Pictures left out, and why.
    pub left_out: Vec<(PathBuf, String)>,
}

/// Packs a data set into `out`: a record file `X.rec` with `X.idx` and `X.lst`, one archive `X.tar`, or
/// shards `X-{000..999}.tar`, of which as many are written as are needed. Every file is read again and
/// compared before it gets its name. A run for shards that was interrupted goes on behind the last whole
/// one. `progress` is called for every picture.
///
/// Labels are the numbers of the identities in the order of `dataset`; in shards, dots in a picture's
/// name become `_`, as a key ends at the first one.
///
/// # Errors
/// `out` exists or has another ending, more shards are needed than it names, no picture can be read, or a
/// file cannot be written.
pub fn pack(
    dataset: &dyn Dataset,
    out: &Path,
    options: PackOptions,
    progress: &(dyn Fn() + Sync),
) -> Result<PackSummary> {
    let ending = out.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let mut queue = Queue::new(dataset, ending == "tar", progress);
    let summary = match ending {
        "rec" => pack_records(&mut queue, out, options),
        "tar" => pack_shards(&mut queue, out, options),
        _ => Err(Error::Config(format!(
            "{}: the name must end in .rec (a record file) or .tar ('X-{{000..999}}.tar' for shards)",
            out.display()
        ))),
    }?;
    Ok(PackSummary { left_out: queue.left_out, ..summary })
}

/// A picture to be written.
struct Item {
    name: String,
    identity: usize,
    content: Vec<u8>,
}

/// The readable pictures of a data set, in order.
struct Queue<'a> {
    dataset: &'a dyn Dataset,
    progress: &'a (dyn Fn() + Sync),
    /// The picture to read next.
    next: usize,
    ready: VecDeque<Item>,
    namer: Namer,
    left_out: Vec<(PathBuf, String)>,
}

impl<'a> Queue<'a> {
    fn new(dataset: &'a dyn Dataset, keys: bool, progress: &'a (dyn Fn() + Sync)) -> Self {
        let namer = Namer { keys, used: HashSet::new(), identity: None };
        Self { dataset, progress, next: 0, ready: VecDeque::new(), namer, left_out: Vec::new() }
    }

    /// The next picture; `None` after the last one.
    fn pop(&mut self) -> Result<Option<Item>> {
        while self.ready.is_empty() && self.next < self.dataset.len() {
            let numbers = self.next..self.dataset.len().min(self.next + TOGETHER);
            let dataset = self.dataset;
            let read: Vec<_> =
                numbers.clone().into_par_iter().map(|number| read(dataset, number)).collect();
            for (number, content) in numbers.zip(read) {
                self.next = number + 1;
                let record = self.record(number)?;
                let name = self.namer.name(self.dataset, &record, content.as_deref().ok());
                match content {
                    Ok(content) => {
                        self.ready.push_back(Item { name, identity: record.identity, content });
                    }
                    Err(error) => self.leave_out(record.path, error)?,
                }
                (self.progress)();
            }
        }
        Ok(self.ready.pop_front())
    }

    fn record(&self, number: usize) -> Result<Record> {
        self.dataset.record(number).ok_or_else(|| missing(self.dataset.root(), number))
    }

    fn leave_out(&mut self, path: PathBuf, error: Error) -> Result<()> {
        let reason = match error {
            Error::Picture { reason, .. } => reason,
            Error::Io { source, .. } => source.to_string(),
            other => return Err(other),
        };
        self.left_out.push((path, reason));
        Ok(())
    }

    /// Passes over the pictures that a shard of an interrupted run holds. `None`, and nothing is passed
    /// over, unless it holds the next pictures of the data set.
    fn pass_over(&mut self, shard: &[u8]) -> Option<usize> {
        let (mut next, mut namer, mut held, mut at) = (self.next, self.namer.clone(), 0, 0);
        let mut passed = Vec::new();
        while let Some(member) = member(shard, at).ok()? {
            at = member.next;
            if !is_picture(Path::new(&member.name)) {
                continue;
            }
            loop {
                let record = self.dataset.record(next)?;
                let content = self.dataset.content(next);
                let name = namer.name(self.dataset, &record, content.as_deref().ok());
                next += 1;
                if name == member.name && content.is_ok_and(|content| *content == *member.content) {
                    break;
                }
                passed.push(next - 1);
            }
            held += 1;
        }
        for number in passed {
            // What the earlier run left out; a picture that has become readable since is new.
            let error = read(self.dataset, number).err()?;
            let record = self.dataset.record(number)?;
            self.leave_out(record.path, error).ok()?;
        }
        (self.next..next).for_each(|_| (self.progress)());
        (self.next, self.namer) = (next, namer);
        Some(held)
    }
}

/// The bytes of a picture that can be decoded.
fn read(dataset: &dyn Dataset, number: usize) -> Result<Vec<u8>> {
    let record = dataset.record(number).ok_or_else(|| missing(dataset.root(), number))?;
    let content = dataset.content(number)?;
    decode_bytes(&record.path, &content)?;
    if content.len() > LARGEST {
        let reason = format!("{} bytes are more than a record holds", content.len());
        return Err(Error::Picture { path: record.path, reason });
    }
    Ok(content.into_owned())
}

/// Names pictures: the folder is that of the identity.
#[derive(Clone)]
struct Namer {
    /// Whether names are keys, which end at the first dot and are used once.
    keys: bool,
    used: HashSet<String>,
    identity: Option<usize>,
}

impl Namer {
    fn name(&mut self, dataset: &dyn Dataset, record: &Record, content: Option<&[u8]>) -> String {
        if self.identity != Some(record.identity) {
            self.identity = Some(record.identity);
            self.used.clear();
        }
        let plain = |text: &str| text.replace(['\t', '\n', '\r', '\\'], "_");
        let below = record.path.strip_prefix(dataset.root()).unwrap_or(&record.path);
        let parts = below.iter().map(|part| plain(&part.to_string_lossy()));
        let mut name = parts.collect::<Vec<_>>().join("/");
        let owner = dataset.identities().get(record.identity);
        let owner = plain(owner.map_or("", String::as_str)).replace('/', "_");
        if name.split_once('/').is_none_or(|(folder, _)| folder != owner) {
            name = format!("{owner}/{name}");
        }
        if !is_picture(Path::new(&name)) {
            // Pictures of record files without a list of names.
            let format = content.and_then(|content| image::guess_format(content).ok());
            let ending = format.and_then(|format| format.extensions_str().first());
            name = format!("{name}.{}", ending.unwrap_or(&"jpg"));
        }
        if !self.keys {
            return name;
        }
        let (stem, ending) = name.rsplit_once('.').unwrap_or((&name, "jpg"));
        let (folder, file) = stem.rsplit_once('/').unwrap_or(("", stem));
        let key = format!("{folder}/{}", file.replace('.', "_"));
        let ways = std::iter::once(key.clone()).chain((2..).map(|way| format!("{key}_{way}")));
        for key in ways {
            if self.used.insert(key.clone()) {
                return format!("{key}.{ending}");
            }
        }
        name.clone()
    }
}

/// The digest of everything that a file is to hold.
#[derive(Default)]
struct Sum(Sha256);

impl Sum {
    fn add(&mut self, name: &str, label: usize, content: &[u8]) {
        for part in [name.as_bytes(), label.to_string().as_bytes(), content] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// Whether a file that was read again holds the same.
    fn check(self, again: Self, path: &Path) -> Result<()> {
        match self.0.finalize() == again.0.finalize() {
            true => Ok(()),
            false => Err(Error::Data(format!(
                "{}: what was written is not what is read; check the disk and try again",
                path.display()
            ))),
        }
    }
}

/// An error inside of a write.
fn other(error: Error) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

fn nothing(dataset: &dyn Dataset) -> std::io::Error {
    let text = format!("none of the {} can be read", count(dataset.len(), "picture"));
    std::io::Error::other(text)
}

fn pack_records(queue: &mut Queue, out: &Path, options: PackOptions) -> Result<PackSummary> {
    let [positions, names] = ["idx", "lst"].map(|ending| out.with_extension(ending));
    for path in [out, &positions, &names] {
        refuse_existing(path, options.force)?;
    }
    let identities = queue.dataset.identities().len();
    if identities > LABELS {
        let text =
            format!("{}: {identities} identities; a record counts to {LABELS}", out.display());
        return Err(Error::Data(text));
    }
    let (mut index, mut list, sum) = (String::new(), String::new(), RefCell::default());
    let (mut pictures, mut at) = (0, 0_u64);
    let fill = |file: &mut dyn Write| {
        while let Some(Item { name, identity, content }) = queue.pop().map_err(other)? {
            let record = record_io::framed(identity as u32, pictures as u64, &content);
            file.write_all(&record)?;
            Sum::add(&mut sum.borrow_mut(), "", identity, &content);
            index += &format!("{pictures}\t{at}\n");
            list += &format!("{pictures}\t{identity}\t{name}\n");
            at += record.len() as u64;
            pictures += 1;
        }
        if pictures == 0 { Err(nothing(queue.dataset)) } else { Ok(()) }
    };
    let check = |path: &Path, sum: Sum| {
        let (file, mut again, mut at) = (FileMap::open(path)?, Sum::default(), 0);
        let bytes = file.bytes();
        while at < bytes.len() {
            let broken = |what| Error::Data(format!("{}: byte {at}: {what}", out.display()));
            let (data, next) = record_io::record(bytes, at).map_err(broken)?;
            let header = Header::of(&data).map_err(broken)?;
            again.add("", header.label as usize, data.get(header.picture..).unwrap_or_default());
            file.release(at..next);
            at = next;
        }
        sum.check(again, out)
    };
    write_checked(out, fill, |path| check(path, sum.take()))?;
    write_atomically(&positions, |file| file.write_all(index.as_bytes()))?;
    write_atomically(&names, |file| file.write_all(list.as_bytes()))?;
    let files = vec![out.to_path_buf(), positions, names];
    Ok(PackSummary { pictures, files, ..PackSummary::default() })
}

/// What an interrupted run was to write; the file is there until the last shard is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    data: PathBuf,
    pictures: usize,
    shard_size: u64,
}

fn pack_shards(queue: &mut Queue, out: &Path, options: PackOptions) -> Result<PackSummary> {
    let text = out.to_string_lossy();
    // `{000..NNN}`: as many as have so many digits.
    let pattern = PathBuf::from(text.replace('N', "9"));
    let paths = match text.contains("..N") {
        true => shards::expand(&pattern)?,
        false => shards::expand(out)?,
    };
    let one = paths.len() == 1;
    let mut marker = out.as_os_str().to_owned();
    marker.push(".packing");
    let marker = PathBuf::from(marker);
    let data = queue.dataset.root().to_path_buf();
    let begun = Begun { data, pictures: queue.dataset.len(), shard_size: options.shard_size };
    let written = std::fs::read(&marker).ok();
    let written = written.and_then(|text| serde_json::from_slice::<Begun>(&text).ok());
    let resumes = !options.force && written.is_some_and(|written| written == begun);
    if !resumes {
        paths.iter().try_for_each(|path| refuse_existing(path, options.force))?;
    }
    write_atomically(&marker, |file| Ok(serde_json::to_writer(file, &begun)?))?;

    let (mut summary, mut keeps, mut waiting) = (PackSummary::default(), resumes, None);
    for path in &paths {
        if keeps && path.is_file() {
            let shard = FileMap::open(path)?;
            if let Some(held) = queue.pass_over(shard.bytes()) {
                summary.pictures += held;
                summary.kept += 1;
                summary.files.push(path.clone());
                continue;
            }
        }
        keeps = false;
        if waiting.is_none() {
            waiting = queue.pop()?;
        }
        if waiting.is_none() {
            break;
        }
        let most = if one { u64::MAX } else { options.shard_size };
        summary.pictures += write_shard(path, &mut waiting, queue, most)?;
        summary.files.push(path.clone());
    }
    if waiting.is_some() || queue.pop()?.is_some() {
        return Err(Error::Config(format!(
            "{}: {} are too few; raise --shard-size, or name more",
            out.display(),
            count(paths.len(), "shard")
        )));
    }
    // Of an earlier data set with more shards.
    for path in paths.iter().skip(summary.files.len()).filter(|path| path.is_file()) {
        std::fs::remove_file(path).map_err(|source| Error::io(path, source))?;
    }
    std::fs::remove_file(&marker).map_err(|source| Error::io(&marker, source))?;
    if summary.files.is_empty() {
        return Err(Error::io(queue.dataset.root(), nothing(queue.dataset)));
    }
    Ok(summary)
}

/// Writes one shard, of `waiting` and what follows; returns the number of its pictures.
fn write_shard(
    path: &Path,
    waiting: &mut Option<Item>,
    queue: &mut Queue,
    most: u64,
) -> Result<usize> {
    let (mut pictures, sum) = (0, RefCell::default());
    let fill = |file: &mut dyn Write| {
        let mut bytes = 0;
        while let Some(Item { name, identity, content }) = waiting.take() {
            let key = name.rsplit_once('.').map_or(name.as_str(), |(key, _)| key);
            let label = identity.to_string();
            let label = tar_members::framed(&format!("{key}.cls"), label.as_bytes());
            for part in [tar_members::framed(&name, &content), label] {
                file.write_all(&part)?;
                bytes += part.len() as u64;
            }
            Sum::add(&mut sum.borrow_mut(), &name, identity, &content);
            pictures += 1;
            *waiting = queue.pop().map_err(other)?;
            if bytes >= most {
                break;
            }
        }
        file.write_all(&END)
    };
    let check = |written: &Path, sum: Sum| {
        let file = FileMap::open(written)?;
        let broken = |what| Error::Data(format!("{}: {what}", path.display()));
        let (mut again, mut at) = (Sum::default(), 0);
        while let Some(picture) = member(file.bytes(), at).map_err(broken)? {
            let label = member(file.bytes(), picture.next).map_err(broken)?;
            let label = label.ok_or_else(|| broken("a label is missing".into()))?;
            let number = std::str::from_utf8(label.content).ok().and_then(|text| text.parse().ok());
            again.add(&picture.name, number.unwrap_or(usize::MAX), picture.content);
            at = label.next;
        }
        sum.check(again, path)
    };
    write_checked(path, fill, |written| check(written, sum.take()))?;
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::formats;
    use super::super::testing::face_folder;
    use super::*;

    const OPTIONS: PackOptions = PackOptions { shard_size: 6000, force: false };

    fn folder(root: &Path) -> Arc<dyn Dataset> {
        let root = root.join("faces");
        face_folder(&root, &[("zoe", 2), ("Ann B.", 3), ("bob/2020", 1), ("bob", 1)]);
        std::fs::rename(root.join("zoe/1.png"), root.join("zoe/0.x.png")).unwrap();
        std::fs::write(root.join("bob/broken.png"), "no picture").unwrap();
        formats::open(&root).unwrap()
    }

    fn pack_to(dataset: &dyn Dataset, out: &Path, options: PackOptions) -> Result<PackSummary> {
        pack(dataset, out, options, &|| ())
    }

    /// Identity, and content of every picture that can be decoded.
    fn contents(dataset: &dyn Dataset) -> Vec<(String, Vec<u8>)> {
        let one = |number| {
            let content = read(dataset, number).ok()?;
            let identity = dataset.record(number).unwrap().identity;
            Some((dataset.identities()[identity].clone(), content))
        };
        (0..dataset.len()).filter_map(one).collect()
    }

    fn names(dataset: &dyn Dataset) -> Vec<String> {
        let below = |path: PathBuf| path.strip_prefix(dataset.root()).unwrap().to_owned();
        dataset.paths().map(|path| below(path).to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_packed_folder_is_the_same_data_set() {
        let root = tempfile::tempdir().unwrap();
        let plain = folder(root.path());
        let records = root.path().join("faces.rec");
        let summary = pack_to(plain.as_ref(), &records, OPTIONS).unwrap();
        assert_eq!((summary.pictures, summary.files.len(), summary.kept), (7, 3, 0));
        assert_eq!(summary.left_out.len(), 1);
        assert!(summary.left_out[0].0.ends_with("bob/broken.png"), "{:?}", summary.left_out);
        let opened = formats::open(&records).unwrap();
        assert_eq!(contents(opened.as_ref()), contents(plain.as_ref()));
        let wanted = names(plain.as_ref());
        let wanted: Vec<_> = wanted.into_iter().filter(|name| !name.contains("broken")).collect();
        assert_eq!(names(opened.as_ref()), wanted);
        assert_eq!(opened.identities(), plain.identities());

        let pattern = root.path().join("faces-{00..NN}.tar");
        let summary = pack_to(opened.as_ref(), &pattern, OPTIONS).unwrap();
        assert!(summary.files.len() > 2 && summary.left_out.is_empty(), "{summary:?}");
        let last = summary.files.len() - 1;
        let shards =
            formats::open(&root.path().join(format!("faces-{{00..{last:02}}}.tar"))).unwrap();
        assert_eq!(contents(shards.as_ref()), contents(plain.as_ref()));
        assert_eq!(shards.identities(), plain.identities());
        let dotted = names(shards.as_ref()).pop().unwrap();
        assert_eq!(dotted, "zoe/0_x.png");
        // And back into one archive, by their paths.
        let one = root.path().join("one.tar");
        pack_to(shards.as_ref(), &one, OPTIONS).unwrap();
        let one = formats::open(&one).unwrap();
        let number = one.len() - 1;
        let path = one.record(number).unwrap().path;
        let content = one.content(number).unwrap();
        assert_eq!(super::super::picture::read(&path).unwrap(), *content);
        assert_eq!(super::super::picture::owner(Path::new(""), &path), "zoe");
        assert_eq!(super::super::picture::walk(one.root()).unwrap().len(), 7);
    }

    #[test]
    fn nothing_is_overwritten_and_an_interrupted_run_goes_on() {
        let root = tempfile::tempdir().unwrap();
        let plain = folder(root.path());
        let pattern = root.path().join("s-{0..9}.tar");
        let first = pack_to(plain.as_ref(), &pattern, OPTIONS).unwrap();
        assert!(first.files.len() > 2, "{first:?}");
        let error = pack_to(plain.as_ref(), &pattern, OPTIONS).unwrap_err().to_string();
        assert!(error.contains("s-0.tar: already exists; give --force"), "{error}");
        // As if it had been stopped in the last shard.
        let whole: Vec<_> = first.files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        std::fs::remove_file(first.files.last().unwrap()).unwrap();
        let begun = Begun { data: plain.root().into(), pictures: plain.len(), shard_size: 6000 };
        let marker = root.path().join("s-{0..9}.tar.packing");
        std::fs::write(&marker, serde_json::to_vec(&begun).unwrap()).unwrap();
        let again = pack_to(plain.as_ref(), &pattern, OPTIONS).unwrap();
        assert_eq!((again.kept, &again.files), (first.files.len() - 1, &first.files));
        assert_eq!((again.pictures, &again.left_out), (first.pictures, &first.left_out));
        for (file, whole) in again.files.iter().zip(&whole) {
            assert!(std::fs::read(file).unwrap() == *whole);
        }
        assert!(!marker.exists());
        // Fewer and larger shards: those that are too many go.
        let options = PackOptions { shard_size: 1 << 30, force: true };
        assert_eq!(pack_to(plain.as_ref(), &pattern, options).unwrap().files.len(), 1);
        assert!(!root.path().join("s-1.tar").exists());
        let few = root.path().join("f-{0..1}.tar");
        let error = pack_to(plain.as_ref(), &few, OPTIONS).unwrap_err().to_string();
        assert!(error.contains("2 shards are too few"), "{error}");
        let error = pack_to(plain.as_ref(), Path::new("x.zip"), OPTIONS).unwrap_err().to_string();
        assert!(error.contains("must end in .rec"), "{error}");
    }
}
