//! The folder of a training run: `best.safetensors`, `last.safetensors`, `metrics.csv`,
//! `config.toml`, `split.csv`, `curves.png`, `summary.json` and `tensorboard/`. The summary is written
//! last: a run without it is incomplete, and no command uses its model by default.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checkpoint::{self, Checkpoint};
use super::fit_result::{FitResult, Scores};
use super::scoring::is_internal;
use super::state::State;
use crate::data::FaceFolder;
use crate::data::split::Split;
use crate::progress::Reporter;
use crate::recognise::runs::SUMMARY;
use crate::recognise::{DataCard, ModelCard};
use crate::weights::BEST;
use crate::{Error, Result, files};

/// The settings of a run; a folder with this file holds a run.
pub const CONFIG: &str = "config.toml";

/// The folder of one run, which no other run writes to.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The command that trains in it.
    command: String,
    /// Where the training goes on, if it is a resumed one.
    resumed: Option<Resumed>,
    /// `config.toml`, locked while the run lives.
    lock: Option<File>,
    /// Its content; empty where this process writes nothing.
    config: String,
}

/// How a run goes on.
#[derive(Debug)]
struct Resumed {
    /// None if the run was killed before its first checkpoint: it starts again.
    checkpoint: Option<Checkpoint>,
    /// Go on even where the bits may differ.
    anyway: bool,
}

impl RunFolder {
    /// Creates the folder and writes `config.toml`. If `out` holds a run already, finished or not,
    /// the next free number is taken: `runs/triplet`, `runs/triplet-2`, `runs/triplet-3`.
    /// Trainings that start at the same time get different folders, because only one of them can
    /// create a `config.toml`.
    ///
    /// # Errors
    /// `out` holds files that are not a run, or the folder cannot be created or written.
    pub fn create<S: Serialize>(out: &Path, command: &str, settings: &S) -> Result<Self> {
        let config = config_text(command, settings)?;
        let fail = |what: &str| Error::Config(format!("--out {}: {what}", out.display()));
        let mut path = out.to_owned();
        for number in 2u32.. {
            files::create_folder(&path)?;
            let file = path.join(CONFIG);
            if names(&path)?.is_empty() && files::write_new(&file, config.as_bytes())? {
                break;
            }
            if path == out && !file.is_file() {
                return Err(fail(
                    "the folder holds files that are not a Visage run; choose another one",
                ));
            }
            let Some(name) = out.file_name() else {
                return Err(fail("the folder holds a run; choose a folder with a name"));
            };
            path = out.with_file_name(format!("{}-{number}", name.to_string_lossy()));
        }
        let lock = lock(&path)?;
        Ok(Self { path, command: command.to_owned(), resumed: None, lock, config })
    }

    /// Opens the folder of a run that was interrupted. With `anyway` the training goes on where it may not
    /// end with the same bits.
    ///
    /// # Errors
    /// There is no run, or one of another command, or one that is finished or still going on; or neither of
    /// its checkpoints can be used.
    pub fn resume(path: &Path, command: &str, anyway: bool) -> Result<Self> {
        let fail = |what: String| Error::Config(format!("--resume {}: {what}", path.display()));
        let config = path.join(CONFIG);
        let text = std::fs::read_to_string(&config)
            .map_err(|_| fail(format!("no training run: there is no {CONFIG}")))?;
        check_command(path, command, &text)?;
        let lock = lock(path)?;
        if lock.is_none() {
            return Err(fail("another process is training in this folder".into()));
        }
        if path.join(SUMMARY).exists() {
            return Err(fail("the run is finished".into()));
        }
        sweep(path);
        let checkpoint = Checkpoint::find(path)?;
        let resumed = Some(Resumed { checkpoint, anyway });
        let (path, command) = (path.to_owned(), command.to_owned());
        Ok(Self { path, command, resumed, lock, config: text })
    }

    /// The folder as the other processes of a training see it: they write nothing. `resumed` is whether to go on
    /// anyway, if the run is a resumed one.
    ///
    /// # Errors
    /// Neither of its checkpoints can be used.
    pub fn follow(path: &Path, command: &str, resumed: Option<bool>) -> Result<Self> {
        let resumed = resumed
            .map(|anyway| Ok::<_, Error>(Resumed { checkpoint: Checkpoint::find(path)?, anyway }));
        let resumed = resumed.transpose()?;
        Ok(Self {
            path: path.to_owned(),
            command: command.to_owned(),
            resumed,
            lock: None,
            config: String::new(),
        })
    }

    /// The newest run of a command at `out`, with or without a number, if it was interrupted.
    pub fn newest_interrupted(out: &Path, command: &str) -> Option<PathBuf> {
        let name = out.file_name()?.to_string_lossy().into_owned();
        let numbered = |number: u32| out.with_file_name(format!("{name}-{number}"));
        let all = std::iter::once(out.to_owned()).chain((2..).map(numbered));
        let newest = all.take_while(|path| path.join(CONFIG).is_file()).last()?;
        let config = std::fs::read_to_string(newest.join(CONFIG)).ok()?;
        let is_own = command_of(&config) == Some(command) && is_interrupted(&newest);
        is_own.then_some(newest)
    }

    /// Writes `config.toml` again if it is gone, because the folder was removed or renamed while the training
    /// went on: without it what comes next would be no run. A warning if that was so.
    pub fn restore(&self) -> Option<String> {
        let config = self.path.join(CONFIG);
        if self.config.is_empty() || config.exists() {
            return None;
        }
        let path = self.path.display();
        let written = files::create_folder(&self.path)
            .and_then(|()| files::write_new(&config, self.config.as_bytes()));
        Some(match written {
            Ok(_) => format!(
                "{path}: was removed or renamed; the training goes on in a new folder of that name"
            ),
            Err(error) => format!("{path}: was removed or renamed: {error}"),
        })
    }

    /// Whether the run was started before.
    pub fn is_resumed(&self) -> bool {
        self.resumed.is_some()
    }

    /// Where the training goes on; none at the start.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.resumed.as_ref()?.checkpoint.as_ref()
    }

    /// How to go on with the run.
    pub fn how_to_resume(&self) -> String {
        format!("visage {} --resume {}", self.command, self.path.display())
    }

    /// Refuses what may make a resumed run end with other bits, unless that was asked for.
    ///
    /// # Errors
    /// Lists the `changes`, if there are any.
    pub fn accept(&self, changes: &[String], say: &Reporter) -> Result<()> {
        let text = changes.join("; ");
        match &self.resumed {
            Some(_) if changes.is_empty() => Ok(()),
            Some(resumed) if resumed.anyway => {
                say.warn(&format!("the run will not end as it would have: {text}"));
                Ok(())
            }
            Some(_) => Err(Error::Config(format!(
                "--resume {}: {text}; undo this, or give --resume-anyway to go on with a run that does not \
                 end as it would have",
                self.path.display()
            ))),
            None => Ok(()),
        }
    }

    /// Writes `split.csv`; a resumed run has the one it began with, which the data must still fit.
    ///
    /// # Errors
    /// The file cannot be written, or the data has changed.
    pub fn write_split(
        &self,
        (split, folder, card): (&Split, &FaceFolder, &DataCard),
        say: &Reporter,
    ) -> Result<()> {
        let path = self.split();
        let (true, Ok(before)) = (self.is_resumed(), std::fs::read(&path)) else {
            return split.write_csv(&path, folder);
        };
        let changed = format!("the pictures are not those of {}", path.display());
        let is_other = before != split.csv(folder)?;
        self.accept(&Vec::from_iter(is_other.then_some(changed)), say)?;
        self.check_data(card, say)
    }

    /// Refuses a resumed run whose pictures have other contents than those it began with.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn check_data(&self, data: &DataCard, say: &Reporter) -> Result<()> {
        // The model of the untouched start is there before the first checkpoint.
        let (true, Ok(card)) = (self.is_resumed(), ModelCard::peek(&self.best())) else {
            return Ok(());
        };
        let is_other = card.data.fingerprint != data.fingerprint;
        let changed = format!("the contents of the pictures in {} have changed", data.path);
        self.accept(&Vec::from_iter(is_other.then_some(changed)), say)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The best model so far.
    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// CRC-32 of the tensors in the file of the best model: what lies behind its header, which holds figures.
    pub fn best_checksum(&self) -> Option<u32> {
        let content = std::fs::read(self.best()).ok()?;
        let (length, rest) = content.split_first_chunk::<8>()?;
        let header = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        rest.get(header..).map(crc32fast::hash)
    }

    /// Refuses to go on from `state` without the best model so far, or with a damaged one: if no later epoch is
    /// better, it is what the training ends with.
    ///
    /// # Errors
    /// Names the run and the reason.
    pub fn check_best(&self, state: &State) -> Result<()> {
        let best = self.best();
        let reason = match ModelCard::peek(&best) {
            Err(error) => error.to_string(),
            // Written after the checkpoint: the epoch is trained again, and so is the model.
            Ok(card) if card.epoch > state.best_epoch => return Ok(()),
            Ok(_) if [None, self.best_checksum()].contains(&state.best_checksum) => return Ok(()),
            Ok(_) => format!("{}: its checksum is another", best.display()),
        };
        let folder = self.path.display();
        Err(Error::Config(format!(
            "--resume {folder}: the best model so far cannot be used ({reason}); put it back, or train again"
        )))
    }

    /// The model after the last epoch.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// The loss and the scores over the epochs, as a picture.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.png")
    }

    /// The results of the run; exists only if the run is complete.
    pub fn summary(&self) -> PathBuf {
        self.path.join(SUMMARY)
    }

    /// The split in use.
    pub fn split(&self) -> PathBuf {
        self.path.join("split.csv")
    }
}

impl RunFolder {
    /// Writes `summary.json`: the untouched and the best figures, the epochs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, outcome: &FitResult) -> Result<()> {
        let figures = |scores: &Scores| -> serde_json::Map<_, _> {
            let shown = scores.values.iter().filter(|(name, _)| !is_internal(name));
            shown.map(|(name, value)| ((*name).to_owned(), serde_json::json!(value))).collect()
        };
        let summary = serde_json::json!({
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "untouched": figures(&outcome.untouched),
            "best": figures(&outcome.best),
            "best_of_all": outcome.best_of_all.as_ref().map(figures),
            "model": outcome.model.to_string_lossy(),
            "rollbacks": outcome.rollbacks,
            "stopped": outcome.stopped,
        });
        self.complete(&summary)
    }

    /// Writes `summary.json`, which ends the run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn complete(&self, summary: &serde_json::Value) -> Result<()> {
        files::write_atomically(&self.summary(), |out| {
            std::io::Write::write_all(out, format!("{summary:#}\n").as_bytes())
        })?;
        checkpoint::remove(&self.path);
        Ok(())
    }
}

/// The command whose `config.toml` begins with this text.
pub fn command_of(config: &str) -> Option<&str> {
    let line = config.lines().next()?;
    let (_, repeat) = line.split_once("Repeat the run: visage ")?;
    repeat.split_once(" --config").map(|(command, _)| command)
}

/// Refuses to go on with a run, with this `config.toml`, that another command began.
///
/// # Errors
/// Names the run, and says what began it.
pub fn check_command(run: &Path, command: &str, config: &str) -> Result<()> {
    if command_of(config) == Some(command) {
        return Ok(());
    }
    let line = config.lines().next().unwrap_or_default();
    let what = format!("not a run of {command}: its {CONFIG} says `{line}`");
    Err(Error::Config(format!("--resume {}: {what}", run.display())))
}

/// Whether a process trains in the folder of a run.
pub fn is_live(run: &Path) -> bool {
    lock(run).is_ok_and(|lock| lock.is_none())
}

/// Locks the folder of a run for this process; none if another one has it.
fn lock(run: &Path) -> Result<Option<File>> {
    let path = run.join(CONFIG);
    let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks must not end a training.
        Err(TryLockError::Error(_)) => Ok(Some(file)),
    }
}

/// Whether a run in this folder was interrupted: it has no result, and no process trains in it.
pub fn is_interrupted(run: &Path) -> bool {
    let is_run = run.join(CONFIG).is_file() && !run.join(SUMMARY).exists();
    is_run && lock(run).is_ok_and(|lock| lock.is_some())
}

/// The run's settings as the `config.toml` that `--config` accepts back.
///
/// # Errors
/// A setting that TOML cannot hold, which the settings' own checks exclude.
pub fn config_text<S: Serialize>(command: &str, settings: &S) -> Result<String> {
    let body = toml::to_string_pretty(settings)
        .map_err(|error| Error::Config(format!("config.toml: {error}")))?;
    let version = env!("CARGO_PKG_VERSION");
    let repeat = format!("Repeat the run: visage {command} --config THIS_FILE");
    Ok(format!("# Written by visage {version}. {repeat}\n\n{body}"))
}

impl Drop for RunFolder {
    /// A training that fails before its first result leaves no folder behind.
    fn drop(&mut self) {
        // The folder of a process that follows has no lock.
        let is_new = self.resumed.is_none() && self.lock.is_some();
        drop(self.lock.take());
        if is_new && names(&self.path).is_ok_and(|names| names == [CONFIG]) {
            // The error that ended the training is the one to report.
            let _ = std::fs::remove_file(self.path.join(CONFIG));
            let _ = std::fs::remove_dir(&self.path);
        }
    }
}

/// Removes the unfinished temporary files of a process that was killed; this one has the folder's lock.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(files::TEMPORARY) {
            // They are of no use, and harm no one.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The names in a folder, without unfinished temporary files.
fn names(folder: &Path) -> Result<Vec<OsString>> {
    let fail = |source| Error::io(folder, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if !name.to_string_lossy().starts_with(files::TEMPORARY) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(out: &Path) -> Result<RunFolder> {
        let settings = toml::Table::from_iter([("lr".to_owned(), toml::Value::Float(0.5))]);
        RunFolder::create(out, "train-triplet", &settings)
    }

    #[test]
    fn a_folder_that_vanishes_is_made_again_as_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = create(&folder.path().join("run")).unwrap();
        assert_eq!(run.restore(), None);
        let config = std::fs::read(run.path().join(CONFIG)).unwrap();
        std::fs::rename(run.path(), folder.path().join("moved")).unwrap();
        assert!(run.restore().unwrap().contains("was removed or renamed"));
        assert_eq!(std::fs::read(run.path().join(CONFIG)).unwrap(), config);
        assert_eq!(run.restore(), None);
    }

    #[test]
    fn what_a_killed_process_left_half_written_is_removed_on_resuming() {
        let folder = tempfile::tempdir().unwrap();
        let half = folder.path().join(".visage-abcdef");
        let run = create(folder.path()).unwrap();
        std::fs::write(&half, [0; 9]).unwrap();
        // A run that lives keeps its own.
        assert!(RunFolder::resume(folder.path(), "train-triplet", false).is_err());
        assert!(half.exists());
        std::fs::write(run.best(), []).unwrap();
        drop(run);
        RunFolder::resume(folder.path(), "train-triplet", false).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn a_new_run_gets_the_next_number_and_older_runs_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("runs/triplet");
        for (number, name) in ["triplet", "triplet-2", "triplet-3"].iter().enumerate() {
            let run = create(&out).unwrap();
            assert_eq!(run.path(), folder.path().join("runs").join(name));
            std::fs::write(run.best(), number.to_string()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(out.join("best.safetensors")).unwrap(), "0");
        // An empty folder is used; one with other files is refused, or passed over if numbered.
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        let empty = create(&folder.path().join("empty")).unwrap();
        assert_eq!(empty.path(), folder.path().join("empty"));
        std::fs::create_dir_all(folder.path().join("runs/triplet-4")).unwrap();
        std::fs::write(folder.path().join("runs/triplet-4/a.png"), "x").unwrap();
        assert!(create(&out).unwrap().path().ends_with("triplet-5"));
        let error = create(&folder.path().join("runs/triplet-4")).unwrap_err().to_string();
        assert!(error.contains("--out") && error.contains("not a Visage run"), "{error}");
    }

    #[test]
    fn trainings_that_start_together_get_different_folders() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let runs: Vec<RunFolder> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..8).map(|_| scope.spawn(|| create(&out).unwrap())).collect();
            started.into_iter().map(|run| run.join().unwrap()).collect()
        });
        let paths: std::collections::BTreeSet<_> = runs.iter().map(RunFolder::path).collect();
        assert_eq!(paths.len(), 8, "{paths:?}");
        assert!(paths.contains(&*out), "{paths:?}");
    }

    #[test]
    fn a_run_without_any_result_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        drop(create(&out).unwrap());
        assert!(!out.exists());
    }
}
