//! Second detection pass for pictures without a detected face: crops that are too tight for the normal
//! pass.

use image::RgbImage;
use tch::Device;

use super::{DetectOptions, Detector, Face, MinFace, Similarity};
use crate::Result;

/// Maximum shorter side of a picture after scaling: only large faces are of interest.
const SIDE: f64 = 240.0;
/// Border around the picture relative to the shorter side; edge pixels are repeated.
const BORDER: f64 = 0.3;
/// Lower thresholds than the normal pass.
const THRESHOLDS: [f32; 3] = [0.4, 0.5, 0.5];
/// Minimum face size relative to the shorter side of picture and border.
const MIN_FACE: f64 = 0.2;

/// A detector for faces that fill their picture.
#[derive(Debug)]
pub struct CloseUp(Detector);

impl CloseUp {
    /// A detector on `device`.
    ///
    /// # Errors
    /// As [`Detector::new`].
    pub fn new(device: Device) -> Result<Self> {
        let (min_face, thresholds) = (MinFace::Share(MIN_FACE), THRESHOLDS);
        Ok(Self(Detector::new(
            device,
            DetectOptions { min_face, thresholds, ..DetectOptions::default() },
        )?))
    }

    /// The large faces of every picture, largest first, in pixels of the picture.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detect(&self, pictures: &[&RgbImage]) -> Result<Vec<Vec<Face>>> {
        let (padded, back): (Vec<RgbImage>, Vec<Similarity>) =
            pictures.iter().map(|picture| padded(picture)).unzip();
        let found = self.0.detect(&padded.iter().collect::<Vec<_>>())?;
        let returned = |(faces, back): (Vec<Face>, Similarity)| -> Vec<Face> {
            faces.into_iter().map(|face| moved(face, &back)).collect()
        };
        Ok(found.into_iter().zip(back).map(returned).collect())
    }
}

/// A scaled picture with a border, and the mapping back to the original's pixels.
fn padded(picture: &RgbImage) -> (RgbImage, Similarity) {
    let [width, height] = [picture.width(), picture.height()].map(f64::from);
    let scale = (width.min(height) / SIDE).max(1.0);
    let border = (BORDER * width.min(height) / scale).ceil();
    let side = |all: f64| (all / scale + 2.0 * border).ceil() as u32;
    // Pixel centres are at integers on both sides.
    let start = (0.5 - border) * scale - 0.5;
    let back = Similarity { a: scale, b: 0.0, shift: [start; 2] };
    (back.sample(picture, (side(width), side(height))), back)
}

/// A face translated and scaled.
fn moved(face: Face, way: &Similarity) -> Face {
    let place = |[x, y]: [f32; 2]| way.apply([f64::from(x), f64::from(y)]).map(|at| at as f32);
    let [x1, y1, x2, y2] = face.bounds;
    let ([x1, y1], [x2, y2]) = (place([x1, y1]), place([x2, y2]));
    Face { bounds: [x1, y1, x2, y2], landmarks: face.landmarks.map(place), ..face }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, imageops};

    use super::*;

    #[test]
    fn a_padded_picture_knows_the_way_back() {
        for (width, height) in [(100, 140), (960, 720), (1, 1), (3000, 20)] {
            let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 1]));
            let (padded, back) = padded(&picture);
            // The middle stays the middle, within a pixel of rounding.
            let middle = [padded.width(), padded.height()].map(|side| f64::from(side) / 2.0 - 0.5);
            let [x, y] = back.apply(middle);
            let off = (x + 0.5 - f64::from(width) / 2.0)
                .abs()
                .max((y + 0.5 - f64::from(height) / 2.0).abs());
            assert!(off <= back.scale(), "{width}x{height}: {off}");
            assert!(padded.width().min(padded.height()) <= 400, "{:?}", padded.dimensions());
        }
        assert_eq!(padded(&RgbImage::new(0, 0)).0.dimensions(), (0, 0));
    }

    #[test]
    fn a_face_cut_at_its_edges_is_found_where_it_is() {
        let bytes = include_bytes!("../../tests/golden/detect/row.png");
        let photo = image::load_from_memory(bytes).unwrap().to_rgb8();
        // The second face of the row: eyes at about (128, 62) and (158, 58), mouth at y = 97.
        let crop = imageops::crop_imm(&photo, 112, 35, 68, 80).to_image();
        let faces = CloseUp::new(Device::Cpu).unwrap().detect(&[&crop, &RgbImage::new(50, 50)]);
        let faces = faces.unwrap();
        assert!(faces[1].is_empty(), "{faces:?}");
        let [[lx, ly], [rx, ry], ..] = faces[0][0].landmarks;
        let off = [lx - 16.0, ly - 27.0, rx - 46.0, ry - 23.0];
        assert!(off.iter().all(|off| off.abs() < 6.0), "{:?}", faces[0][0]);
    }
}
