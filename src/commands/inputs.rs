//! Pictures and folders named on the command line.

use std::path::PathBuf;

use crate::data::picture;
use crate::train::progress::Reporter;

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
