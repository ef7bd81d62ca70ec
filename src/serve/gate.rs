//! What every request passes: where it comes from, what its key allows, the log and the counters.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::body::HttpBody;
use axum::extract::{self, MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body::drain;
use super::keys::{KeyFile, Role};
use super::log::RequestLine;
use super::refusal::Refusal;
use super::state::ServerState;
use super::table;

/// Methods that are counted by name.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"];

/// Lets a request through or refuses it, and notes how it ended.
pub async fn gate(
    extract::State(state): extract::State<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let row = matched.and_then(|path| table::find(method, path));
    let known = table::ROUTES.iter().find(|(_, path, _)| Some(*path) == matched);
    let route = known.map_or("other", |(_, path, _)| *path);
    let needed = row.and_then(|(_, _, role)| *role);
    let mut response = match admit(&state, request.headers(), request.uri().host(), needed) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            drain(request.into_body()).await;
            refusal.into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let (took, status) = (started.elapsed(), response.status().as_u16());
    state.metrics.request(method, route, status, took);
    if let Some(log) = &state.log {
        let bytes = response.body().size_hint().lower();
        log.request(&RequestLine { method, route, status, took, bytes });
    }
    response
}

fn method_name(method: &Method) -> &'static str {
    METHODS.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

fn admit(
    state: &ServerState,
    headers: &HeaderMap,
    authority: Option<&str>,
    needed: Option<Role>,
) -> Result<(), Refusal> {
    let keys = state.keys.read().unwrap_or_else(PoisonError::into_inner);
    let Some(keys) = &*keys else {
        // Whoever can reach this address may do everything: that must not be a web page of somebody else,
        // in a browser on this machine.
        return is_own(state, headers, authority);
    };
    match needed {
        Some(needed) => allows(keys, headers, needed),
        None => Ok(()),
    }
}

/// Checks that the key of a request allows what a role does.
///
/// # Errors
/// It does not.
pub fn demand(state: &ServerState, headers: &HeaderMap, needed: Role) -> Result<(), Refusal> {
    let keys = state.keys.read().unwrap_or_else(PoisonError::into_inner);
    keys.as_ref().map_or(Ok(()), |keys| allows(keys, headers, needed))
}

fn allows(keys: &KeyFile, headers: &HeaderMap, needed: Role) -> Result<(), Refusal> {
    let given: Vec<&[u8]> = keys_of(headers).collect();
    if given.is_empty() {
        let sentence =
            "a key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, sentence));
    }
    match given.into_iter().filter_map(|key| keys.role(key)).max() {
        None => Err(Refusal::new(StatusCode::UNAUTHORIZED, "the key is not known here")),
        Some(role) if role < needed => {
            let sentence = format!("this needs a key of the role {needed}; this one is {role}");
            Err(Refusal::new(StatusCode::FORBIDDEN, sentence))
        }
        Some(_) => Ok(()),
    }
}

/// The keys of a request: one, if it has not both headers.
fn keys_of(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked("Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| key.trim_ascii())
    });
    bearer.into_iter().chain(headers.get("x-api-key").map(HeaderValue::as_bytes))
}

/// The request was made to this server by name or address, by a program or by its own page: no name that
/// was made to point here, and no page of another site.
fn is_own(
    state: &ServerState,
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<(), Refusal> {
    let forbid = |sentence: &str| Err(Refusal::new(StatusCode::FORBIDDEN, sentence));
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or_default();
    let is_local = |name: &str| {
        let name = name.to_ascii_lowercase();
        let own = state.options.host.to_string();
        ["localhost", "127.0.0.1", "[::1]"].contains(&name.as_str())
            || name == own
            || name == format!("[{own}]")
    };
    if !is_local(without_port(host)) || !authority.is_none_or(is_local) {
        return forbid(
            "the Host of the request is another one; use localhost or 127.0.0.1, or give the server \
             keys (--key-file)",
        );
    }
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.split_once("://").is_some_and(|(_, own)| own == host) => Ok(()),
        Some(_) => forbid("requests from pages of other sites are refused"),
    }
}

/// A host without its port: of `[::1]:80` it is `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_keys_are_found() {
        for (host, name) in
            [("localhost:80", "localhost"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a")]
        {
            assert_eq!(without_port(host), name);
        }
        let mut headers = HeaderMap::new();
        assert_eq!(keys_of(&headers).count(), 0);
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("bearer abc"));
        headers.insert("x-api-key", HeaderValue::from_static("d"));
        assert_eq!(keys_of(&headers).collect::<Vec<_>>(), [&b"abc"[..], b"d"]);
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic abc"));
        assert_eq!(keys_of(&headers).collect::<Vec<_>>(), [b"d"]);
    }
}
