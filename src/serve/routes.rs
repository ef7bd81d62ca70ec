//! Routes and their handlers.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::handlers::{people, pictures, server};
use super::refusal::Refusal;
use super::state::ServerState;
use super::{gate, page};

pub fn router(state: Arc<ServerState>) -> Router {
    let missing =
        || async { Refusal::not_found("there is nothing here; GET /openapi.json says where") };
    let wrong = || async {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this takes another method; see /openapi.json")
    };
    Router::new()
        .route("/", get(page::page))
        .route("/openapi.json", get(page::openapi))
        .route("/health", get(server::health))
        .route("/ready", get(server::ready))
        .route("/metrics", get(server::metrics))
        .route("/identify", post(pictures::identify))
        .route("/verify", post(pictures::verify))
        .route("/detect", post(pictures::detect))
        .route("/embed", post(pictures::embed))
        .route("/people", get(people::people))
        .route("/people/{name}", post(people::enrol).delete(people::forget))
        .route("/people/{name}/reject", post(people::reject))
        .route("/unknown", get(people::unknown))
        .route("/unknown/{id}", post(people::promote).delete(people::forget_unknown))
        .route("/reload", post(server::reload))
        .fallback(missing)
        .method_not_allowed_fallback(wrong)
        .layer(from_fn_with_state(state.clone(), gate::gate))
        .with_state(state)
}
