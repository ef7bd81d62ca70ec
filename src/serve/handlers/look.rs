//! Pictures of a request on their way through the trunk.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::serve::body::{Upload, Uploads};
use crate::serve::job::{Answer, Job, Work};
use crate::serve::refusal::Refusal;
use crate::serve::state::ServerState;

/// What every handler gets.
pub type Shared = extract::State<Arc<ServerState>>;
/// What every handler gives.
pub type Outcome = Result<Response, Refusal>;
/// A picture, and what came of it.
pub type Looked = (Upload, Result<Answer, Refusal>);

/// Sends pictures through the trunk; returns what came of each, and the deadline of the request.
pub async fn look(
    state: &ServerState,
    Uploads { pictures, held, .. }: Uploads,
    work: Work,
) -> Result<(Vec<Looked>, Instant), Refusal> {
    state.loaded()?;
    let deadline = state.deadline();
    let count = u32::try_from(pictures.len()).unwrap_or(u32::MAX);
    let full = |_| Refusal::busy("the server has as much to do as it can take; try again", 1);
    let mut places = state.places.clone().try_acquire_many_owned(count).map_err(full)?;
    let mut waiting = Vec::new();
    for picture in pictures {
        let (answer, found) = oneshot::channel();
        let place = places.split(1).ok_or_else(Refusal::internal)?;
        let (name, content) = (picture.name.clone(), picture.content.clone());
        let (pixels, _held) = (picture.pixels, (place, held.clone()));
        state.send(Job { work, name, content, pixels, deadline, answer, _held })?;
        waiting.push((picture, found));
    }
    let mut looked = Vec::new();
    for (picture, found) in waiting {
        // A job that is dropped was too late.
        let found = timeout_at(deadline.into(), found).await.map_err(|_| Refusal::late())?;
        let found = found.map_err(|_| Refusal::late())?;
        if let Err(refusal) = &found
            && refusal.status.is_server_error()
        {
            return Err(Refusal::internal());
        }
        looked.push((picture, found));
    }
    Ok((looked, deadline))
}

impl Refusal {
    /// With the name of the picture that it is about.
    pub fn about(mut self, upload: &Upload) -> Self {
        self.more.insert("file".into(), json!(upload.name.to_string_lossy()));
        self
    }
}

pub fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text())),
    }
}
