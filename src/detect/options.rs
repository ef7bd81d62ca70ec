//! Options of the detector.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Minimum face size, as the side of the box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MinFace {
    /// Pixels of the picture.
    Pixels(f64),
    /// Fraction of the picture's shorter side, in (0, 1]; at least [`MinFace::FEWEST`] pixels.
    Share(f64),
}

impl MinFace {
    /// Smaller faces would need the picture enlarged several times.
    pub const FEWEST: f64 = 8.0;

    /// The size in pixels on a picture of that size.
    pub fn pixels(self, width: u32, height: u32) -> f64 {
        match self {
            Self::Pixels(side) => side,
            Self::Share(share) => (share * f64::from(width.min(height))).max(Self::FEWEST),
        }
    }
}

impl FromStr for MinFace {
    type Err = String;

    /// `40` or `40px` are pixels, `10%` and `0.1` fractions.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
        let found = if let Some(percent) = text.strip_suffix('%') {
            number(percent).map(|percent| Self::Share(percent / 100.0))
        } else if let Some(pixels) = text.strip_suffix("px") {
            number(pixels).map(Self::Pixels)
        } else {
            let plain = |value| if value < 1.0 { Self::Share(value) } else { Self::Pixels(value) };
            number(text).map(plain)
        };
        let fits = |found: &Self| match *found {
            Self::Pixels(side) => side >= Self::FEWEST,
            Self::Share(share) => share > 0.0 && share <= 1.0,
        };
        found.filter(fits).ok_or_else(|| {
            format!(
                "expected a number of pixels (at least {}) or a fraction such as 10% or 0.1",
                Self::FEWEST
            )
        })
    }
}

impl fmt::Display for MinFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pixels(side) => write!(f, "{side}"),
            Self::Share(share) => write!(f, "{}%", 100.0 * share),
        }
    }
}

/// Options of the detector; the defaults are facenet-pytorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectOptions {
    /// Minimum face size. The time falls with its square.
    pub min_face: MinFace,
    /// Minimum face probabilities of P-Net, R-Net and O-Net.
    pub thresholds: [f32; 3],
    /// Scale factor between pyramid levels.
    pub factor: f64,
}

impl Default for DetectOptions {
    fn default() -> Self {
        Self { min_face: MinFace::Pixels(20.0), thresholds: [0.6, 0.7, 0.7], factor: 0.709 }
    }
}

impl DetectOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// Names the setting.
    pub fn validate(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if let Some(wrong) = self.thresholds.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            return fail(format!("threshold {wrong}: must be between 0 and 1"));
        }
        if !(0.1..=0.95).contains(&self.factor) {
            return fail(format!("pyramid factor {}: must be between 0.1 and 0.95", self.factor));
        }
        match self.min_face {
            MinFace::Pixels(side) if side.is_finite() && side >= MinFace::FEWEST => Ok(()),
            MinFace::Share(share) if share > 0.0 && share <= 1.0 => Ok(()),
            wrong => fail(format!(
                "minimum face size {wrong}: must be at least {} pixels",
                MinFace::FEWEST
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_face_is_pixels_or_a_share() {
        for (text, wanted) in [
            ("40", MinFace::Pixels(40.0)),
            ("40px", MinFace::Pixels(40.0)),
            ("25%", MinFace::Share(0.25)),
            ("0.25", MinFace::Share(0.25)),
        ] {
            let read: MinFace = text.parse().unwrap();
            assert_eq!(read, wanted, "{text}");
            assert_eq!(read.to_string().parse::<MinFace>(), Ok(read), "{text}");
        }
        for text in ["", "7", "0.5px", "-1", "0", "nan", "inf", "101%", "%", "a"] {
            assert!(text.parse::<MinFace>().is_err(), "{text}");
        }
        assert_eq!(MinFace::Share(0.1).pixels(600, 400), 40.0);
        assert_eq!(MinFace::Share(0.01).pixels(60, 40), MinFace::FEWEST);
    }

    #[test]
    fn impossible_settings_are_named() {
        assert!(DetectOptions::default().validate().is_ok());
        let wrong = DetectOptions { thresholds: [0.6, f32::NAN, 0.7], ..DetectOptions::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("threshold NaN"));
        let wrong = DetectOptions { factor: 1.0, ..DetectOptions::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("factor 1"));
        let wrong = DetectOptions { min_face: MinFace::Pixels(1.0), ..DetectOptions::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("minimum face size 1"));
    }
}
