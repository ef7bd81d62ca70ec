//! A picture of triplets: in each row an anchor, its positive and its negative.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use super::canvas::{Canvas, Colour, OUTPUT};
use super::text::{Anchor, Text, shortened, width};

const GAP: f64 = 12.0;
const HEADER: f64 = 26.0;
const CAPTION: f64 = 11.0;
const CAPTION_LINE: f64 = 14.0;
/// Maximum width of captions that widen the columns of small pictures.
const CAPTION_WIDTH: f64 = 110.0;
const RIM: f64 = 2.0;
const COLUMNS: [(&str, Colour); 3] = [
    ("anchor", Colour(84, 96, 112)),
    ("positive", Colour(34, 139, 74)),
    ("negative", Colour(197, 42, 61)),
];

/// One row.
#[derive(Debug, Clone)]
pub struct Triplet<'a> {
    /// Anchor, positive, negative.
    pub pictures: [&'a RgbImage; 3],
    /// Caption of each picture, such as name and distance; may be empty or have several lines.
    pub captions: [String; 3],
}

/// Draws one triplet per row, every picture fitted into a square of `side` pixels (32 to 1024). Long
/// captions are shortened. Rows beyond a height of 8000 pixels are left out.
pub fn strip(triplets: &[Triplet<'_>], side: u32) -> RgbImage {
    let side = side.clamp(32, 1024).next_multiple_of(OUTPUT);
    let square = f64::from(side) / f64::from(OUTPUT);
    let captions = || triplets.iter().flat_map(|triplet| &triplet.captions);
    let lines = captions().map(|caption| caption.lines().count()).max().unwrap_or(0);
    let widest = captions().flat_map(|caption| caption.lines()).map(|line| width(line, CAPTION));
    let headers = COLUMNS.iter().map(|(words, _)| width(words, 13.0) + 2.0);
    // Whole units, so that pictures lie on whole pixels.
    let column = widest.fold(0.0, f64::max).min(CAPTION_WIDTH);
    let column = headers.fold(column, f64::max).max(square).ceil();
    let row = square + GAP + lines as f64 * CAPTION_LINE;
    let shown = triplets.len().min(((4000.0 - HEADER - GAP) / row) as usize);
    let mut canvas =
        Canvas::new(3.0 * (column + GAP) + GAP, HEADER + shown as f64 * row + GAP / 2.0);
    let middle = |at: usize| GAP + at as f64 * (column + GAP) + column / 2.0;
    let corner =
        |i: usize, at: usize| ((middle(at) - square / 2.0).floor(), HEADER + i as f64 * row);

    for (at, (words, colour)) in COLUMNS.into_iter().enumerate() {
        let header = Text::new(words, 13.0, colour).bold().anchored(Anchor::Middle);
        header.draw(&mut canvas, middle(at), HEADER / 2.0 - 1.0);
        for (i, triplet) in triplets.iter().take(shown).enumerate() {
            let (left, top) = corner(i, at);
            let rim = square + 2.0 * RIM;
            canvas.rectangle((left - RIM, top - RIM), (rim, rim), colour);
            for (number, line) in triplet.captions[at].lines().enumerate() {
                let line = shortened(line, CAPTION, column + GAP - 4.0);
                let height = top + square + RIM + 1.0 + (number as f64 + 0.5) * CAPTION_LINE;
                let text = Text::new(&line, CAPTION, Colour::INK).anchored(Anchor::Middle);
                text.draw(&mut canvas, middle(at), height);
            }
        }
    }

    // Pictures are copied to the output after downsampling.
    let mut sheet = canvas.finish();
    for (i, triplet) in triplets.iter().take(shown).enumerate() {
        for (at, picture) in triplet.pictures.iter().enumerate() {
            let (x, y) = corner(i, at);
            let (x, y) = (x * f64::from(OUTPUT), y * f64::from(OUTPUT));
            let tile = fitted(picture, side, Rgb([255; 3]));
            imageops::replace(&mut sheet, &tile, x as i64, y as i64);
        }
    }
    sheet
}

/// The picture fitted into a square of `side` pixels, on `ground`.
pub(super) fn fitted(picture: &RgbImage, side: u32, ground: Rgb<u8>) -> RgbImage {
    if picture.dimensions() == (side, side) {
        return picture.clone();
    }
    let mut square = RgbImage::from_pixel(side, side, ground);
    let (width, height) = picture.dimensions();
    if width == 0 || height == 0 {
        return square;
    }
    let scale = f64::from(side) / f64::from(width.max(height));
    let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).clamp(1, side);
    let (w, h) = (scaled(width), scaled(height));
    let small = imageops::resize(picture, w, h, FilterType::CatmullRom);
    imageops::replace(&mut square, &small, i64::from((side - w) / 2), i64::from((side - h) / 2));
    square
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_is_there_once_unscaled_and_in_reading_order() {
        let tiles: Vec<RgbImage> = (0..6)
            .map(|i| RgbImage::from_fn(40, 40, |x, y| Rgb([i * 40, x as u8 * 6, y as u8 * 6])))
            .collect();
        let row = |a: usize| Triplet {
            pictures: [&tiles[a], &tiles[a + 1], &tiles[a + 2]],
            captions: ["ann".into(), "bob\n0.31".into(), String::new()],
        };
        let sheet = strip(&[row(0), row(3)], 40);
        let found = tiles.iter().map(|tile| {
            let places: Vec<(u32, u32)> = (0..sheet.height() - 40)
                .flat_map(|y| (0..sheet.width() - 40).map(move |x| (y, x)))
                .filter(|&(y, x)| {
                    sheet.get_pixel(x, y) == tile.get_pixel(0, 0)
                        && imageops::crop_imm(&sheet, x, y, 40, 40).to_image() == *tile
                })
                .collect();
            assert_eq!(places.len(), 1);
            places[0]
        });
        let found: Vec<(u32, u32)> = found.collect();
        assert!(found.is_sorted() && found[0].0 == found[2].0 && found[2].0 < found[3].0);
    }

    #[test]
    fn odd_shapes_keep_their_aspect_and_empty_strips_are_fine() {
        let wide = RgbImage::from_pixel(100, 50, Rgb([9, 9, 9]));
        let square = fitted(&wide, 40, Rgb([255; 3]));
        assert_eq!(square.pixels().filter(|pixel| pixel.0 == [9, 9, 9]).count(), 40 * 20);
        assert_eq!(square.get_pixel(0, 0).0, [255; 3]);
        assert_eq!(fitted(&RgbImage::new(0, 5), 8, Rgb([1; 3])).get_pixel(4, 4).0, [1; 3]);
        assert!(strip(&[], 0).width() >= 32 * 3);
        let blank = Triplet { pictures: [&wide; 3], captions: Default::default() };
        assert!(strip(&vec![blank; 300], 1024).height() <= 8000);
    }
}
