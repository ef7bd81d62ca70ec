//! Faces detected on photos of any size, and the flags of the detector.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::context::Context;
use crate::cli::DetectorFlags;
use crate::data::picture;
use crate::data::prefetch::{BatchLimits, read_files};
use crate::detect::{DetectOptions, Detector, Face};
use crate::progress::Progress;
use crate::recognise::pipeline::PIXELS;
use crate::{Error, Result};

/// Photos decoded together. None waits: one batch is searched while the next is decoded.
const LIMITS: BatchLimits = BatchLimits { files: 16, pixels: PIXELS, waiting: 0 };

/// The pixels and faces of a photo, or why it could not be read.
pub type Outcome = Result<(RgbImage, Vec<Face>)>;

/// The detector with the options of the flags.
///
/// # Errors
/// As [`options`].
pub fn detector(context: &Context, flags: &DetectorFlags) -> anyhow::Result<Detector> {
    Ok(Detector::new(context.device()?, options(flags)?)?)
}

/// The options of the detector.
///
/// # Errors
/// `--face-threshold` with neither one nor three values, or values outside 0 to 1.
pub fn options(flags: &DetectorFlags) -> Result<DetectOptions> {
    let usual = DetectOptions::default().thresholds;
    let thresholds = match flags.face_threshold[..] {
        [last] => [usual[0], usual[1], last],
        [p, r, o] => [p, r, o],
        ref other => {
            let text =
                format!("--face-threshold: expected one or three values, not {}", other.len());
            return Err(Error::Config(text));
        }
    };
    let options =
        DetectOptions { min_face: flags.min_face, thresholds, ..DetectOptions::default() };
    options.validate()?;
    Ok(options)
}

/// Detects the faces on `paths` in order; `each` receives a batch of photos with their faces.
///
/// # Errors
/// An error from libtorch or `each`; a file that cannot be decoded is not an error here.
pub fn detect_files(
    detector: &Detector,
    paths: &[PathBuf],
    bar: Option<&Progress>,
    mut each: impl FnMut(&[PathBuf], Vec<Outcome>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (batch, decoded) in read_files(paths, LIMITS, picture::decode)? {
        let pictures: Vec<&RgbImage> = decoded.iter().flatten().collect();
        let mut faces = detector.detect(&pictures)?.into_iter();
        let outcome = |decoded: Result<RgbImage>| {
            decoded.map(|picture| (picture, faces.next().unwrap_or_default()))
        };
        each(&batch, decoded.into_iter().map(outcome).collect())?;
        if let Some(bar) = bar {
            bar.inc(batch.len() as u64);
        }
    }
    Ok(())
}

/// The files of the drawings of `files` in `folder`: the photos' paths below their input, as PNG; a
/// name that is taken gets a number.
pub fn drawn_names(folder: &Path, inputs: &[PathBuf], files: &[PathBuf]) -> Vec<PathBuf> {
    let mut taken = HashSet::new();
    let name = |file: &PathBuf| {
        let below = inputs.iter().find_map(|input| file.strip_prefix(input).ok());
        let below = below.filter(|below| !below.as_os_str().is_empty());
        let below = below.or(file.file_name().map(Path::new)).unwrap_or(Path::new("photo"));
        let mut target = folder.join(below.with_extension("png"));
        let stem = below.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut number = 2;
        while !taken.insert(target.clone()) {
            target.set_file_name(format!("{stem}-{number}.png"));
            number += 1;
        }
        target
    };
    files.iter().map(name).collect()
}

/// Checks that no drawing overwrites a photo.
///
/// # Errors
/// Names the first photo that a drawing would overwrite.
pub fn keep_photos(drawings: &[PathBuf], files: &[PathBuf]) -> Result<()> {
    let there = |path: &PathBuf| path.canonicalize().ok();
    let photos: HashSet<PathBuf> = files.iter().filter_map(there).collect();
    match drawings.iter().find(|path| there(path).is_some_and(|path| photos.contains(&path))) {
        None => Ok(()),
        Some(path) => {
            let text = format!(
                "--draw: the drawing would overwrite the photo {}; give another path",
                path.display()
            );
            Err(Error::Config(text))
        }
    }
}
