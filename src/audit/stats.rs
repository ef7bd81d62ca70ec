//! Statistics of one picture.

use image::{RgbImage, imageops};
use sha2::{Digest, Sha256};

use crate::data::near_duplicates::PerceptualHash;
use crate::data::picture::fit;
use crate::detect::sharpness;

/// Pictures are measured at this size, so that the values are comparable.
const SIDE: u32 = 96;

/// Statistics of a readable picture.
#[derive(Debug, Clone)]
pub struct PictureStats {
    /// Width and height.
    pub size: (u32, u32),
    /// Width and height of the part that the network sees.
    pub seen: (u32, u32),
    /// SHA-256 of the file.
    pub file: [u8; 32],
    /// SHA-256 of the size and the decoded pixels.
    pub pixels: [u8; 32],
    /// Mean grey value, 0 to 255.
    pub brightness: f64,
    /// Standard deviation of the grey values.
    pub contrast: f64,
    /// Mean difference between the largest and the smallest channel of a pixel; 0 for grey.
    pub colour: f64,
    /// [`sharpness`] at 96 x 96 pixels.
    pub sharpness: f64,
    /// For finding near-duplicates.
    pub hash: PerceptualHash,
    /// Number of faces of similar size; `None` without detection.
    pub faces: Option<usize>,
}

impl PictureStats {
    /// Measures a picture. `content` is its file. Brightness, contrast, colour and sharpness are those of
    /// `seen`, the part that the network sees.
    pub fn of(content: &[u8], picture: &RgbImage, seen: &RgbImage) -> Self {
        let small = fit(seen, SIDE);
        let grey = imageops::grayscale(&small);
        let count = f64::from(SIDE * SIDE);
        let sum = |value: &dyn Fn(u8) -> f64| grey.as_raw().iter().map(|&p| value(p)).sum::<f64>();
        let brightness = sum(&f64::from) / count;
        let variance = sum(&|pixel| (f64::from(pixel) - brightness).powi(2)) / count;
        let spread = |&[r, g, b]: &[u8; 3]| f64::from(r.max(g).max(b) - r.min(g).min(b));
        let pixels = small.as_raw().as_chunks::<3>().0;
        Self {
            size: picture.dimensions(),
            seen: seen.dimensions(),
            file: Sha256::digest(content).into(),
            pixels: pixel_digest(picture),
            brightness,
            contrast: variance.sqrt(),
            colour: pixels.iter().map(spread).sum::<f64>() / count,
            sharpness: sharpness(&small),
            hash: PerceptualHash::of(picture),
            faces: None,
        }
    }
}

fn pixel_digest(picture: &RgbImage) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(picture.width().to_le_bytes());
    hasher.update(picture.height().to_le_bytes());
    hasher.update(picture.as_raw());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn flat_colours_and_halves_have_the_values_of_paper_and_pencil() {
        let of = |picture: &RgbImage| PictureStats::of(b"", picture, picture);
        let red = of(&RgbImage::from_pixel(30, 40, Rgb([255, 55, 55])));
        assert_eq!((red.size, red.colour, red.contrast), ((30, 40), 200.0, 0.0));
        assert_eq!(red.sharpness, 0.0);
        let half = RgbImage::from_fn(96, 96, |x, _| Rgb([if x < 48 { 50 } else { 150 }; 3]));
        let half = of(&half);
        assert_eq!((half.brightness, half.contrast, half.colour), (100.0, 50.0, 0.0));
        assert!(half.sharpness > 0.0);
    }

    #[test]
    fn pixels_are_told_apart_by_shape_and_files_by_bytes() {
        let picture = |width, height| RgbImage::from_pixel(width, height, Rgb([9; 3]));
        let of = |content: &[u8], p: &RgbImage| PictureStats::of(content, p, p);
        let (a, b) = (of(b"png", &picture(4, 6)), of(b"bmp", &picture(4, 6)));
        assert_eq!(a.pixels, b.pixels);
        assert_ne!(a.file, b.file);
        assert_ne!(a.pixels, of(b"png", &picture(6, 4)).pixels);
    }
}
