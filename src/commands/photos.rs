//! Photos of any size through the face detector, with bounded memory: one thread decodes the next
//! photos while the detector looks at the last ones.

use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use image::RgbImage;
use rayon::prelude::*;

use super::Context;
use crate::cli::Search;
use crate::data::picture;
use crate::detect::{Detector, Face, Options};
use crate::train::progress::Progress;
use crate::{Error, Result};

/// Photos that are decoded together ...
const BATCH: usize = 16;
/// ... while they have no more pixels than this; a larger photo goes alone.
const PIXELS: u64 = 16_000_000;

/// What became of a photo: its pixels and faces, or why it has none.
pub type Outcome = Result<(RgbImage, Vec<Face>)>;

/// The detector that the flags describe.
///
/// # Errors
/// `--threshold` with neither one nor three values, or values outside 0 to 1.
pub fn detector(context: &Context, search: &Search) -> anyhow::Result<Detector> {
    let usual = Options::default().thresholds;
    let thresholds = match search.threshold[..] {
        [last] => [usual[0], usual[1], last],
        [p, r, o] => [p, r, o],
        ref other => {
            let text = format!("--threshold: one or three values, not {}", other.len());
            return Err(Error::Config(text).into());
        }
    };
    let options = Options { min_face: search.min_face, thresholds, ..Options::default() };
    Ok(Detector::new(context.device()?, options)?)
}

/// Looks at `paths` in order; `each` receives a batch of photos with what became of them.
///
/// # Errors
/// What libtorch or `each` raises; a file that cannot be decoded is not an error here.
pub fn look(
    detector: &Detector,
    paths: &[PathBuf],
    bar: Option<&Progress>,
    mut each: impl FnMut(&[PathBuf], Vec<Outcome>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        // Nobody waits in the channel: one batch is looked at, one is decoded.
        let (sender, receiver) = sync_channel::<(&[PathBuf], Vec<Result<RgbImage>>)>(0);
        scope.spawn(move || {
            let mut rest = paths;
            while !rest.is_empty() {
                let (batch, others) = rest.split_at(batch_of(rest));
                rest = others;
                let pictures = batch.par_iter().map(|path| picture::decode(path)).collect();
                if sender.send((batch, pictures)).is_err() {
                    return; // the other side stopped early
                }
            }
        });
        for (batch, decoded) in receiver {
            let pictures: Vec<&RgbImage> = decoded.iter().flatten().collect();
            let mut faces = detector.detect(&pictures)?.into_iter();
            let outcome = |decoded: Result<RgbImage>| {
                decoded.map(|picture| (picture, faces.next().unwrap_or_default()))
            };
            each(batch, decoded.into_iter().map(outcome).collect())?;
            if let Some(bar) = bar {
                bar.inc(batch.len() as u64);
            }
        }
        Ok(())
    })
}

/// How many of the first photos make a batch; at least one.
pub fn batch_of(paths: &[PathBuf]) -> usize {
    let mut pixels = 0;
    let fits = |path: &&PathBuf| {
        pixels += size(path);
        pixels <= PIXELS
    };
    paths.iter().take(BATCH).take_while(fits).count().max(1)
}

/// The pixels of a photo as its file claims; what cannot be read has none.
fn size(path: &Path) -> u64 {
    let reader = image::ImageReader::open(path).and_then(|file| file.with_guessed_format());
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    size.map_or(0, |(width, height)| u64::from(width) * u64::from(height))
}
