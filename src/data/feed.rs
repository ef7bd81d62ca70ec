//! Pictures decoded, and brought to the device, ahead of the training step.

use tch::Device;

use super::prefetch::Prefetch;
use super::store::PictureStore;
use crate::Result;
use crate::native::cuda::Upload;

/// The most batches that wait, besides the one being made ...
const AHEAD: usize = 3;
/// as far as they fit into this many bytes; at least one.
const ROOM: usize = 256 << 20;

/// Batches of training pictures in the order of the epoch. Each is decoded on all cores and copied to
/// the device beside the kernels that run there. It ends with its last batch or at an error.
#[derive(Debug)]
pub struct Feed(Prefetch<Batch>);

/// A batch of pictures: their numbers and their [bytes on the device](PictureStore::upload).
type Batch = (Vec<usize>, Result<Upload>);

impl Feed {
    /// Starts to decode the pictures of `batches`.
    ///
    /// # Errors
    /// As for [`Prefetch::start`].
    pub fn start(
        pictures: &PictureStore,
        batches: Vec<Vec<usize>>,
        device: Device,
    ) -> Result<Self> {
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        let bytes = 3 * pictures.side() as usize * pictures.side() as usize * largest;
        let pictures = pictures.clone();
        let mut failed = false;
        let batches = batches.into_iter().map_while(move |batch| {
            if failed {
                return None;
            }
            let bytes = pictures.upload(&batch, device);
            failed = bytes.is_err();
            Some((batch, bytes))
        });
        let waiting = (ROOM / bytes.max(1)).clamp(1, AHEAD);
        Prefetch::start(batches, waiting).map(Self)
    }

    /// The next batch, which must be `batch`; waits until it is decoded. None where another batch is
    /// next, or none.
    ///
    /// # Errors
    /// A picture can no longer be decoded.
    pub fn next(&mut self, batch: &[usize]) -> Option<Result<Upload>> {
        let (numbers, bytes) = self.0.next()?;
        (numbers == batch).then_some(bytes)
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
            let mut feed = Feed::start(&store(root.path(), kept), batches(), Device::Cpu).unwrap();
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
        let mut feed = Feed::start(&pictures, batches(), Device::Cpu).unwrap();
        assert!(feed.next(&batches()[0]).unwrap().is_ok());
        assert!(feed.next(&[4]).is_none(), "another batch is next");
        drop(feed);
        let panicked = std::panic::catch_unwind(|| {
            let _feed = Feed::start(&store(root.path(), 0), batches(), Device::Cpu).unwrap();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());

        std::fs::remove_file(root.path().join("ann/1.png")).unwrap();
        let mut feed = Feed::start(&pictures, batches(), Device::Cpu).unwrap();
        assert!(feed.next(&batches()[0]).unwrap().is_ok());
        let error = feed.next(&batches()[1]).unwrap().unwrap_err().to_string();
        assert!(error.contains("1.png"), "{error}");
        assert!(feed.next(&batches()[2]).is_none());
    }
}
