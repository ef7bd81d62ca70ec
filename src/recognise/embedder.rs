//! Pictures to rows of numbers, whatever network does it.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::models::{Backbone, Mode, PairNet};

/// A network that makes one row of numbers of a picture.
pub trait Embedder {
    /// The side of its input pictures in pixels.
    fn side(&self) -> u32;

    /// The length of a row.
    fn dim(&self) -> usize;

    /// Rows of one batch of fitted pictures, u8 `[N, 3, S, S]`; row-major values.
    ///
    /// # Errors
    /// What libtorch raises.
    fn rows(&self, pixels: &Tensor) -> Result<Vec<f32>>;
}

/// Rows are embeddings of length one.
impl Embedder for Backbone {
    fn side(&self) -> u32 {
        self.input.size
    }

    fn dim(&self) -> usize {
        self.embedding_dim as usize
    }

    fn rows(&self, pixels: &Tensor) -> Result<Vec<f32>> {
        super::recogniser::embed_batch(self, pixels)
    }
}

/// Rows are the vectors that its head compares.
impl Embedder for PairNet {
    fn side(&self) -> u32 {
        self.backbone.input.size
    }

    fn dim(&self) -> usize {
        PairNet::dim(self) as usize
    }

    fn rows(&self, pixels: &Tensor) -> Result<Vec<f32>> {
        let pictures = pixels.to_device(self.backbone.device()).to_kind(Kind::Float) / 255.0;
        let rows = tch::no_grad(|| self.vectors(0, &pictures, Mode::EVAL, Mode::EVAL))?;
        let rows = rows.to_device(Device::Cpu).contiguous();
        let mut values = vec![0f32; rows.numel()];
        rows.f_copy_data(&mut values, rows.numel())?;
        Ok(values)
    }
}
