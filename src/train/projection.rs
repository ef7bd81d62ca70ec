//! What TensorBoard's projector shows of a training: the pictures as points, with names and thumbnails.

use std::borrow::Cow;

use image::RgbImage;

use super::log::{Projector, RunLog, Sprite};
use super::scoring::Labelled;
use crate::data::folder::FaceFolder;

/// The most points: more make a browser slow, and their thumbnails too small to see.
const POINTS: usize = 10_000;
/// Side of a thumbnail in pixels.
const THUMBNAIL: u32 = 64;

/// The points' pictures and labels; the embeddings change.
#[derive(Debug)]
pub struct Projection {
    /// The pictures shown, and their rows among the embeddings.
    pictures: Vec<usize>,
    rows: Vec<usize>,
    columns: [(&'static str, Vec<String>); 3],
    is_written: bool,
}

impl Projection {
    /// The `embedded` pictures of `folder`, evenly thinned out where there are too many;
    /// `is_validation` says of which part one is.
    pub fn new(
        folder: &FaceFolder,
        embedded: &[usize],
        is_validation: impl Fn(usize) -> bool,
    ) -> Self {
        let count = embedded.len();
        let rows: Vec<usize> = (0..count).step_by(count.div_ceil(POINTS).max(1)).collect();
        let pictures: Vec<usize> = rows.iter().map(|&row| embedded[row]).collect();
        let column = |text: &dyn Fn(usize) -> String| {
            pictures.iter().map(|&picture| text(picture)).collect()
        };
        let name = |picture: usize| {
            let identity = folder.pictures[picture].identity;
            folder.identities.get(identity).cloned().unwrap_or_default()
        };
        let part = |picture| if is_validation(picture) { "validation" } else { "train" }.to_owned();
        let path = |picture: usize| folder.relative(&folder.pictures[picture].path);
        let columns =
            [("identity", column(&name)), ("part", column(&part)), ("path", column(&path))];
        Self { pictures, rows, columns, is_written: false }
    }

    /// Shows embeddings in the place of older ones. Pictures and labels are written
    /// the first time only.
    pub fn show(&mut self, all: &Labelled, folder: &FaceFolder, log: &mut RunLog) {
        let shown = all.embeddings.subset(&self.rows);
        if std::mem::replace(&mut self.is_written, true) {
            return log.points(shown.values(), shown.dim());
        }
        // A picture that was deleted in the meantime leaves its place empty.
        let picture = |&picture: &usize| {
            folder.fitted.get(picture).map_or_else(|_| RgbImage::default(), Cow::into_owned)
        };
        let sprite = Sprite::tile(self.pictures.iter().map(picture), (THUMBNAIL, THUMBNAIL));
        let columns = self.columns.each_ref().map(|(name, labels)| (*name, labels.as_slice()));
        log.projector(&Projector {
            embeddings: shown.values(),
            dim: shown.dim(),
            columns: &columns,
            sprite: Some(&sprite),
        });
    }
}
