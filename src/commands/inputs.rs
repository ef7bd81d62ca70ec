//! Pictures and folders named on the command line.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::progress::Reporter;
use crate::recognise::{Embedder, View, Viewer, pipeline};

/// Number of files above which a progress bar is shown.
const MANY: usize = 64;

/// All pictures in `inputs`, in the given order, and the number of inputs that failed: those are
/// reported and skipped. Files that look like pictures of unsupported formats are counted in a note.
pub fn collect(inputs: &[PathBuf], say: &Reporter) -> (Vec<PathBuf>, usize) {
    let (mut files, mut failed) = (Vec::new(), 0);
    for input in inputs {
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
