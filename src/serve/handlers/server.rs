//! Routes about the server itself.

use std::sync::PoisonError;

use axum::extract;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::gallery::{failed, in_gallery};
use super::look::{Outcome, Shared};
use crate::gallery::Gallery;
use crate::serve::keys::KeyFile;
use crate::serve::refusal::reply;

pub async fn health() -> Response {
    reply(&json!({ "status": "alive" }))
}

pub async fn ready(extract::State(state): Shared) -> Outcome {
    state.loaded()?;
    Ok(reply(&json!({ "status": "ready" })))
}

pub async fn metrics(extract::State(state): Shared) -> Response {
    let waiting = state.options.queue.saturating_sub(state.places.available_permits());
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([kind], state.metrics.text(waiting)).into_response()
}

/// Reads the gallery and the keys again.
pub async fn reload(extract::State(state): Shared) -> Outcome {
    let again = {
        let keys = state.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().map(KeyFile::again)
    };
    let own = state.clone();
    let load = move |gallery: &mut Gallery| {
        let fail = |error| failed(&own, &error);
        if let Some(keys) = again {
            let keys = keys.map_err(fail)?;
            *own.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys);
        }
        let fresh = Gallery::open(gallery.path()).map_err(fail)?;
        if let Some(trunk) = fresh.trunk() {
            trunk.check(&own.loaded()?.trunk).map_err(fail)?;
        }
        *gallery = fresh;
        Ok(json!({ "people": gallery.people(), "faces": gallery.faces() }))
    };
    in_gallery(&state, state.deadline(), load).await
}
