//! PyTorch at the same work: `benches/peer.py` in a Python that has it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::cold::{measured, mebibytes};
use super::measures::{EPOCHS, OTHERS, PICTURES_EACH, PYTORCH, Setting, TAUGHT};
use crate::commands::trunk::Bare;
use crate::export::{BatchSize, Export};
use crate::models::Architecture;
use crate::native::Half;
use crate::weights::manifest;
use crate::{Error, Result};

/// What a peer needs, under the names it imports.
const FILES: [(&str, &str); 3] = [
    ("peer.py", include_str!("../../../benches/peer.py")),
    ("openface.py", include_str!("../../../tests/golden/openface.py")),
    ("dlib_resnet.py", include_str!("../../../tests/golden/dlib_resnet.py")),
];

/// A running peer.
pub struct Peer {
    folder: tempfile::TempDir,
    python: PathBuf,
    threads: i64,
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it has beside PyTorch, of [`OTHERS`].
    pub others: Vec<String>,
    hello: serde_json::Value,
    peak: Option<u64>,
}

impl Peer {
    /// Starts Python with the same batch, threads, numbers and pictures.
    ///
    /// # Errors
    /// No such Python, or one without PyTorch and safetensors: says what it lacks.
    pub fn start(python: &Path, setting: &Setting) -> Result<Self> {
        let folder =
            tempfile::tempdir().map_err(|e| Error::io(Path::new("a temporary folder"), e))?;
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).map_err(|source| Error::io(&path, source)).map(|()| path)
        };
        for (name, text) in FILES {
            write(name, text.as_bytes())?;
        }
        write("weights.safetensors", manifest::embedded("openface-nn4-distilled")?)?;
        write("network.onnx", &network(setting.architecture)?)?;
        // It is started in another folder; a bare name is looked up in the PATH.
        let found = match python.components().count() > 1 {
            true => std::path::absolute(python).map_err(|source| Error::io(python, source))?,
            false => python.to_owned(),
        };
        let python = found.as_path();
        let threads = i64::from(tch::get_num_threads());
        let mut command = Command::new(python);
        command.current_dir(folder.path()).args(["peer.py", "weights.safetensors"]);
        for (flag, value) in [
            ("--threads", threads),
            ("--loaders", rayon::current_num_threads() as i64),
            ("--batch", setting.batch),
            ("--pictures", PICTURES_EACH),
            ("--mined", setting.mined),
            ("--taught", TAUGHT),
            ("--epochs", EPOCHS as i64),
            ("--side", setting.architecture.info().input.size.into()),
        ] {
            command.args([flag, &value.to_string()]);
        }
        command.args(["--backbone", setting.architecture.name()]);
        if setting.compute.half() == Some(Half::BFloat16) {
            command.arg("--bf16");
        }
        if !setting.pictures.is_empty() {
            let paths = setting.pictures.iter().map(std::path::absolute);
            let paths: Vec<String> =
                paths.flatten().map(|path| path.to_string_lossy().into_owned()).collect();
            write("list", paths.join("\n").as_bytes())?;
            command.args(["--list", "list"]);
        }
        // What this program found libtorch with is not Python's.
        command.env_remove("LD_LIBRARY_PATH");
        let fail = |source| Error::io(python, source);
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(fail)?;
        let lost = || fail(std::io::Error::other("its pipes are not there"));
        let questions = child.stdin.take().ok_or_else(lost)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(lost)?);
        let python = python.to_owned();
        let (others, hello, peak) = (Vec::new(), serde_json::Value::Null, None);
        let mut peer =
            Self { folder, python, threads, child, questions, answers, others, hello, peak };
        let hello = peer.answer()?;
        peer.hello = serde_json::from_str(&hello).unwrap_or_default();
        let has = |name: &&str| peer.hello[*name].is_string();
        peer.others = OTHERS.into_iter().filter(has).map(String::from).collect();
        Ok(peer)
    }

    /// What it is, such as `pytorch 2.13.0, openvino 2026.1`.
    pub fn versions(&self) -> String {
        let names = std::iter::once(PYTORCH).chain(self.others.iter().map(String::as_str));
        let version = |name: &str| self.hello[name].as_str().unwrap_or("?").to_owned();
        names.map(|name| format!("{name} {}", version(name))).collect::<Vec<_>>().join(", ")
    }

    /// The most memory that a fresh Python took, in MiB.
    pub fn memory(&self) -> Option<f64> {
        self.peak.map(mebibytes)
    }

    /// The seconds of so many rounds of a measure.
    ///
    /// # Errors
    /// Python ended; its own words are on standard error.
    pub fn seconds(&mut self, name: &str, rounds: usize) -> Result<f64> {
        if name == "cold" {
            return self.cold(rounds);
        }
        if writeln!(self.questions, "{name} {rounds}").is_err() {
            return Err(self.ended()); // its end of the pipe is closed
        }
        let answer = self.answer()?;
        answer.trim().parse().map_err(|_| self.ended())
    }

    /// A fresh Python for each face.
    fn cold(&mut self, rounds: usize) -> Result<f64> {
        let list = self.folder.path().join("list");
        let text = std::fs::read_to_string(&list).map_err(|source| Error::io(&list, source))?;
        let face = text.lines().next().unwrap_or_default();
        let start = Instant::now();
        for _ in 0..rounds {
            let mut command = Command::new(&self.python);
            command.current_dir(self.folder.path()).args(["peer.py", "weights.safetensors"]);
            command.args(["--threads", &self.threads.to_string(), "--cold", face]);
            let (done, peak) = measured(command.env_remove("LD_LIBRARY_PATH"))?;
            self.peak = self.peak.max(peak);
            if !done.success() {
                return Err(self.ended());
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        match read.map_err(|source| Error::io(&self.python, source))? {
            0 => Err(self.ended()),
            _ => Ok(line),
        }
    }

    fn ended(&mut self) -> Error {
        let how = match self.child.try_wait() {
            Ok(Some(status)) => format!("ended with {status}"),
            _ => "does not do the work".to_owned(),
        };
        Error::Config(format!(
            "--against-pytorch: {} {how} (its words are above); it needs the packages torch, \
             safetensors, numpy and pillow, and memory for all pairs of --mined embeddings",
            self.python.display()
        ))
    }
}

/// The trunk as ONNX.
fn network(architecture: Architecture) -> Result<Vec<u8>> {
    Export::trunk(Bare::pretrained(architecture).build(tch::Device::Cpu)?.backbone)?
        .to_onnx(BatchSize::Dynamic)
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Nobody waits for its last answer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
