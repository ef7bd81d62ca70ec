//! All pictures of a data set as one tensor: decoded once, read every epoch.

use image::RgbImage;
use tch::{Device, Kind, Tensor};

use super::FaceFolder;
use super::picture::to_tensor;
use crate::Result;

/// The pictures of a [`FaceFolder`], u8 `[N, 3, S, S]`: 27 kB a picture at S = 96.
#[derive(Debug)]
pub struct FaceCache {
    pixels: Tensor,
}

impl FaceCache {
    /// Takes the fitted pictures of a folder to `device` (the graphics card has room for many).
    ///
    /// # Errors
    /// Where libtorch cannot hold them.
    pub fn new(folder: &FaceFolder, device: Device) -> Result<Self> {
        Self::of(&folder.fitted, device)
    }

    /// The same of pictures of one size, wherever they are from.
    ///
    /// # Errors
    /// Where libtorch cannot hold them.
    pub fn of(pictures: &[RgbImage], device: Device) -> Result<Self> {
        Ok(Self { pixels: to_tensor(pictures)?.f_to_device(device)? })
    }

    /// The number of pictures.
    pub fn len(&self) -> usize {
        self.pixels.size().first().map_or(0, |&count| count as usize)
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The side S of the pictures in pixels.
    pub fn size(&self) -> i64 {
        self.pixels.size().last().copied().unwrap_or(0)
    }

    /// Some pictures as f32 `[B, 3, S, S]` in [0, 1] on `device`, in the order asked for.
    ///
    /// # Errors
    /// Where an index is not below [`len`](Self::len).
    pub fn batch(&self, indices: &[usize], device: Device) -> Result<Tensor> {
        let indices: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
        let indices = Tensor::f_from_slice(&indices)?.f_to_device(self.pixels.device())?;
        let bytes = self.pixels.f_index_select(0, &indices)?.f_to_device(device)?;
        Ok(bytes.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::face_folder;
    use super::*;

    #[test]
    fn batches_hold_the_pictures_asked_for_in_order() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 3)]);
        let folder = FaceFolder::open(root.path(), true, 24, &|_, _| {}).unwrap();
        let cache = FaceCache::new(&folder, Device::Cpu).unwrap();
        assert_eq!((cache.len(), cache.size()), (5, 24));
        let batch = cache.batch(&[4, 0, 4], Device::Cpu).unwrap();
        assert_eq!((batch.size(), batch.kind()), (vec![3, 3, 24, 24], Kind::Float));
        for (row, picture) in [(0, 4), (1, 0), (2, 4)] {
            let wanted = folder.fitted[picture].get_pixel(7, 11)[2];
            let own = batch.double_value(&[row, 2, 11, 7]);
            assert_eq!(own as f32, f32::from(wanted) / 255.0);
        }
        assert_eq!(cache.batch(&[], Device::Cpu).unwrap().size(), [0, 3, 24, 24]);
        assert!(cache.batch(&[5], Device::Cpu).is_err());
    }
}
