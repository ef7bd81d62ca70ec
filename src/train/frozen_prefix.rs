//! From the pictures of a batch to what the trainable stages of a trunk get: augmentation, frozen
//! stages computed once, and stages that join the training over the epochs.

use std::path::Path;
use std::time::{Duration, Instant};

use tch::Tensor;

use super::map_cache::{CacheLimits, MapCache};
use super::settings::TuningSettings;
use super::stages::GradualUnfreezing;
use crate::Result;
use crate::data::augment::{Augment, Draws};
use crate::data::feed::Feed;
use crate::data::store::{PictureStore, scaled};
use crate::models::{Backbone, Mode};

/// The frozen stages below the first trainable stage, with augmentation and cache.
#[derive(Debug)]
pub struct FrozenPrefix<'a> {
    backbone: &'a Backbone,
    faces: &'a PictureStore,
    augment: Augment,
    unfreezing: GradualUnfreezing,
    maps: MapCache<'a>,
    /// Decodes ahead, where pictures are needed in every epoch.
    feed: Option<Feed>,
    waited: Duration,
    /// Pictures in one pass through the frozen stages.
    piece: usize,
}

impl<'a> FrozenPrefix<'a> {
    /// For a trunk whose trainable parameters are those that train in the end; with
    /// `unfreeze_every` most of them are frozen here, until their epoch comes. `out` is the run's
    /// folder, where maps that do not fit in memory go.
    pub fn new(
        backbone: &'a Backbone,
        faces: &'a PictureStore,
        settings: &TuningSettings,
        piece: usize,
        out: &Path,
    ) -> Self {
        let augment = settings.augmentation.augment();
        let limits = limits(settings, out);
        let mirrors = augment.flip && augment.mirrored(0, 0).is_some();
        let unfreezing = GradualUnfreezing::new(backbone, settings.unfreeze_every);
        let maps = MapCache::new(backbone, faces, mirrors, limits);
        let (feed, waited) = (None, Duration::ZERO);
        Self { backbone, faces, augment, unfreezing, maps, feed, waited, piece }
    }

    /// Freezes and unfreezes stages for `epoch`, counted from 1; returns notes for the user.
    ///
    /// # Errors
    /// An error from libtorch, or from the disk.
    pub fn begin(&mut self, epoch: usize) -> Result<Vec<String>> {
        let mut notes: Vec<String> = self.unfreezing.at(epoch).into_iter().collect();
        notes.extend(self.maps.refresh()?);
        Ok(notes)
    }

    /// Decodes the pictures of `batches` ahead of [`views`](Self::views) of them, in this order.
    /// Not where the frozen stages' output is kept: then most pictures are never needed again.
    pub fn prefetch(&mut self, batches: &[Vec<usize>]) {
        self.feed = None;
        if self.maps.end() == 0 || self.augment.mirrored(0, 0).is_none() {
            self.feed = Feed::start(self.faces, batches.to_vec(), self.backbone.device()).ok();
        }
    }

    /// The pictures.
    pub fn faces(&self) -> &PictureStore {
        self.faces
    }

    /// Time this thread has spent waiting for pictures since the last call.
    pub fn take_wait(&mut self) -> Duration {
        std::mem::take(&mut self.waited) + self.maps.take_wait()
    }

    /// Random views of training pictures: the number of stages below, and the maps in front of the
    /// next one (0 and the pictures themselves where nothing is frozen).
    ///
    /// # Errors
    /// An error from libtorch, or from the disk.
    pub fn views(&mut self, batch: &[usize], draws: impl Into<Draws>) -> Result<(usize, Tensor)> {
        let draws = draws.into();
        if self.maps.end() > 0
            && let Some(mirrored) = self.augment.mirrored(batch.len(), draws)
        {
            return self.kept(batch.iter().copied().zip(mirrored));
        }
        let size = i64::from(self.backbone.input.size);
        let pictures = self.pictures(batch)?;
        let pictures = self.augment.apply(&pictures, size, draws)?;
        let end = self.backbone.frozen_stages();
        let parts: Vec<_> = pieces(batch.len(), self.piece)
            .map(|(start, length)| pictures.narrow(0, start, length))
            .map(|piece| self.backbone.maps(&piece, end, Mode::TRAIN))
            .collect();
        Ok((end, joined(parts)?))
    }

    /// The same without augmentation.
    ///
    /// # Errors
    /// As for [`views`](Self::views).
    pub fn plain(&mut self, batch: &[usize]) -> Result<(usize, Tensor)> {
        if self.maps.end() > 0 {
            return self.kept(batch.iter().map(|&picture| (picture, false)));
        }
        Ok((0, self.faces.batch(batch, self.backbone.device())?))
    }

    /// Training pictures, from the prefetched feed if they are next in it.
    fn pictures(&mut self, batch: &[usize]) -> Result<Tensor> {
        let since = Instant::now();
        let bytes = match self.feed.as_mut().and_then(|feed| feed.next(batch)) {
            Some(bytes) => bytes?,
            None => {
                self.feed = None;
                self.faces.upload(batch, self.backbone.device())?
            }
        };
        // What follows is work of this thread, not waiting.
        self.waited += since.elapsed();
        scaled(bytes)
    }

    fn kept(&mut self, views: impl Iterator<Item = (usize, bool)>) -> Result<(usize, Tensor)> {
        let views: Vec<_> = views.collect();
        let parts = views.chunks(self.piece.max(1)).map(|views| self.maps.maps(views));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok((self.maps.end(), joined(parts)?))
    }
}

/// What `--cache-memory` and `--cache-disk` allow; more megabytes than there are bytes is no limit.
fn limits(settings: &TuningSettings, out: &Path) -> CacheLimits {
    let bytes = |megabytes: u64| megabytes.saturating_mul(1 << 20);
    let (memory, disk) = (bytes(settings.cache_memory), bytes(settings.cache_disk));
    CacheLimits { memory, disk, folder: out.to_owned() }
}

/// Concatenates the parts; a single part is returned as it is.
fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.swap_remove(0)),
        _ => Ok(Tensor::f_cat(&parts, 0)?),
    }
}

/// The (first row, number of rows) of each chunk of a batch.
pub fn pieces(rows: usize, piece: usize) -> impl Iterator<Item = (i64, i64)> + Clone {
    let piece = piece.clamp(1, rows.max(1));
    (0..rows).step_by(piece).map(move |start| (start as i64, piece.min(rows - start) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_cache_limit_is_no_limit() {
        let settings =
            TuningSettings { cache_memory: 1 << 44, cache_disk: 3, ..Default::default() };
        let found = limits(&settings, Path::new("run"));
        assert_eq!((found.memory, found.disk), (u64::MAX, 3 << 20));
    }

    #[test]
    fn pieces_cover_a_batch_once() {
        let of = |rows, piece| pieces(rows, piece).collect::<Vec<_>>();
        assert_eq!(of(7, 3), [(0, 3), (3, 3), (6, 1)]);
        assert_eq!(of(3, usize::MAX), [(0, 3)]);
        assert_eq!(of(0, 3), []);
        assert_eq!(of(2, 0), [(0, 1), (1, 1)]);
    }
}
