//! Decoded pictures, kept in memory up to a limit; others are decoded again.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use image::RgbImage;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::dataset::{Dataset, missing};
use super::picture::{decode, decode_bytes, fit};
use super::strips::cut_file;
use crate::native::cuda::Upload;
use crate::words::grouped;
use crate::{Error, Result};

/// Size of pictures, and memory limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fitting {
    /// Side S in pixels, after [`fit`].
    pub side: u32,
    /// Memory limit in bytes; a picture takes 3 S².
    pub memory: u64,
}

impl Fitting {
    /// Default limit: 4096 MB, 155,000 pictures with S = 96.
    pub const MEMORY_MB: u64 = 4096;

    /// Whether a picture with this many pictures before it is kept.
    pub(super) fn keeps(&self, before: usize) -> bool {
        let each = 3 * u64::from(self.side) * u64::from(self.side);
        (before as u64 + 1).saturating_mul(each) <= self.memory
    }
}

/// A size, with the default limit.
impl From<u32> for Fitting {
    fn from(side: u32) -> Self {
        Self { side, memory: Self::MEMORY_MB << 20 }
    }
}

/// A file with a picture, or a third of a strip of three pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    /// The file.
    pub file: PathBuf,
    /// Which third of a strip, from 0; `None` for the whole picture.
    pub third: Option<usize>,
}

/// Where a picture comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A data set, and the number of its record.
    Record(Arc<dyn Dataset>, usize),
    /// A file or a part of it.
    Panel(Panel),
}

impl Origin {
    /// Decodes it.
    ///
    /// # Errors
    /// Names the file and the problem.
    pub fn decode(&self) -> Result<RgbImage> {
        match self {
            Self::Record(dataset, number) => {
                let record = dataset.record(*number);
                let record = record.ok_or_else(|| missing(dataset.root(), *number))?;
                let picture = decode_bytes(&record.path, &dataset.content(*number)?)?;
                Ok(dataset.part(*number, picture))
            }
            Self::Panel(Panel { file, third: None }) => decode(file),
            Self::Panel(Panel { file, third: Some(third) }) => {
                cut_file(file)?.into_iter().nth(*third).ok_or_else(|| missing(file, *third))
            }
        }
    }
}

/// The pictures of a data set, [`fit`] to side S. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct PictureStore {
    side: u32,
    pictures: Arc<Vec<Stored>>,
}

/// A picture; those given in memory have no origin.
#[derive(Debug)]
struct Stored {
    origin: Option<Origin>,
    kept: Option<RgbImage>,
}

impl PictureStore {
    /// From pictures and origins; pictures without pixels are decoded on demand.
    pub(super) fn new(
        side: u32,
        pictures: impl IntoIterator<Item = (Origin, Option<RgbImage>)>,
    ) -> Self {
        let stored = |(origin, kept)| Stored { origin: Some(origin), kept };
        Self { side, pictures: Arc::new(pictures.into_iter().map(stored).collect()) }
    }

    /// From pictures in memory, fitted to `side`.
    pub fn of(pictures: &[RgbImage], side: u32) -> Self {
        let stored = |picture| Stored { origin: None, kept: Some(fit(picture, side)) };
        Self { side, pictures: Arc::new(pictures.iter().map(stored).collect()) }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.pictures.len()
    }

    /// Whether there are no pictures.
    pub fn is_empty(&self) -> bool {
        self.pictures.is_empty()
    }

    /// The numbers of all pictures.
    pub fn all(&self) -> Vec<usize> {
        (0..self.len()).collect()
    }

    /// Side S in pixels.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// Number of pictures in memory.
    pub fn kept(&self) -> usize {
        self.pictures.iter().filter(|picture| picture.kept.is_some()).count()
    }

    /// A sentence if not all pictures are in memory; `flag` is the option that sets the limit, if there
    /// is one.
    pub fn note(&self, flag: &str) -> Option<String> {
        let (kept, all) = (self.kept(), self.len());
        let (some, all_of_them) = (grouped(kept), grouped(all));
        (kept < all).then(|| {
            format!(
                "{some} of {all_of_them} pictures are kept in memory{flag}; the others are decoded \
                 again when needed"
            )
        })
    }

    /// A picture.
    ///
    /// # Errors
    /// Its file cannot be decoded (any more), or the number is out of range.
    pub fn get(&self, picture: usize) -> Result<Cow<'_, RgbImage>> {
        let stored = self.pictures.get(picture);
        match stored.map(|stored| (&stored.kept, &stored.origin)) {
            Some((Some(kept), _)) => Ok(Cow::Borrowed(kept)),
            Some((None, Some(origin))) => Ok(Cow::Owned(fit(&origin.decode()?, self.side))),
            _ => Err(Error::Data(format!("picture {picture} of {}", self.len()))),
        }
    }

    /// The pictures that would have to be decoded and cannot be, with the reason; uses all cores.
    pub fn unreadable(&self) -> Vec<(usize, Error)> {
        let numbers = (0..self.len()).into_par_iter();
        numbers.filter_map(|number| Some((number, self.get(number).err()?))).collect()
    }

    /// The bytes of pictures, in the given order: B x S x S x RGB. Uses all cores.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn bytes(&self, pictures: &[usize]) -> Result<Vec<u8>> {
        let each = 3 * self.side as usize * self.side as usize;
        let mut bytes = vec![0; each * pictures.len()];
        let places = bytes.par_chunks_exact_mut(each.max(1));
        places.zip(pictures).try_for_each(|(place, &picture)| {
            self.get(picture).map(|found| place.copy_from_slice(&found))
        })?;
        Ok(bytes)
    }

    /// The pictures as f32 `[B, 3, S, S]` in [0, 1] on `device`.
    ///
    /// # Errors
    /// As for [`get`](Self::get), or an error from libtorch.
    pub fn batch(&self, pictures: &[usize], device: Device) -> Result<Tensor> {
        scaled(self.upload(pictures, device)?)
    }

    /// Starts the upload of [`bytes`](Self::bytes) to `device` as u8 `[B, S, S, 3]`; from any thread.
    ///
    /// # Errors
    /// As for [`batch`](Self::batch).
    pub fn upload(&self, pictures: &[usize], device: Device) -> Result<Upload> {
        let side = i64::from(self.side);
        let bytes = Tensor::f_from_slice(&self.bytes(pictures)?)?;
        Upload::start(bytes.f_view([pictures.len() as i64, side, side, 3])?, device)
    }
}

/// Converts uploaded bytes u8 `[B, S, S, 3]` to f32 `[B, 3, S, S]` in [0, 1], in the channels_last
/// format.
///
/// # Errors
/// An error from libtorch.
pub fn scaled(bytes: Upload) -> Result<Tensor> {
    let pictures = bytes.finish()?.f_permute([0, 3, 1, 2])?;
    Ok(pictures.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::FaceFolder;
    use super::super::testing::face_folder;
    use super::*;

    fn open(root: &Path, kept: u64) -> PictureStore {
        let fitting = Fitting { side: 24, memory: kept * 3 * 24 * 24 };
        FaceFolder::open(root, true, fitting, &|_, _| {}).unwrap().fitted
    }

    #[test]
    fn neither_the_limit_nor_the_threads_change_a_pixel() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 3)]);
        let whole = FaceFolder::open(root.path(), true, 24, &|_, _| {}).unwrap().fitted;
        assert_eq!((whole.len(), whole.kept(), whole.note("")), (5, 5, None));
        let wanted = whole.bytes(&[4, 0, 4]).unwrap();
        let last = whole.get(4).unwrap().into_owned();
        assert_eq!(&wanted[..last.len()], last.as_raw().as_slice());
        for kept in [0, 1, 3, 5] {
            let store = open(root.path(), kept);
            assert_eq!(store.kept(), kept as usize);
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| store.bytes(&[4, 0, 4])).unwrap(), wanted, "{kept}");
            }
        }
        let note = open(root.path(), 2).note(" (--picture-memory)").unwrap();
        assert!(
            note.starts_with("2 of 5 pictures are kept in memory (--picture-memory); "),
            "{note}"
        );
    }

    #[test]
    fn batches_hold_the_pictures_asked_for_in_order() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 3)]);
        let store = open(root.path(), 2);
        let batch = store.batch(&[4, 0, 4], Device::Cpu).unwrap();
        assert_eq!((batch.size(), batch.kind()), (vec![3, 3, 24, 24], Kind::Float));
        for (row, picture) in [(0, 4), (1, 0), (2, 4)] {
            let wanted = store.get(picture).unwrap().get_pixel(7, 11)[2];
            let own = batch.double_value(&[row, 2, 11, 7]);
            assert_eq!(own as f32, f32::from(wanted) / 255.0);
        }
        assert_eq!(store.batch(&[], Device::Cpu).unwrap().size(), [0, 3, 24, 24]);
        assert!(store.batch(&[5], Device::Cpu).is_err());
        let small = PictureStore::of(&[RgbImage::new(5, 4)], 2);
        assert_eq!(small.batch(&[0], Device::Cpu).unwrap().size(), [1, 3, 2, 2]);
    }

    #[test]
    fn a_file_that_is_gone_or_broken_is_named() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 2)]);
        let store = open(root.path(), 1);
        std::fs::remove_file(root.path().join("ann/0.png")).unwrap();
        std::fs::remove_file(root.path().join("ann/1.png")).unwrap();
        std::fs::write(root.path().join("bob/1.png"), "no").unwrap();
        assert!(store.bytes(&[0, 2]).is_ok(), "the first is in memory");
        let found: Vec<_> = store.unreadable().into_iter().map(|(number, _)| number).collect();
        assert_eq!(found, [1, 3]);
        for (picture, name) in [(1, "1.png"), (3, "cannot be read as a picture")] {
            let error = store.bytes(&[0, 2, picture]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
