//! The folder of a training run: `best.safetensors`, `last.safetensors`, `metrics.csv`,
//! `config.toml`, `split.csv`, `curves.png`, `summary.json` and `tensorboard/`. The summary is written
//! last: a run without it was cut short, and no command takes its model unasked.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::fit_result::{FitResult, Scores};
use crate::recognise::model_file;
use crate::{Error, Result, files};

/// A run's folder, created and empty of an older run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Where an older run that stood here was moved.
    pub moved: Option<PathBuf>,
}

impl RunFolder {
    /// Creates the folder and writes `config.toml`. A run that is already there is renamed to the
    /// next free number (`runs/triplet` to `runs/triplet-1`): results are never overwritten.
    ///
    /// # Errors
    /// The folder holds something that is not a run, or cannot be created or written.
    pub fn create<S: Serialize>(path: &Path, command: &str, settings: &S) -> Result<Self> {
        let mut moved = None;
        if path.join("config.toml").is_file() && path.file_name().is_some() {
            let free = next_free(path);
            std::fs::rename(path, &free).map_err(|source| Error::io(path, source))?;
            moved = Some(free);
        } else if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::Config(format!(
                "--out {}: the folder holds files that are not a Visage run; name another one",
                path.display()
            )));
        }
        files::create_folder(path)?;
        let config = config_text(command, settings)?;
        files::write_atomically(&path.join("config.toml"), |out| {
            std::io::Write::write_all(out, config.as_bytes())
        })?;
        Ok(Self { path: path.to_owned(), moved })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The best model so far.
    pub fn best(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The model after the last epoch.
    pub fn last(&self) -> PathBuf {
        self.path.join("last.safetensors")
    }

    /// The loss and the scores over the epochs, as a picture.
    pub fn curves(&self) -> PathBuf {
        self.path.join("curves.png")
    }

    /// What came of the run; its presence means that the run came to its end.
    pub fn summary(&self) -> PathBuf {
        self.path.join(model_file::SUMMARY)
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

fn next_free(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|| "run".into());
    (1u32..)
        .map(|number| path.with_file_name(format!("{name}-{number}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_run_is_kept_and_a_stranger_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("runs/triplet");
        let settings = toml::Table::from_iter([("lr".to_owned(), toml::Value::Float(0.5))]);
        let first = RunFolder::create(&out, "train-triplet", &settings).unwrap();
        assert!(first.moved.is_none());
        std::fs::write(first.best(), "weights").unwrap();
        let second = RunFolder::create(&out, "train-triplet", &settings).unwrap();
        let kept = second.moved.unwrap();
        assert_eq!(std::fs::read_to_string(kept.join("best.safetensors")).unwrap(), "weights");
        assert!(!out.join("best.safetensors").exists());

        let photos = folder.path().join("photos");
        std::fs::create_dir(&photos).unwrap();
        std::fs::write(photos.join("a.png"), "x").unwrap();
        let error = RunFolder::create(&photos, "train-triplet", &settings).unwrap_err();
        assert!(error.to_string().contains("--out"), "{error}");
        assert!(photos.join("a.png").exists());
    }
}
