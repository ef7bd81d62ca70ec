//! Sharpness of crops.

use image::{GrayImage, RgbImage, imageops};

/// Variance of the Laplacian of the grey crop (Pech-Pacheco et al., 2000), over the inner pixels.
///
/// Comparable only between crops of one size. 0 for a crop without inner pixels.
pub fn sharpness(crop: &RgbImage) -> f64 {
    let grey: GrayImage = imageops::grayscale(crop);
    let (width, height) = (grey.width() as usize, grey.height() as usize);
    if width < 3 || height < 3 {
        return 0.0;
    }
    let pixels = grey.as_raw();
    let (mut sum, mut squares) = (0_i64, 0_i64);
    for y in 1..height - 1 {
        for x in 1..width - 1 {
            let at = |place: usize| i64::from(pixels[place]);
            let place = y * width + x;
            let around = at(place - 1) + at(place + 1) + at(place - width) + at(place + width);
            let slope = 4 * at(place) - around;
            sum += slope;
            squares += slope * slope;
        }
    }
    let count = ((width - 2) * (height - 2)) as f64;
    let mean = sum as f64 / count;
    squares as f64 / count - mean * mean
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn a_checkerboard_is_sharp_its_blur_less_and_a_ramp_not_at_all() {
        let draw =
            |value: fn(u32, u32) -> u8| RgbImage::from_fn(32, 32, |x, y| Rgb([value(x, y); 3]));
        // +-4 * 100 on every inner pixel.
        let board = draw(|x, y| if (x + y) % 2 == 0 { 100 } else { 0 });
        assert_eq!(sharpness(&board), 160_000.0);
        let blurred =
            imageops::blur(&draw(|x, y| if (x / 4 + y / 4) % 2 == 0 { 100 } else { 0 }), 2.0);
        let soft = sharpness(&blurred);
        assert!(soft > 0.0 && soft < 2_000.0, "{soft}");
        assert_eq!(sharpness(&draw(|x, y| (2 * x + 3 * y) as u8)), 0.0);
        assert_eq!(sharpness(&RgbImage::new(2, 9)), 0.0);
    }
}
