//! Prefetching on a background thread: decodes while libtorch computes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use rayon::prelude::*;

use super::picture;
use crate::{Error, Result};

/// Items made ahead, in order. It ends after the last one; dropping it stops the thread.
#[derive(Debug)]
pub struct Prefetch<T> {
    ready: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts to take `items`, whose work is done by the iterator. Up to `waiting` of them are kept
    /// ahead of the consumer, besides the one being made.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        mut items: impl Iterator<Item = T> + Send + 'static,
        waiting: usize,
    ) -> Result<Self> {
        let (sender, ready) = sync_channel(waiting);
        let work = move || while items.next().is_some_and(|item| sender.send(item).is_ok()) {};
        let thread = thread::Builder::new()
            .name("prefetch".into())
            .spawn(work)
            .map_err(|error| Error::Config(format!("no thread to read pictures with: {error}")))?;
        Ok(Self { ready: Some(ready), thread: Some(thread) })
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.ready.as_ref()?.recv().ok()
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        // Without a receiver the next item cannot be sent, and the thread ends.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many files are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Files in a batch.
    pub files: usize,
    /// Pixels in a batch, by the files' headers; a larger picture is a batch of its own.
    pub pixels: u64,
    /// Batches that wait for the consumer.
    pub waiting: usize,
}

/// A batch of files, and what was read of each.
pub type FileBatch<T> = (Vec<PathBuf>, Vec<Result<T>>);

/// Reads `files` in order and in batches, the files of a batch on all cores.
///
/// # Errors
/// As for [`Prefetch::start`].
pub fn read_files<T: Send + 'static>(
    files: &[PathBuf],
    limits: BatchLimits,
    read: impl Fn(&Path) -> Result<T> + Send + Sync + 'static,
) -> Result<Prefetch<FileBatch<T>>> {
    let (files, mut done) = (files.to_vec(), 0);
    let batches = std::iter::from_fn(move || {
        let rest = files.get(done..).filter(|rest| !rest.is_empty())?;
        let batch = &rest[..batch_length(rest, limits)];
        done += batch.len();
        Some(batch.to_vec())
    });
    let read = move |batch: Vec<PathBuf>| {
        let pictures = batch.par_iter().map(|path| read(path)).collect();
        (batch, pictures)
    };
    Prefetch::start(batches.map(read), limits.waiting)
}

/// How many of the first files form a batch; at least one.
fn batch_length(files: &[PathBuf], limits: BatchLimits) -> usize {
    let mut pixels = 0;
    let fits = |path: &&PathBuf| {
        pixels += size(path);
        pixels <= limits.pixels
    };
    files.iter().take(limits.files).take_while(fits).count().max(1)
}

/// The number of pixels in the header of a picture; 0 if it cannot be read.
fn size(path: &Path) -> u64 {
    picture::dimensions(path).map_or(0, |(width, height)| u64::from(width) * u64::from(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_and_an_early_drop_ends_the_thread() {
        let squares: Vec<i32> =
            Prefetch::start((0..5).map(|number| number * number), 1).unwrap().collect();
        assert_eq!(squares, [0, 1, 4, 9, 16]);
        let mut endless = Prefetch::start(0.., 2).unwrap();
        assert_eq!(endless.next(), Some(0));
        drop(endless);
    }

    #[test]
    fn batches_hold_every_file_once_within_their_limits() {
        let root = tempfile::tempdir().unwrap();
        let file = |side: u32| {
            let path = root.path().join(format!("{side}.png"));
            image::RgbImage::new(side, side).save(&path).unwrap();
            path
        };
        let files = [file(10), file(11), file(40), file(12), root.path().join("missing.png")];
        let limits = BatchLimits { files: 3, pixels: 300, waiting: 0 };
        let read = |path: &Path| picture::decode(path).map(|picture| picture.width());
        let batches: Vec<_> = read_files(&files, limits, read).unwrap().collect();
        let lengths: Vec<_> =
            batches.iter().map(|(paths, read)| (paths.len(), read.len())).collect();
        assert_eq!(lengths, [(2, 2), (1, 1), (2, 2)]);
        let widths: Vec<_> =
            batches.into_iter().flat_map(|(_, read)| read).map(Result::ok).collect();
        assert_eq!(widths, [Some(10), Some(11), Some(40), Some(12), None]);
        assert_eq!(read_files(&[], limits, read).unwrap().count(), 0);
    }
}
