//! Networks that turn pictures into rows of numbers, and the loop that runs them over batches.

use image::RgbImage;
use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::data::store::PictureStore;
use crate::eval::Embeddings;
use crate::models::{Backbone, Mode, PairNet};

/// Pictures embedded in one forward pass.
pub const BATCH: usize = 64;

/// A network that maps a picture to a row of numbers.
pub trait Embedder {
    /// The trunk, which decides input size and device.
    fn trunk(&self) -> &Backbone;

    /// The length D of a row.
    fn dim(&self) -> usize;

    /// Rows `[N, D]` on the trunk's device, without a gradient and in eval mode, from the input of
    /// stage `first` of the trunk; for stage 0 these are pictures, f32 `[N, 3, S, S]` in [0, 1].
    ///
    /// # Errors
    /// An error from libtorch.
    fn forward(&self, first: usize, maps: &Tensor) -> Result<Tensor>;

    /// The same on the host, row by row.
    ///
    /// # Errors
    /// An error from libtorch.
    fn rows(&self, first: usize, maps: &Tensor) -> Result<Vec<f32>> {
        let rows = self.forward(first, maps)?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut values = vec![0f32; rows.numel()];
        rows.f_copy_data(&mut values, rows.numel())?;
        Ok(values)
    }
}

/// Rows are embeddings of length one.
impl Embedder for Backbone {
    fn trunk(&self) -> &Backbone {
        self
    }

    fn dim(&self) -> usize {
        self.embedding_dim as usize
    }

    fn forward(&self, first: usize, maps: &Tensor) -> Result<Tensor> {
        Ok(tch::no_grad(|| self.embed_from(first, maps, Mode::EVAL)))
    }
}

/// Rows are the vectors that its head compares.
impl Embedder for PairNet {
    fn trunk(&self) -> &Backbone {
        &self.backbone
    }

    fn dim(&self) -> usize {
        PairNet::dim(self) as usize
    }

    fn forward(&self, first: usize, maps: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| self.vectors(first, maps, Mode::EVAL, Mode::EVAL))
    }
}

/// Embeds batches of maps, each given with the number of its first stage.
///
/// # Errors
/// What a batch or libtorch raises, or an embedding that is not finite.
pub fn embed_batches(
    embedder: &dyn Embedder,
    batches: impl IntoIterator<Item = Result<(usize, Tensor)>>,
) -> Result<Embeddings> {
    let values = embed_values(embedder, batches)?;
    Embeddings::new(values.len() / embedder.dim().max(1), embedder.dim(), values)
}

/// The same for a network that may have diverged: row-major values `[N, D]`, finite or not.
///
/// # Errors
/// What a batch or libtorch raises.
pub fn embed_values(
    embedder: &dyn Embedder,
    batches: impl IntoIterator<Item = Result<(usize, Tensor)>>,
) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for batch in batches {
        let (first, maps) = batch?;
        values.extend(embedder.rows(first, &maps)?);
    }
    Ok(values)
}

/// Embeddings as a tensor `[N, D]`, float32, on the CPU.
///
/// # Errors
/// An error from libtorch.
pub fn to_tensor(embeddings: &Embeddings) -> Result<Tensor> {
    let shape = [embeddings.rows() as i64, embeddings.dim() as i64];
    Ok(Tensor::f_from_slice(embeddings.values())?.f_view(shape)?)
}

/// The rows of a tensor `[N, D]`.
///
/// # Errors
/// A value that is not finite, or an error from libtorch.
pub fn from_tensor(rows: &Tensor) -> Result<Embeddings> {
    let (count, dim) = rows.size2()?;
    let values = Vec::try_from(rows.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?)?;
    Embeddings::new(count as usize, dim as usize, values)
}

/// Embeds pictures of any size, resized to the trunk's input size.
///
/// # Errors
/// An error from libtorch.
pub fn embed_pictures(embedder: &dyn Embedder, pictures: &[RgbImage]) -> Result<Embeddings> {
    let store = PictureStore::of(pictures, embedder.trunk().input.size);
    embed_stored(embedder, &store, &store.all())
}

/// Embeds pictures of a store, in the order of `pictures`.
///
/// # Errors
/// A picture that can no longer be decoded, or what libtorch raises.
pub fn embed_stored(
    embedder: &dyn Embedder,
    store: &PictureStore,
    pictures: &[usize],
) -> Result<Embeddings> {
    let device = embedder.trunk().device();
    let batch = |batch: &[usize]| Ok((0, store.batch(batch, device)?));
    embed_batches(embedder, pictures.chunks(BATCH).map(batch))
}
