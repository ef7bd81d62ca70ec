//! Opens a labelled folder for training: decodes the pictures, makes or reads the split.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::output::{count, identities};
use crate::data::celeba::{Celeba, CelebaFiles, CelebaPart};
use crate::data::disjoint::disjoint;
use crate::data::split::{Part, Split};
use crate::data::{FaceFolder, Fitting, Source, near_duplicates, picture, source};
use crate::recognise::DataCard;
use crate::train::progress::Reporter;
use crate::train::settings::DataSettings;
use crate::train::triplet::Parts;
use crate::{Error, Result};

/// Pictures, identities and their split.
pub struct Dataset {
    /// The decoded pictures.
    pub folder: FaceFolder,
    /// The part of each picture.
    pub split: Split,
    /// The split as indices.
    pub parts: Parts,
    /// The entry about the data in model files.
    pub card: DataCard,
}

impl Dataset {
    fn new(path: &Path, folder: FaceFolder, split: Split) -> Self {
        let parts = Parts {
            labels: folder.labels(),
            train: split.indices(Part::Train),
            validation: split.indices(Part::Validation),
        };
        let card = DataCard {
            path: path.to_string_lossy().into_owned(),
            fingerprint: folder.fingerprint(),
            train: parts.train.len(),
            validation: parts.validation.len(),
        };
        Self { folder, split, parts, card }
    }
}

/// How a labelled folder is read.
pub enum Reading {
    /// At least two identities; with `strict`, an unreadable picture is an error.
    Train { strict: bool },
    /// Any number of identities.
    Evaluate,
}

/// Decodes every picture of a folder, with a progress bar; reports what was skipped.
///
/// # Errors
/// No usable folder.
pub fn open_folder(
    root: &Path,
    reading: Reading,
    fitting: impl Into<Fitting>,
    say: &Reporter,
) -> Result<FaceFolder> {
    let found = picture::walk_on(root);
    if let Some(note) = found.note(root) {
        say.line(&format!("note: {note}"));
    }
    let bar = say.progress("reading pictures", found.pictures.len() as u64, "pictures");
    let step = |_: usize, _: usize| bar.inc(1);
    let (folder, advice, flag) = match reading {
        Reading::Train { strict } => {
            (FaceFolder::open(root, strict, fitting, &step)?, STRICT, PICTURE_MEMORY)
        }
        Reading::Evaluate => (FaceFolder::scan(root, false, fitting, &step)?, "", ""),
    };
    bar.finish();
    tell(&folder, advice, flag, say);
    Ok(folder)
}

/// Reports the notes on a folder, and what was skipped.
fn tell(folder: &FaceFolder, advice: &str, flag: &str, say: &Reporter) {
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

/// Resolves the data of a training command and opens it. Without `--split`, pictures keep their parts
/// of `inherited`, the split file of the initial trunk, so that no picture the trunk was trained on
/// is used for validation.
///
/// # Errors
/// No usable data, or a split that does not fit it.
pub fn open(
    settings: &DataSettings,
    inherited: Option<PathBuf>,
    size: u32,
    say: &Reporter,
) -> Result<Dataset> {
    if settings.data.is_none() && source::locate(Path::new(".")).is_none() {
        say.line("downloading the ORL faces (once) ...");
    }
    let Source { path, name, note } = source::resolve(settings.data.as_deref(), Path::new("."))?;
    if let Some(note) = note {
        say.line(&note);
    }
    let reading = Reading::Train { strict: settings.strict };
    let folder = open_folder(&path, reading, settings.fitting(size), say)?;
    let split = split(settings, inherited, &folder, say)?;
    for note in &split.notes {
        say.line(&format!("note: {note}"));
    }
    let data = Dataset::new(&path, folder, split);
    let Dataset { folder, parts, .. } = &data;
    if parts.train.is_empty() {
        return Err(Error::Data(format!("{}: no pictures left to train on", path.display())));
    }
    say.line(&format!(
        "data: {name}, {} of {}: {} to train, {} to validate",
        count(folder.pictures.len(), "picture"),
        identities(folder.identities.len()),
        parts.train.len(),
        parts.validation.len()
    ));
    Ok(data)
}

/// Opens a folder of identities or CelebA for training on pairs. No person is in two parts; if the
/// file of CelebA's official partition is present, it is used, without the test part.
///
/// # Errors
/// No usable data, or a split that does not fit it.
pub fn open_people(settings: &DataSettings, size: u32, say: &Reporter) -> Result<Dataset> {
    let Source { path, name, note } = source::resolve(settings.data.as_deref(), Path::new("."))?;
    if let Some(note) = note {
        say.line(&note);
    }
    let (folder, split) = match CelebaFiles::find(&path) {
        Ok(files) => celeba(&files, settings, size, say)?,
        Err(_) => {
            let reading = Reading::Train { strict: settings.strict };
            let folder = open_folder(&path, reading, settings.fitting(size), say)?;
            let split = match Split::of_layout(&folder) {
                Some(split) => split,
                None => {
                    let (names, share) = (folder.identities.len(), settings.val_fraction);
                    let people = disjoint(names, share, settings.seed)?;
                    let parts = folder.pictures.iter().map(|face| people[face.identity]).collect();
                    Split { parts, notes: Vec::new() }
                }
            };
            (folder, split)
        }
    };
    let split = match &settings.split {
        Some(file) => Split::read_csv(file, &folder)?,
        None => split,
    };
    for note in &split.notes {
        say.line(&format!("note: {note}"));
    }
    let data = Dataset::new(&path, folder, split);
    let Dataset { folder, parts, .. } = &data;
    let people = |pictures: &[usize]| {
        let owners: BTreeSet<usize> = pictures.iter().map(|&i| parts.labels[i]).collect();
        identities(owners.len())
    };
    say.line(&format!(
        "data: {name}, {} of {}: {} of {} to train, {} of {} to validate",
        count(folder.pictures.len(), "picture"),
        identities(folder.identities.len()),
        parts.train.len(),
        people(&parts.train),
        parts.validation.len(),
        people(&parts.validation),
    ));
    Ok(data)
}

fn celeba(
    files: &CelebaFiles,
    settings: &DataSettings,
    size: u32,
    say: &Reporter,
) -> Result<(FaceFolder, Split)> {
    let mut celeba = Celeba::open(files, settings.val_fraction, settings.seed)?;
    let of_test = celeba.parts.iter().filter(|part| **part == CelebaPart::Test).count();
    if of_test > 0 {
        let which = count(of_test, "picture");
        celeba.notes.push(format!("left out {which} of the official test part"));
        celeba.retain(|_, part| part != CelebaPart::Test);
    }
    let bar = say.progress("reading pictures", celeba.pictures.len() as u64, "pictures");
    let (folder, parts) =
        celeba.read(settings.strict, settings.fitting(size), &|_, _| bar.inc(1))?;
    bar.finish();
    tell(&folder, STRICT, PICTURE_MEMORY, say);
    let part = |part: &CelebaPart| match part {
        CelebaPart::Train => Part::Train,
        CelebaPart::Validation | CelebaPart::Test => Part::Validation,
    };
    Ok((folder, Split { parts: parts.iter().map(part).collect(), notes: Vec::new() }))
}

fn split(
    settings: &DataSettings,
    inherited: Option<PathBuf>,
    folder: &FaceFolder,
    say: &Reporter,
) -> Result<Split> {
    if let Some(file) = &settings.split {
        return Split::read_csv(file, folder);
    }
    if let Some(split) = Split::of_layout(folder) {
        return Ok(split);
    }
    let groups = || {
        if folder.pictures.len() > 1000 {
            say.line("searching for near-duplicates ...");
        }
        near_duplicates::groups(&folder.looks)
    };
    if let Some(file) = inherited.filter(|file| file.is_file())
        && let Some(carried) = Split::carry_over(&file, folder, groups)?
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
