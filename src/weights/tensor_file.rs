//! Tensor files in memory: named tensors and text metadata.
//!
//! Files are read with [`WeightFile`], in any format, and keep their dtypes; they are written
//! atomically.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use tch::{Kind, Tensor};

use super::file::WeightFile;
use super::stored::bytes_of;
use super::{dtype, write_pth};
use crate::{Error, Result, files};

/// Named tensors and metadata, as read from a weight file.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// The tensors, on the CPU, sorted by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Text by key (`format`, and `visage` in files written here).
    pub metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a file of any format of [`WeightFile::open`], whatever its extension.
    ///
    /// # Errors
    /// Names the file and the reason: missing, truncated, malformed, or a tensor of unsupported dtype.
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

    /// Reads only the metadata of a safetensors file: a few kilobytes.
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
        const MAX: u64 = 100_000_000; // the format's own limit on its header
        let fail = |reason: String| Error::weights(path, reason);
        let mut file = std::fs::File::open(path).map_err(|source| Error::io(path, source))?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|source| Error::io(path, source))?;
        let length = u64::from_le_bytes(length);
        if length > MAX {
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

    /// Writes a safetensors file atomically, one tensor at a time.
    ///
    /// # Errors
    /// Names `path` and what failed (a full disk, a read-only folder, an unsupported dtype).
    pub fn write(&self, path: &Path) -> Result<()> {
        let fail = |reason: String| Error::weights(path, reason);
        // The widest dtypes first, so that every tensor begins at a multiple of its elements' size.
        let mut tensors = Vec::new();
        for (name, tensor) in &self.tensors {
            let kind = tensor.kind();
            let dtype = dtype_of(kind)
                .ok_or_else(|| fail(format!("{name}: {kind:?} cannot be written")))?;
            tensors.push((dtype, name, tensor));
        }
        tensors.sort_by_key(|&(dtype, name, _)| (Reverse(dtype), name));
        let mut end = 0;
        let about = tensors.iter().map(|&(dtype, name, tensor)| {
            let start = end;
            end += tensor.numel() * tensor.kind().elt_size_in_bytes();
            let shape = tensor.size().iter().map(|&side| side as usize).collect();
            (name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
        });
        let metadata = (!self.metadata.is_empty())
            .then(|| self.metadata.clone().into_iter().collect::<HashMap<_, _>>());
        let header =
            Metadata::new(metadata, about.collect()).map_err(|error| fail(error.to_string()))?;
        let mut header = serde_json::to_vec(&header).map_err(|error| fail(error.to_string()))?;
        header.resize(header.len().next_multiple_of(8), b' ');
        files::write_atomically(path, |out| {
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            for (_, _, tensor) in &tensors {
                out.write_all(&bytes_of(tensor).map_err(std::io::Error::other)?)?;
            }
            Ok(())
        })
    }

    /// Writes the zip of `torch.save` atomically: `torch.load(path, weights_only=True)` returns a dict of
    /// these tensors. The metadata are in a record that PyTorch ignores.
    ///
    /// # Errors
    /// As [`TensorFile::write`].
    pub fn write_pth(&self, path: &Path) -> Result<()> {
        write_pth::write(path, &self.tensors, &self.metadata)
    }

    /// The metadata value of `key`.
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    dtype::find(|row| row.kind == kind).map(|row| row.safetensors)
}

#[cfg(test)]
mod tests {
    use tch::Device;

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
    fn the_bytes_are_those_that_the_safetensors_crate_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        sample().write(&path).unwrap();
        let data: Vec<_> = sample()
            .tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.size(), tensor.kind(), bytes_of(&tensor).unwrap()))
            .collect();
        let views = data.iter().map(|(name, shape, kind, data)| {
            let shape = shape.iter().map(|&side| side as usize).collect();
            let dtype = dtype_of(*kind).unwrap();
            (name, safetensors::tensor::TensorView::new(dtype, shape, data).unwrap())
        });
        let metadata = Some(sample().metadata.into_iter().collect());
        let expected = safetensors::serialize(views, metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), expected);
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
