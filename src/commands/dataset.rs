//! A labelled folder opened for training: pictures decoded, split drawn or read, parts counted.

use crate::data::folder::FaceFolder;
use crate::data::near_duplicates;
use crate::data::source::{self, Source};
use crate::data::split::{Part, Split};
use crate::recognise::DataCard;
use crate::train::progress::Reporter;
use crate::train::settings::DataSettings;
use crate::train::triplet::Parts;
use crate::{Error, Result};

use super::output::count;

/// Pictures, identities and their split.
pub struct Dataset {
    /// The decoded pictures.
    pub folder: FaceFolder,
    /// Which part each is in.
    pub split: Split,
    /// The same as indices.
    pub parts: Parts,
    /// What a model file says about the data.
    pub card: DataCard,
}

/// Decodes every picture of a folder at `size`, with a progress bar; tells what was skipped.
pub fn open_folder(
    root: &std::path::Path,
    strict: bool,
    size: u32,
    say: &Reporter,
) -> Result<FaceFolder> {
    let bar = say.progress("reading pictures", 0, "pictures");
    let folder = FaceFolder::open(root, strict, size, &|_, _| bar.inc(1))?;
    bar.finish();
    tell(&folder, say);
    Ok(folder)
}

/// Says what was noticed and what could not be read.
pub fn tell(folder: &FaceFolder, say: &Reporter) {
    for note in &folder.notes {
        say.line(&format!("note: {note}"));
    }
    for (path, reason) in &folder.unreadable {
        say.warn(&format!("skipped {}: {reason}", path.display()));
    }
    if !folder.unreadable.is_empty() {
        let skipped = count(folder.unreadable.len(), "unreadable picture");
        say.warn(&format!("skipped {skipped}; --strict makes that an error"));
    }
}

/// Resolves the data of a training command and opens it.
///
/// # Errors
/// No usable data, or a split that does not fit it.
pub fn open(settings: &DataSettings, size: u32, say: &Reporter) -> Result<Dataset> {
    let Source { path, name, note } =
        source::resolve(settings.data.as_deref(), &std::path::PathBuf::from("."))?;
    if let Some(note) = note {
        say.line(&note);
    }
    let folder = open_folder(&path, settings.strict, size, say)?;
    let split = match &settings.split {
        Some(file) => Split::read_csv(file, &folder)?,
        None => {
            let groups = near_duplicates::groups(&folder.looks);
            Split::stratified(&folder, &groups, settings.val_fraction, settings.seed)?
        }
    };
    let of = |wanted: Part| -> Vec<usize> {
        (0..split.parts.len()).filter(|&i| split.parts[i] == wanted).collect()
    };
    let parts =
        Parts { labels: folder.labels(), train: of(Part::Train), validation: of(Part::Validation) };
    if parts.train.is_empty() {
        return Err(Error::Data(format!("{}: no pictures are left to train on", path.display())));
    }
    say.line(&format!(
        "data: {name}, {} of {}: {} to train, {} to validate",
        count(folder.pictures.len(), "picture"),
        count(folder.identities.len(), "identity").replace("identitys", "identities"),
        parts.train.len(),
        parts.validation.len()
    ));
    let card = DataCard {
        path,
        fingerprint: folder.fingerprint(),
        train: parts.train.len(),
        validation: parts.validation.len(),
    };
    Ok(Dataset { folder, split, parts, card })
}
