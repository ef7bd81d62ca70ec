//! `--checkpoint-every`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How often a training writes a checkpoint: after steps, or after time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Interval {
    /// Every N steps.
    Steps(u64),
    /// Every so many milliseconds.
    Milliseconds(u64),
}

impl Default for Interval {
    fn default() -> Self {
        Self::Milliseconds(5 * 60 * 1000)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: give a number of steps (200) or a time (30s, 5m, 1h)");
        let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
        let count = f64::from_str(number).ok().filter(|count| count.is_finite() && *count > 0.0);
        let count = count.ok_or_else(wrong)?;
        let seconds = match &text[number.len()..] {
            "" if count.fract() == 0.0 => return Ok(Self::Steps(count as u64)),
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        Ok(Self::Milliseconds((count * seconds * 1000.0).ceil() as u64))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Steps(steps) => write!(out, "{steps}"),
            Self::Milliseconds(time) if time % 60_000 == 0 => write!(out, "{}m", time / 60_000),
            Self::Milliseconds(time) => write!(out, "{}s", time as f64 / 1000.0),
        }
    }
}

impl TryFrom<String> for Interval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_steps_or_times() {
        for (text, interval) in [
            ("200", Interval::Steps(200)),
            ("2s", Interval::Milliseconds(2000)),
            ("0.5s", Interval::Milliseconds(500)),
            ("5m", Interval::default()),
            ("1h", Interval::Milliseconds(3_600_000)),
        ] {
            assert_eq!(text.parse(), Ok(interval), "{text}");
            assert_eq!(interval.to_string().parse(), Ok(interval), "{text}");
        }
        for text in ["", "0", "-1s", "2.5", "3d", "s", "nan", "infs"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
