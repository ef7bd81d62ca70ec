//! A canvas measured in units, drawn at four pixels per unit and downsampled to two.

use image::{Rgb, RgbImage};
use plotters::backend::{BitMapBackend, DrawingBackend};
use plotters::style::RGBColor;

/// Red, green and blue, 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour(pub u8, pub u8, pub u8);

impl Colour {
    pub const WHITE: Self = Self(255, 255, 255);
    /// Titles and text.
    pub const INK: Self = Self(34, 40, 49);
    /// Secondary text.
    pub const FAINT: Self = Self(104, 112, 122);
    /// Frames and ticks.
    pub const LINE: Self = Self(176, 182, 190);
    /// Grid lines.
    pub const GRID: Self = Self(231, 234, 238);

    /// Interpolates to `other`: 0 is this colour, 1 the other one.
    pub fn towards(self, other: Self, part: f64) -> Self {
        let mix =
            |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * part).round() as u8;
        Self(mix(self.0, other.0), mix(self.1, other.1), mix(self.2, other.2))
    }

    /// Luma, 0 to 1.
    pub fn brightness(self) -> f64 {
        (0.299 * f64::from(self.0) + 0.587 * f64::from(self.1) + 0.114 * f64::from(self.2)) / 255.0
    }
}

/// A white canvas. Coordinates are in units from the upper left corner, y downwards. Drawing is clipped
/// at the edges. Drawing in memory cannot fail, so that results of the drawing library are ignored.
pub(super) struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl Canvas {
    /// Pixels per unit while drawing.
    pub const DENSITY: f64 = (OUTPUT * FINER) as f64;

    /// A blank canvas of this size, rounded up to whole output pixels.
    pub fn new(width: f64, height: f64) -> Self {
        // At most 4000 units, 16,000 pixels.
        let side = |units: f64| (units.clamp(1.0, 4000.0) * OUTPUT as f64).ceil() as u32 * FINER;
        let (width, height) = (side(width), side(height));
        Self { width, height, pixels: vec![255; width as usize * height as usize * 3] }
    }

    /// A canvas with a photo, at one drawing pixel per pixel.
    pub fn over(photo: &RgbImage) -> Self {
        Self { width: photo.width(), height: photo.height(), pixels: photo.as_raw().clone() }
    }

    /// The picture without downsampling.
    pub fn unscaled(self) -> RgbImage {
        let (width, height) = (self.width, self.height);
        // The buffer has width * height * 3 bytes, so this never falls back to the blank picture.
        RgbImage::from_raw(width, height, self.pixels)
            .unwrap_or_else(|| RgbImage::new(width, height))
    }

    /// A filled rectangle, with its edges rounded to whole pixels so that adjacent ones touch.
    pub fn rectangle(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), fill: Colour) {
        let column =
            |at: f64| ((at * Self::DENSITY).round().max(0.0) as usize).min(self.width as usize);
        let row =
            |at: f64| ((at * Self::DENSITY).round().max(0.0) as usize).min(self.height as usize);
        let (left, right) = (column(x), column(x + width));
        let (top, bottom) = (row(y), row(y + height));
        if left >= right {
            return;
        }
        for row in self.pixels.chunks_exact_mut(self.width as usize * 3).take(bottom).skip(top) {
            for pixel in row[left * 3..right * 3].as_chunks_mut::<3>().0 {
                *pixel = [fill.0, fill.1, fill.2];
            }
        }
    }

    /// A filled polygon, convex or not.
    pub fn polygon(&mut self, corners: &[(f64, f64)], fill: Colour) {
        let corners: Vec<(i32, i32)> = corners.iter().map(|&corner| pixel(corner)).collect();
        self.backend().fill_polygon(corners, &solid(fill)).ok();
    }

    /// A straight line with square ends.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), width: f64, colour: Colour) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        if !(length > 0.0 && length.is_finite()) {
            return;
        }
        let (nx, ny) = (-dy / length * width / 2.0, dx / length * width / 2.0);
        let corners = [
            (from.0 + nx, from.1 + ny),
            (to.0 + nx, to.1 + ny),
            (to.0 - nx, to.1 - ny),
            (from.0 - nx, from.1 - ny),
        ];
        self.polygon(&corners, colour);
    }

    /// A frame just inside a rectangle.
    pub fn frame(&mut self, (x, y): (f64, f64), (w, h): (f64, f64), width: f64, colour: Colour) {
        self.rectangle((x, y), (w, width), colour);
        self.rectangle((x, y + h - width), (w, width), colour);
        self.rectangle((x, y), (width, h), colour);
        self.rectangle((x + w - width, y), (width, h), colour);
    }

    /// A filled circle.
    pub fn circle(&mut self, centre: (f64, f64), radius: f64, fill: Colour) {
        let radius = (radius * Self::DENSITY).round().max(1.0) as u32;
        self.backend().draw_circle(pixel(centre), radius, &solid(fill), true).ok();
    }

    /// Blends `colour` into one drawing pixel, if it is on the canvas.
    pub fn blend(&mut self, x: i64, y: i64, colour: Colour, cover: f64) {
        if x < 0 || y < 0 || x >= i64::from(self.width) || y >= i64::from(self.height) {
            return;
        }
        let at = (y as usize * self.width as usize + x as usize) * 3;
        if let Some(under) = self.pixels.get_mut(at..at + 3) {
            let mixed = Colour(under[0], under[1], under[2]).towards(colour, cover.clamp(0.0, 1.0));
            under.copy_from_slice(&[mixed.0, mixed.1, mixed.2]);
        }
    }

    /// The picture at two pixels per unit, averaged from the drawing pixels.
    pub fn finish(self) -> RgbImage {
        let stride = self.width as usize;
        RgbImage::from_fn(self.width / FINER, self.height / FINER, |x, y| {
            let mut sum = [0u32; 3];
            for row in 0..FINER as usize {
                for column in 0..FINER as usize {
                    let (x, y) = (x as usize * FINER as usize, y as usize * FINER as usize);
                    let at = ((y + row) * stride + x + column) * 3;
                    for (sum, &value) in sum.iter_mut().zip(&self.pixels[at..at + 3]) {
                        *sum += u32::from(value);
                    }
                }
            }
            Rgb(sum.map(|sum| ((sum + FINER * FINER / 2) / (FINER * FINER)) as u8))
        })
    }

    fn backend(&mut self) -> BitMapBackend<'_> {
        BitMapBackend::with_buffer(&mut self.pixels, (self.width, self.height))
    }
}

/// Output pixels per unit.
pub(super) const OUTPUT: u32 = 2;
/// Drawing pixels per output pixel, in each direction.
const FINER: u32 = 2;

fn solid(colour: Colour) -> RGBColor {
    RGBColor(colour.0, colour.1, colour.2)
}

fn pixel((x, y): (f64, f64)) -> (i32, i32) {
    // Clamped so that the drawing library does not overflow.
    let place = |at: f64| (at * Canvas::DENSITY).round().clamp(-30_000.0, 30_000.0) as i32;
    (place(x), place(y))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_land_where_they_should_and_may_cross_the_edge() {
        let red = Colour(200, 0, 0);
        let mut canvas = Canvas::new(20.0, 10.0);
        canvas.rectangle((5.0, 2.0), (5.0, 3.0), red);
        canvas.rectangle((-5.0, 9.0), (100.0, 100.0), red);
        canvas.circle((20.0, 0.0), 3.0, red);
        canvas.polygon(&[(0.0, 0.0), (3.0, 0.0), (0.0, 3.0)], red);
        canvas.line((12.0, 5.0), (18.0, 5.0), 1.0, red);
        canvas.line((f64::NAN, 0.0), (1.0, 1.0), 1.0, red);
        let picture = canvas.finish();
        assert_eq!(picture.dimensions(), (40, 20));
        let red = Rgb([200, 0, 0]);
        let white = Rgb([255; 3]);
        for (x, y, colour) in [
            (10, 4, red),
            (19, 9, red),
            (20, 4, white),
            (9, 4, white),
            (0, 18, red),
            (39, 19, red),
            (39, 0, red),
            (1, 1, red),
            (28, 10, red),
            (22, 10, white),
        ] {
            assert_eq!(*picture.get_pixel(x, y), colour, "at {x}, {y}");
        }
    }

    #[test]
    fn colours_mix() {
        assert_eq!(Colour(0, 0, 0).towards(Colour::WHITE, 0.5), Colour(128, 128, 128));
        assert!(Colour::WHITE.brightness() > 0.99 && Colour::INK.brightness() < 0.3);
    }
}
