//! Text on a canvas: measured, shortened and drawn with the compiled-in fonts.
//!
//! Ubuntu Light (Ubuntu font licence 1.0) and, for characters it lacks, Hack (MIT and Bitstream
//! Vera licences), both out of `epaint_default_fonts`.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use super::canvas::{Canvas, Colour};

static FONTS: LazyLock<Vec<FontRef<'static>>> = LazyLock::new(|| {
    [epaint_default_fonts::UBUNTU_LIGHT, epaint_default_fonts::HACK_REGULAR]
        .into_iter()
        .filter_map(|bytes| FontRef::try_from_slice(bytes).ok())
        .collect()
});

/// Height of a capital letter relative to the font size.
const CAPITAL: f64 = 0.69;
/// There is no bold font: bold text is drawn twice with this offset, relative to the font size.
const BOLD: f64 = 0.035;

/// Alignment of a text relative to its point, in reading direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A text and its style; sizes in units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub words: &'a str,
    pub size: f64,
    pub colour: Colour,
    pub anchor: Anchor,
    pub bold: bool,
    /// Rotated, reading from bottom to top.
    pub upward: bool,
}

impl<'a> Text<'a> {
    /// Plain text, left-aligned.
    pub fn new(words: &'a str, size: f64, colour: Colour) -> Self {
        Self { words, size, colour, anchor: Anchor::Start, bold: false, upward: false }
    }

    pub fn anchored(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }

    pub fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub fn upward(self) -> Self {
        Self { upward: true, ..self }
    }

    /// Draws with the middle of its capital letters at `y` (at `x` if upward).
    pub fn draw(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let start = match self.anchor {
            Anchor::Start => 0.0,
            Anchor::Middle => -width(self.words, self.size) / 2.0,
            Anchor::End => -width(self.words, self.size),
        };
        let rise = self.size * CAPITAL / 2.0;
        let (x, y) = if self.upward { (x + rise, y - start) } else { (x + start, y + rise) };
        self.print(canvas, x, y);
        if self.bold {
            let step = self.size * BOLD;
            let (x, y) = if self.upward { (x, y - step) } else { (x + step, y) };
            self.print(canvas, x, y);
        }
    }

    /// Draws from the left end of the baseline, in units.
    fn print(&self, canvas: &mut Canvas, x: f64, y: f64) {
        let (x, y) = (x * Canvas::DENSITY, y * Canvas::DENSITY);
        for (font, glyph) in glyphs(self.words, self.size * Canvas::DENSITY) {
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|column, row, cover| {
                let right = f64::from(corner.x) + f64::from(column);
                let down = f64::from(corner.y) + f64::from(row);
                let (x, y) =
                    if self.upward { (x + down, y - right) } else { (x + right, y + down) };
                canvas.blend(x.round() as i64, y.round() as i64, self.colour, f64::from(cover));
            });
        }
    }
}

/// Width of a line of text, in the unit of `size`.
pub(super) fn width(words: &str, size: f64) -> f64 {
    // Measured at a large size: advances scale linearly.
    let large = 1000.0;
    let mut end = 0.0;
    for (font, glyph) in glyphs(words, large) {
        end = f64::from(glyph.position.x + font.as_scaled(glyph.scale).h_advance(glyph.id));
    }
    end * size / large
}

/// The text, truncated with an ellipsis if it is wider than `room`.
pub(super) fn shortened(words: &str, size: f64, room: f64) -> String {
    if width(words, size) <= room {
        return words.to_owned();
    }
    let mut kept: Vec<char> = words.chars().collect();
    loop {
        kept.pop();
        let short: String = kept.iter().copied().chain(['…']).collect();
        if kept.is_empty() || width(&short, size) <= room {
            return short;
        }
    }
}

/// The glyphs of a text on a baseline from (0, 0), each with its font.
fn glyphs(words: &str, size: f64) -> Vec<(&'static FontRef<'static>, Glyph)> {
    let mut placed: Vec<(&'static FontRef<'static>, Glyph)> = Vec::new();
    let mut x = 0.0;
    for character in words.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        let has = |font: &&FontRef<'_>| font.glyph_id(character).0 != 0;
        let Some(font) = FONTS.iter().find(has).or_else(|| FONTS.first()) else { break };
        // PxScale counts the height of a line; `size` is the em, as everywhere else.
        let line = font.height_unscaled() / font.units_per_em().unwrap_or(1000.0);
        let scaled = font.as_scaled(PxScale::from(size as f32 * line));
        let mut glyph = scaled.scaled_glyph(character);
        if let Some((_, before)) = placed.last().filter(|(other, _)| std::ptr::eq(*other, font)) {
            x += scaled.kern(before.id, glyph.id);
        }
        glyph.position = point(x, 0.0);
        x += scaled.h_advance(glyph.id);
        placed.push((font, glyph));
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fonts_are_on_board_and_widths_scale() {
        assert_eq!(FONTS.len(), 2);
        let once = width("Scarlett", 10.0);
        assert!(once > 25.0 && once < 60.0, "{once}");
        assert!((width("Scarlett", 20.0) - 2.0 * once).abs() < 1e-6);
        assert_eq!(width("", 10.0), 0.0);
    }

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis_and_fits() {
        assert_eq!(shortened("short", 10.0, 100.0), "short");
        let long = shortened("Maximiliane von Hohenzollern-Sigmaringen", 10.0, 100.0);
        assert!(long.starts_with("Maxi") && long.ends_with('…'));
        assert!(width(&long, 10.0) <= 100.0);
        assert_eq!(shortened("éèê", 10.0, 0.0), "…");
    }

    #[test]
    fn ink_lands_around_the_point_both_ways() {
        for upward in [false, true] {
            let mut canvas = Canvas::new(60.0, 60.0);
            let text = Text::new("HHH", 12.0, Colour(0, 0, 0)).anchored(Anchor::Middle);
            Text { upward, ..text }.draw(&mut canvas, 30.0, 30.0);
            let picture = canvas.finish();
            let ink: Vec<(u32, u32)> = picture
                .enumerate_pixels()
                .filter(|(_, _, pixel)| pixel[0] < 128)
                .map(|(x, y, _)| (x, y))
                .collect();
            let mean = |part: fn(&(u32, u32)) -> u32| {
                ink.iter().map(part).sum::<u32>() as f64 / ink.len() as f64
            };
            // 60 is the middle in pixels.
            assert!((mean(|p| p.0) - 60.0).abs() < 1.5 && (mean(|p| p.1) - 60.0).abs() < 1.5);
            let wide =
                ink.iter().map(|p| p.0).max().unwrap() - ink.iter().map(|p| p.0).min().unwrap();
            assert_eq!(wide < 30, upward);
        }
    }
}
