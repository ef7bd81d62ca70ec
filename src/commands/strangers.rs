//! `--strangers`: faces of unknown people.

use std::path::{Path, PathBuf};

use super::output::count;
use super::stream;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::models::Backbone;
use crate::train::progress::Reporter;
use crate::{Error, Result};

/// The pictures below `folder`, without those of `identities`.
///
/// # Errors
/// The folder cannot be read or contains no picture of an unknown person.
pub fn stranger_files(folder: &Path, identities: &[String]) -> Result<Vec<PathBuf>> {
    let mut paths = picture::walk(folder)?;
    paths.retain(|path| !identities.contains(&picture::owner(folder, path)));
    if paths.is_empty() {
        return Err(Error::Data(format!(
            "--strangers {}: no pictures of people that the model does not know",
            folder.display()
        )));
    }
    Ok(paths)
}

/// Embeddings of the strangers below `folder`.
///
/// # Errors
/// None of the pictures can be read.
pub fn embed_strangers(
    trunk: &Backbone,
    folder: &Path,
    identities: &[String],
    say: &Reporter,
) -> anyhow::Result<Embeddings> {
    let paths = stranger_files(folder, identities)?;
    let mut values = Vec::new();
    stream::embed_files(trunk, &paths, say, |_, row| {
        match row {
            Ok(row) => values.extend_from_slice(row),
            Err(error) => say.warn(&format!("skipped {error}")),
        }
        Ok(())
    })?;
    let rows = values.len() / trunk.embedding_dim as usize;
    if rows == 0 {
        let text = format!("--strangers {}: none of the pictures can be read", folder.display());
        return Err(Error::Data(text).into());
    }
    say.line(&format!("strangers: {} from {}", count(rows, "picture"), folder.display()));
    Ok(Embeddings::new(rows, trunk.embedding_dim as usize, values)?)
}
