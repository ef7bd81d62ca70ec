//! Results on standard output; everything else goes to standard error.

use std::io::Write;
use std::path::Path;

pub(super) use crate::data::folder::{count, identities};
use crate::{Error, Result};

/// Writes one line to standard output.
///
/// # Errors
/// Standard output is closed or its disk full.
pub fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// A share as people read it: `98.71 %`.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Refuses a picture's name that does not end in `.png`.
///
/// # Errors
/// Names the flag and the file.
pub fn demand_png(flag: &str, path: &Path) -> Result<()> {
    match path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
        true => Ok(()),
        false => {
            let text = format!("{flag} {}: the name must end in .png", path.display());
            Err(Error::Config(text))
        }
    }
}

/// A path as a shell takes it back.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
