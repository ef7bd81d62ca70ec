//! The central directory of a zip file; stored members are used in place.
//!
//! The crate `zip` reads the table. Members are inflated here, because the crate's reader trusts the
//! length that a zip bomb claims; and the number of entries is compared with the file beforehand, since
//! the crate reserves memory for as many as a file claims.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::stored::Data;

/// One file in the archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub name: String,
    /// Its bytes in the archive, compressed or not.
    pub range: Range<usize>,
    /// Inflated length, as claimed.
    pub length: u64,
    pub deflated: bool,
    /// `None` where the writer left it out, as `torch.serialization.set_crc32_options(False)` does.
    pub crc: Option<u32>,
}

/// The members in the order of the table of contents.
#[derive(Debug)]
pub(super) struct Zip {
    pub members: Vec<Member>,
    by_name: HashMap<String, usize>,
}

const DAMAGED: &str = "the zip archive is damaged or not whole";
/// Entries in one archive; a checkpoint has a few thousand.
const MAX_MEMBERS: u64 = 1_000_000;

fn fail<T>(at: usize, what: &str) -> Result<T, String> {
    Err(format!("{DAMAGED}: at byte {at}: {what}"))
}

/// Maximum total size of inflated members; weights hardly compress.
pub(super) fn inflation_budget(file: usize) -> usize {
    file.saturating_mul(20).saturating_add(64 << 20)
}

impl Zip {
    /// Reads the table of contents.
    ///
    /// # Errors
    /// What is wrong, and in which member.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        check_claims(bytes)?;
        let damaged = |error: zip::result::ZipError| format!("{DAMAGED}: {error}");
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
        let mut zip = Self { members: Vec::new(), by_name: HashMap::new() };
        for index in 0..archive.len() {
            // Not `by_index`, which panics where an entry has the extra field of AES without being
            // encrypted.
            let entry = archive.by_index_raw(index).map_err(damaged)?;
            let at = usize::try_from(entry.central_header_start()).unwrap_or(usize::MAX);
            let name = entry.name().to_owned();
            if bytes.get(at.saturating_add(8)).is_none_or(|flags| flags & 1 != 0) {
                return fail(at, &format!("{name} is encrypted"));
            }
            let deflated = match entry.compression() {
                CompressionMethod::Stored => false,
                CompressionMethod::Deflated => true,
                other => return fail(at, &format!("{name} is compressed by {other}, not deflate")),
            };
            let from = usize::try_from(entry.data_start()).unwrap_or(usize::MAX);
            let (length, packed) = (entry.size(), entry.compressed_size());
            let to = usize::try_from(packed).ok().and_then(|packed| from.checked_add(packed));
            let Some(to) = to.filter(|&to| to <= bytes.len()) else {
                return fail(at, &format!("{name} claims {packed} bytes and the file ends before"));
            };
            if !deflated && length != packed {
                let text =
                    format!("{name} is stored uncompressed, but has {packed} bytes for {length}");
                return fail(at, &text);
            }
            let crc = Some(entry.crc32()).filter(|&crc| crc != 0);
            if zip.by_name.insert(name.clone(), zip.members.len()).is_some() {
                return fail(at, &format!("a second member named {name}"));
            }
            zip.members.push(Member { name, range: from..to, length, deflated, crc });
        }
        Ok(zip)
    }

    pub fn get(&self, name: &str) -> Option<&Member> {
        self.by_name.get(name).and_then(|&index| self.members.get(index))
    }
}

/// Refuses an archive of 64-bit numbers (zip64) whose last record is not where it is said to be, for
/// which the crate would search the whole file, or that claims too many entries.
fn check_claims(bytes: &[u8]) -> Result<(), String> {
    const END_LENGTH: usize = 22;
    let number = |at: usize| {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        field.map_or(u64::MAX, |field| u64::from_le_bytes(*field))
    };
    // The end record is last, but for a comment of at most 65,535 bytes.
    let earliest = bytes.len().saturating_sub(END_LENGTH + 65_535);
    let tail = &bytes[earliest..bytes.len().saturating_sub(END_LENGTH - 4)];
    let Some(end) = tail.windows(4).rposition(|window| window == b"PK\x05\x06") else {
        return fail(bytes.len(), "no table of contents before the end");
    };
    // From the comment's length, as the crate does, whatever follows the comment.
    let comment = number(earliest + end + 14) >> 48;
    let locator = bytes.len().checked_sub(20 + END_LENGTH + comment as usize);
    let Some(locator) = locator.filter(|&at| bytes[at..].starts_with(b"PK\x06\x07")) else {
        return Ok(());
    };
    let record = usize::try_from(number(locator + 8)).unwrap_or(usize::MAX);
    if !bytes.get(record..).is_some_and(|rest| rest.starts_with(b"PK\x06\x06")) {
        return fail(locator, "no zip64 record where this says");
    }
    let count = number(record.saturating_add(32));
    if count > MAX_MEMBERS {
        return fail(record, &format!("claims {count} entries"));
    }
    Ok(())
}

impl Member {
    /// The bytes, in place or inflated.
    ///
    /// # Errors
    /// As [`Member::inflate`].
    pub fn data(&self, bytes: &[u8], budget: &mut usize) -> Result<Data, String> {
        if self.deflated {
            self.inflate(bytes, budget).map(Data::Inflated)
        } else {
            Ok(Data::File(self.range.clone()))
        }
    }

    /// Inflates a deflated member. `budget` is the remaining size for all members of a file.
    ///
    /// # Errors
    /// Damaged data, another length than claimed, or more than the budget: a zip bomb.
    fn inflate(&self, bytes: &[u8], budget: &mut usize) -> Result<Vec<u8>, String> {
        let packed = bytes.get(self.range.clone()).unwrap_or_default();
        if self.length > *budget as u64 {
            return Err(format!(
                "{} is a zip bomb: {} packed bytes claim to hold {}",
                self.name,
                packed.len(),
                self.length
            ));
        }
        let mut data = Vec::new();
        let mut inflating = flate2::read::DeflateDecoder::new(packed).take(self.length + 1);
        let at = self.range.start;
        if let Err(error) = inflating.read_to_end(&mut data) {
            return fail(at, &format!("{}: {error}", self.name));
        }
        if data.len() as u64 != self.length {
            let claimed = self.length;
            return fail(at, &format!("{} claims {claimed} bytes and holds others", self.name));
        }
        if self.crc.is_some_and(|crc| crc != crc32fast::hash(&data)) {
            return fail(at, &format!("{}: the checksum differs", self.name));
        }
        *budget -= data.len();
        Ok(data)
    }
}
