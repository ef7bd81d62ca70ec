//! NumPy's `.npz`: a zip of `.npy` members, as NumPy and tch write it.
//!
//! The header is not read by `npyz`, which writes Visage's `.npy` files: its parser takes exponential
//! time on nested brackets, which a malicious file may have.

use std::cell::Cell;

use super::dtype;
use super::index::{Index, WeightFormat};
use super::stored::{Data, Entry, Layout, Storage};
use super::zip::{Zip, inflation_budget};

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy's own limit; usual headers are under 200 bytes.
const MAX_HEADER: usize = 10_000;

/// Reads the index of an `.npz`.
pub(super) fn read(bytes: &[u8], zip: &Zip) -> Result<Index, String> {
    let mut budget = inflation_budget(bytes.len());
    let mut index = Index::new(WeightFormat::Npz);
    for member in &zip.members {
        let Some(name) = member.name.strip_suffix(".npy") else {
            index.notes.push(format!("{} is no array and was ignored", member.name));
            continue;
        };
        let data = member.data(bytes, &mut budget)?;
        let array = match &data {
            Data::File(range) => bytes.get(range.clone()).unwrap_or_default(),
            Data::Inflated(data) => data,
        };
        let at = member.range.start;
        let (header, offset) =
            header(array).map_err(|reason| format!("{}, byte {at}: {reason}", member.name))?;
        let (kind, shape, stride) =
            layout(header).map_err(|reason| format!("{}, byte {at}: {reason}", member.name))?;
        let size = kind.elt_size_in_bytes();
        if !offset.is_multiple_of(size) {
            return Err(format!("{}: the array begins at an odd place", member.name));
        }
        let available = array.len();
        let crc = Cell::new(member.crc.filter(|_| !member.deflated));
        index.storages.push(Storage { name: member.name.clone(), data, crc });
        let layout = Layout { kind, offset: (offset / size) as i64, shape, stride };
        let storage = index.storages.len() - 1;
        // tch writes `a|b` for `a.b`.
        let name = name.replace('|', ".");
        index.entries.push(Entry::new(name, storage, available, layout)?);
    }
    Ok(index)
}

/// The header's text and the offset of the array behind it.
fn header(array: &[u8]) -> Result<(&str, usize), String> {
    let cut = "the header is cut";
    let rest = array.strip_prefix(MAGIC).ok_or("no NumPy array")?;
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().ok_or(cut)?;
    let (length, start) = match major {
        1 => (usize::from(u16::from_le_bytes(*rest.first_chunk().ok_or(cut)?)), 10),
        2 | 3 => (u32::from_le_bytes(*rest.first_chunk().ok_or(cut)?) as usize, 12),
        other => return Err(format!("version {other} of the array format is not known")),
    };
    if length > MAX_HEADER {
        return Err(format!("a header of {length} bytes"));
    }
    let text = array.get(start..start + length).ok_or(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| "the header is no text")?;
    Ok((text, start + length))
}

type Shape = (tch::Kind, Vec<i64>, Option<Vec<i64>>);

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
fn layout(header: &str) -> Result<Shape, String> {
    let field = |name: &str| -> Result<&str, String> {
        let at =
            header.find(&format!("'{name}':")).ok_or_else(|| format!("no {name} in the header"))?;
        Ok(header[at + name.len() + 3..].trim_start())
    };
    let described = field("descr")?.strip_prefix('\'').and_then(|text| text.split_once('\''));
    let Some((code, _)) = described else { return Err("an array of records".into()) };
    if code.starts_with('>') {
        return Err(format!("the dtype {code} is big-endian, which Visage cannot read"));
    }
    let plain = code.trim_start_matches(['<', '|', '=']);
    let row = dtype::find(|row| row.numpy == Some(plain));
    let row = row.ok_or_else(|| {
        format!("the dtype {code}; the dtypes that can be read are {}", dtype::names())
    })?;
    let shape = field("shape")?.strip_prefix('(').and_then(|text| text.split_once(')'));
    let Some((shape, _)) = shape else { return Err("no shape in the header".into()) };
    let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
    let shape: Option<Vec<i64>> =
        sides.map(|side| side.trim_end_matches('L').parse().ok()).collect();
    let shape = shape.filter(|shape| shape.len() <= 64).ok_or("a shape that is none")?;
    let stride = field("fortran_order")?.starts_with("True").then(|| {
        let mut step = 1i64;
        let column = |&side: &i64| {
            let this = step;
            step = step.saturating_mul(side.max(1));
            this
        };
        shape.iter().map(column).collect()
    });
    Ok((row.kind, shape, stride))
}
