//! Pictures and folders named on the command line.

use std::path::{Path, PathBuf};

use super::output::count;
use crate::data::{formats, picture};
use crate::eval::Embeddings;
use crate::progress::Reporter;
use crate::recognise::{Embedder, View, Viewer, pipeline};
use crate::{Error, Result};

/// Number of files above which a progress bar is shown.
const MANY: usize = 64;

/// All pictures in `inputs`, in the given order, and the number of inputs that failed: those are
/// reported and skipped. Files that look like pictures of unsupported formats are counted in a note.
pub fn collect(inputs: &[PathBuf], say: &Reporter) -> (Vec<PathBuf>, usize) {
    let (mut files, mut failed) = (Vec::new(), 0);
    for input in inputs {
        if let Err(error) = formats::open_packed(input) {
            say.error(&error.to_string());
            failed += 1;
            continue;
        }
        let found = picture::walk_on(input);
        if let Some(note) = found.note(input) {
            say.line(&format!("note: {note}"));
        }
        if found.pictures.is_empty() && found.troubles.is_empty() {
            say.error(&format!("{}: contains no pictures", input.display()));
            failed += 1;
        }
        for trouble in &found.troubles {
            say.error(&trouble.to_string());
        }
        failed += found.troubles.len();
        files.extend(found.pictures);
    }
    (files, failed)
}

/// Embeds the faces on `files` with a progress bar; see [`pipeline::embed_files`].
pub fn embed(
    embedder: &dyn Embedder,
    viewer: &Viewer,
    files: &[PathBuf],
    say: &Reporter,
    each: impl FnMut(&Path, Result<(View, Embeddings)>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bar = (files.len() > MANY).then(|| say.progress("faces", files.len() as u64, "pictures"));
    let done = |count: usize| {
        if let Some(bar) = &bar {
            bar.inc(count as u64);
        }
    };
    pipeline::embed_files(embedder, viewer, files, done, each)
}

/// Embeds one face of each of `files`; returns which of them there is a row for. The others are named in
/// warnings.
///
/// # Errors
/// There is none. An error from libtorch.
pub fn embed_all(
    embedder: &dyn Embedder,
    viewer: &Viewer,
    files: &[PathBuf],
    say: &Reporter,
) -> anyhow::Result<(Vec<usize>, Embeddings)> {
    let (mut number, mut used, mut values) = (0, Vec::new(), Vec::new());
    embed_one_face(embedder, viewer, files, say, |_, row| {
        match row {
            Ok(row) => {
                values.extend_from_slice(row);
                used.push(number);
            }
            Err(error) => say.warn(&format!("skipped {error}")),
        }
        number += 1;
        Ok(())
    })?;
    if used.is_empty() {
        return Err(Error::Data("no face is found on any picture".into()).into());
    }
    let embeddings = Embeddings::new(used.len(), values.len() / used.len(), values)?;
    Ok((used, embeddings))
}

/// Embeds one face of each of `files`: `each` receives a row of numbers, or why there is none. Pictures
/// that were used as they are, because no face was found, are counted in a warning.
pub fn embed_one_face(
    embedder: &dyn Embedder,
    viewer: &Viewer,
    files: &[PathBuf],
    say: &Reporter,
    mut each: impl FnMut(&Path, Result<&[f32]>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut whole = Vec::new();
    embed(embedder, viewer, files, say, |path, seen| match &seen {
        Ok((_, rows)) if rows.rows() == 0 => {
            let text = format!(
                "{}: no face found; with --detect never the picture is used as it is",
                path.display()
            );
            each(path, Err(Error::Data(text)))
        }
        Ok((view, rows)) => {
            if !view.is_crop && view.faces == [None] {
                whole.push(path.to_owned());
            }
            each(path, Ok(rows.row(0)))
        }
        Err(_) => each(path, seen.map(|_| [].as_slice())),
    })?;
    if let Some(first) = whole.first() {
        say.warn(&format!(
            "no face found on {} of {} ({}{}): used as they are; --detect always leaves them out",
            whole.len(),
            count(files.len(), "picture"),
            first.display(),
            if whole.len() > 1 { ", ..." } else { "" }
        ));
    }
    Ok(())
}
