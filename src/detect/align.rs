//! Face alignment: upright crops of faces on photos.
//!
//! Either the similarity transform (rotation, scale, translation) from five landmarks to a template
//! with the least squared error (Umeyama, 1991), or the box with a margin, as facenet-pytorch's
//! `extract_face`.

use image::{RgbImage, imageops};
use rayon::prelude::*;

use super::Face;
use crate::data::picture;
use crate::{Error, Result};

/// The position of the face in a crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// The crops that the embedded OpenFace was trained on: the central part of LFW's deep-funneled
    /// pictures, 96x96
    Openface,
    /// dlib's face chips with padding 0.25, the crops that dlib-resnet was trained on, 150x150
    Dlib,
    /// The box with a margin, resized, not rotated: facenet-pytorch's crop, 160x160
    Facenet,
    /// ArcFace's crops, those of IResNet and MobileFaceNet, 112x112
    Arcface,
    /// CelebA's aligned pictures, 178x218
    Celeba,
}

impl Template {
    /// Width and height of a crop in pixels.
    pub const fn size(self) -> (u32, u32) {
        match self {
            Self::Openface => (96, 96),
            Self::Dlib => (150, 150),
            Self::Facenet => (160, 160),
            Self::Arcface => (112, 112),
            Self::Celeba => (178, 218),
        }
    }

    /// Landmark positions as this detector finds them, in pixels of a crop of [`Template::size`].
    const fn landmarks(self) -> Option<[[f64; 2]; 5]> {
        match self {
            Self::Openface => Some(LFW),
            Self::Dlib => Some(DLIB),
            Self::Facenet => None,
            Self::Arcface => Some(ARCFACE),
            Self::Celeba => Some(CELEBA),
        }
    }
}

/// Medians over the most central faces of LFW's pictures, in the central square of 156 of 250 pixels,
/// resized to 96 and levelled; see tests/golden/templates.py.
const LFW: [[f64; 2]; 5] = [[35.2, 40.5], [61.4, 40.5], [48.5, 55.4], [37.4, 68.5], [60.4, 68.5]];

/// Medians over 388 faces of LFW in the chips that dlib 19.24 cuts (its detector, its five-point
/// predictor), as this detector finds the landmarks.
const DLIB: [[f64; 2]; 5] =
    [[48.5, 46.5], [102.7, 46.5], [75.3, 78.9], [51.4, 105.8], [99.1, 105.8]];

/// InsightFace's `arcface_src`, published for the landmarks of MTCNN and RetinaFace.
const ARCFACE: [[f64; 2]; 5] = [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
];

/// Medians over CelebA's aligned pictures.
const CELEBA: [[f64; 2]; 5] =
    [[69.5, 111.8], [107.7, 111.8], [88.3, 135.7], [72.0, 152.1], [105.3, 152.1]];

/// How faces are cropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Target positions of the landmarks, in pixels of the crop; `None` to crop the box.
    landmarks: Option<[[f64; 2]; 5]>,
    width: u32,
    height: u32,
    margin: f64,
}

impl Crop {
    /// Crops with the template's aspect ratio, `width` pixels wide (`None`: the template's width).
    /// `margin` is the part of the width around the template's face, as in facenet-pytorch.
    ///
    /// # Errors
    /// The width is not in 16 to 4096, or the margin is not smaller than the width.
    pub fn new(template: Template, width: Option<u32>, margin: f64) -> Result<Self> {
        let (natural, high) = template.size();
        let width = width.unwrap_or(natural);
        if !(16..=4096).contains(&width) {
            return Err(Error::Config(format!(
                "crop width {width}: must be between 16 and 4096 pixels"
            )));
        }
        if !(margin >= 0.0 && margin < f64::from(width)) {
            let text = format!("margin {margin}: must be smaller than the crop width {width}");
            return Err(Error::Config(text));
        }
        let height = (u64::from(width) * u64::from(high)).div_ceil(u64::from(natural)) as u32;
        let landmarks = template.landmarks().map(|landmarks| {
            let grown = f64::from(width) / f64::from(natural);
            let shrunk = (f64::from(width) - margin) / f64::from(width);
            // Pixel centres are at integers on both sides.
            let place = |at: f64, side: u32| {
                let half = 0.5 * f64::from(side);
                ((at + 0.5) * grown - half) * shrunk + half - 0.5
            };
            landmarks.map(|[x, y]| [place(x, width), place(y, height)])
        });
        Ok(Self { landmarks, width, height, margin })
    }

    /// Square crops of `side` pixels with the landmarks at these positions, relative to the side.
    pub fn at(landmarks: &[[f64; 2]; 5], side: u32) -> Self {
        let landmarks = landmarks.map(|point| point.map(|at| at * f64::from(side) - 0.5));
        Self { landmarks: Some(landmarks), width: side, height: side, margin: 0.0 }
    }

    /// The positions of the landmarks relative to the sides; `None` for crops of the box.
    pub fn places(&self) -> Option<[[f64; 2]; 5]> {
        let (width, height) = (f64::from(self.width), f64::from(self.height));
        Some(self.landmarks?.map(|[x, y]| [(x + 0.5) / width, (y + 0.5) / height]))
    }

    /// Width and height of the crop in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Crops a face; `None` if its landmarks coincide.
    pub fn cut(&self, picture: &RgbImage, face: &Face) -> Option<RgbImage> {
        let Some(landmarks) = self.landmarks else {
            return Some(face_with_margin(picture, face.bounds, self.width, self.margin as f32));
        };
        Some(onto_picture(&landmarks, face)?.sample(picture, self.size()))
    }

    /// Left, top, right and bottom edge of what [`Crop::cut`] shows, in pixels of the picture, ignoring
    /// rotation; `None` if the landmarks coincide.
    pub fn region(&self, face: &Face) -> Option<[f64; 4]> {
        let (width, height) = (f64::from(self.width), f64::from(self.height));
        let Some(landmarks) = self.landmarks else {
            let [x1, y1, x2, y2] = face.bounds.map(f64::from);
            let grow = |side: f64| self.margin * side / (width - self.margin) / 2.0;
            let (wide, high) = (grow(x2 - x1), grow(y2 - y1));
            return Some([x1 - wide, y1 - high, x2 + wide, y2 + high]);
        };
        let onto_picture = onto_picture(&landmarks, face)?;
        let [x, y] = onto_picture.apply([0.5 * width - 0.5, 0.5 * height - 0.5]);
        let (wide, high) =
            (0.5 * width * onto_picture.scale(), 0.5 * height * onto_picture.scale());
        let (x, y) = (x + 0.5, y + 0.5);
        Some([x - wide, y - high, x + wide, y + high])
    }

    /// The fraction of [`Crop::region`] outside a picture of `size`, where the edge pixels are
    /// repeated, in [0, 1].
    pub fn outside(&self, (width, height): (u32, u32), face: &Face) -> f64 {
        let Some([x1, y1, x2, y2]) = self.region(face) else { return 1.0 };
        let wide = (x2.min(width.into()) - x1.max(0.0)).max(0.0);
        let high = (y2.min(height.into()) - y1.max(0.0)).max(0.0);
        let all = (x2 - x1) * (y2 - y1);
        if all > 0.0 { 1.0 - wide * high / all } else { 1.0 }
    }
}

/// The transform from a crop with the landmarks at these positions to the picture of the face.
fn onto_picture(landmarks: &[[f64; 2]; 5], face: &Face) -> Option<Similarity> {
    Similarity::between(landmarks, &face.landmarks.map(|point| point.map(f64::from)))
}

/// x' = a x - b y + c, y' = b x + a y + d: rotation, scale and translation, without reflection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the rotation.
    pub a: f64,
    /// Scale times the sine of the rotation.
    pub b: f64,
    /// Translation.
    pub shift: [f64; 2],
}

impl Similarity {
    /// The transform T that minimises Σ ‖T(from) - to‖² (Umeyama, 1991; closed form in two dimensions).
    /// `None` if all of `from` coincide, or the scale is zero or not finite.
    pub fn between(from: &[[f64; 2]], to: &[[f64; 2]]) -> Option<Self> {
        let count = from.len().min(to.len()) as f64;
        let mean = |points: &[[f64; 2]], axis: usize| {
            points.iter().map(|point| point[axis]).sum::<f64>() / count
        };
        let [fx, fy] = [0, 1].map(|axis| mean(from, axis));
        let [tx, ty] = [0, 1].map(|axis| mean(to, axis));
        let (mut along, mut across, mut square) = (0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(to) {
            let [x, y] = [from[0] - fx, from[1] - fy];
            let [u, v] = [to[0] - tx, to[1] - ty];
            along += x * u + y * v;
            across += x * v - y * u;
            square += x * x + y * y;
        }
        let (a, b) = (along / square, across / square);
        let scale = a.hypot(b);
        (scale.is_finite() && scale > 1e-9).then_some(Self {
            a,
            b,
            shift: [tx - a * fx + b * fy, ty - b * fx - a * fy],
        })
    }

    /// Transforms a point.
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let Self { a, b, shift: [c, d] } = self;
        [a * x - b * y + c, b * x + a * y + d]
    }

    /// The scale factor.
    pub fn scale(&self) -> f64 {
        self.a.hypot(self.b)
    }

    /// A picture of `size` whose pixel p is `picture` at T(p).
    ///
    /// Bilinear. When shrinking, each pixel is the mean over a grid of samples, about one per source
    /// pixel. Outside the picture the edge pixels are repeated.
    pub fn sample(&self, picture: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
        let mut crop = RgbImage::new(width, height);
        if picture.width() == 0 || picture.height() == 0 || width == 0 {
            return crop;
        }
        let fine = (self.scale().ceil() as u32).clamp(1, 64);
        let offset = |k: u32| (f64::from(k) + 0.5) / f64::from(fine) - 0.5;
        let rows = crop.par_chunks_exact_mut(width as usize * 3);
        rows.enumerate().for_each(|(y, row)| {
            for (x, pixel) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let mut sum = [0.0; 3];
                for v in 0..fine {
                    for u in 0..fine {
                        let at = self.apply([x as f64 + offset(u), y as f64 + offset(v)]);
                        for (sum, value) in sum.iter_mut().zip(bilinear(picture, at)) {
                            *sum += value;
                        }
                    }
                }
                *pixel = sum.map(|sum| (sum / f64::from(fine * fine)).round() as u8);
            }
        });
        crop
    }
}

/// Bilinear interpolation; outside the picture the edge pixels are repeated.
fn bilinear(picture: &RgbImage, [x, y]: [f64; 2]) -> [f64; 3] {
    let (right, bottom) = (picture.width() - 1, picture.height() - 1);
    let (x, y) = (x.clamp(0.0, f64::from(right)), y.clamp(0.0, f64::from(bottom)));
    let (column, row) = (x as u32, y as u32);
    let (fx, fy) = (x - f64::from(column), y - f64::from(row));
    let (next, below) = ((column + 1).min(right), (row + 1).min(bottom));
    let at = |x: u32, y: u32| picture.get_pixel(x, y).0.map(f64::from);
    let corners = [at(column, row), at(next, row), at(column, below), at(next, below)];
    [0, 1, 2].map(|channel| {
        let [a, b, c, d] = corners.map(|corner| corner[channel]);
        let (top, bottom) = (a + (b - a) * fx, c + (d - c) * fx);
        top + (bottom - top) * fy
    })
}

/// The box of a face with a margin of `margin` of the crop's `size` pixels, clipped to the picture and
/// resized to a square: facenet-pytorch's `extract_face`, bit-identical to it with Pillow. Black if the
/// box is outside the picture.
pub fn face_with_margin(picture: &RgbImage, bounds: [f32; 4], size: u32, margin: f32) -> RgbImage {
    let [x1, y1, x2, y2] = bounds;
    let grow = |side: f32| margin * side / (size as f32 - margin) / 2.0;
    let (wide, high) = (grow(x2 - x1), grow(y2 - y1));
    let left = (x1 - wide).max(0.0) as u32;
    let top = (y1 - high).max(0.0) as u32;
    let right = (x2 + wide).min(picture.width() as f32) as u32;
    let bottom = (y2 + high).min(picture.height() as f32) as u32;
    if right <= left || bottom <= top {
        return RgbImage::new(size, size);
    }
    let part = imageops::crop_imm(picture, left, top, right - left, bottom - top).to_image();
    picture::resize(&part, size, size)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn near(a: [f64; 2], b: [f64; 2]) -> bool {
        (a[0] - b[0]).abs() < 1e-9 && (a[1] - b[1]).abs() < 1e-9
    }

    #[test]
    fn a_known_transform_is_found_again() {
        let known = Similarity { a: 1.2, b: -0.5, shift: [7.0, -3.0] };
        let points = CELEBA.map(|point| known.apply(point));
        let found = Similarity::between(&CELEBA, &points).unwrap();
        assert!(CELEBA.iter().all(|&point| near(found.apply(point), known.apply(point))));
        assert!((found.scale() - 1.3).abs() < 1e-12);
    }

    #[test]
    fn what_lies_outside_the_picture_is_told() {
        // The margin doubles the box: 40 pixels around the middle of a side, half of them outside.
        let crop = Crop::new(Template::Facenet, Some(160), 80.0).unwrap();
        let face = |x: f32| Face {
            bounds: [x - 10.0, 40.0, x + 10.0, 60.0],
            probability: 1.0,
            landmarks: [[0.0; 2]; 5],
        };
        for (x, wanted) in [(50.0, 0.0), (0.0, 0.5), (10.0, 0.25), (-90.0, 1.0)] {
            assert_eq!(crop.outside((100, 100), &face(x)), wanted, "{x}");
        }
    }

    #[test]
    fn errors_are_least_squares_and_degenerate_points_have_no_answer() {
        // No neighbour of the answer does better on points that do not fit.
        let to = [[3.0, 1.0], [9.0, 4.0], [5.5, 6.0], [2.0, 9.0], [8.0, 8.5]];
        let best = Similarity::between(&LFW, &to).unwrap();
        let error = |t: Similarity| {
            let square = |(&from, to): (&[f64; 2], &[f64; 2])| {
                let at = t.apply(from);
                (at[0] - to[0]).powi(2) + (at[1] - to[1]).powi(2)
            };
            LFW.iter().zip(&to).map(square).sum::<f64>()
        };
        for step in [1e-4, -1e-4] {
            let Similarity { a, b, shift: [c, d] } = best;
            for other in [
                Similarity { a: a + step, ..best },
                Similarity { b: b + step, ..best },
                Similarity { shift: [c + step, d], ..best },
                Similarity { shift: [c, d + step], ..best },
            ] {
                assert!(error(other) > error(best));
            }
        }
        assert_eq!(Similarity::between(&[[1.0, 2.0]; 5], &LFW), None);
        assert_eq!(Similarity::between(&LFW, &[[1.0, 2.0]; 5]), None);
        assert_eq!(Similarity::between(&LFW, &[[f64::NAN, 2.0]; 5]), None);
    }

    #[test]
    fn sampling_copies_turns_and_averages() {
        let picture = RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, 77]));
        let still = Similarity { a: 1.0, b: 0.0, shift: [0.0, 0.0] };
        assert_eq!(still.sample(&picture, (40, 30)), picture);
        // A quarter turn: column x of the crop runs down the picture.
        let turned = Similarity { a: 0.0, b: 1.0, shift: [39.0, 0.0] }.sample(&picture, (30, 40));
        assert_eq!(turned, imageops::rotate270(&picture));
        // Fine stripes, halved: their mean, not one of them.
        let stripes = RgbImage::from_fn(40, 40, |x, _| Rgb([if x % 2 == 0 { 0 } else { 200 }; 3]));
        let half = Similarity { a: 2.0, b: 0.0, shift: [0.5, 0.5] }.sample(&stripes, (20, 20));
        assert!(
            half.pixels().all(|pixel| pixel[0].abs_diff(100) <= 25),
            "{:?}",
            half.get_pixel(9, 9)
        );
        // Beyond the edge the nearest pixel goes on.
        let beyond = Similarity { a: 1.0, b: 0.0, shift: [-500.0, 3.0] }.sample(&picture, (4, 4));
        assert_eq!(beyond.get_pixel(2, 2), picture.get_pixel(0, 5));
    }

    #[test]
    fn a_crop_shows_the_region_it_names() {
        // The template's own face, twice as large, lies 30 to the right and 50 down.
        let landmarks = LFW.map(|[x, y]| [2.0 * x + 30.0, 2.0 * y + 50.0].map(|at| at as f32));
        let face = Face { bounds: [60.0, 80.0, 160.0, 180.0], probability: 1.0, landmarks };
        let shares = LFW.map(|point| point.map(|at| (at + 0.5) / 96.0));
        for (crop, wanted) in [
            (Crop::new(Template::Openface, None, 0.0).unwrap(), [29.5, 49.5, 221.5, 241.5]),
            (Crop::at(&shares, 200), [29.5, 49.5, 221.5, 241.5]),
            (Crop::new(Template::Openface, Some(48), 24.0).unwrap(), [-66.5, -46.5, 317.5, 337.5]),
            (Crop::new(Template::Facenet, Some(100), 0.0).unwrap(), [60.0, 80.0, 160.0, 180.0]),
            (Crop::new(Template::Facenet, Some(100), 50.0).unwrap(), [10.0, 30.0, 210.0, 230.0]),
        ] {
            let region = crop.region(&face).unwrap();
            let apart = region.iter().zip(wanted).map(|(a, b)| (a - b).abs());
            assert!(apart.fold(0.0, f64::max) < 1e-3, "{region:?}, not {wanted:?}");
        }
        // One framing, two ways to ask for it.
        let picture = RgbImage::from_fn(300, 300, |x, y| Rgb([x as u8 / 2, y as u8 / 2, 7]));
        let named = Crop::new(Template::Openface, Some(64), 0.0).unwrap().cut(&picture, &face);
        let (named, placed) = (named.unwrap(), Crop::at(&shares, 64).cut(&picture, &face).unwrap());
        let apart = named.as_raw().iter().zip(placed.as_raw()).map(|(a, b)| a.abs_diff(*b));
        assert!(apart.max() <= Some(1));
    }

    #[test]
    fn impossible_crops_are_refused_and_sizes_keep_proportions() {
        assert_eq!(Crop::new(Template::Celeba, None, 0.0).unwrap().size(), (178, 218));
        assert_eq!(Crop::new(Template::Celeba, Some(89), 0.0).unwrap().size(), (89, 109));
        assert_eq!(Crop::new(Template::Facenet, Some(224), 30.0).unwrap().size(), (224, 224));
        for (size, margin) in [(15, 0.0), (5000, 0.0), (96, 96.0), (96, -1.0), (96, f64::NAN)] {
            assert!(Crop::new(Template::Openface, Some(size), margin).is_err(), "{size} {margin}");
        }
    }
}
