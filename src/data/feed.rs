//! Prefetching: decodes batches and uploads them to the device ahead of the training step.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tch::Device;

use super::store::PictureStore;
use crate::Result;
use crate::native::cuda::Upload;

/// Maximum number of finished batches in the queue,
const AHEAD: usize = 3;
/// as far as they fit into this many bytes; at least one.
const ROOM: usize = 256 << 20;

/// A batch of pictures: their numbers and their [bytes on the device](PictureStore::upload).
type Batch = (Vec<usize>, Result<Upload>);

/// A thread that decodes batches, using all cores, and uploads them while the device computes, at most
/// a few batches ahead. It ends after the last batch, at an error, or when the feed is dropped.
#[derive(Debug)]
pub struct Feed {
    ready: Option<Receiver<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts to decode `batches`, in order. If no thread can be started, the feed is empty.
    pub fn start(pictures: &PictureStore, batches: Vec<Vec<usize>>, device: Device) -> Self {
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        let bytes = 3 * pictures.side() as usize * pictures.side() as usize * largest;
        let (sender, ready) = sync_channel((ROOM / bytes.max(1)).clamp(1, AHEAD));
        let pictures = pictures.clone();
        let work = move || decode(&pictures, batches, device, &sender);
        let thread = thread::Builder::new().name("feed".into()).spawn(work);
        Self { ready: Some(ready), thread: thread.ok() }
    }

    /// Waits for the next batch, which must be `batch`; `None` if it is another one or there are no
    /// more.
    ///
    /// # Errors
    /// A picture cannot be decoded.
    pub fn next(&mut self, batch: &[usize]) -> Option<Result<Upload>> {
        let (numbers, bytes) = self.ready.as_ref()?.recv().ok()?;
        (numbers == batch).then_some(bytes)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Without a receiver the thread ends after its current batch.
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn decode(
    pictures: &PictureStore,
    batches: Vec<Vec<usize>>,
    device: Device,
    sender: &SyncSender<Batch>,
) {
    for batch in batches {
        let bytes = pictures.upload(&batch, device);
        let is_last = bytes.is_err();
        if sender.send((batch, bytes)).is_err() || is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::face_folder;
    use super::super::{FaceFolder, Fitting};
    use super::*;

    /// Five pictures, so many of them kept.
    fn store(root: &std::path::Path, kept: u64) -> PictureStore {
        let fitting = Fitting { side: 24, memory: kept * 3 * 24 * 24 };
        FaceFolder::open(root, true, fitting, &|_, _| {}).unwrap().fitted
    }

    fn batches() -> Vec<Vec<usize>> {
        (0..20).map(|first| vec![first % 5, (first + 3) % 5, 0]).collect()
    }

    #[test]
    fn batches_come_in_order_whatever_is_kept() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 3)]);
        let whole = store(root.path(), 5);
        for kept in [0, 2, 5] {
            let mut feed = Feed::start(&store(root.path(), kept), batches(), Device::Cpu);
            for batch in batches() {
                let bytes = feed.next(&batch).unwrap().unwrap().finish().unwrap();
                let bytes = Vec::<u8>::try_from(bytes.flatten(0, -1)).unwrap();
                assert_eq!(bytes, whole.bytes(&batch).unwrap(), "{kept} kept");
            }
            assert!(feed.next(&[0]).is_none());
        }
    }

    #[test]
    fn a_feed_ends_half_way_and_at_an_error() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 3)]);
        let pictures = store(root.path(), 0);
        let mut feed = Feed::start(&pictures, batches(), Device::Cpu);
        assert!(feed.next(&batches()[0]).unwrap().is_ok());
        assert!(feed.next(&[4]).is_none(), "another batch is next");
        drop(feed);
        let panicked = std::panic::catch_unwind(|| {
            let _feed = Feed::start(&store(root.path(), 0), batches(), Device::Cpu);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());

        std::fs::remove_file(root.path().join("ann/1.png")).unwrap();
        let mut feed = Feed::start(&pictures, batches(), Device::Cpu);
        assert!(feed.next(&batches()[0]).unwrap().is_ok());
        let error = feed.next(&batches()[1]).unwrap().unwrap_err().to_string();
        assert!(error.contains("1.png"), "{error}");
        assert!(feed.next(&batches()[2]).is_none());
    }
}
