//! Charts and annotated pictures: every function takes plain data and returns an [`RgbImage`].
//!
//! Figures are laid out in units of 1/96 inch and rendered at two pixels per unit. Fonts are compiled
//! in. Text that does not fit is shortened with an ellipsis, and values that are not finite are left
//! out, so that drawing never fails.
//!
//! Axes and legends are drawn here and not by plotters' `ChartBuilder`: its text needs fontconfig and
//! freetype on the machine, or one registered font without a fallback for the letters it lacks; its
//! wide lines are not anti-aliased, and its legend has no room of its own beside the chart. plotters
//! fills the polygons and circles.

mod canvas;
mod confusion;
mod curve;
mod faces;
mod histogram;
mod palette;
mod scatter;
mod strip;
mod text;

use std::path::Path;

use image::RgbImage;
use image::codecs::png::PngEncoder;

pub use confusion::{ConfusionFigure, confusion};
pub use curve::{Curve, Series, curve, log_curve, stacked};
pub use faces::{FaceLabel, faces};
pub use histogram::{Histogram, histogram};
pub use scatter::{Scatter, scatter};
pub use strip::{Triplet, strip};

use crate::{Result, files};

/// Writes a picture as PNG, atomically.
///
/// # Errors
/// Names `path`.
pub fn save_png(path: &Path, picture: &RgbImage) -> Result<()> {
    files::write_atomically(path, |out| {
        picture.write_with_encoder(PngEncoder::new(out)).map_err(std::io::Error::other)
    })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn a_saved_picture_reads_back_and_a_bad_path_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/picture.png");
        let picture = RgbImage::from_fn(7, 5, |x, y| Rgb([x as u8 * 30, y as u8 * 50, 200]));
        save_png(&path, &picture).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), picture);
        let under_a_file = path.join("x.png");
        assert!(save_png(&under_a_file, &picture).unwrap_err().to_string().contains("picture.png"));
    }
}
