//! The folder of a training run: `best.safetensors`, `last.safetensors`, `metrics.csv`,
//! `config.toml`, `split.csv`, `curves.png`, `summary.json` and `tensorboard/`. The summary is written
//! last: a run without it is incomplete, and no command uses its model by default.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fit_result::{FitResult, Scores};
use crate::recognise::runs::SUMMARY;
use crate::weights::BEST;
use crate::{Error, Result, files};

/// The settings of a run; a folder with this file holds a run.
const CONFIG: &str = "config.toml";

/// The folder of one run, which no other run writes to.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
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
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The best model so far.
    pub fn best(&self) -> PathBuf {
        self.path.join(BEST)
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
            let pairs = scores.values.iter();
            pairs.map(|(name, value)| ((*name).to_owned(), serde_json::json!(value))).collect()
        };
        let summary = serde_json::json!({
            "epochs": outcome.epochs,
            "best_epoch": outcome.best_epoch,
            "untouched": figures(&outcome.untouched),
            "best": figures(&outcome.best),
            "model": outcome.model.to_string_lossy(),
        });
        files::write_atomically(&self.summary(), |out| {
            std::io::Write::write_all(out, format!("{summary:#}\n").as_bytes())
        })
    }
}

/// The run's settings as the `config.toml` that `--config` accepts back.
///
/// # Errors
/// A setting that TOML cannot hold, which the settings' own checks exclude.
pub fn config_text<S: Serialize>(command: &str, settings: &S) -> Result<String> {
    let body = toml::to_string_pretty(settings)
        .map_err(|error| Error::Config(format!("config.toml: {error}")))?;
    Ok(format!(
        "# Written by visage {}. Repeat the run: visage {command} --config THIS_FILE\n\n{body}",
        env!("CARGO_PKG_VERSION")
    ))
}

impl Drop for RunFolder {
    /// A training that fails before its first result leaves no folder behind.
    fn drop(&mut self) {
        if names(&self.path).is_ok_and(|names| names == [CONFIG]) {
            // The error that ended the training is the one to report.
            let _ = std::fs::remove_file(self.path.join(CONFIG));
            let _ = std::fs::remove_dir(&self.path);
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
