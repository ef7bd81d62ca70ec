//! What puts a name to an embedding: a trained classifier, or a gallery of enrolled people.

use std::borrow::Cow;

use super::recogniser::Answer;
use crate::Result;
use crate::eval::Embeddings;

/// Embeddings to names.
pub trait Identifier {
    /// The name of an identity of an [`Answer`].
    fn name(&self, identity: usize) -> &str;

    /// One answer per embedding.
    ///
    /// # Errors
    /// The embeddings are not of the length of those it knows.
    fn identify(&self, embeddings: &Embeddings) -> Result<Vec<Answer>>;

    /// The picture of a face it knows, by its [`Answer::neighbour`].
    fn picture_of(&self, neighbour: usize) -> Option<Cow<'_, str>>;
}
