//! Requests that are refused: a status and a sentence.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::Error;

/// Why a request is not answered.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub sentence: String,
    /// After how many seconds another try makes sense.
    pub retry: Option<u32>,
    /// Further keys of the reply.
    pub more: Map<String, Value>,
}

impl Refusal {
    pub fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry: None, more: Map::new() }
    }

    pub fn bad_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }

    pub fn not_found(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }

    pub fn too_large(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    }

    pub fn unprocessable(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
    }

    /// Not now.
    pub fn busy(sentence: impl Into<String>, seconds: u32) -> Self {
        let retry = Some(seconds);
        Self { retry, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, sentence) }
    }

    /// The deadline has passed.
    pub fn late() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "the request took longer than the server allows")
    }

    /// What the client can do nothing about; the error itself, which may name files of the server, goes to
    /// the log.
    pub fn internal() -> Self {
        let sentence = "something went wrong in the server; its log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
    }
}

/// An error about one picture, whose name is the client's own.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Picture { .. } => Self::bad_request(error.to_string()),
            _ => Self::unprocessable(error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut object = Map::new();
        object.insert("error".into(), json!(self.sentence));
        object.extend(self.more);
        let mut response = (self.status, reply(&Value::Object(object))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"visage\"");
            headers.insert(header::WWW_AUTHENTICATE, bearer);
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A JSON reply.
pub fn reply(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
