//! Opens labelled pictures: decodes them, and makes or reads the split.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Device;

use super::photos;
use super::settings::DataSettings;
use super::triplet::Parts;
use crate::data::dataset::Dataset;
use crate::data::split::Split;
use crate::data::{self, FaceFolder, Fitting, Source, near_duplicates, source};
use crate::detect::Framing;
use crate::progress::Reporter;
use crate::recognise::{DataCard, ModelCard};
use crate::words::{count, identities};
use crate::{Error, Result};

/// Pictures, identities and their split.
pub struct TrainingData {
    /// The decoded pictures.
    pub folder: FaceFolder,
    /// The part of each picture.
    pub split: Split,
    /// The split as indices.
    pub parts: Parts,
    /// The entry about the data in model files.
    pub card: DataCard,
    /// How the faces were cut out of photos, where they were.
    pub framing: Option<Framing>,
}

impl TrainingData {
    /// What a run folder writes down, and holds a resumed run to.
    pub fn divided(&self) -> (&Split, &FaceFolder, &DataCard) {
        (&self.split, &self.folder, &self.card)
    }

    fn new(path: &Path, folder: FaceFolder, split: Split, framing: Option<Framing>) -> Self {
        let parts = Parts::new(&folder, &split);
        let card = parts.card(path, &folder);
        Self { folder, split, parts, card, framing }
    }
}

/// Decodes every picture of a data set, for commands that do not train.
///
/// # Errors
/// No usable data set.
pub fn open_labelled(root: &Path, side: u32, say: &Reporter) -> Result<FaceFolder> {
    let folder = decode(&data::formats::open(root)?, false, side, say)?;
    report(&folder, "", "", say);
    Ok(folder)
}

/// Decodes every picture of a data set, with a progress bar.
fn decode(
    dataset: &Arc<dyn Dataset>,
    strict: bool,
    fitting: impl Into<Fitting>,
    say: &Reporter,
) -> Result<FaceFolder> {
    let bar = say.progress("reading pictures", dataset.len() as u64, "pictures");
    let folder = FaceFolder::decode(dataset, strict, fitting, &|_, _| bar.inc(1))?;
    bar.finish();
    Ok(folder)
}

/// Reports the notes on a folder, and what was skipped.
fn report(folder: &FaceFolder, advice: &str, flag: &str, say: &Reporter) {
    for note in folder.notes.iter().chain(&folder.fitted.note(flag)) {
        say.line(&format!("note: {note}"));
    }
    for (path, reason) in &folder.unreadable {
        say.warn(&format!("skipped {}: {reason}", path.display()));
    }
    if !folder.unreadable.is_empty() {
        let skipped = count(folder.unreadable.len(), "unreadable picture");
        say.warn(&format!("skipped {skipped}{advice}"));
    }
}

/// The flag of the memory limit, for notes.
pub const PICTURE_MEMORY: &str = " (--picture-memory)";

/// Advice on skipped pictures.
const STRICT: &str = "; use --strict to fail on them";

/// What a split keeps together.
pub enum SplitBy {
    /// Pictures: each identity is in both parts. Without `--split`, pictures keep their parts of the
    /// split file of the initial trunk, if there is one, so that no picture the trunk was trained on is
    /// used for validation.
    Picture {
        /// The split file of the initial trunk.
        inherited: Option<PathBuf>,
    },
    /// Identities: nobody is in both parts.
    Identity,
}

/// Opens the data of a training command with its split. Faces on photos are cut out as `trunk` needs
/// them, by a detector on `device`.
///
/// # Errors
/// No usable data, or a split that does not fit it.
pub fn open(
    settings: &DataSettings,
    by: SplitBy,
    trunk: &ModelCard,
    device: Device,
    say: &Reporter,
) -> Result<TrainingData> {
    let Source { path, name } = source::resolve(settings.data.as_deref(), Path::new("."))?;
    let dataset = data::formats::open(&path)?;
    let (dataset, framing) = photos::cut_faces(dataset, trunk, settings.detect, device, say)?;
    let folder = decode(&dataset, settings.strict, settings.fitting(trunk.input.size), say)?;
    let folder = folder.with_two_identities()?;
    report(&folder, STRICT, PICTURE_MEMORY, say);
    let split = match (&settings.split, Split::official(&folder), &by) {
        (Some(file), ..) => Split::read_csv(file, &folder)?,
        (None, Some(official), _) => official,
        (None, None, SplitBy::Picture { inherited }) => {
            split(settings, inherited.as_deref(), &folder, say)?
        }
        (None, None, SplitBy::Identity) => {
            Split::between_people(&folder, settings.val_fraction, settings.seed)?
        }
    };
    for note in &split.notes {
        say.line(&format!("note: {note}"));
    }
    let data = TrainingData::new(&path, folder, split, framing);
    let TrainingData { folder, parts, .. } = &data;
    if parts.train.is_empty() {
        return Err(Error::Data(format!("{}: no pictures left to train on", path.display())));
    }
    let people = |pictures: &[usize]| {
        let owners: BTreeSet<usize> = pictures.iter().map(|&i| parts.labels[i]).collect();
        match by {
            SplitBy::Picture { .. } => String::new(),
            SplitBy::Identity => format!(" of {}", identities(owners.len())),
        }
    };
    say.line(&format!(
        "data: {name}, {} of {}: {}{} to train, {}{} to validate",
        count(folder.pictures.len(), "picture"),
        identities(folder.identities.len()),
        parts.train.len(),
        people(&parts.train),
        parts.validation.len(),
        people(&parts.validation),
    ));
    Ok(data)
}

/// A split by picture: that of the initial trunk, or a new one that keeps near-duplicates together.
fn split(
    settings: &DataSettings,
    inherited: Option<&Path>,
    folder: &FaceFolder,
    say: &Reporter,
) -> Result<Split> {
    let groups = || {
        if folder.pictures.len() > 1000 {
            say.line("searching for near-duplicates ...");
        }
        near_duplicates::groups(&folder.looks)
    };
    if let Some(file) = inherited.filter(|file| file.is_file())
        && let Some(carried) = Split::carry_over(file, folder, groups)?
    {
        let new = match carried.new {
            0 => String::new(),
            new => format!(", {} new since", count(new, "picture")),
        };
        say.line(&format!(
            "split: {}, the one of the trunk{new} (--val-fraction and --seed are not used)",
            file.display()
        ));
        return Ok(carried.split);
    }
    let groups = match settings.val_fraction > 0.0 {
        true => groups(),
        false => (0..folder.pictures.len()).collect(),
    };
    Split::stratified(folder, &groups, settings.val_fraction, settings.seed)
}
