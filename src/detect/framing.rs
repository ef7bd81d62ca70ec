//! Where a model's training pictures have the face, so that faces on photos are cropped in the same way
//! and pictures that are such crops already are used as they are.

use serde::{Deserialize, Serialize};

use super::{Crop, Face};

/// Minimum fraction of the training pictures with a detected face.
const ENOUGH: f64 = 0.5;
/// The tolerance is this fraction of the [`cover`] that all but [`STRAYS`] of the training pictures
/// reach,
const SLACK: f64 = 0.8;
const STRAYS: f64 = 0.02;
/// clamped to this range: below it hardly any picture counts as a photo, above it hardly any as a crop.
const TOLERANCES: (f64, f64) = (0.35, 0.6);

/// The position of the face in a model's training pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Framing {
    /// No faces were detected in them, such as in drawings.
    None,
    /// They show the boxes of the faces, as [`Template::Facenet`](super::Template::Facenet) cuts them out.
    Box,
    /// They show one face each.
    Face {
        /// Median positions of the five landmarks, relative to the side of the central square.
        landmarks: [[f64; 2]; 5],
        /// Pictures with at least this [`cover`] are crops already.
        tolerance: f64,
    },
}

impl Framing {
    /// Default tolerance, without training pictures.
    pub const TOLERANCE: f64 = 0.5;

    /// Measures training pictures: width and height, and the largest face if one was detected.
    pub fn measure(pictures: &[((u32, u32), Option<Face>)]) -> Self {
        let faces: Vec<((u32, u32), Face)> =
            pictures.iter().filter_map(|&(size, face)| Some((size, face?))).collect();
        if faces.is_empty() || (faces.len() as f64) < ENOUGH * pictures.len() as f64 {
            return Self::None;
        }
        let placed: Vec<[[f64; 2]; 5]> =
            faces.iter().map(|&(size, face)| places(size, &face)).collect();
        let landmarks = [0, 1, 2, 3, 4].map(|point| {
            [0, 1].map(|axis| quantile(placed.iter().map(|places| places[point][axis]), 0.5))
        });
        let crop = Crop::at(&landmarks, 1);
        let covers = faces.iter().map(|(size, face)| cover(&crop, *size, face));
        let (least, most) = TOLERANCES;
        let tolerance = (SLACK * quantile(covers, STRAYS)).clamp(least, most);
        Self::Face { landmarks, tolerance }
    }
}

/// The fraction of a picture's central square that `crop` would show for that face, in [0, 1]: 1 if the
/// face fills the picture, small for a photo.
pub fn cover(crop: &Crop, size: (u32, u32), face: &Face) -> f64 {
    let Some([x1, y1, x2, y2]) = crop.region(face) else { return 0.0 };
    let ([left, top], side) = central_square(size);
    let wide = (x2.min(left + side) - x1.max(left)).max(0.0);
    let high = (y2.min(top + side) - y1.max(top)).max(0.0);
    let share = wide * high / (side * side);
    if share.is_finite() { share } else { 0.0 }
}

/// The landmarks relative to the central square.
fn places(size: (u32, u32), face: &Face) -> [[f64; 2]; 5] {
    let ([left, top], side) = central_square(size);
    let place = |at: f32, start: f64| (f64::from(at) + 0.5 - start) / side;
    face.landmarks.map(|[x, y]| [place(x, left), place(y, top)])
}

/// Corner and side of the square that [`fit`](crate::data::picture::fit) uses.
fn central_square((width, height): (u32, u32)) -> ([f64; 2], f64) {
    let side = width.min(height);
    ([width, height].map(|all| f64::from((all - side) / 2)), f64::from(side))
}

/// The quantile at `share`; for an even number of values the median is the mean of the two central
/// ones. 0 without values.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = share * values.len().saturating_sub(1) as f64;
    let value = |index: f64| values.get(index as usize).copied().unwrap_or_default();
    let (low, high) = (value(at.floor()), value(at.ceil()));
    low + (high - low) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [[f32; 2]; 5] =
        [[30.0, 40.0], [70.0, 40.0], [50.0, 60.0], [35.0, 80.0], [65.0, 80.0]];

    /// The points above, enlarged around (50, 50) and shifted.
    fn face(scale: f32, shift: [f32; 2]) -> Face {
        let place = |at: f32, by: f32| (at - 50.0) * scale + 50.0 + by - 0.5;
        let landmarks = POINTS.map(|[x, y]| [place(x, shift[0]), place(y, shift[1])]);
        Face { bounds: [0.0; 4], probability: 1.0, landmarks }
    }

    fn landmarks(framing: Framing) -> [[f64; 2]; 5] {
        let Framing::Face { landmarks, .. } = framing else { panic!("{framing:?}") };
        landmarks
    }

    #[test]
    fn a_framing_is_the_median_in_the_central_square() {
        // One wild face among three moves nothing; the sides of a wide picture are cut off.
        let pictures = [
            ((100, 100), Some(face(1.0, [0.0, 0.0]))),
            ((100, 100), Some(face(1.0, [-31.0, 17.0]))),
            ((140, 100), Some(face(1.0, [20.0, 0.0]))),
            ((100, 180), Some(face(1.0, [2.0, 40.0]))),
            ((100, 100), None),
        ];
        let wanted = POINTS.map(|point| point.map(|at| f64::from(at) / 100.0));
        let median = landmarks(Framing::measure(&pictures[..3]));
        assert!(apart(median, wanted) < 1e-6, "{median:?}");
        let even = landmarks(Framing::measure(&pictures));
        let wanted = POINTS.map(|[x, y]| [f64::from(x) / 100.0, f64::from(y) / 100.0]);
        assert!(apart(even, wanted) < 0.011, "{even:?}");
    }

    fn apart(a: [[f64; 2]; 5], b: [[f64; 2]; 5]) -> f64 {
        let pairs = a.as_flattened().iter().zip(b.as_flattened());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn pictures_without_faces_have_none() {
        let (seen, unseen) = (((100, 100), Some(face(1.0, [0.0; 2]))), ((100, 100), None));
        assert_eq!(Framing::measure(&[]), Framing::None);
        assert_eq!(Framing::measure(&[unseen, seen, unseen]), Framing::None);
        assert!(matches!(Framing::measure(&[unseen, seen]), Framing::Face { .. }));
    }

    #[test]
    fn the_cover_is_the_share_of_the_square_that_is_kept() {
        let framing = Framing::measure(&[((100, 100), Some(face(1.0, [0.0; 2])))]);
        let crop = Crop::at(&landmarks(framing), 96);
        for (size, scale, shift, wanted) in [
            ((100, 100), 1.0, [0.0, 0.0], 1.0),
            ((160, 100), 1.0, [30.0, 0.0], 1.0),
            ((100, 100), 0.5, [0.0, 0.0], 0.25),
            ((100, 100), 2.0, [10.0, 0.0], 1.0),
            ((100, 100), 1.0, [50.0, 0.0], 0.5),
            ((100, 100), 0.5, [0.0, 500.0], 0.0),
        ] {
            let found = cover(&crop, size, &face(scale, shift));
            assert!((found - wanted).abs() < 1e-4, "{size:?} {scale} {shift:?}: {found}");
        }
        let point = Face { landmarks: [[3.0; 2]; 5], ..face(1.0, [0.0; 2]) };
        assert_eq!(cover(&crop, (100, 100), &point), 0.0);
        assert_eq!(cover(&crop, (0, 0), &face(1.0, [0.0; 2])), 0.0);
    }

    #[test]
    fn the_tolerance_follows_the_training_pictures() {
        let tolerance = |scales: &[f32]| {
            let one = |&scale: &f32| ((100, 100), Some(face(scale, [0.0; 2])));
            let pictures: Vec<_> = scales.iter().map(one).collect();
            match Framing::measure(&pictures) {
                Framing::Face { tolerance, .. } => tolerance,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(tolerance(&[1.0; 20]), TOLERANCES.1, "aligned crops");
        let mixed = tolerance(&[1.0, 1.0, 1.0, 1.0, 0.8, 0.8]);
        assert!((0.5..0.6).contains(&mixed), "{mixed}");
        assert_eq!(tolerance(&[1.0, 1.0, 1.0, 0.3, 0.3]), TOLERANCES.0, "photos of all kinds");
    }

    #[test]
    fn a_framing_is_written_as_it_is_read() {
        assert_eq!(serde_json::to_string(&Framing::None).unwrap(), "\"none\"");
        let framing = Framing::measure(&[((100, 100), Some(face(1.0, [0.0; 2])))]);
        let text = serde_json::to_string(&framing).unwrap();
        assert!(text.starts_with(r#"{"face":{"landmarks":[["#), "{text}");
        assert_eq!(serde_json::from_str::<Framing>(&text).unwrap(), framing);
    }
}
