//! Pictures that are too small, blurred, dark, without a face, ...

use super::{Finding, FindingKind, Picture, PictureStats};

/// Limits of acceptable pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityLimits {
    /// Minimum shorter side of what the network sees, in pixels.
    pub side: u32,
    /// Minimum variance of the Laplacian at 96 x 96 pixels.
    pub sharpness: f64,
    /// Minimum mean grey value; the maximum is 255 minus this.
    pub darkness: f64,
    /// Minimum standard deviation of the grey values.
    pub contrast: f64,
    /// Maximum ratio of the longer to the shorter side.
    pub aspect: f64,
}

/// A picture with a mean channel difference below this is grey.
const GREY: f64 = 2.0;

/// The quality problems of each picture. `pictures` and `stats` have the same order.
///
/// Grey pictures are reported only if most of the pictures have colours.
pub fn findings(
    pictures: &[Picture],
    stats: &[PictureStats],
    identities: &[String],
    limits: &QualityLimits,
) -> Vec<Finding> {
    let grey = stats.iter().filter(|stats| stats.colour < GREY).count();
    let coloured = 2 * grey <= stats.len();
    let one = |(picture, stats): (&Picture, &PictureStats)| {
        problems(stats, limits, coloured)
            .into_iter()
            .map(|finding| finding.of(picture, identities))
            .collect::<Vec<_>>()
    };
    pictures.iter().zip(stats).flat_map(one).collect()
}

fn problems(stats: &PictureStats, limits: &QualityLimits, coloured: bool) -> Vec<Finding> {
    let (width, height) = stats.size;
    let (short, long) = (width.min(height), width.max(height));
    let seen = stats.seen.0.min(stats.seen.1);
    let size = match stats.seen == stats.size {
        true => format!("{width}x{height} pixels"),
        false => format!("{}x{} of {width}x{height} pixels", stats.seen.0, stats.seen.1),
    };
    let aspect = f64::from(long) / f64::from(short.max(1));
    let flat = stats.contrast < limits.contrast;
    let (brightness, contrast) = (stats.brightness, stats.contrast);
    // A flat picture is also blurred, and a dark or bright one is also flat: report only the cause.
    let dark = brightness < limits.darkness;
    let bright = brightness > 255.0 - limits.darkness;
    let lit = !dark && !bright;
    let blurred = lit && !flat && stats.sharpness < limits.sharpness;
    let faces = stats.faces.unwrap_or(1);
    let found = [
        (dark, FindingKind::Dark, brightness, format!("mean grey value {brightness:.0} of 255")),
        (
            bright,
            FindingKind::Bright,
            brightness,
            format!("mean grey value {brightness:.0} of 255"),
        ),
        (lit && flat, FindingKind::Flat, contrast, format!("contrast {contrast:.1}")),
        (seen < limits.side, FindingKind::Tiny, f64::from(seen), size),
        (
            blurred,
            FindingKind::Blurred,
            stats.sharpness,
            format!("sharpness {:.0}", stats.sharpness),
        ),
        (
            aspect > limits.aspect,
            FindingKind::Elongated,
            aspect,
            format!("{width}x{height} pixels, aspect ratio {aspect:.1}"),
        ),
        (coloured && stats.colour < GREY, FindingKind::Grey, stats.colour, "no colours".into()),
        (faces == 0, FindingKind::NoFace, 0.0, "no face found".into()),
        (faces > 1, FindingKind::SeveralFaces, faces as f64, format!("{faces} faces")),
    ];
    let finding = |(_, kind, value, what)| Finding::new(kind, Some(value), what);
    found.into_iter().filter(|(wrong, ..)| *wrong).map(finding).collect()
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    const LIMITS: QualityLimits =
        QualityLimits { side: 60, sharpness: 50.0, darkness: 30.0, contrast: 10.0, aspect: 2.0 };

    /// A coloured board of squares, `low` to `high`.
    fn board(width: u32, height: u32, low: u8, high: u8, square: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let value = if (x / square + y / square).is_multiple_of(2) { low } else { high };
            Rgb([value, value, value.saturating_sub(20)])
        })
    }

    fn kinds(picture: &RgbImage, faces: Option<usize>) -> Vec<FindingKind> {
        let stats = PictureStats { faces, ..PictureStats::of(b"", picture, picture) };
        problems(&stats, &LIMITS, true).iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn every_fault_is_found_alone() {
        assert_eq!(kinds(&board(96, 96, 60, 200, 8), Some(1)), []);
        assert_eq!(
            kinds(&board(40, 96, 60, 200, 8), None),
            [FindingKind::Tiny, FindingKind::Elongated]
        );
        assert_eq!(kinds(&board(96, 96, 20, 28, 8), None), [FindingKind::Dark]);
        assert_eq!(kinds(&board(96, 96, 240, 255, 8), None), [FindingKind::Bright]);
        assert_eq!(kinds(&board(96, 96, 100, 110, 8), None), [FindingKind::Flat]);
        let soft = image::imageops::blur(&board(96, 96, 60, 200, 24), 9.0);
        assert_eq!(kinds(&soft, None), [FindingKind::Blurred]);
        let grey = image::DynamicImage::ImageRgb8(board(96, 96, 60, 200, 8)).to_luma8();
        let grey = image::DynamicImage::ImageLuma8(grey).to_rgb8();
        assert_eq!(kinds(&grey, None), [FindingKind::Grey]);
        assert_eq!(kinds(&board(96, 96, 60, 200, 8), Some(0)), [FindingKind::NoFace]);
        assert_eq!(kinds(&board(96, 96, 60, 200, 8), Some(3)), [FindingKind::SeveralFaces]);
    }

    #[test]
    fn in_a_grey_data_set_grey_is_not_remarkable() {
        let (colour, grey) =
            (board(96, 96, 60, 200, 8), RgbImage::from_pixel(96, 96, Rgb([90; 3])));
        let audit = |pictures: &[&RgbImage]| {
            let stats: Vec<PictureStats> =
                pictures.iter().map(|p| PictureStats::of(b"", p, p)).collect();
            let names = (0..stats.len())
                .map(|k| Picture { name: k.to_string(), identity: Some(0), part: None })
                .collect::<Vec<_>>();
            let found = findings(&names, &stats, &["ann".to_owned()], &LIMITS);
            let grey = found.into_iter().filter(|finding| finding.kind == FindingKind::Grey);
            grey.map(|finding| finding.file.unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(audit(&[&colour, &grey]), ["1"]);
        assert_eq!(audit(&[&grey, &colour, &grey]), [] as [&str; 0]);
    }
}
