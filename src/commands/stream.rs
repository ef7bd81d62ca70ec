//! Files to embeddings with constant memory: one thread decodes the next batches while libtorch
//! embeds the current one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use image::RgbImage;
use rayon::prelude::*;

use crate::Result;
use crate::data::picture;
use crate::recognise::Embedder;
use crate::recognise::recogniser::BATCH;
use crate::train::progress::Reporter;

/// Number of decoded batches to prefetch.
const AHEAD: usize = 2;

/// Embeds `paths` in order; `each` receives every file with its embedding or an error.
///
/// # Errors
/// What libtorch or `each` raises; a file that cannot be decoded is not an error here.
pub fn embed_files(
    embedder: &dyn Embedder,
    paths: &[PathBuf],
    say: &Reporter,
    each: impl FnMut(&Path, Result<&[f32]>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    embed_cropped(embedder, paths, None, say, each)
}

/// Like [`embed_files`], for the pictures' central squares of `crop` pixels.
///
/// # Errors
/// As [`embed_files`].
pub fn embed_cropped(
    embedder: &dyn Embedder,
    paths: &[PathBuf],
    crop: Option<u32>,
    say: &Reporter,
    mut each: impl FnMut(&Path, Result<&[f32]>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (dim, size) = (embedder.dim(), embedder.side());
    let bar = (paths.len() > BATCH).then(|| say.progress("faces", paths.len() as u64, "pictures"));
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel::<Vec<Result<RgbImage>>>(AHEAD);
        scope.spawn(move || {
            for batch in paths.chunks(BATCH) {
                let decode = |path: &PathBuf| {
                    let whole = picture::decode(path)?;
                    let square = crop.map(|side| picture::centre_crop(&whole, side));
                    Ok(picture::fit(square.as_ref().unwrap_or(&whole), size))
                };
                if sender.send(batch.par_iter().map(decode).collect()).is_err() {
                    return; // the other side stopped early
                }
            }
        });
        for (batch, decoded) in paths.chunks(BATCH).zip(receiver) {
            let mut pictures = Vec::new();
            let mut outcomes = Vec::new();
            for outcome in decoded {
                outcomes.push(outcome.map(|picture| pictures.push(picture)));
            }
            let values = match pictures.is_empty() {
                true => Vec::new(),
                false => embedder.rows(&picture::to_tensor(&pictures)?)?,
            };
            let mut rows = values.chunks_exact(dim);
            for (path, outcome) in batch.iter().zip(outcomes) {
                let row = outcome.map(|()| rows.next().unwrap_or_default());
                each(path, row)?;
            }
            if let Some(bar) = &bar {
                bar.inc(batch.len() as u64);
            }
        }
        Ok(())
    })
}
