//! The table of contents of a zip file, read so that stored members can be used where they lie.
//!
//! Only what PyTorch and NumPy write is followed: one disk, stored or deflated, zip64. Every number
//! of the file is held against the bytes that are there before it is used.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

/// One file in the archive.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub name: String,
    /// Where its bytes lie in the archive, packed or not.
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

const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: usize = 22;
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
const DAMAGED: &str = "the zip archive is damaged or not whole";

fn fail<T>(at: usize, what: &str) -> Result<T, String> {
    Err(format!("{DAMAGED}: at byte {at}: {what}"))
}

/// An unsigned little-endian number of `width` bytes at `at`.
fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64, String> {
    let field = at.checked_add(width).and_then(|end| bytes.get(at..end));
    match field {
        Some(field) => Ok(field.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))),
        None => fail(at, "the file ends inside a field"),
    }
}

fn index(at: usize, value: u64) -> Result<usize, String> {
    usize::try_from(value).or_else(|_| fail(at, "an offset beyond all memory"))
}

impl Zip {
    /// Reads the table of contents.
    ///
    /// # Errors
    /// The offset of what is wrong, and what.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let (count, mut at) = table_of_contents(bytes)?;
        let mut zip = Self { members: Vec::new(), by_name: HashMap::new() };
        for _ in 0..count {
            let (member, next) = entry(bytes, at)?;
            if zip.by_name.insert(member.name.clone(), zip.members.len()).is_some() {
                return fail(at, &format!("a second member named {}", member.name));
            }
            zip.members.push(member);
            at = next;
        }
        Ok(zip)
    }

    pub fn get(&self, name: &str) -> Option<&Member> {
        self.by_name.get(name).and_then(|&index| self.members.get(index))
    }
}

/// The number of entries and the offset of the first.
fn table_of_contents(bytes: &[u8]) -> Result<(u64, usize), String> {
    // The end record is last, but for a comment of at most 65,535 bytes.
    let earliest = bytes.len().saturating_sub(END_LENGTH + 65_535);
    let tail = &bytes[earliest..];
    let found = tail.windows(END.len()).rposition(|window| window == END);
    let Some(end) = found.map(|at| at + earliest) else {
        return fail(bytes.len(), "no table of contents before the end");
    };
    if end + END_LENGTH + number(bytes, end + 20, 2)? as usize > bytes.len() {
        return fail(end, "the file ends inside its last record");
    }
    let (count, at) = (number(bytes, end + 10, 2)?, number(bytes, end + 16, 4)?);
    if count != 0xffff && at != 0xffff_ffff {
        return Ok((count, index(end, at)?));
    }
    // zip64: a locator before the end record points to the wider one.
    let Some(locator) = end.checked_sub(20).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07"))
    else {
        return Ok((count, index(end, at)?));
    };
    let wide = index(locator, number(bytes, locator + 8, 8)?)?;
    if !bytes.get(wide..).is_some_and(|rest| rest.starts_with(b"PK\x06\x06")) {
        return fail(locator, "no zip64 record where this says");
    }
    let at = wide.saturating_add(48);
    Ok((number(bytes, at - 16, 8)?, index(at, number(bytes, at, 8)?)?))
}

/// Reads one entry and returns the offset of the next.
fn entry(bytes: &[u8], at: usize) -> Result<(Member, usize), String> {
    if !bytes.get(at..).is_some_and(|rest| rest.starts_with(ENTRY)) {
        return fail(at, "no entry of the table of contents here");
    }
    let flags = number(bytes, at + 8, 2)?;
    let method = number(bytes, at + 10, 2)?;
    let crc = number(bytes, at + 16, 4)? as u32;
    let [mut packed, mut length, mut local] =
        [number(bytes, at + 20, 4)?, number(bytes, at + 24, 4)?, number(bytes, at + 42, 4)?];
    let [name, extra, comment] = [28, 30, 32].map(|field| number(bytes, at + field, 2));
    let (name, extra, comment) = (name? as usize, extra? as usize, comment? as usize);
    let extra_at = at + 46 + name;
    let next = extra_at + extra + comment;
    if next > bytes.len() {
        return fail(at, "the file ends inside an entry");
    }
    let name = String::from_utf8_lossy(&bytes[at + 46..extra_at]).into_owned();
    let wide = wide_numbers(&bytes[extra_at..extra_at + extra]);
    let mut wide = wide.iter();
    for field in [&mut length, &mut packed, &mut local] {
        if *field == 0xffff_ffff {
            *field = *wide.next().unwrap_or(field);
        }
    }
    if flags & 1 != 0 {
        return fail(at, &format!("{name} is encrypted"));
    }
    let deflated = match method {
        0 => false,
        8 => true,
        other => return fail(at, &format!("{name} is packed with method {other}, not deflate")),
    };
    let start = index(at, local)?;
    if !bytes.get(start..).is_some_and(|rest| rest.starts_with(LOCAL)) {
        return fail(start, &format!("no header of {name} here"));
    }
    let skipped =
        30 + number(bytes, start + 26, 2)? as usize + number(bytes, start + 28, 2)? as usize;
    let from = start + skipped;
    let to = index(at, packed)?.checked_add(from).filter(|&to| to <= bytes.len());
    let Some(to) = to else {
        return fail(start, &format!("{name} claims {packed} bytes and the file ends before"));
    };
    if !deflated && length != packed {
        return fail(
            at,
            &format!("{name} is stored, yet {packed} bytes are said to hold {length}"),
        );
    }
    let crc = Some(crc).filter(|&crc| crc != 0);
    Ok((Member { name, range: from..to, length, deflated, crc }, next))
}

/// The 64-bit numbers of the zip64 extra field.
fn wide_numbers(mut extra: &[u8]) -> Vec<u64> {
    while let (Ok(id), Ok(length)) = (number(extra, 0, 2), number(extra, 2, 2)) {
        let length = length as usize;
        let Some(field) = extra.get(4..4 + length) else { break };
        if id == 1 {
            return field.as_chunks::<8>().0.iter().map(|&wide| u64::from_le_bytes(wide)).collect();
        }
        extra = &extra[4 + length..];
    }
    Vec::new()
}

impl Member {
    /// Inflates a deflated member. `budget` is what all members of a file may still grow to.
    ///
    /// # Errors
    /// Damaged data, another length than claimed, or more than the budget: a zip bomb.
    pub fn inflate(&self, bytes: &[u8], budget: &mut usize) -> Result<Vec<u8>, String> {
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
