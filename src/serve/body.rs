//! Pictures in the body of a request: a multipart form, a raw picture, or JSON with base64.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::refusal::Refusal;
use super::state::ServerState;
use crate::data::picture;

/// The time between two parts of a body ...
const PAUSE: Duration = Duration::from_secs(10);
/// ... and that all of it may take.
const WHOLE: Duration = Duration::from_secs(60);
/// Bytes of a refused body that are read, so that the client sees the refusal instead of a broken
/// connection ...
const DRAINED: usize = 64 << 20;
/// ... and the time for them.
const DRAINING: Duration = Duration::from_secs(2);
/// Characters of a file name that are kept.
const NAME: usize = 200;

/// One picture of a request.
#[derive(Debug)]
pub struct Upload {
    /// The field of the form, or the key of the object.
    pub field: String,
    /// The client's name of it, without folders.
    pub name: PathBuf,
    pub content: Bytes,
    pub pixels: u64,
}

/// The pictures of a request.
#[derive(Debug)]
pub struct Uploads {
    pub pictures: Vec<Upload>,
    /// The reply is a list, even for one picture.
    pub is_batch: bool,
    /// Permits for the bytes.
    pub held: Arc<Vec<OwnedSemaphorePermit>>,
}

/// Reads the pictures of a request; `keys` are the names that one picture may have in JSON.
///
/// # Errors
/// The body is too large or too slow, of another kind, or holds no picture.
pub async fn uploads(
    state: &ServerState,
    headers: &HeaderMap,
    body: Body,
    keys: &[&str],
) -> Result<Uploads, Refusal> {
    let kind = BodyKind::of(headers);
    let kind = match kind {
        Ok(kind) => kind,
        Err(refusal) => {
            drain(body).await;
            return Err(refusal);
        }
    };
    let (content, held) = read(state, headers, body).await?;
    let held = Arc::new(held);
    if content.is_empty() {
        return Err(Refusal::bad_request("the request is empty; send a picture"));
    }
    let (mut pictures, is_batch) = match kind {
        BodyKind::Raw => (vec![upload("file", None, 1, content)], false),
        BodyKind::Form(boundary) => {
            let pictures = of_form(content, boundary, keys).await?;
            let is_batch = pictures.len() > 1;
            (pictures, is_batch)
        }
        BodyKind::Json => of_json(&content, keys)?,
    };
    if pictures.is_empty() {
        return Err(Refusal::bad_request("there is no picture in the request; send it as `file`"));
    }
    let most = state.options.queue;
    if pictures.len() > most {
        let sentence = format!("{} pictures; at most {most} in one request", pictures.len());
        return Err(Refusal::too_large(sentence));
    }
    let max_pixels = picture::max_pixels();
    for picture in &mut pictures {
        // A header that cannot be read is for the decoder to explain.
        let (width, height) = picture::size(&picture.content).unwrap_or_default();
        picture.pixels = u64::from(width) * u64::from(height);
        if picture.pixels > max_pixels {
            return Err(Refusal::too_large(format!(
                "{}: {width}x{height} is more than {max_pixels} pixels",
                picture.name.display()
            )));
        }
    }
    Ok(Uploads { pictures, is_batch, held })
}

/// Reads a body of JSON.
///
/// # Errors
/// It is too large or too slow, or no object.
pub async fn object(
    state: &ServerState,
    headers: &HeaderMap,
    body: Body,
) -> Result<Map<String, Value>, Refusal> {
    if !matches!(BodyKind::of(headers), Ok(BodyKind::Json)) {
        drain(body).await;
        let sentence = "this takes a JSON object (Content-Type: application/json)";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
    }
    let (content, _held) = read(state, headers, body).await?;
    parse(&content)
}

fn parse(content: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(content)
        .map_err(|error| Refusal::bad_request(format!("the request is no JSON object: {error}")))
}

/// What a body is.
enum BodyKind {
    Raw,
    Form(String),
    Json,
}

impl BodyKind {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let unsupported =
            |sentence: String| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence));
        let encoding = headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return unsupported("send the body as it is, without Content-Encoding".into());
        }
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.map(|kind| kind.to_str().unwrap_or("?")).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "multipart/form-data" => match multer::parse_boundary(kind) {
                Ok(boundary) => Ok(Self::Form(boundary)),
                Err(_) => Err(Refusal::bad_request("the multipart form has no boundary")),
            },
            "application/json" => Ok(Self::Json),
            "" | "application/octet-stream" => Ok(Self::Raw),
            image if image.starts_with("image/") => Ok(Self::Raw),
            other => unsupported(format!(
                "Content-Type {other:?}: send multipart/form-data with the picture as `file`, a raw \
                 picture as image/* or application/octet-stream, or application/json with base64"
            )),
        }
    }
}

/// Reads a body whole, with permits for its bytes.
async fn read(
    state: &ServerState,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<(Bytes, Vec<OwnedSemaphorePermit>), Refusal> {
    let max = state.options.max_upload;
    let too_large = || Refusal::too_large(format!("the request is larger than {max} bytes"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > max as u64) || body.size_hint().lower() > max as u64 {
        drain(body).await;
        return Err(too_large());
    }
    let (mut content, mut held) = (Vec::new(), Vec::new());
    let mut permitted = 0;
    let all = async {
        loop {
            let slow = || Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request came too slowly");
            let frame = timeout(PAUSE, body.frame()).await.map_err(|_| slow())?;
            let Some(frame) = frame else { return Ok(()) };
            let broken = |_| Refusal::bad_request("the request ended early");
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if content.len() + data.len() > max {
                return Err(too_large());
            }
            if content.len() + data.len() > permitted {
                // In steps that double, so that a small body holds little and a large one few permits.
                let step = (content.len() + data.len() - permitted).max(permitted).max(1 << 14);
                held.push(state.hold(step)?);
                permitted += step;
            }
            content.extend_from_slice(&data);
        }
    };
    let outcome = timeout(WHOLE, all).await.unwrap_or_else(|_| {
        Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request came too slowly"))
    });
    match outcome {
        Ok(()) => Ok((content.into(), held)),
        Err(refusal) => {
            drop((content, held));
            if refusal.status != StatusCode::REQUEST_TIMEOUT {
                drain(body).await;
            }
            Err(refusal)
        }
    }
}

/// Reads the rest of a refused body, within bounds.
pub async fn drain(mut body: Body) {
    let rest = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DRAINED {
                return;
            }
        }
    };
    let _ = timeout(DRAINING, rest).await;
}

/// The pictures of a form: the fields `file`, or those of `keys`.
async fn of_form(content: Bytes, boundary: String, keys: &[&str]) -> Result<Vec<Upload>, Refusal> {
    let broken = |error: multer::Error| {
        Refusal::bad_request(format!("the multipart form cannot be read: {error}"))
    };
    let mut form = multer::Multipart::new(Body::from(content).into_data_stream(), boundary);
    let mut pictures = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "file" && !keys.contains(&name.as_str()) {
            let sentence = format!("the field {name:?} is not known; send pictures as `file`");
            return Err(Refusal::bad_request(sentence));
        }
        let file = field.file_name().map(str::to_owned);
        let content = field.bytes().await.map_err(broken)?;
        pictures.push(upload(&name, file.as_deref(), pictures.len() + 1, content));
    }
    Ok(pictures)
}

/// The pictures of an object: one for each of `keys`, or a list `images`.
fn of_json(content: &[u8], keys: &[&str]) -> Result<(Vec<Upload>, bool), Refusal> {
    let object = parse(content)?;
    let mut pictures = Vec::new();
    let mut is_batch = false;
    let mut add = |key: &str, value: &Value| {
        let number = pictures.len() + 1;
        let text = value.as_str().ok_or_else(|| {
            Refusal::bad_request(format!("{key}: expected a picture as a base64 string"))
        })?;
        // A data URL is base64 with a head.
        let text = match text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
            Some((_, rest)) => rest,
            None => text,
        };
        let content = BASE64_STANDARD
            .decode(text.trim())
            .map_err(|error| Refusal::bad_request(format!("{key}: is no base64: {error}")))?;
        pictures.push(upload(key, None, number, content.into()));
        Ok::<(), Refusal>(())
    };
    for (key, value) in &object {
        match (key.as_str(), value) {
            ("images", Value::Array(list)) => {
                is_batch = true;
                list.iter().try_for_each(|value| add("images", value))?;
            }
            ("images", _) => {
                return Err(Refusal::bad_request("images: expected a list of base64 strings"));
            }
            (key, value) if keys.contains(&key) => add(key, value)?,
            (key, _) => {
                let known = keys.join(", ");
                let sentence = format!("the key {key:?} is not known; expected {known} or images");
                return Err(Refusal::bad_request(sentence));
            }
        }
    }
    Ok((pictures, is_batch))
}

fn upload(field: &str, name: Option<&str>, number: usize, content: Bytes) -> Upload {
    let name = name.and_then(|name| name.rsplit(['/', '\\']).next()).unwrap_or_default();
    let name: String =
        name.chars().filter(|c| !c.is_control()).take(NAME).collect::<String>().trim().to_owned();
    let name = if name.is_empty() { format!("picture {number}") } else { name };
    Upload { field: field.to_owned(), name: name.into(), content, pixels: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_folders_and_no_control_characters() {
        for (given, kept) in [
            (Some("C:\\photos\\a.jpg"), "a.jpg"),
            (Some("../../etc/b\n.png"), "b.png"),
            (Some("dir/"), "picture 3"),
            (None, "picture 3"),
        ] {
            let upload = upload("file", given, 3, Bytes::new());
            assert_eq!(upload.name, PathBuf::from(kept));
        }
    }

    #[test]
    fn json_gives_one_picture_or_a_list() {
        let keys = ["image"];
        let (one, is_batch) = of_json(br#"{"image": "aGk="}"#, &keys).unwrap();
        assert_eq!((one[0].content.as_ref(), is_batch), (&b"hi"[..], false));
        let text = br#"{"images": ["data:image/png;base64,aGk="]}"#;
        let (list, is_batch) = of_json(text, &keys).unwrap();
        assert_eq!((list[0].content.as_ref(), is_batch), (&b"hi"[..], true));
        for wrong in [r#"{"image": 1}"#, r#"{"image": "%"}"#, r#"{"picture": "aGk="}"#, "[]", "{"] {
            let refusal = of_json(wrong.as_bytes(), &keys).unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
