//! Programs from their start to their end: how long, and how much memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::{Error, Result};

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
        let threads = tch::get_num_threads().to_string();
        let flags = ["--quiet", "--device", "cpu", "--threads", &threads, "classify"];
        let mut arguments: Vec<OsString> = flags.map(Into::into).into();
        arguments.extend(["--detect", "never"].map(Into::into));
        arguments.extend([face.into(), "--model".into(), out.clone().into()]);
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

/// How often a running program is asked for its memory.
const LOOK: Duration = Duration::from_millis(2);

/// Runs a command to its end: how it ended, and the most memory it held at once, in bytes.
///
/// The system's own account of an ended child (`ru_maxrss`) begins with the memory of the process
/// that started it, so the child is asked while it runs: what it took in its last moment is missed.
///
/// # Errors
/// It cannot be started.
pub fn measured(command: &mut Command) -> Result<(ExitStatus, Option<u64>)> {
    let name = PathBuf::from(command.get_program());
    let fail = |source| Error::io(&name, source);
    let mut child = command.stdout(Stdio::null()).spawn().map_err(fail)?;
    let mut peak = None;
    loop {
        peak = peak.max(high_water(child.id()));
        if let Some(status) = child.try_wait().map_err(fail)? {
            return Ok((status, peak));
        }
        std::thread::sleep(LOOK);
    }
}

/// The most memory a running process has held, in bytes; none where the system does not tell.
fn high_water(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kilobytes)
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
