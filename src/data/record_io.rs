//! MXNet's RecordIO: the framing of records, and the header of those that hold a picture.
//!
//! ```text
//! u32 0xced7230a; u32: 3 bits of flag, 29 bits of length; the data, filled up to 4 bytes
//! flag: 0 a whole record; 1, 2, 3 the first, a middle and the last part of one that holds the magic
//! number itself, which is left out between the parts
//! data: u32 flag, f32 label, u64 id, u64 id2; `flag` f32 labels in place of the one; the picture
//! ```

use std::borrow::Cow;

const MAGIC: [u8; 4] = 0xced7_230a_u32.to_le_bytes();
const LENGTH: u32 = (1 << 29) - 1;
/// Bytes of a picture's header, without the labels behind it.
const HEADER: usize = 24;

/// The largest picture in a record, in bytes: 29 bits count the record.
pub(super) const LARGEST: usize = LENGTH as usize - HEADER;

/// One part of a record: its flag, its data, and where the next one begins.
struct Piece<'a> {
    flag: u32,
    data: &'a [u8],
    next: usize,
}

fn piece(file: &[u8], at: usize) -> Result<Piece<'_>, String> {
    let word = |at: usize| file.get(at..)?.first_chunk::<4>();
    let magic = word(at).ok_or("the file ends here: it is cut off")?;
    if *magic != MAGIC {
        return Err(format!("{:08x} in place of ced7230a", u32::from_le_bytes(*magic)));
    }
    let head = word(at + 4).ok_or("the file ends here: it is cut off")?;
    let head = u32::from_le_bytes(*head);
    let (flag, length) = (head >> 29, (head & LENGTH) as usize);
    let data = file.get(at + 8..at + 8 + length);
    let data = data.ok_or_else(|| {
        let left = file.len() - (at + 8);
        format!("{length} bytes are announced and {left} follow: the file is cut off")
    })?;
    Ok(Piece { flag, data, next: at + 8 + length.next_multiple_of(4) })
}

/// The data of the record at this byte, and where the next record begins.
pub(super) fn record(file: &[u8], at: usize) -> Result<(Cow<'_, [u8]>, usize), String> {
    let first = piece(file, at)?;
    match first.flag {
        0 => return Ok((Cow::Borrowed(first.data), first.next)),
        1 => {}
        flag => return Err(format!("a record begins with flag {flag}; expected 0 or 1")),
    }
    let (mut data, mut next) = (first.data.to_vec(), first.next);
    loop {
        let more = piece(file, next)?;
        if more.flag != 2 && more.flag != 3 {
            return Err(format!("flag {} inside of a record; expected 2 or 3", more.flag));
        }
        data.extend_from_slice(&MAGIC);
        data.extend_from_slice(more.data);
        next = more.next;
        if more.flag == 3 {
            return Ok((Cow::Owned(data), next));
        }
    }
}

/// A record of pictures: its first label, its number, and where the encoded picture begins; a record
/// without a picture ends there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Header {
    pub label: f32,
    pub id: u64,
    pub picture: usize,
}

impl Header {
    /// Of the data of a record.
    pub fn of(data: &[u8]) -> Result<Self, String> {
        let read = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
        let id = data.get(8..).and_then(|rest| rest.first_chunk::<8>());
        let (Some(flag), Some(id), Some(_)) = (read(0), id, data.get(HEADER - 1)) else {
            return Err(format!("{} bytes are no header of a picture ({HEADER})", data.len()));
        };
        let id = u64::from_le_bytes(*id);
        let picture = (flag as usize).checked_mul(4).and_then(|labels| labels.checked_add(HEADER));
        let Some(picture) = picture.filter(|&picture| picture <= data.len()) else {
            return Err(format!("{flag} labels do not fit into its {} bytes", data.len()));
        };
        let label = read(if flag == 0 { 4 } else { HEADER }).unwrap_or_default();
        Ok(Self { label: f32::from_bits(label), id, picture })
    }
}

/// The record of a picture, framed as MXNet does.
pub(super) fn framed(label: u32, id: u64, picture: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(HEADER + picture.len());
    data.extend_from_slice(&0_u32.to_le_bytes());
    data.extend_from_slice(&(label as f32).to_le_bytes());
    data.extend_from_slice(&id.to_le_bytes());
    data.extend_from_slice(&0_u64.to_le_bytes());
    data.extend_from_slice(picture);
    split(&data)
}

/// Frames the data of a record: where it holds the magic number at a multiple of 4 bytes it is split
/// there, so that a reader can find the next record after damage.
fn split(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 16);
    let mut put = |flag: u32, part: &[u8]| {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(flag << 29 | part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    let mut start = 0;
    for (word, bytes) in data.chunks_exact(4).enumerate() {
        if bytes == MAGIC {
            put(if start == 0 { 1 } else { 2 }, &data[start..4 * word]);
            start = 4 * word + 4;
        }
    }
    put(if start == 0 { 0 } else { 3 }, &data[start..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_framed_is_read_back_with_the_magic_number_in_it() {
        for picture in [
            &b""[..],
            b"abc",
            b"abcd",
            &MAGIC,
            &[&MAGIC[..], &MAGIC].concat(),
            &[&b"1234"[..], &MAGIC, b"12", &MAGIC, b"34", &MAGIC].concat(),
        ] {
            let file = [framed(7, 11, picture), framed(8, 12, b"next")].concat();
            assert_eq!(file.len() % 4, 0);
            let (data, next) = record(&file, 0).unwrap();
            let header = Header::of(&data).unwrap();
            assert_eq!(header, Header { label: 7.0, id: 11, picture: HEADER });
            assert_eq!(&data[header.picture..], picture);
            let (data, next) = record(&file, next).unwrap();
            assert_eq!((&data[HEADER..], next), (&b"next"[..], file.len()));
        }
    }

    #[test]
    fn labels_behind_the_header_are_passed_over() {
        let mut data = framed(0, 5, b"")[8..].to_vec();
        data[0] = 2;
        data.extend([3.0_f32, 9.5].iter().flat_map(|label| label.to_le_bytes()));
        data.extend(b"jpeg");
        let header = Header::of(&data).unwrap();
        assert_eq!(header, Header { label: 3.0, id: 5, picture: HEADER + 8 });
        data[3] = 0x40;
        assert!(Header::of(&data).unwrap_err().contains("labels do not fit"));
        assert!(Header::of(&data[..20]).unwrap_err().contains("no header"));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let whole = [framed(1, 1, &MAGIC), framed(2, 2, b"abcdefg")].concat();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            for bytes in [&whole[..at], &bytes] {
                let mut next = 0;
                while let Ok((data, end)) = record(bytes, next) {
                    let _ = Header::of(&data);
                    next = end;
                }
            }
        }
    }
}
