//! Checks of single settings: each names the flag, its value and what it may be.

use crate::{Error, Result};

/// The largest side of input pictures that is accepted, in pixels.
pub const MAX_INPUT_SIZE: u32 = 1024;

/// Refuses an input size from a file that `--input-size` would refuse.
pub fn check_input_size(side: Option<u32>) -> Result<()> {
    let side = side.unwrap_or(1);
    let range = format!("1 to {MAX_INPUT_SIZE} pixels");
    demand((1..=MAX_INPUT_SIZE).contains(&side), "--input-size", side.into(), &range)
}

/// Refuses a percentage outside 0 to 100.
///
/// # Errors
/// Names the flag and the value.
pub fn percentage(flag: &str, value: f64) -> Result<()> {
    demand((0.0..=100.0).contains(&value), flag, value, "a percentage from 0 to 100")
}

pub fn positive(flag: &str, value: f64) -> Result<()> {
    demand(value > 0.0 && value.is_finite(), flag, value, "a number above 0")
}

pub fn not_negative(flag: &str, value: f64) -> Result<()> {
    demand(value >= 0.0 && value.is_finite(), flag, value, "0 or more")
}

pub fn share(flag: &str, value: f64) -> Result<()> {
    demand((0.0..1.0).contains(&value), flag, value, "a fraction from 0 to below 1")
}

/// Counts that take memory as they grow.
pub fn at_least(flag: &str, value: usize, least: usize) -> Result<()> {
    within(flag, value, least, 100_000_000)
}

pub fn within(flag: &str, value: usize, least: usize, most: usize) -> Result<()> {
    let wrong = |what: String| Err(Error::Config(format!("{flag} {value}: expected {what}")));
    match value {
        _ if value < least => wrong(format!("{least} or more")),
        _ if value > most => wrong(format!("at most {most}")),
        _ => Ok(()),
    }
}

pub fn demand(ok: bool, flag: &str, value: f64, what: &str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Config(format!("{flag} {value}: expected {what}"))) }
}
