//! The page for people, and the description for programs.

use std::fmt::Write;
use std::sync::OnceLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");
const OPENAPI: &str = include_str!("openapi.json");

pub async fn page() -> Response {
    static POLICY: OnceLock<String> = OnceLock::new();
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.get_or_init(|| policy(PAGE))),
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=()"),
    ];
    (headers, PAGE).into_response()
}

pub async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// Only this page's own style and script may run, and nothing but this server may be spoken to.
fn policy(page: &str) -> String {
    let mut policy =
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      connect-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:"
            .to_owned();
    for tag in ["style", "script"] {
        let _ = write!(policy, "; {tag}-src 'self'");
        for part in page.split(&format!("<{tag}>")).skip(1) {
            let own = part.split(&format!("</{tag}>")).next().unwrap_or_default();
            let digest = BASE64_STANDARD.encode(Sha256::digest(own));
            let _ = write!(policy, " 'sha256-{digest}'");
        }
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_has_the_hashes_of_the_pages_own_parts() {
        // printf 'a{}' | openssl dgst -sha256 -binary | base64
        let policy = policy("<head><style>a{}</style></head><script>1</script>");
        assert!(policy.contains("style-src 'self' 'sha256-"), "{policy}");
        let digest = BASE64_STANDARD.encode(Sha256::digest("1"));
        assert!(policy.ends_with(&format!("script-src 'self' 'sha256-{digest}'")), "{policy}");
    }
}
