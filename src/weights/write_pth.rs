//! Writes the zip of `torch.save`: a pickled OrderedDict of tensors, and one stored member per
//! storage, aligned for memory-mapping by PyTorch.

use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::path::Path;

use tch::Tensor;
use zip::result::ZipResult;
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::stored::bytes_of;
use super::{dtype, torch_save};
use crate::{Error, Result, files};

/// The alignment of members in PyTorch's own writer.
const ALIGNMENT: u16 = 64;
/// The folder in the zip; PyTorch takes any name.
const FOLDER: &str = "archive";

pub(super) fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let fail = |reason: String| Error::weights(path, reason);
    let program = pickle(tensors).map_err(fail)?;
    let json = serde_json::to_vec(metadata).map_err(|error| fail(error.to_string()))?;
    files::write_atomically(path, |out| {
        let mut zip = ZipWriter::new(out);
        member(&mut zip, "data.pkl", &program)?;
        member(&mut zip, "byteorder", b"little")?;
        for (index, tensor) in tensors.values().enumerate() {
            let data = bytes_of(tensor).map_err(std::io::Error::other)?;
            member(&mut zip, &format!("data/{index}"), &data)?;
        }
        if !metadata.is_empty() {
            member(&mut zip, torch_save::METADATA, &json)?;
        }
        member(&mut zip, "version", b"3\n")?;
        zip.finish()?;
        Ok(())
    })
}

/// Adds a stored member; the zip holds 64-bit sizes only where a member needs them.
fn member(zip: &mut ZipWriter<impl Write + Seek>, name: &str, data: &[u8]) -> ZipResult<()> {
    let options = FileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(u32::try_from(data.len()).is_err());
    zip.start_file_aligned(format!("{FOLDER}/{name}"), options, ALIGNMENT)?;
    Ok(zip.write_all(data)?)
}

/// The program that builds the dict; storages are named by the tensors' order.
fn pickle(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>, String> {
    const EMPTY_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(EMPTY_DICT);
    out.push(b'(');
    for (index, (name, tensor)) in tensors.iter().enumerate() {
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
