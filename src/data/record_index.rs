//! The index of a packed data set: where each picture lies, whose it is, and what it is called. It is made
//! once, written beside the data, and memory-mapped: 24 bytes a picture.
//!
//! ```text
//! VISAGEIX, then u64: version, pictures, bytes of the text
//! per picture: u64 place, u64 tag, u32 length, u32 identity (all numbers little-endian)
//! the text, JSON: size and time of the files, names of the identities, notes
//! u32: CRC-32 of all before
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{create_folder, write_atomically};
use crate::native::FileMap;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"VISAGEIX";
/// To be raised whenever the meaning of an index changes.
const VERSION: u64 = 1;
const HEAD: usize = 32;
const EACH: usize = 24;

/// Where a picture lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PictureEntry {
    /// Where its record begins.
    pub place: u64,
    /// What its name is found by.
    pub tag: u64,
    /// Bytes of the encoded picture.
    pub length: u32,
    /// Index of its identity, or its label while the index is made.
    pub identity: u32,
}

impl PictureEntry {
    fn bytes(self) -> [u8; EACH] {
        let mut bytes = [0; EACH];
        bytes[..8].copy_from_slice(&self.place.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.tag.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        bytes[20..].copy_from_slice(&self.identity.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (place, rest) = bytes.split_first_chunk()?;
        let (tag, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        Some(Self {
            place: u64::from_le_bytes(*place),
            tag: u64::from_le_bytes(*tag),
            length: u32::from_le_bytes(*length),
            identity: u32::from_le_bytes(*rest.first_chunk()?),
        })
    }
}

/// What tells whether a file is the one that was indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

/// The part of an index that is text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Text {
    files: Vec<Stamp>,
    identities: Vec<String>,
    notes: Vec<String>,
    named: bool,
}

/// What a packed data set is found to hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The pictures, in their final order, with the index of their identity.
    pub entries: Vec<PictureEntry>,
    /// The names of the identities.
    pub identities: Vec<String>,
    /// Remarks, one sentence each.
    pub notes: Vec<String>,
    /// Whether the pictures have names of their own.
    pub named: bool,
}

#[derive(Debug)]
enum Entries {
    Memory(Vec<PictureEntry>),
    Mapped(FileMap),
}

/// The index of a packed data set.
#[derive(Debug)]
pub(super) struct RecordIndex {
    entries: Entries,
    length: usize,
    /// See [`Found::identities`].
    pub identities: Vec<String>,
    /// See [`Found::notes`].
    pub notes: Vec<String>,
    /// See [`Found::named`].
    pub named: bool,
}

impl RecordIndex {
    /// The index of `files`, which are the data set at `path`: the one that was written for them, or a
    /// new one by `find`. Where it can be written neither beside the data nor in the cache folder, it is
    /// kept in memory.
    ///
    /// # Errors
    /// A file cannot be read, or what `find` reports.
    pub fn open(
        path: &Path,
        files: &[PathBuf],
        find: impl FnOnce() -> Result<Found>,
    ) -> Result<Self> {
        let stamps = files.iter().map(|file| stamp(file)).collect::<Result<Vec<_>>>()?;
        let places = [Some(beside(path)), cached(path)];
        if let Some(index) = places.iter().flatten().find_map(|place| Self::load(place, &stamps)) {
            return Ok(index);
        }
        let Found { entries, identities, notes, named } = find()?;
        let text = Text { files: stamps, identities, notes, named };
        let is_written = |place: &&PathBuf| write(place, &entries, &text).is_ok();
        if let Some(index) = places
            .iter()
            .flatten()
            .find(is_written)
            .and_then(|place| Self::load(place, &text.files))
        {
            return Ok(index);
        }
        let Text { identities, notes, named, .. } = text;
        let length = entries.len();
        Ok(Self { entries: Entries::Memory(entries), length, identities, notes, named })
    }

    /// Reads a written index, if it is whole and of these files.
    fn load(place: &Path, stamps: &[Stamp]) -> Option<Self> {
        let map = FileMap::open(place).ok()?;
        let bytes = map.bytes();
        let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        let head = content.get(..HEAD)?;
        let number = |at: usize| Some(u64::from_le_bytes(*head.get(at..)?.first_chunk()?));
        if head.get(..8)? != MAGIC || number(8)? != VERSION {
            return None;
        }
        let (length, text) =
            (usize::try_from(number(16)?).ok()?, usize::try_from(number(24)?).ok()?);
        let entries = length.checked_mul(EACH)?.checked_add(HEAD)?;
        if content.len().checked_sub(entries)? != text {
            return None;
        }
        let text: Text = serde_json::from_slice(content.get(entries..)?).ok()?;
        if text.files != stamps || crc32fast::hash(content).to_le_bytes() != *sum {
            return None;
        }
        let Text { identities, notes, named, .. } = text;
        Some(Self { entries: Entries::Mapped(map), length, identities, notes, named })
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The entry of a picture.
    pub fn get(&self, number: usize) -> Option<PictureEntry> {
        match &self.entries {
            Entries::Memory(entries) => entries.get(number).copied(),
            Entries::Mapped(map) if number < self.length => {
                PictureEntry::of(map.bytes().get(HEAD + number * EACH..)?)
            }
            Entries::Mapped(_) => None,
        }
    }
}

fn write(place: &Path, entries: &[PictureEntry], text: &Text) -> Result<()> {
    if let Some(folder) = place.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_folder(folder)?;
    }
    write_atomically(place, |out| {
        let text = serde_json::to_vec(text)?;
        let mut sum = crc32fast::Hasher::new();
        let mut put = |bytes: &[u8]| {
            sum.update(bytes);
            out.write_all(bytes)
        };
        put(MAGIC)?;
        for number in [VERSION, entries.len() as u64, text.len() as u64] {
            put(&number.to_le_bytes())?;
        }
        entries.iter().try_for_each(|entry| put(&entry.bytes()))?;
        put(&text)?;
        out.write_all(&sum.finalize().to_le_bytes())
    })
}

fn stamp(file: &Path) -> Result<Stamp> {
    let about = std::fs::metadata(file).map_err(|source| Error::io(file, source))?;
    let since = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = since.map_or(0, |since| since.as_nanos() as u64);
    Ok(Stamp { size: about.len(), modified })
}

/// Beside the data set.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".visage-index");
    name.into()
}

/// In the user's cache folder, if there is one.
fn cached(path: &Path) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = folder("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| folder("HOME").map(|home| Path::new(&home).join(".cache")))?;
    let whole = std::path::absolute(path).ok()?;
    let name = hex::encode(&Sha256::digest(whole.as_os_str().as_encoded_bytes())[..16]);
    Some(cache.join("visage").join(format!("{name}.visage-index")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Found {
        let entry = |number: u32| PictureEntry {
            place: (1 << 40) + u64::from(number),
            tag: 7 * u64::from(number),
            length: 100 + number,
            identity: number / 2,
        };
        Found {
            entries: (0..5).map(entry).collect(),
            identities: ["ann", "bob", "zoe"].map(String::from).to_vec(),
            notes: vec!["a note".into()],
            named: true,
        }
    }

    #[test]
    fn an_index_is_made_once_and_again_when_the_data_changes() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("faces.rec");
        std::fs::write(&data, "data").unwrap();
        let open = |find: &dyn Fn() -> Result<Found>| {
            RecordIndex::open(&data, std::slice::from_ref(&data), find).unwrap()
        };
        open(&|| Ok(found()));
        let again = open(&|| Err(Error::Data("made again".into())));
        assert!(matches!(again.entries, Entries::Mapped(_)));
        assert_eq!((again.len(), again.get(5), again.named), (5, None, true));
        for (number, wanted) in found().entries.into_iter().enumerate() {
            assert_eq!(again.get(number), Some(wanted));
        }
        assert_eq!((again.identities, again.notes), (found().identities, found().notes));
        std::fs::write(&data, "other data").unwrap();
        let other = open(&|| Ok(Found::default()));
        assert_eq!(other.len(), 0);
    }

    #[test]
    fn a_damaged_index_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("faces.rec");
        std::fs::write(&data, "data").unwrap();
        let files = std::slice::from_ref(&data);
        RecordIndex::open(&data, files, || Ok(found())).unwrap();
        let whole = std::fs::read(beside(&data)).unwrap();
        let stamps = [stamp(&data).unwrap()];
        for at in 0..whole.len() {
            std::fs::write(beside(&data), &whole[..at]).unwrap();
            assert!(RecordIndex::load(&beside(&data), &stamps).is_none(), "cut at {at}");
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(beside(&data), bytes).unwrap();
            assert!(RecordIndex::load(&beside(&data), &stamps).is_none(), "flipped at {at}");
        }
        assert_eq!(RecordIndex::open(&data, files, || Ok(found())).unwrap().len(), 5);
    }
}
