//! Resizing of pictures, to the bit as Pillow does it: what was measured with PyTorch and
//! torchvision on resized pictures holds here.
//!
//! Each output pixel is a weighted mean of the input pixels under a triangle around its place. The
//! triangle is as wide as two input pixels, or as two output pixels where those are larger, which
//! is the antialiasing. Rows are resized first and rounded to 8 bits, then columns.

use image::RgbImage;

/// Weights are whole numbers of 2^-22: 8 bits of a pixel, 2 bits against overflow, 32 in all.
const FRACTION: u32 = 22;

/// The weights of one output pixel for the input pixels from `first` on.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes a picture, which has pixels, to `width` x `height`: antialiased bilinear.
pub(super) fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
    // Each pass also swaps rows and columns: after the second one they are back in place.
    let narrow = resize_rows(picture.as_raw(), from_width, &taps(from_width, width as usize));
    let pixels = resize_rows(&narrow, from_height, &taps(from_height, height as usize));
    // The buffer has width * height * 3 bytes, so that the blank picture is never taken.
    RgbImage::from_raw(width, height, pixels).unwrap_or_else(|| RgbImage::new(width, height))
}

/// The weights for every output pixel of a row of `to`, made from a row of `from`.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    (0..to)
        .map(|k| {
            let centre = (k as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let heights: Vec<f64> = (first..end)
                .map(|x| (1.0 - ((x as f64 - centre + 0.5) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = heights.iter().sum();
            let whole = |height: &f64| (height / sum * f64::from(1 << FRACTION)).round() as i32;
            Taps { first, weights: heights.iter().map(whole).collect() }
        })
        .collect()
}

/// Resizes each row of `length` RGB pixels and writes the rows as columns.
fn resize_rows(pixels: &[u8], length: usize, taps: &[Taps]) -> Vec<u8> {
    let rows = pixels.len() / (3 * length);
    let mut columns = vec![0; taps.len() * rows * 3];
    for (index, row) in pixels.chunks_exact(3 * length).enumerate() {
        for (k, Taps { first, weights }) in taps.iter().enumerate() {
            let mut sums = [1_i32 << (FRACTION - 1); 3];
            for (pixel, weight) in row[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            let target = 3 * (k * rows + index);
            columns[target..target + 3]
                .copy_from_slice(&sums.map(|sum| (sum >> FRACTION).clamp(0, 255) as u8));
        }
    }
    columns
}

#[cfg(test)]
pub(super) mod tests {
    use image::{Rgb, RgbImage};

    use super::super::picture::fit;

    /// The same formula as in tests/golden/data_fit.py.
    pub(in crate::data) fn source(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (x * x + 3 * y) as u8])
        })
    }

    #[test]
    fn every_byte_is_pillows() {
        let golden = include_str!("../../tests/golden/data_fit.csv");
        for line in golden.lines() {
            let numbers: Vec<u32> = line.split(',').map(|field| field.parse().unwrap()).collect();
            let fitted = fit(&source(numbers[0], numbers[1]), numbers[2]);
            assert_eq!(fitted.dimensions(), (numbers[2], numbers[2]));
            let bytes: Vec<u32> = fitted.as_raw().iter().map(|&byte| u32::from(byte)).collect();
            assert_eq!(bytes, numbers[3..], "{:?}", &numbers[..3]);
        }
        assert_eq!(golden.lines().count(), 4);
    }
}
