//! Routes and their handlers.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::refusal::Refusal;
use super::state::ServerState;
use super::{gate, handlers, page};

pub fn router(state: Arc<ServerState>) -> Router {
    let missing =
        || async { Refusal::not_found("there is nothing here; GET /openapi.json says where") };
    let wrong = || async {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this takes another method; see /openapi.json")
    };
    Router::new()
        .route("/", get(page::page))
        .route("/openapi.json", get(page::openapi))
        .route("/health", get(handlers::health))
        .route("/ready", get(handlers::ready))
        .route("/metrics", get(handlers::metrics))
        .route("/identify", post(handlers::identify))
        .route("/verify", post(handlers::verify))
        .route("/detect", post(handlers::detect))
        .route("/embed", post(handlers::embed))
        .route("/people", get(handlers::people))
        .route("/people/{name}", post(handlers::enrol).delete(handlers::forget))
        .route("/people/{name}/reject", post(handlers::reject))
        .route("/unknown", get(handlers::unknown))
        .route("/unknown/{id}", post(handlers::promote).delete(handlers::forget_unknown))
        .route("/reload", post(handlers::reload))
        .fallback(missing)
        .method_not_allowed_fallback(wrong)
        .layer(from_fn_with_state(state.clone(), gate::gate))
        .with_state(state)
}
