//! From picture files to embeddings: read ahead, frame, batch, embed. Memory stays constant.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::embedder::{BATCH, Embedder, embed_pictures};
use crate::data::prefetch::{BatchLimits, read_files};
use crate::eval::Embeddings;
use crate::{Error, Result};

/// Pixels of pictures held at one time, decoded or kept for drawing.
pub const PIXELS: u64 = 16_000_000;

/// What a thread of its own makes of a file.
pub type Reader<T> = Box<dyn Fn(&Path) -> Result<T> + Send + Sync>;

/// Finds what there is to embed on a picture.
pub trait Framer {
    /// What [`reader`](Self::reader) makes of a file, on another thread.
    type Read: Send + 'static;
    /// What the caller learns of a picture besides the embeddings.
    type Info;

    /// Decodes a file, and does all else that needs no network.
    fn reader(&self) -> Reader<Self::Read>;

    /// How much is read together.
    fn limits(&self) -> BatchLimits;

    /// The faces on the pictures of a batch, in their order.
    ///
    /// # Errors
    /// An error from libtorch.
    fn frame(&self, pictures: Vec<Self::Read>) -> Result<Vec<Framed<Self::Info>>>;
}

/// A picture as a [`Framer`] sees it.
#[derive(Debug)]
pub struct Framed<I> {
    /// What goes to the caller.
    pub info: I,
    /// The faces, squares of the trunk's input size.
    pub faces: Vec<RgbImage>,
    /// Pixels that `info` holds.
    pub pixels: u64,
}

/// Embeds the faces on `files`, in order. `each` receives every file with what there is to know of it
/// and one row per face, or with the reason why it cannot be read; `done` the number of files read.
///
/// # Errors
/// What `each` or libtorch raises. A file that cannot be read is not an error here.
pub fn embed_files<F: Framer, E: From<Error>>(
    embedder: &dyn Embedder,
    framer: &F,
    files: &[PathBuf],
    done: impl Fn(usize),
    mut each: impl FnMut(&Path, Result<(F::Info, Embeddings)>) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = Waiting { pictures: Vec::new(), faces: Vec::new(), pixels: 0 };
    for (paths, read) in read_files(files, framer.limits(), framer.reader())? {
        let (count, mut readable) = (paths.len(), Vec::new());
        let read: Vec<Result<()>> =
            read.into_iter().map(|picture| picture.map(|read| readable.push(read))).collect();
        let mut framed = framer.frame(readable)?.into_iter();
        for (path, picture) in paths.into_iter().zip(read) {
            let lost = || Error::Data(format!("{}: lost on its way to the trunk", path.display()));
            let picture = picture.and_then(|()| framed.next().ok_or_else(lost));
            waiting.push(path, picture);
            if waiting.is_full() {
                waiting.embed(embedder, &mut each)?;
            }
        }
        done(count);
    }
    waiting.embed(embedder, &mut each)
}

/// Pictures whose faces wait for a full batch.
struct Waiting<I> {
    /// Each with the number of its faces.
    pictures: Vec<(PathBuf, Result<(I, usize)>)>,
    faces: Vec<RgbImage>,
    pixels: u64,
}

impl<I> Waiting<I> {
    fn push(&mut self, path: PathBuf, picture: Result<Framed<I>>) {
        let picture = picture.map(|Framed { info, faces, pixels }| {
            let count = faces.len();
            self.faces.extend(faces);
            self.pixels += pixels;
            (info, count)
        });
        self.pictures.push((path, picture));
    }

    fn is_full(&self) -> bool {
        self.faces.len().max(self.pictures.len()) >= BATCH || self.pixels >= PIXELS
    }

    fn embed<E: From<Error>>(
        &mut self,
        embedder: &dyn Embedder,
        each: &mut impl FnMut(&Path, Result<(I, Embeddings)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = embed_pictures(embedder, &self.faces)?;
        self.faces.clear();
        self.pixels = 0;
        let mut first = 0;
        for (path, picture) in self.pictures.drain(..) {
            let answer = picture.map(|(info, count)| {
                let own: Vec<usize> = (first..first + count).collect();
                first += count;
                (info, rows.subset(&own))
            });
            each(&path, answer)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tch::Device;

    use super::super::Viewer;
    use super::*;
    use crate::data::picture;
    use crate::data::testing::face_folder;
    use crate::models::{Architecture, Backbone, BuildOptions};

    #[test]
    fn files_get_the_rows_of_their_pictures_and_broken_ones_their_reason() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 3), ("bob", 2)]);
        std::fs::write(root.path().join("ann/1.png"), "no picture").unwrap();
        let files = picture::walk(root.path()).unwrap();
        tch::manual_seed(0);
        let options = BuildOptions::default();
        let trunk = Backbone::build(Architecture::OpenFace, Device::Cpu, &options).unwrap();
        for centre in [None, Some(20)] {
            let mut viewer = Viewer::whole(trunk.input.size, centre);
            viewer.keeps_pictures = centre.is_some();
            let (read, mut found) = (Cell::new(0), Vec::new());
            let done = |count| read.set(read.get() + count);
            embed_files(&trunk, &viewer, &files, done, |path, seen| {
                found.push((path.to_owned(), seen.map_err(|error| error.to_string())));
                Ok::<(), Error>(())
            })
            .unwrap();
            assert_eq!((read.get(), found.len()), (5, 5));
            for ((path, seen), file) in found.iter().zip(&files) {
                assert_eq!(path, file);
                if path.ends_with("ann/1.png") {
                    assert!(seen.as_ref().unwrap_err().contains("1.png"));
                    continue;
                }
                let (view, rows) = seen.as_ref().unwrap();
                let whole = picture::decode(path).unwrap();
                assert_eq!(view.size, whole.dimensions());
                assert_eq!(view.picture.is_some(), centre.is_some());
                let face = centre.map_or(whole.clone(), |side| picture::centre_crop(&whole, side));
                let wanted = embed_pictures(&trunk, &[face]).unwrap();
                let apart = wanted.values().iter().zip(rows.values()).map(|(a, b)| (a - b).abs());
                assert!(rows.rows() == 1 && apart.fold(0.0, f32::max) < 1e-5, "{}", path.display());
            }
        }
    }
}
