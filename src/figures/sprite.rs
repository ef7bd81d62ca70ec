//! One large picture of many thumbnails, as TensorBoard's projector wants it.

use std::borrow::Borrow;

use image::{Rgb, RgbImage, imageops};

use super::strip::fitted;

/// The longest side that TensorBoard loads, in pixels.
pub const SPRITE_LIMIT: u32 = 8192;

/// Thumbnails in rows from the upper left, in the order of the embeddings.
#[derive(Debug, Clone)]
pub struct Sprite {
    /// A square grid of thumbnails; places without one are black.
    pub picture: RgbImage,
    /// Side of one thumbnail in pixels, for `single_image_dim` in the projector's configuration.
    pub side: u32,
}

/// Lays thumbnails of `side` pixels out in a square grid, or smaller ones where the whole would
/// pass [`SPRITE_LIMIT`]. Pictures keep their aspect, on black.
pub fn sprite<I>(pictures: I, side: u32) -> Sprite
where
    I: IntoIterator<Item: Borrow<RgbImage>, IntoIter: ExactSizeIterator>,
{
    let pictures = pictures.into_iter();
    let columns = (1..=SPRITE_LIMIT)
        .find(|&columns| columns as usize * columns as usize >= pictures.len())
        .unwrap_or(SPRITE_LIMIT);
    let side = side.clamp(1, SPRITE_LIMIT / columns);
    let mut picture = RgbImage::new(columns * side, columns * side);
    for (i, thumbnail) in (0u32..).zip(pictures) {
        let tile = fitted(thumbnail.borrow(), side, Rgb([0; 3]));
        let (x, y) = (i % columns * side, i / columns * side);
        imageops::replace(&mut picture, &tile, i64::from(x), i64::from(y));
    }
    Sprite { picture, side }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_lie_row_by_row_in_a_square() {
        let tiles: Vec<RgbImage> =
            (1..=5).map(|i| RgbImage::from_pixel(16, 16, Rgb([i * 50, 0, 0]))).collect();
        let sprite = sprite(&tiles, 8);
        assert_eq!((sprite.picture.dimensions(), sprite.side), ((24, 24), 8));
        for i in 0..9u32 {
            let pixel = sprite.picture.get_pixel(i % 3 * 8 + 4, i / 3 * 8 + 4).0[0];
            assert_eq!(pixel, if i < 5 { (i as u8 + 1) * 50 } else { 0 });
        }
    }

    #[test]
    fn too_many_thumbnails_shrink_to_the_limit() {
        let tile = RgbImage::from_pixel(2, 2, Rgb([7; 3]));
        let big = sprite(vec![&tile; 10_100], 96);
        assert_eq!(big.side, 81);
        assert_eq!(big.picture.width(), 101 * 81);
        assert_eq!(sprite(Vec::<RgbImage>::new(), 64).picture.dimensions(), (64, 64));
    }
}
