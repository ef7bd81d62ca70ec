//! How faces are framed in the training pictures, so that a model's other commands cut faces out of photos
//! in the same way.

use std::path::PathBuf;

use super::context::Context;
use super::{detection, output};
use crate::detect::{DetectOptions, Detector, Framing, MinFace};
use crate::train::dataset::TrainingData;
use crate::train::photos::spread;

/// Maximum number of training pictures to measure.
const SAMPLE: usize = 200;
/// Minimum face size on a training picture, as a fraction of its shorter side.
const MIN_FACE: f64 = 0.1;

/// Detects the faces on a sample of the training pictures and reports how they are framed. Faces that
/// were cut out of photos need no search.
///
/// # Errors
/// An error from libtorch.
pub fn measure(context: &Context, data: &TrainingData) -> anyhow::Result<Framing> {
    if let Some(framing) = data.framing {
        return Ok(framing);
    }
    // Pictures come identity by identity.
    let sample: Vec<PathBuf> = spread(data.parts.train.len(), SAMPLE)
        .map(|index| data.folder.pictures[data.parts.train[index]].path.clone())
        .collect();
    let options = DetectOptions { min_face: MinFace::Share(MIN_FACE), ..DetectOptions::default() };
    let detector = Detector::new(context.device()?, options)?;
    let bar = context.say.progress("framing", sample.len() as u64, "pictures");
    let mut seen = Vec::new();
    detection::detect_files(&detector, &sample, Some(&bar), |_, outcomes| {
        let largest = |outcome: detection::Outcome| {
            let (picture, faces) = outcome.ok()?;
            Some((picture.dimensions(), faces.first().copied()))
        };
        seen.extend(outcomes.into_iter().filter_map(largest));
        Ok(())
    })?;
    bar.finish();
    let framing = Framing::measure(&seen);
    let faces = seen.iter().filter(|(_, face)| face.is_some()).count();
    let found = format!("a face on {faces} of {}", output::count(seen.len(), "training picture"));
    context.say.line(&match framing {
        Framing::Face { .. } | Framing::Box => {
            format!("framing: {found}; faces on photos will be cut out in the same way")
        }
        Framing::None => format!(
            "framing: {found}; the model will use pictures as they are, without face detection"
        ),
    });
    Ok(framing)
}
