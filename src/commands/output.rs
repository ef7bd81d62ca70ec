//! Results go to standard output, everything else to standard error.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::words::printable;
pub(super) use crate::words::{count, identities};
use crate::{Error, Result};

/// The reader of standard output is gone (`| head`), as opposed to the other end of any other pipe.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
struct Closed;

/// Whether an error says that the reader of standard output is gone.
pub fn is_closed(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Closed>())
}

/// Writes one line to standard output.
///
/// # Errors
/// Standard output is closed or its disk full.
pub fn line(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let written =
        out.write_all(format!("{}\n", printable(text)).as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => std::io::Error::new(ErrorKind::BrokenPipe, Closed),
        _ => error,
    })
}

/// Ends a command whose result is its exit code, too: the code stays the same if the reader of
/// standard output is gone.
///
/// # Errors
/// Any other error of `printed`.
pub fn exit(printed: std::io::Result<()>, code: u8) -> anyhow::Result<ExitCode> {
    match printed {
        Err(error) if !is_closed(&error) => Err(error.into()),
        _ => Ok(ExitCode::from(code)),
    }
}

/// Prints rows with aligned columns; the columns in `right` are aligned right.
///
/// # Errors
/// As for [`line`].
pub fn columns<const N: usize>(rows: &[[String; N]], right: &[usize]) -> std::io::Result<()> {
    let widths: Vec<usize> = (0..N)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match right
            .contains(&column)
        {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A fraction as a percentage: `98.71 %`.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// Checks that the name of a picture to write ends in `.png`.
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

/// A path quoted for the shell.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
