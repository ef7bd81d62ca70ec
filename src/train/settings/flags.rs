//! Parsers of the flags' values, for clap.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::value_parser;

use super::checks::MAX_INPUT_SIZE;
use crate::metric::Named;

/// Parser of `on` and `off`, for switches that are on by default.
pub(super) fn switch() -> impl TypedValueParser<Value = bool> {
    PossibleValuesParser::new(["on", "off", "true", "false"])
        .map(|text| text == "on" || text == "true")
}

/// Reads a choice by its name; the help lists all of them.
pub(super) fn choice<T: Named>() -> impl TypedValueParser<Value = T> {
    let value = |choice: &T| PossibleValue::new(choice.name()).help(choice.help());
    PossibleValuesParser::new(T::ALL.iter().map(value))
        .try_map(|name| T::by_name(&name).ok_or("no such choice"))
}

/// Seeds are stored in TOML, whose integers are signed.
pub(super) fn seed() -> impl TypedValueParser<Value = u64> {
    value_parser!(u64).range(..=i64::MAX as u64)
}

/// Parser of `--input-size`.
pub fn input_size() -> impl TypedValueParser<Value = u32> {
    value_parser!(u32).range(1..=i64::from(MAX_INPUT_SIZE))
}

/// Parses `90`, `90%` or `0.5%` as a percentage. A bare number above 0 and up to 1 is ambiguous
/// (90 % is often written 0.9) and refused.
///
/// # Errors
/// Says how to write the value.
pub fn percent(text: &str) -> Result<f64, String> {
    let (number, is_marked) = match text.strip_suffix('%') {
        Some(number) => (number.trim_end(), true),
        None => (text, false),
    };
    let value: f64 = number.parse().map_err(|_| "expected a percentage such as 90".to_owned())?;
    match value > 0.0 && value <= 1.0 && !is_marked {
        true => Err(format!("ambiguous: write {text}% or {}", 100.0 * value)),
        false => Ok(value),
    }
}
