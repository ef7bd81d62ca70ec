//! Thumbnails embedded in a page.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::data::picture;

/// The longer side of a thumbnail in pixels, and its JPEG quality.
const SIDE: u32 = 96;
const QUALITY: u8 = 80;

/// A small JPEG of a picture file as a `data:` URL, with its width and height; `None` if the file cannot
/// be read.
pub(super) fn thumbnail(path: &Path) -> Option<(String, u32, u32)> {
    let whole = picture::decode(path).ok()?;
    let (width, height) = whole.dimensions();
    let scale = f64::from(SIDE) / f64::from(width.max(height));
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).clamp(1, SIDE);
    let small = picture::resize(&whole, side(width), side(height));
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .write_image(small.as_raw(), small.width(), small.height(), ExtendedColorType::Rgb8)
        .ok()?;
    let code = BASE64_STANDARD.encode(&jpeg);
    Some((format!("data:image/jpeg;base64,{code}"), small.width(), small.height()))
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    #[test]
    fn a_thumbnail_is_a_jpeg_of_the_same_shape_and_a_broken_file_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        RgbImage::from_pixel(300, 200, image::Rgb([200, 90, 30])).save(&path).unwrap();
        let (address, width, height) = thumbnail(&path).unwrap();
        assert_eq!((width, height), (96, 64));
        let code = address.strip_prefix("data:image/jpeg;base64,").unwrap();
        let bytes = BASE64_STANDARD.decode(code).unwrap();
        assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgb8().dimensions(), (96, 64));
        std::fs::write(&path, "broken").unwrap();
        assert_eq!(thumbnail(&path), None);
    }
}
