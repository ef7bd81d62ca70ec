//! How faces are framed in the training pictures, so that a model's other commands cut faces out of photos
//! in the same way.

use std::path::PathBuf;

use super::{Context, detection, output};
use crate::detect::{DetectOptions, Detector, Framing, MinFace};
use crate::train::dataset::TrainingData;

/// Maximum number of training pictures to measure.
const SAMPLE: usize = 200;
/// Minimum face size on a training picture, as a fraction of its shorter side.
const MIN_FACE: f64 = 0.1;

/// Detects the faces on a sample of the training pictures and reports how they are framed.
///
/// # Errors
/// An error from libtorch.
pub fn measure(context: &Context, data: &TrainingData) -> anyhow::Result<Framing> {
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
        Framing::Face { .. } => {
            format!("framing: {found}; faces on photos will be cut out in the same way")
        }
        Framing::None => format!(
            "framing: {found}; the model will use pictures as they are, without face detection"
        ),
    });
    Ok(framing)
}

/// At most `most` of the numbers below `all`, evenly spaced.
fn spread(all: usize, most: usize) -> impl Iterator<Item = usize> {
    let some = all.min(most);
    (0..some).map(move |k| k * all / some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_evenly_and_never_twice() {
        assert_eq!(spread(3, 200).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(spread(0, 4).count(), 0);
    }
}
