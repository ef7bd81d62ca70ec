//! A weight file of any format, detected by content: names, shapes and dtypes are read and checked on
//! opening, values on demand.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::SafeTensors;
use tch::Tensor;

use super::index::{Index, WeightFormat};
use super::onnx_layer::OnnxLayer;
use super::stored::{Bytes, Data, Entry, Layout, Storage};
use super::zip::Zip;
use super::{checkpoint, dtype, npz, onnx, torch_save};
use crate::native::FileMap;
use crate::{Error, Result};

/// A weight file whose values are read on demand.
///
/// A file below [`MAPPED`] is read as a whole: nothing that happens to it later matters. A larger one is
/// memory-mapped, and the pages of a tensor are released once it is copied: loading into a net needs the
/// memory of the net and a few megabytes. Do not truncate such a file meanwhile (see [`FileMap`]).
#[derive(Debug)]
pub struct WeightFile<'a> {
    path: PathBuf,
    bytes: Bytes<'a>,
    index: Index,
    by_name: BTreeMap<String, usize>,
}

/// Bytes from which on a file is mapped.
pub const MAPPED: u64 = 256 << 20;

/// Signatures of files that are often mistaken for weights, with what to do.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (
        257,
        b"ustar",
        "is a tar file, perhaps of PyTorch before 0.2: load it with an old PyTorch and save it again",
    ),
    (
        0,
        b"\x89HDF",
        "is an HDF5 file (Keras?); only PyTorch's, NumPy's and safetensors files can be read",
    ),
    (0, b"\x1f\x8b", "is packed with gzip: unpack it first"),
    (
        0,
        b"version https://git-lfs",
        "is a Git LFS pointer and not the file itself: run `git lfs pull`",
    ),
    (0, b"<", "is a web page or XML, perhaps of a download that failed"),
];

impl WeightFile<'static> {
    /// Opens a safetensors file, a `torch.save` file of any age, a TorchScript archive, an npz or an ONNX file.
    ///
    /// # Errors
    /// Names the file, and the byte or tensor where it is damaged, truncated, malicious or unknown.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |source| Error::io(path, source);
        let about = std::fs::metadata(path).map_err(fail)?;
        let bytes = match about.is_file() && about.len() < MAPPED {
            true => Bytes::Read(std::fs::read(path).map_err(fail)?),
            false => Bytes::Mapped(FileMap::open(path)?),
        };
        Self::from_bytes(path, bytes)
    }
}

impl<'a> WeightFile<'a> {
    /// Reads the bytes of such a file; `path` only names them in errors.
    ///
    /// # Errors
    /// As [`WeightFile::open`].
    pub fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        Self::from_bytes(path, Bytes::Borrowed(bytes))
    }

    fn from_bytes(path: &Path, bytes: Bytes<'a>) -> Result<Self> {
        let fail = |reason| Error::weights(path, reason);
        let mut index = index(bytes.all()).map_err(fail)?;
        let names = index.entries.iter_mut().map(|entry| &mut entry.name);
        checkpoint::strip_prefixes(names, &mut index.notes);
        // Views may repeat a storage, up to a limit.
        let held: usize =
            index.storages.iter().map(Storage::len).fold(64 << 20, usize::saturating_add);
        let claimed = index.entries.iter().map(Entry::bytes).fold(0, usize::saturating_add);
        if claimed / 4 > held {
            return Err(fail(format!("claims {claimed} bytes of tensors and holds far fewer")));
        }
        let names = index.entries.iter().enumerate();
        let by_name = names.map(|(at, entry)| (entry.name.clone(), at)).collect();
        Ok(Self { path: path.to_owned(), bytes, index, by_name })
    }

    /// The path it was opened under.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format, detected by content.
    pub fn format(&self) -> WeightFormat {
        self.index.format
    }

    /// The tensors, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.index.entries
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).and_then(|&at| self.index.entries.get(at))
    }

    /// Text by key, from safetensors and the `.pth` files that Visage writes.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.index.metadata
    }

    /// Notes on what was unwrapped, removed from keys or ignored, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.index.notes
    }

    /// The layers of an ONNX file; none of others.
    pub(super) fn layers(&self) -> &[OnnxLayer] {
        &self.index.layers
    }

    /// Reads one tensor, contiguous, on the CPU, in the file's dtype.
    ///
    /// # Errors
    /// The checksum differs, or memory runs out.
    pub fn tensor(&self, entry: &Entry) -> Result<Tensor> {
        let storage = self.storage(entry)?;
        entry.read(&self.bytes, storage).map_err(|reason| Error::weights(&self.path, reason))
    }

    /// Whether `test` holds for all parts of a tensor's values, which are flat and on the CPU.
    ///
    /// # Errors
    /// As [`WeightFile::tensor`].
    pub fn all(&self, entry: &Entry, test: impl Fn(&Tensor) -> bool) -> Result<bool> {
        let (storage, mut holds) = (self.storage(entry)?, true);
        let walked = entry.parts(&self.bytes, storage, |_, part| {
            holds = holds && test(&part);
            Ok(())
        });
        walked.map_err(|reason| Error::weights(&self.path, reason))?;
        Ok(holds)
    }

    /// Copies one tensor's values into `to`, converting dtype and device; shapes must agree.
    ///
    /// # Errors
    /// As [`WeightFile::tensor`], and where the shapes differ.
    pub fn copy_into(&self, entry: &Entry, to: &Tensor) -> Result<()> {
        let storage = self.storage(entry)?;
        let copied = entry.copy_into(&self.bytes, storage, to);
        copied.map_err(|reason| Error::weights(&self.path, reason))
    }

    /// Verifies the checksums of all tensors, where the format has them (zip files).
    ///
    /// # Errors
    /// Names the first damaged part and its bytes.
    pub fn verify(&self) -> Result<()> {
        let mut storages = self.index.storages.iter();
        let checked = storages.try_for_each(|storage| storage.check(&self.bytes));
        checked.map_err(|reason| Error::weights(&self.path, reason))
    }

    fn storage(&self, entry: &Entry) -> Result<&Storage> {
        self.index.storages.get(entry.storage).ok_or_else(|| {
            Error::weights(&self.path, format!("{} is a tensor of another file", entry.name))
        })
    }
}

/// Detects the format and reads the index.
fn index(bytes: &[u8]) -> Result<Index, String> {
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    if bytes.starts_with(b"PK\x03\x04") {
        let zip = Zip::read(bytes)?;
        // PyTorch puts everything into one folder, with any name.
        let pickles = zip.members.iter().filter_map(|member| member.name.strip_suffix("data.pkl"));
        let prefix = pickles
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('/'))
            .min_by_key(|prefix| prefix.len());
        return match prefix {
            Some(prefix) => torch_save::read_zip(bytes, &zip, prefix),
            None if zip.members.iter().any(|member| member.name.ends_with(".npy")) => {
                npz::read(bytes, &zip)
            }
            None => Err("is a zip with neither PyTorch's data.pkl nor NumPy arrays".into()),
        };
    }
    if torch_save::is_legacy(bytes) {
        return torch_save::read_legacy(bytes);
    }
    if onnx::is_onnx(bytes) && bytes.get(8) != Some(&b'{') {
        return onnx::read(bytes);
    }
    let known = OTHERS.iter().find(|(at, begin, _)| {
        bytes.get(*at..).is_some_and(|rest| rest.starts_with(begin)) && bytes.get(8) != Some(&b'{')
    });
    match known {
        Some((_, _, what)) => Err((*what).into()),
        None if bytes.first() == Some(&0x80) && bytes.get(8) != Some(&b'{') => {
            Err("is a pickle, yet not one of torch.save".into())
        }
        None => safetensors(bytes),
    }
}

/// Reads a safetensors header.
fn safetensors(bytes: &[u8]) -> Result<Index, String> {
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(|error| {
        format!("not a whole safetensors file ({error}), nor one of PyTorch, NumPy or ONNX")
    })?;
    let start = length + 8;
    let mut index = Index::new(WeightFormat::Safetensors);
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let row = dtype::find(|row| row.safetensors == info.dtype);
        let kind = row.map(|row| row.kind).ok_or_else(|| {
            format!("{name}: dtype {} is not supported; {} are", info.dtype, dtype::names())
        })?;
        let (from, to) = info.data_offsets;
        let range = start.saturating_add(from)..start.saturating_add(to);
        if range.start > range.end || range.end > bytes.len() {
            return Err(format!("{name}: its bytes {range:?} are not in the file"));
        }
        let sides = info.shape.iter().map(|&side| i64::try_from(side));
        let shape = sides.collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| format!("{name}: has an absurd shape"))?;
        let available = range.len();
        let storage = index.storages.len();
        index.storages.push(Storage {
            name: name.clone(),
            data: Data::File(range),
            crc: Cell::new(None),
        });
        let layout = Layout { kind, offset: 0, shape, stride: None };
        index.entries.push(Entry::new(name, storage, available, layout)?);
    }
    index.metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(index)
}
