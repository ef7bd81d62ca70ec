//! Tensor files in memory: ordered named tensors plus a string table of metadata.
//!
//! Reading goes through [`WeightFile`], which takes any format and checks the whole index before it
//! touches a tensor; the file's dtypes are kept. Writing goes through a temporary file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, View};
use tch::{Device, Kind, Tensor};

use super::{WeightFile, dtype, write_pth};
use crate::{Error, Result, files};

/// Named tensors and metadata, as read from a weight file.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// The tensors, on the CPU, sorted by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text by key (`format`, and `visage` in files written here).
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a file of any format that [`WeightFile::open`] takes, whatever its name ends with.
    ///
    /// # Errors
    /// A missing, truncated or malformed file is named with the reason; so is a tensor whose dtype
    /// libtorch has no counterpart for.
    pub fn read(path: &Path) -> Result<Self> {
        Self::collect(&WeightFile::open(path)?)
    }

    /// Reads every tensor of an opened file.
    ///
    /// # Errors
    /// As [`WeightFile::tensor`].
    pub fn collect(file: &WeightFile) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for entry in file.entries() {
            tensors.insert(entry.name.clone(), file.tensor(entry)?);
        }
        Ok(Self { tensors, metadata: file.metadata().clone() })
    }

    /// Reads only the metadata of a safetensors file: a few kilobytes, whatever its size.
    ///
    /// # Errors
    /// As [`TensorFile::read`].
    pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
        use std::io::Read;
        #[derive(serde::Deserialize)]
        struct Header {
            #[serde(default, rename = "__metadata__")]
            metadata: BTreeMap<String, String>,
        }
        const MOST: u64 = 100_000_000; // the format's own limit on its header
        let fail = |reason: String| Error::weights(path, reason);
        let mut file = std::fs::File::open(path).map_err(|source| Error::io(path, source))?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|source| Error::io(path, source))?;
        let length = u64::from_le_bytes(length);
        if length > MOST {
            return Err(fail(format!("not a safetensors file: a header of {length} bytes")));
        }
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header).map_err(|source| Error::io(path, source))?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| fail(format!("not a whole safetensors file: {error}")))?;
        Ok(header.metadata)
    }

    /// Reads the bytes of a weight file; `path` only names them in errors.
    ///
    /// # Errors
    /// As [`TensorFile::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        Self::collect(&WeightFile::parse(path, bytes)?)
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// Names `path` and what failed (a full disk, a read-only folder, an unsupported dtype).
    pub fn write(&self, path: &Path) -> Result<()> {
        let views = self
            .tensors
            .iter()
            .map(|(name, tensor)| Ok((name.as_str(), Bytes::of(path, name, tensor)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = (!self.metadata.is_empty()).then(|| {
            self.metadata.clone().into_iter().collect::<std::collections::HashMap<_, _>>()
        });
        let bytes = safetensors::serialize(views, metadata)
            .map_err(|error| Error::weights(path, error.to_string()))?;
        files::write_atomically(path, |out| std::io::Write::write_all(out, &bytes))
    }

    /// Writes the zip of `torch.save`, whole or not at all: `torch.load(path, weights_only=True)`
    /// gives a dict of these tensors. The metadata go into a record that PyTorch passes over.
    ///
    /// # Errors
    /// As [`TensorFile::write`], and for more than the 4 GB that this zip can hold.
    pub fn write_pth(&self, path: &Path) -> Result<()> {
        write_pth::write(self, path)
    }

    /// The metadata value of `key`.
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

/// A CPU copy of a tensor's bytes in a form safetensors can write.
struct Bytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// A copy of a tensor's bytes, row by row.
pub(super) fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut data = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut data, tensor.numel())?;
    Ok(data)
}

impl Bytes {
    fn of(path: &Path, name: &str, tensor: &Tensor) -> Result<Self> {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
            Error::weights(path, format!("{name}: {:?} cannot be written", tensor.kind()))
        })?;
        let shape = tensor.size().iter().map(|&side| side as usize).collect();
        Ok(Self { dtype, shape, data: bytes_of(tensor)? })
    }
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    dtype::find(|row| row.kind == kind).map(|row| row.safetensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> TensorFile {
        let mut file = TensorFile::default();
        file.tensors.insert("b.half".into(), Tensor::from_slice(&[1f32, -2.5]).to_kind(Kind::Half));
        file.tensors.insert("a.count".into(), Tensor::from(7i64));
        file.tensors
            .insert("view".into(), Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).tr());
        file.metadata.insert("visage".into(), "{}".into());
        file
    }

    #[test]
    fn dtypes_views_and_metadata_survive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        sample().write(&path).unwrap();
        let read = TensorFile::read(&path).unwrap();
        assert_eq!(read.meta("visage"), Some("{}"));
        for (name, tensor) in &sample().tensors {
            assert_eq!(read.tensors[name].kind(), tensor.kind(), "{name}");
            assert_eq!(read.tensors[name].size(), tensor.size(), "{name}");
            assert_eq!(&read.tensors[name], tensor, "{name}");
        }
        let again = folder.path().join("y.safetensors");
        sample().write(&again).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        sample().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let error =
                TensorFile::parse(Path::new("cut.safetensors"), &bytes[..length]).unwrap_err();
            assert!(error.to_string().starts_with("cut.safetensors: "), "{error}");
        }
    }
}
