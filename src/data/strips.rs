//! Strips: anchor (passport), positive and negative side by side in one file.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage, imageops};

use super::picture::{decode, fit};

/// Number of pictures in a strip.
pub const PANELS: u32 = 3;
/// Minimum side of a face in pixels.
const LEAST_SIDE: u32 = 16;
/// A picture whose channels differ by at most this is blank; JPEG needs some tolerance.
const BLANK: u8 = 4;

/// File format of strips and pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StripFormat {
    /// Lossless.
    Png,
    /// With this quality, 1 to 100.
    Jpeg(u8),
}

impl StripFormat {
    /// The file extension.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg(_) => "jpg",
        }
    }

    /// Encodes a picture.
    ///
    /// # Errors
    /// What the encoder reports.
    pub fn encode(self, picture: &RgbImage) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let (width, height) = picture.dimensions();
        let (pixels, colour) = (picture.as_raw(), ExtendedColorType::Rgb8);
        match self {
            Self::Png => PngEncoder::new(&mut bytes).write_image(pixels, width, height, colour),
            Self::Jpeg(quality) => JpegEncoder::new_with_quality(&mut bytes, quality.clamp(1, 100))
                .write_image(pixels, width, height, colour),
        }
        .map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

/// Joins three pictures, each [`fit`] to `size` x `size` pixels.
pub fn join(pictures: [&RgbImage; 3], size: u32) -> RgbImage {
    let mut strip = RgbImage::new(PANELS * size, size);
    for (panel, picture) in (0_i64..).zip(pictures) {
        imageops::replace(&mut strip, &fit(picture, size), panel * i64::from(size), 0);
    }
    strip
}

/// Cuts a strip into its three pictures.
///
/// # Errors
/// The reason why it is invalid: its width is not a multiple of 3, the aspect ratio of a third is more
/// than 2, it is too small, or a picture is blank.
pub fn cut(strip: &RgbImage) -> Result<[RgbImage; 3], String> {
    let (width, height) = strip.dimensions();
    if width % PANELS != 0 {
        return Err(format!("{width}x{height} pixels: the width is not a multiple of 3"));
    }
    let side = width / PANELS;
    if side.min(height) < LEAST_SIDE {
        return Err(format!("{width}x{height} pixels: too small for three faces"));
    }
    if side > 2 * height || height > 2 * side {
        return Err(format!("{width}x{height} pixels: not three faces in one row"));
    }
    let panels =
        [0, 1, 2].map(|panel| imageops::crop_imm(strip, panel * side, 0, side, height).to_image());
    for (panel, place) in panels.iter().zip(["first", "second", "third"]) {
        if is_blank(panel) {
            return Err(format!("the {place} picture is all one colour"));
        }
    }
    Ok(panels)
}

/// Whether a picture is of one colour.
pub fn is_blank(picture: &RgbImage) -> bool {
    (0..3).all(|channel| {
        let values = || picture.pixels().map(|pixel| pixel.0[channel]);
        let (low, high) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
        high - low <= BLANK
    })
}

/// The three pictures of a strip file.
pub(super) fn cut_file(file: &Path) -> crate::Result<[RgbImage; 3]> {
    let fail = |reason| crate::Error::Picture { path: file.to_path_buf(), reason };
    cut(&decode(file)?).map_err(|reason| fail(format!("not a strip of three pictures: {reason}")))
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::super::picture::decode_bytes;
    use super::super::testing::part;
    use super::*;

    fn scene(seed: u64, side: u32) -> RgbImage {
        part(seed, 0.0, 0.0, 100.0, side)
    }

    #[test]
    fn what_was_joined_is_cut_to_the_same_pictures() {
        let pictures = [1, 2, 3].map(|seed| scene(seed, 40));
        let strip = join([&pictures[0], &pictures[1], &pictures[2]], 40);
        assert_eq!(strip.dimensions(), (120, 40));
        assert_eq!(cut(&strip).unwrap(), pictures);
        let png = decode_bytes("x".as_ref(), &StripFormat::Png.encode(&strip).unwrap()).unwrap();
        assert_eq!(png, strip);
        let bytes = StripFormat::Jpeg(90).encode(&strip).unwrap();
        assert_eq!(&bytes[..2], [0xff, 0xd8]);
        assert!(bytes.len() < StripFormat::Jpeg(100).encode(&strip).unwrap().len());
        assert!(cut(&decode_bytes("x".as_ref(), &bytes).unwrap()).is_ok());
    }

    #[test]
    fn other_sizes_and_shapes_are_fitted() {
        let wide = imageops::crop_imm(&scene(1, 80), 0, 0, 80, 50).to_image();
        let strip = join([&wide, &scene(2, 30), &scene(3, 64)], 48);
        let panels = cut(&strip).unwrap();
        assert_eq!(panels[0], fit(&wide, 48));
        assert_eq!(panels[1], fit(&scene(2, 30), 48));
    }

    #[test]
    fn broken_strips_have_a_reason() {
        let says = |strip: &RgbImage, part: &str| {
            let reason = cut(strip).unwrap_err();
            assert!(reason.contains(part), "{part} in {reason}");
        };
        let crop =
            |width, height| imageops::crop_imm(&scene(4, 300), 0, 0, width, height).to_image();
        says(&crop(100, 33), "not a multiple of 3");
        says(&crop(30, 10), "too small");
        says(&crop(60, 300), "not three faces in one row");
        says(&crop(300, 40), "not three faces in one row");
        let blank = RgbImage::from_pixel(32, 32, Rgb([200, 201, 199]));
        let strip = join([&scene(1, 32), &blank, &scene(2, 32)], 32);
        says(&strip, "the second picture is all one colour");
        assert!(!is_blank(&scene(1, 32)));
    }
}
