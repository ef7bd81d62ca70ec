//! Answers out of the gallery, and what its errors are answered with.

use std::time::Instant;

use serde_json::Value;

use super::look::Outcome;
use crate::Error;
use crate::gallery::Gallery;
use crate::serve::refusal::{Refusal, reply};
use crate::serve::state::ServerState;

/// The answer that `body` makes out of the gallery, by the deadline of the request.
pub async fn in_gallery(
    state: &ServerState,
    deadline: Instant,
    body: impl FnOnce(&mut Gallery) -> Result<Value, Refusal> + Send + 'static,
) -> Outcome {
    Ok(reply(&state.in_gallery(deadline, body).await?))
}

/// The gallery as it is in the file now.
pub fn refresh(state: &ServerState, gallery: &mut Gallery) -> Result<(), Refusal> {
    gallery.refresh().map(drop).map_err(|error| failed(state, &error))
}

/// An error of the gallery's file.
pub fn failed(state: &ServerState, error: &Error) -> Refusal {
    state.trouble(&error.to_string());
    match error.to_string().contains("in use by another process") {
        true => Refusal::busy("the gallery is in use by another process; try again", 2),
        false => Refusal::internal(),
    }
}

/// The gallery says that what was asked for is not there, or that something is wrong with its file.
pub fn missing(state: &ServerState, error: &Error, sentence: String) -> Refusal {
    match error {
        Error::Config(_) => Refusal::not_found(sentence),
        _ => failed(state, error),
    }
}
