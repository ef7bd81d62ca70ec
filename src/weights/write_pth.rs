//! Writes the zip of `torch.save`: a pickled OrderedDict of tensors, and one stored member a storage,
//! each aligned so that PyTorch can map it into memory.

use std::io::Write;
use std::path::Path;

use super::tensor_file::{TensorFile, bytes_of};
use super::{dtype, torch_save};
use crate::{Error, Result, files};

/// Where PyTorch's own writer puts the bytes of a member.
const ALIGNMENT: usize = 64;
/// Offsets and sizes have 32 bits here.
const MOST: usize = u32::MAX as usize - (1 << 20);
/// The folder in the zip; PyTorch takes any name.
const FOLDER: &str = "archive";

pub(super) fn write(file: &TensorFile, path: &Path) -> Result<()> {
    let fail = |reason: String| Error::weights(path, reason);
    let size: usize = file.tensors.values().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum();
    if size > MOST || file.tensors.len() > 60_000 {
        return Err(fail(format!(
            "{size} bytes of tensors are too many for a .pth; write safetensors"
        )));
    }
    let program = pickle(file).map_err(fail)?;
    let metadata = serde_json::to_vec(&file.metadata).map_err(|error| fail(error.to_string()))?;
    files::write_atomically(path, |out| {
        let mut zip = ZipWriter { out, at: 0, contents: Vec::new(), count: 0 };
        zip.member("data.pkl", &program)?;
        zip.member("byteorder", b"little")?;
        for (index, tensor) in file.tensors.values().enumerate() {
            let data = bytes_of(tensor).map_err(std::io::Error::other)?;
            zip.member(&format!("data/{index}"), &data)?;
        }
        if !file.metadata.is_empty() {
            zip.member(torch_save::METADATA, &metadata)?;
        }
        zip.member("version", b"3\n")?;
        zip.finish()
    })
}

/// The program that builds the dict; storages are named by the tensors' order.
fn pickle(file: &TensorFile) -> Result<Vec<u8>, String> {
    const EMPTY_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(EMPTY_DICT);
    out.push(b'(');
    for (index, (name, tensor)) in file.tensors.iter().enumerate() {
        let row = dtype::find(|row| row.kind == tensor.kind())
            .ok_or_else(|| format!("{name}: {:?} cannot be written", tensor.kind()))?;
        let shape = tensor.size();
        let mut stride = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            stride[dim - 1] = stride[dim] * shape[dim].max(1);
        }
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", row.storage).bytes());
        text(&mut out, &index.to_string());
        text(&mut out, "cpu");
        int(&mut out, tensor.numel() as i64);
        // The storage's tuple, by persistent id; then offset, size, stride, requires_grad, hooks.
        out.extend(b"tQ");
        int(&mut out, 0);
        for numbers in [&shape, &stride] {
            out.push(b'(');
            numbers.iter().for_each(|&number| int(&mut out, number));
            out.push(b't');
        }
        out.push(0x89);
        out.extend(EMPTY_DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    Ok(out)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn int(out: &mut Vec<u8>, number: i64) {
    match i32::try_from(number) {
        Ok(small) => {
            out.push(b'J');
            out.extend(small.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend(number.to_le_bytes());
        }
    }
}

/// Stored members one after the other, then the table of contents.
struct ZipWriter<'a, W: Write> {
    out: &'a mut W,
    at: usize,
    contents: Vec<u8>,
    count: u16,
}

impl<W: Write> ZipWriter<'_, W> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }

    fn member(&mut self, name: &str, data: &[u8]) -> std::io::Result<()> {
        let name = format!("{FOLDER}/{name}");
        let start = self.at as u32;
        // An extra field, which readers skip, fills up to the alignment.
        let plain = self.at + 30 + name.len() + 4;
        let filling = plain.next_multiple_of(ALIGNMENT) - plain;
        let mut about = Vec::new(); // what both headers say
        for field in [20u16, 0, 0, 0, 0x21] {
            about.extend(field.to_le_bytes()); // version, flags, stored, time, 1 January 1980
        }
        for field in [crc32fast::hash(data), data.len() as u32, data.len() as u32] {
            about.extend(field.to_le_bytes());
        }
        about.extend((name.len() as u16).to_le_bytes());

        let mut header = b"PK\x03\x04".to_vec();
        header.extend(&about);
        header.extend((filling as u16 + 4).to_le_bytes());
        header.extend(name.bytes());
        header.extend(b"FB");
        header.extend((filling as u16).to_le_bytes());
        header.resize(header.len() + filling, b'Z');
        self.put(&header)?;
        self.put(data)?;

        self.contents.extend(b"PK\x01\x02\x14\0");
        self.contents.extend(&about);
        self.contents.extend([0; 12]); // no extra field, comment, disk or attributes
        self.contents.extend(start.to_le_bytes());
        self.contents.extend(name.bytes());
        self.count += 1;
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<()> {
        let (start, contents) = (self.at as u32, std::mem::take(&mut self.contents));
        self.put(&contents)?;
        let mut end = b"PK\x05\x06\0\0\0\0".to_vec();
        end.extend(self.count.to_le_bytes());
        end.extend(self.count.to_le_bytes());
        end.extend((contents.len() as u32).to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend([0; 2]);
        self.put(&end)
    }
}
