//! Programs from their start to their end: how long, and how much memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::{Error, Result, native};

/// `visage classify` of one face.
pub struct Cold {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where the classifier lies; gone with this.
    _folder: TempDir,
    peak: Option<u64>,
}

impl Cold {
    /// Trains a small classifier first, on noise: who is named does not matter here.
    ///
    /// # Errors
    /// The training fails, or the disk.
    pub fn new(face: &Path) -> Result<Self> {
        let program = std::env::current_exe().map_err(|e| Error::io(Path::new("visage"), e))?;
        let folder =
            tempfile::tempdir().map_err(|e| Error::io(Path::new("a temporary folder"), e))?;
        let data = folder.path().join("data");
        for picture in 0..8 {
            noise(&data.join(format!("person {}", picture % 2)), picture)?;
        }
        let out = folder.path().join("run");
        let mut training = Command::new(&program);
        training.args(["--quiet", "train-classifier", "--epochs", "1", "--backbone", "openface"]);
        training.args(["--trunk", "openface-nn4-distilled", "--device", "cpu", "--data"]);
        training.arg(&data).arg("--out").arg(&out);
        let answer = training.output().map_err(|source| Error::io(&program, source))?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr);
            return Err(Error::Data(format!("`visage train-classifier` failed: {}", said.trim())));
        }
        let mut arguments: Vec<OsString> =
            ["--quiet", "--device", "cpu", "classify", "--detect", "never"].map(Into::into).into();
        arguments.extend([face.into(), "--model".into(), out.join("best.safetensors").into()]);
        Ok(Self { program, arguments, _folder: folder, peak: None })
    }

    /// One face.
    ///
    /// # Errors
    /// The program fails.
    pub fn run(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        let (status, peak) = measured(command.args(&self.arguments))?;
        self.peak = self.peak.max(peak);
        match status.success() {
            true => Ok(()),
            false => Err(Error::Data("`visage classify` failed (its words are above)".into())),
        }
    }

    /// The most memory it took, in MiB.
    pub fn memory(&self) -> Option<f64> {
        self.peak.map(mebibytes)
    }
}

/// Runs a command to its end: how it ended, and the most memory it took.
///
/// # Errors
/// It cannot be started.
pub fn measured(command: &mut Command) -> Result<(ExitStatus, Option<u64>)> {
    let name = PathBuf::from(command.get_program());
    let child = command.stdout(Stdio::null()).spawn();
    child.and_then(native::wait_with_peak).map_err(|source| Error::io(&name, source))
}

/// Bytes as MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A picture that is like no other.
fn noise(folder: &Path, number: u64) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    let mut random = StdRng::seed_from_u64(number);
    let mut pixel = |_, _| image::Rgb([random.random(), random.random(), random.random()]);
    let path = folder.join(format!("{number}.png"));
    let picture = image::RgbImage::from_fn(24, 24, &mut pixel);
    picture.save(&path).map_err(|error| Error::io(&path, std::io::Error::other(error)))
}
