//! `--strangers`: faces of unknown people.

use std::collections::BTreeSet;
use std::path::Path;

use super::inputs;
use super::output::count;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::models::Backbone;
use crate::progress::Reporter;
use crate::recognise::{StrangerSource, Viewer};
use crate::train::strangers::Strangers;
use crate::words;
use crate::{Error, Result};

/// Embeds the faces on the pictures below `folder`, without those of `identities`, each picture with the
/// name of its person; returns how many pictures cannot be read.
///
/// # Errors
/// The folder cannot be read, or contains no picture of an unknown person that can be read.
pub fn each_stranger(
    trunk: &Backbone,
    viewer: &Viewer,
    folder: &Path,
    identities: &[String],
    say: &Reporter,
    mut each: impl FnMut(&str, &Embeddings) -> Result<()>,
) -> anyhow::Result<usize> {
    let fail = |what: &str| Error::Data(format!("--strangers {}: {what}", folder.display()));
    let mut paths = picture::walk(folder)?;
    paths.retain(|path| !identities.contains(&picture::owner(folder, path)));
    if paths.is_empty() {
        return Err(fail("no pictures of people that the model does not know").into());
    }
    let mut unreadable = 0;
    inputs::embed(trunk, viewer, &paths, say, |path, seen| {
        match seen {
            Ok((_, faces)) => each(&picture::owner(folder, path), &faces)?,
            Err(error) => {
                say.warn(&format!("skipped {error}"));
                unreadable += 1;
            }
        }
        Ok(())
    })?;
    match unreadable == paths.len() {
        true => Err(fail("none of the pictures can be read").into()),
        false => Ok(unreadable),
    }
}

/// The strangers below `folder`.
///
/// # Errors
/// As for [`each_stranger`].
pub fn embed_strangers(
    trunk: &Backbone,
    viewer: &Viewer,
    folder: &Path,
    identities: &[String],
    say: &Reporter,
) -> anyhow::Result<Strangers> {
    let (mut values, mut people) = (Vec::new(), BTreeSet::new());
    each_stranger(trunk, viewer, folder, identities, say, |person, faces| {
        values.extend_from_slice(faces.values());
        if faces.rows() > 0 {
            people.insert(person.to_owned());
        }
        Ok(())
    })?;
    let dim = trunk.embedding_dim as usize;
    let rows = values.len() / dim.max(1);
    let people = people.len();
    if people == 0 {
        let text = format!("--strangers {}: no face is found on any picture", folder.display());
        return Err(Error::Data(text).into());
    }
    say.line(&format!(
        "strangers: {} of {} from {}",
        count(rows, "face"),
        words::people(people),
        folder.display()
    ));
    let source = StrangerSource::Folder(folder.to_string_lossy().into_owned());
    Ok(Strangers { views: vec![Embeddings::new(rows, dim, values)?], people, source })
}
