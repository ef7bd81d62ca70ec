//! The runs in a folder: which are finished, going on or interrupted, and what they gave.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::WalkDir;

use super::run_folder::{self, CONFIG};
use super::scoring::is_internal;
use crate::recognise::ModelCard;
use crate::recognise::runs::SUMMARY;
use crate::weights::BEST;
use crate::{Error, Result, files};

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// A process trains in its folder.
    Running,
    /// It has a result.
    Finished,
    /// It went wrong for good; the cause.
    Stopped(String),
    /// It has neither; `--resume` goes on with it.
    Interrupted,
}

impl RunState {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped(_) => "stopped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A training run on the disk.
#[derive(Debug)]
pub struct Run {
    /// Its folder.
    pub path: PathBuf,
    /// The command that trains in it.
    pub command: String,
    /// Where it is.
    pub state: RunState,
    /// What its best model says, once there is one.
    pub card: Option<ModelCard>,
    /// `summary.json` of a run that is over.
    pub summary: Option<serde_json::Value>,
    /// Bytes of all its files.
    pub bytes: u64,
    /// When its settings were written.
    pub started: Option<SystemTime>,
}

impl Run {
    /// The run in a folder.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: &Path) -> Result<Self> {
        let config = path.join(CONFIG);
        let text = fs::read_to_string(&config).unwrap_or_default();
        let Some(command) = run_folder::command_of(&text).map(str::to_owned) else {
            let path = path.display();
            return Err(Error::Config(format!(
                "{path}: no training run: it has no {CONFIG} of one"
            )));
        };
        let summary = fs::read_to_string(path.join(SUMMARY)).ok();
        let summary: Option<serde_json::Value> =
            summary.and_then(|text| serde_json::from_str(&text).ok());
        let stopped = summary.as_ref().and_then(|summary| summary["stopped"].as_str());
        let state = match (&summary, stopped) {
            _ if run_folder::is_live(path) => RunState::Running,
            (_, Some(cause)) => RunState::Stopped(cause.to_owned()),
            (Some(_), None) => RunState::Finished,
            (None, None) => RunState::Interrupted,
        };
        let sizes =
            WalkDir::new(path).into_iter().flatten().filter_map(|file| file.metadata().ok());
        Ok(Self {
            path: path.to_owned(),
            command,
            state,
            card: ModelCard::peek(&path.join(BEST)).ok(),
            summary,
            bytes: sizes.filter(fs::Metadata::is_file).map(|file| file.len()).sum(),
            started: fs::metadata(&config).and_then(|file| file.modified()).ok(),
        })
    }

    /// Deletes the folder with everything in it.
    ///
    /// # Errors
    /// The run is going on, or the folder cannot be deleted.
    pub fn remove(self) -> Result<()> {
        let Self { path, .. } = self;
        if run_folder::is_live(&path) {
            let text = format!("{}: a process is training in it; stop it first", path.display());
            return Err(Error::Config(text));
        }
        // Under another name first: whatever happens next, nothing takes the rest for a run.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let doomed = path.with_file_name(format!("{}removed-{name}", files::TEMPORARY));
        fs::rename(&path, &doomed).map_err(|source| Error::io(&path, source))?;
        fs::remove_dir_all(&doomed).map_err(|source| Error::io(&doomed, source))
    }
}

/// The runs directly in a folder, the oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<Run>> {
    let entries = fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    let is_hidden = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| !is_hidden(path));
    let mut runs: Vec<_> = paths.filter_map(|path| Run::open(&path).ok()).collect();
    runs.sort_by(|a, b| (a.started, &a.path).cmp(&(b.started, &b.path)));
    Ok(runs)
}

/// Something that two runs do not share.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// The setting, or the figure.
    pub name: String,
    /// Its value in either run; none where it has none.
    pub values: [Option<String>; 2],
}

/// The settings that differ, without the folder of the run.
///
/// # Errors
/// A `config.toml` that cannot be read.
pub fn settings_that_differ(runs: [&Run; 2]) -> Result<Vec<Difference>> {
    let read = |run: &Run| -> Result<Vec<(String, String)>> {
        let path = run.path.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|source| Error::io(&path, source))?;
        let table: toml::Table = toml::from_str(&text)
            .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
        let values = table.into_iter().filter(|(name, _)| name != "out");
        let command = [("command".to_owned(), run.command.clone())];
        let text =
            |value: toml::Value| value.as_str().map_or_else(|| value.to_string(), Into::into);
        Ok(command.into_iter().chain(values.map(|(name, value)| (name, text(value)))).collect())
    };
    Ok(differences([read(runs[0])?, read(runs[1])?]))
}

/// The figures of the best models that differ.
pub fn figures_that_differ(runs: [&Run; 2]) -> Vec<Difference> {
    let read = |run: &Run| {
        let summary = run.summary.as_ref();
        let number = |name: &str| {
            let value = summary?.get(name)?;
            Some((name.replace('_', " "), value.to_string()))
        };
        let best = summary.and_then(|summary| {
            summary["best_of_all"].as_object().or_else(|| summary["best"].as_object())
        });
        let figures =
            best.into_iter().flatten().filter(|(name, _)| !is_internal(name)).filter_map(
                |(name, value)| Some((name.clone(), format!("{:.4}", value.as_f64()?))),
            );
        ["epochs", "best_epoch", "rollbacks"]
            .into_iter()
            .filter_map(number)
            .chain(figures)
            .collect()
    };
    differences(runs.map(read))
}

/// What is not the same in two lists of named values, in the order of the first.
fn differences(lists: [Vec<(String, String)>; 2]) -> Vec<Difference> {
    let [first, second] = &lists;
    let value = |list: &[(String, String)], name: &str| {
        list.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let only_second = second.iter().filter(|(name, _)| value(first, name).is_none());
    let names = first.iter().chain(only_second).map(|(name, _)| name);
    let all = names.map(|name| Difference {
        name: name.clone(),
        values: [value(first, name), value(second, name)],
    });
    all.filter(|difference| difference.values[0] != difference.values[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::run_folder::RunFolder;

    fn table(text: &str) -> toml::Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn runs_are_listed_with_their_state_compared_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, settings: &str| {
            RunFolder::create(&root.path().join(name), "train-triplet", &table(settings)).unwrap()
        };
        let live = make("live", "lr = 0.1\nout = \"live\"");
        let old = make("old", "lr = 0.2\nout = \"old\"\nloss = \"arcface\"");
        let path = old.path().to_owned();
        fs::write(path.join("last.safetensors"), [0; 100]).unwrap();
        drop(old);
        fs::create_dir(root.path().join("other")).unwrap();
        let states = || -> Vec<_> {
            let runs = list(root.path()).unwrap();
            runs.iter().map(|run| (run.path.clone(), run.state.name())).collect()
        };
        let live_path = live.path().to_owned();
        assert_eq!(states(), [(live_path.clone(), "running"), (path.clone(), "interrupted")]);
        fs::write(path.join(SUMMARY), r#"{"stopped": "epoch 2: gone", "best": {"auc": 0.5}}"#)
            .unwrap();
        let run = Run::open(&path).unwrap();
        assert_eq!(run.state, RunState::Stopped("epoch 2: gone".into()));
        assert!(run.bytes > 100 && run.command == "train-triplet", "{run:?}");

        let other = Run::open(&live_path).unwrap();
        let differ = settings_that_differ([&run, &other]).unwrap();
        let text: Vec<_> = differ
            .iter()
            .map(|one| (one.name.as_str(), one.values.each_ref().map(Option::as_deref)))
            .collect();
        assert_eq!(text, [("loss", [Some("arcface"), None]), ("lr", [Some("0.2"), Some("0.1")])]);
        assert_eq!(figures_that_differ([&run, &other])[0].values, [Some("0.5000".into()), None]);

        let refused = other.remove().unwrap_err().to_string();
        assert!(refused.contains("training in it"), "{refused}");
        run.remove().unwrap();
        assert_eq!(states(), [(live_path, "running")]);
        assert!(!path.exists());
        let error = Run::open(&root.path().join("other")).unwrap_err().to_string();
        assert!(error.contains("no training run"), "{error}");
        drop(live);
    }
}
