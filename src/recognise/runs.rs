//! The folder of runs, and which of their models a command takes if none is named: the pinned one
//! (`visage use RUN`), or else the newest.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::model_file::{ModelCard, ModelKind};
use crate::weights::{BEST, model_path};
use crate::{Error, Result, files};

/// The file that a run writes last; without it the run was cut short or is still going.
pub const SUMMARY: &str = "summary.json";

/// The file in the folder of runs that says which models are pinned.
const PINS: &str = "current.toml";

/// The model of a finished run.
#[derive(Debug)]
pub struct RunModel {
    /// The model file.
    pub path: PathBuf,
    /// When it was written.
    pub modified: SystemTime,
    /// Its card.
    pub card: ModelCard,
}

/// How a model was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenBy {
    /// It was named by a flag.
    Flag,
    /// It is pinned.
    Pin,
    /// It is the newest of its kind.
    Age,
}

/// The model that a command takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The model file.
    pub path: PathBuf,
    /// How it was chosen.
    pub by: ChosenBy,
}

impl fmt::Display for Choice {
    /// `runs/triplet/best.safetensors (pinned)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            ChosenBy::Flag => "",
            ChosenBy::Pin => " (pinned)",
            ChosenBy::Age => " (newest run)",
        };
        write!(f, "{}{by}", self.path.display())
    }
}

/// The pinned models, at most one of each kind. Paths are relative to the folder of runs.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Pins {
    #[serde(skip_serializing_if = "Option::is_none")]
    trunk: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    classifier: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pairs: Option<PathBuf>,
}

impl Pins {
    fn read(runs: &Path) -> Result<Self> {
        let path = runs.join(PINS);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(Error::io(&path, error)),
        };
        toml::from_str(&text).map_err(|error| {
            let path = path.display();
            Error::Config(format!("{path}: {error}; `visage use --unset` removes the file"))
        })
    }

    fn of(&mut self, kind: ModelKind) -> &mut Option<PathBuf> {
        match kind {
            ModelKind::Trunk => &mut self.trunk,
            ModelKind::Classifier => &mut self.classifier,
            ModelKind::Pairs => &mut self.pairs,
        }
    }
}

/// The models `*/best.safetensors` of all finished runs, the oldest first.
pub fn list(runs: &Path) -> Vec<RunModel> {
    let folders = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let model = |path: PathBuf| {
        let modified = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        let card = ModelCard::peek(&path).ok()?;
        Some(RunModel { path, modified, card })
    };
    let mut found: Vec<_> = folders
        .map(|folder| folder.path().join(BEST))
        .filter(|path| path.with_file_name(SUMMARY).is_file())
        .filter_map(model)
        .collect();
    found.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
    found
}

/// The pinned model of a kind.
///
/// # Errors
/// The list of pins cannot be read, or the pinned model is gone.
pub fn pinned(runs: &Path, kind: ModelKind) -> Result<Option<PathBuf>> {
    let Some(path) = Pins::read(runs)?.of(kind).take() else { return Ok(None) };
    let path = runs.join(path);
    match path.is_file() {
        true => Ok(Some(path)),
        false => Err(Error::Config(format!(
            "the pinned {} {} does not exist; pin another one with `visage use RUN`, or run \
             `visage use --unset`",
            kind.name(),
            path.display()
        ))),
    }
}

/// Pins a model for its kind, and returns the kind.
///
/// # Errors
/// `model` is no model file of Visage, or the list of pins cannot be written.
pub fn pin(runs: &Path, model: &Path) -> Result<ModelKind> {
    let kind = ModelCard::peek(model)?.kind;
    let full = |path: &Path| path.canonicalize().map_err(|source| Error::io(path, source));
    let model = full(model)?;
    files::create_folder(runs)?;
    let short = model.strip_prefix(full(runs)?).unwrap_or(&model).to_owned();
    let mut pins = Pins::read(runs)?;
    *pins.of(kind) = Some(short);
    let text = toml::to_string(&pins).map_err(|error| Error::Config(error.to_string()))?;
    files::write_atomically(&runs.join(PINS), |out| {
        std::io::Write::write_all(out, format!("# Written by `visage use`.\n{text}").as_bytes())
    })?;
    Ok(kind)
}

/// Removes all pins; false if there were none.
///
/// # Errors
/// The list of pins cannot be removed.
pub fn unpin(runs: &Path) -> Result<bool> {
    let path = runs.join(PINS);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(&path, error)),
    }
}

/// The model of a flag (a file or a run folder); without a flag the pinned one of `kinds`, in the order
/// of preference, or else the newest of a finished run.
///
/// # Errors
/// As [`pinned`] and [`model_path`].
pub fn find(runs: &Path, flag: Option<&Path>, kinds: &[ModelKind]) -> Result<Option<Choice>> {
    if let Some(path) = flag {
        return Ok(Some(Choice { path: model_path(path)?, by: ChosenBy::Flag }));
    }
    for &kind in kinds {
        if let Some(path) = pinned(runs, kind)? {
            return Ok(Some(Choice { path, by: ChosenBy::Pin }));
        }
    }
    let models = list(runs);
    let newest = |kind: &ModelKind| models.iter().rev().find(|model| model.card.kind == *kind);
    let found = kinds.iter().find_map(newest);
    Ok(found.map(|model| Choice { path: model.path.clone(), by: ChosenBy::Age }))
}

/// As [`find`], where there has to be a model.
///
/// # Errors
/// As [`find`]; there is no model: says which command trains one.
pub fn choose(runs: &Path, flag: Option<&Path>, kinds: &[ModelKind]) -> Result<Choice> {
    find(runs, flag, kinds)?.ok_or_else(|| {
        let kind = kinds.last().copied().unwrap_or(ModelKind::Trunk);
        let command = match kind {
            ModelKind::Trunk => "train-triplet",
            ModelKind::Classifier => "train-classifier",
            ModelKind::Pairs => "train-pairs",
        };
        let flag = if kinds == [ModelKind::Trunk] { "--trunk" } else { "--model" };
        Error::Config(format!(
            "there is no trained {} under {}; run `visage {command}` first, or name a model file or \
             a run folder with {flag}",
            kind.name(),
            runs.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Architecture, Backbone};
    use crate::weights::TensorFile;

    fn model(folder: &Path, kind: ModelKind) {
        let trunk = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
        let mut file = TensorFile::default();
        ModelCard::new(kind, &trunk, "none".into()).store(&mut file);
        file.write(&folder.join(BEST)).unwrap();
        std::fs::write(folder.join(SUMMARY), "{}").unwrap();
    }

    #[test]
    fn a_pin_comes_before_the_newest_run_of_any_kind() {
        use ModelKind::{Classifier, Trunk};
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let both = [Classifier, Trunk];
        assert_eq!(find(&runs, None, &both).unwrap(), None);
        let none = choose(&runs, None, &both).unwrap_err().to_string();
        assert!(none.contains("no trained trunk") && none.contains("--model"), "{none}");
        for (name, kind) in [("a", Trunk), ("b", Trunk), ("c", Classifier)] {
            model(&runs.join(name), kind);
        }
        let found = |kinds: &[ModelKind]| {
            let found = choose(&runs, None, kinds).unwrap();
            let name = found.path.parent().unwrap().file_name().unwrap().to_owned();
            (name.into_string().unwrap(), found.by)
        };
        assert_eq!(found(&[Trunk]), ("b".into(), ChosenBy::Age));
        assert_eq!(found(&both), ("c".into(), ChosenBy::Age));
        assert_eq!(pin(&runs, &runs.join("a").join(BEST)).unwrap(), Trunk);
        assert_eq!(found(&[Trunk]), ("a".into(), ChosenBy::Pin));
        assert_eq!(found(&both), ("a".into(), ChosenBy::Pin));
        assert_eq!(found(&[Classifier]), ("c".into(), ChosenBy::Age));
        let given = choose(&runs, Some(&runs.join("b")), &both).unwrap();
        assert_eq!(given, Choice { path: runs.join("b").join(BEST), by: ChosenBy::Flag });

        std::fs::remove_dir_all(runs.join("a")).unwrap();
        let gone = find(&runs, None, &both).unwrap_err().to_string();
        assert!(gone.contains("pinned trunk") && gone.contains("--unset"), "{gone}");
        assert!(unpin(&runs).unwrap());
        assert!(!unpin(&runs).unwrap());
        assert_eq!(found(&[Trunk]), ("b".into(), ChosenBy::Age));
    }
}
