//! Results on standard output; everything else goes to standard error.

use std::io::Write;

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

/// `1 picture`, `2 pictures`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}
