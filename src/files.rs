//! Atomic writes: everything Visage writes goes to a temporary file beside its target, is flushed to
//! the disk, and is then renamed over it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// How the names of temporary files start.
pub const TEMPORARY: &str = ".visage-";

/// Writes `path` through `fill`; the old file, if any, stays untouched until the new one is whole.
///
/// # Errors
/// Names `path`, whichever step failed. No temporary file is left behind.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<()> {
    temporary(path, 0o666, fill)?.persist(path).map_err(|error| Error::io(path, error.error))?;
    Ok(())
}

/// Like [`write_atomically`], and lets `check` read the whole temporary file before it gets its name.
///
/// # Errors
/// As [`write_atomically`], or what `check` reports.
pub fn write_checked(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let written = temporary(path, 0o666, |out| fill(out))?;
    check(written.path())?;
    written.persist(path).map_err(|error| Error::io(path, error.error))?;
    Ok(())
}

/// Writes a new file. Returns false if `path` exists already: of several processes that write the
/// same path at the same time, one gets true.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_new(path: &Path, content: &[u8]) -> Result<bool> {
    match temporary(path, 0o666, |out| out.write_all(content))?.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io(path, error.error)),
    }
}

/// Writes a file of secrets, which only its owner can read, whatever it allowed before.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = temporary(path, 0o600, |out| out.write_all(content))?;
    temporary.persist(path).map_err(|error| Error::io(path, error.error))?;
    Ok(())
}

/// A complete temporary file in the folder of `path`, with at most these permissions.
fn temporary(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>,
) -> Result<NamedTempFile> {
    let fail = |source| Error::io(path, source);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    create_folder(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(not(unix))]
    let _ = mode;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private by default; those that stay get the mode that the umask gives.
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    let mut temporary = builder.tempfile_in(folder).map_err(|source| Error::io(folder, source))?;
    let mut buffer = BufWriter::new(temporary.as_file_mut());
    fill(&mut buffer).map_err(fail)?;
    buffer.flush().map_err(fail)?;
    drop(buffer);
    temporary.as_file().sync_all().map_err(fail)?;
    Ok(temporary)
}

/// Creates a folder and its parents; an existing folder is fine.
///
/// # Errors
/// Names the folder.
pub fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))
}

/// Refuses to overwrite a file, unless `force` allows it.
///
/// # Errors
/// `path` already exists: names it and the flag.
pub fn refuse_existing(path: &Path, force: bool) -> Result<()> {
    match force || path.symlink_metadata().is_err() {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "{}: already exists; give --force to overwrite it, or choose another name",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.txt");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        let failed = write_atomically(&path, |out| {
            out.write_all(b"new")?;
            Err(std::io::Error::other("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("kept.txt"));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
