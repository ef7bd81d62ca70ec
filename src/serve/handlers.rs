//! What each route does.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{self, Query};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::body::{self, Upload, Uploads};
use super::gate;
use super::job::{Answer, Job, Work};
use super::keys::{KeyFile, Role};
use super::queue::sha256;
use super::refusal::{Refusal, reply};
use super::state::ServerState;
use crate::Error;
use crate::eval::distance::euclidean;
use crate::gallery::{Gallery, NewFace, check_name, left_out_json};
use crate::recognise::reply::{AnswerFormat, Compared, Reply, answer, bounds, detected, short};

type Shared = extract::State<Arc<ServerState>>;
type Outcome = Result<Response, Refusal>;
/// A part of the path.
type Part = Result<extract::Path<String>, PathRejection>;

/// The number of candidates of `?top=`.
const MOST: usize = 100;

/// A picture, and what came of it.
type Looked = (Upload, Result<Answer, Refusal>);

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

/// The query of `/identify`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentifyQuery {
    #[serde(default)]
    remember: bool,
    top: Option<usize>,
}

pub async fn identify(
    extract::State(state): Shared,
    query: Result<Query<IdentifyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let IdentifyQuery { remember, top } = parsed(query)?;
    let top = top.unwrap_or(1);
    if !(1..=MOST).contains(&top) {
        return Err(Refusal::bad_request(format!("top: expected a number from 1 to {MOST}")));
    }
    if remember && let Err(refusal) = gate::demand(&state, &headers, Role::Enrol) {
        body::drain(body).await;
        return Err(refusal);
    }
    let uploads = body::uploads(&state, &headers, body, &["image"]).await?;
    let is_batch = uploads.is_batch;
    let (looked, deadline) = look(&state, uploads, Work::Faces).await?;
    let own = state.clone();
    let replies = state
        .in_gallery(deadline, move |gallery| {
            refresh(&own, gallery)?;
            looked.into_iter().map(|one| named(&own, gallery, one, top, remember)).collect()
        })
        .await?;
    listed(replies, is_batch, Map::new())
}

/// The reply about one picture.
fn named(
    state: &ServerState,
    gallery: &mut Gallery,
    (upload, found): Looked,
    top: usize,
    remember: bool,
) -> Result<Result<Value, Refusal>, Refusal> {
    let (view, rows) = match found {
        Ok(Answer::Faces(view, rows)) => (view, rows),
        Ok(_) => return Err(Refusal::internal()),
        Err(refusal) => return Ok(Err(refusal.about(&upload))),
    };
    let fail = |error: Error| failed(state, &error);
    let mut faces = answer(gallery, &view, &rows).map_err(fail)?;
    if remember {
        let sha256 = || Ok(sha256(&upload.content));
        gallery.remember_strangers(&upload.name, sha256, &view, &rows, &mut faces).map_err(fail)?;
    }
    // The folder of the gallery is nobody's business.
    let model = gallery.path().file_name().map(Path::new).unwrap_or(gallery.path());
    let format = AnswerFormat { identifier: gallery, top, model, shows_reasons: false };
    let picture = Reply { path: &upload.name, size: view.size, is_crop: view.is_crop, faces };
    Ok(Ok(picture.json(&format)))
}

/// The query of `/verify`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyQuery {
    threshold: Option<f64>,
}

pub async fn verify(
    extract::State(state): Shared,
    query: Result<Query<VerifyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let asked = parsed(query)?.threshold;
    if asked.is_some_and(|threshold| !(threshold > 0.0 && threshold.is_finite())) {
        return Err(Refusal::bad_request("threshold: expected a distance above 0"));
    }
    let mut uploads = body::uploads(&state, &headers, body, &["image1", "image2"]).await?;
    let count = uploads.pictures.len();
    if count != 2 {
        return Err(Refusal::bad_request(format!("expected two pictures, not {count}")));
    }
    // Whatever their order in the request.
    uploads.pictures.sort_by(|a, b| a.field.cmp(&b.field));
    let loaded = state.loaded()?;
    let threshold = asked.or(loaded.threshold).ok_or_else(|| {
        Refusal::bad_request("the trunk has no threshold of its own; give ?threshold=DISTANCE")
    })?;
    let (looked, _) = look(&state, uploads, Work::Main).await?;
    let mut rows = Vec::new();
    let mut names = Vec::new();
    for (upload, found) in looked {
        let found = found.map_err(|refusal| refusal.about(&upload))?;
        let Answer::Main(row) = found else { return Err(Refusal::internal()) };
        if row.rows() == 0 {
            let sentence = format!("{}: no face found", upload.name.display());
            return Err(Refusal::unprocessable(sentence));
        }
        rows.push(row.row(0).to_vec());
        names.push(upload.name);
    }
    let ([a, b], [first, second]) = (&rows[..], &names[..]) else {
        return Err(Refusal::internal());
    };
    let distance = f64::from(euclidean(a, b));
    if !distance.is_finite() {
        state.trouble("the embeddings are not finite: the trunk's weights are broken");
        return Err(Refusal::internal());
    }
    let probability = loaded.probability.map(|curve| curve.probability(distance));
    let compared = Compared { distance, threshold, probability };
    Ok(reply(&compared.json(&loaded.name, first, second)))
}

pub async fn detect(extract::State(state): Shared, headers: HeaderMap, body: Body) -> Outcome {
    let uploads = body::uploads(&state, &headers, body, &["image"]).await?;
    let is_batch = uploads.is_batch;
    let (looked, _) = look(&state, uploads, Work::Detect).await?;
    let replies = looked.into_iter().map(|(upload, found)| match found {
        Ok(Answer::Detected(faces)) => Ok(detected(&upload.name, &faces)),
        Ok(_) => Err(Refusal::internal()),
        Err(refusal) => Err(refusal.about(&upload)),
    });
    listed(replies.collect(), is_batch, Map::new())
}

pub async fn embed(extract::State(state): Shared, headers: HeaderMap, body: Body) -> Outcome {
    let uploads = body::uploads(&state, &headers, body, &["image"]).await?;
    let is_batch = uploads.is_batch;
    let (looked, _) = look(&state, uploads, Work::Faces).await?;
    let replies = looked.into_iter().map(|(upload, found)| {
        let (view, rows) = match found {
            Ok(Answer::Faces(view, rows)) => (view, rows),
            Ok(_) => return Err(Refusal::internal()),
            Err(refusal) => return Err(refusal.about(&upload)),
        };
        let face = |(row, face): (usize, &Option<crate::detect::Face>)| {
            json!({ "box": bounds(face.as_ref(), view.size).map(short),
                    "detection": face.map(|face| f64::from(face.probability)),
                    "embedding": rows.row(row) })
        };
        let faces: Vec<Value> = view.faces.iter().enumerate().map(face).collect();
        Ok(json!({ "file": upload.name.to_string_lossy(), "faces": faces }))
    });
    let trunk = &state.loaded()?.trunk;
    let trunk = json!({ "architecture": trunk.architecture, "fingerprint": trunk.fingerprint,
                        "embedding": trunk.dim });
    listed(replies.collect(), is_batch, Map::from_iter([("trunk".to_owned(), trunk)]))
}

pub async fn people(extract::State(state): Shared) -> Outcome {
    let own = state.clone();
    let list = move |gallery: &mut Gallery| {
        refresh(&own, gallery)?;
        let mut list = gallery.list_json().map_err(|error| failed(&own, &error))?;
        // Where the trunk's file is concerns the server alone.
        if let Some(trunk) = list.get_mut("trunk").and_then(Value::as_object_mut) {
            trunk.remove("source");
        }
        Ok(list)
    };
    let deadline = state.deadline();
    Ok(reply(&state.in_gallery(deadline, list).await?))
}

pub async fn enrol(
    extract::State(state): Shared,
    name: Part,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let (name, faces, left_out, deadline) = faces_of(&state, name, &headers, body).await?;
    let own = state.clone();
    let enrol = move |gallery: &mut Gallery| {
        refresh(&own, gallery)?;
        let fail = |error| failed(&own, &error);
        gallery.use_trunk(own.loaded()?.trunk.clone(), None).map_err(fail)?;
        let enrolled = gallery.enrol(&name, &faces).map_err(fail)?;
        let mut object = gallery.enrolled_json(1, &enrolled, &left_out);
        if let Some(object) = object.as_object_mut() {
            object.remove("db");
        }
        Ok(object)
    };
    Ok(reply(&state.in_gallery(deadline, enrol).await?))
}

pub async fn reject(
    extract::State(state): Shared,
    name: Part,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let (name, faces, left_out, deadline) = faces_of(&state, name, &headers, body).await?;
    let own = state.clone();
    let reject = move |gallery: &mut Gallery| {
        gallery.reject(&name, &faces).map_err(|error| missing(&own, &error, nobody(&name)))?;
        Ok(json!({ "rejected": faces.len(), "left_out": left_out_json(&left_out) }))
    };
    Ok(reply(&state.in_gallery(deadline, reject).await?))
}

pub async fn forget(extract::State(state): Shared, name: Part) -> Outcome {
    let name = person(name)?;
    let own = state.clone();
    let forget = move |gallery: &mut Gallery| {
        let fail = |error| missing(&own, &error, nobody(&name));
        Ok(json!({ "forgotten": gallery.forget(&name).map_err(fail)? }))
    };
    let deadline = state.deadline();
    Ok(reply(&state.in_gallery(deadline, forget).await?))
}

pub async fn unknown(extract::State(state): Shared) -> Outcome {
    let own = state.clone();
    let list = move |gallery: &mut Gallery| {
        Ok(json!({ "unknown": gallery.unknown().map_err(|error| failed(&own, &error))? }))
    };
    let deadline = state.deadline();
    Ok(reply(&state.in_gallery(deadline, list).await?))
}

pub async fn promote(
    extract::State(state): Shared,
    id: Part,
    headers: HeaderMap,
    body: Body,
) -> Outcome {
    let object = body::object(&state, &headers, body).await?;
    let group = group(id)?;
    let name = match object.get("name") {
        Some(Value::String(name)) if object.len() == 1 => name.clone(),
        _ => return Err(Refusal::bad_request("expected {\"name\": \"...\"}")),
    };
    check_name(&name).map_err(|_| impossible(&name))?;
    let own = state.clone();
    let promote = move |gallery: &mut Gallery| {
        let fail = |error| missing(&own, &error, no_group(group));
        let enrolled = gallery.promote(group, &name).map_err(fail)?;
        Ok(json!({ "enrolled": enrolled.added, "name": name }))
    };
    let deadline = state.deadline();
    Ok(reply(&state.in_gallery(deadline, promote).await?))
}

pub async fn forget_unknown(extract::State(state): Shared, id: Part) -> Outcome {
    let group = group(id)?;
    let own = state.clone();
    let forget = move |gallery: &mut Gallery| match gallery.forget_unknown(Some(group)) {
        Ok(0) => Err(Refusal::not_found(no_group(group))),
        Ok(groups) => Ok(json!({ "forgotten": groups })),
        Err(error) => Err(failed(&own, &error)),
    };
    let deadline = state.deadline();
    Ok(reply(&state.in_gallery(deadline, forget).await?))
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
    let deadline = state.deadline();
    Ok(reply(&state.in_gallery(deadline, load).await?))
}

/// Sends pictures through the trunk; returns what came of each, and the deadline of the request.
async fn look(
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

/// The person in the path, and their faces as [`single_faces`] finds them.
async fn faces_of(
    state: &ServerState,
    name: Part,
    headers: &HeaderMap,
    body: Body,
) -> Result<(String, Vec<NewFace>, Vec<(String, String)>, Instant), Refusal> {
    let name = match person(name) {
        Ok(name) => name,
        Err(refusal) => {
            body::drain(body).await;
            return Err(refusal);
        }
    };
    let (faces, left_out, deadline) = single_faces(state, headers, body).await?;
    Ok((name, faces, left_out, deadline))
}

/// The one face of each picture, and the pictures that have none.
async fn single_faces(
    state: &ServerState,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Vec<NewFace>, Vec<(String, String)>, Instant), Refusal> {
    let uploads = body::uploads(state, headers, body, &["image"]).await?;
    let (looked, deadline) = look(state, uploads, Work::OneFace).await?;
    let (mut faces, mut left_out, mut first) = (Vec::new(), Vec::new(), None);
    for (upload, found) in looked {
        match found {
            Ok(Answer::OneFace(face)) => faces.push(*face),
            Ok(_) => return Err(Refusal::internal()),
            Err(refusal) => {
                let name = upload.name.to_string_lossy().into_owned();
                left_out.push((name, refusal.sentence.clone()));
                first.get_or_insert(refusal.about(&upload));
            }
        }
    }
    match first {
        Some(mut refusal) if faces.is_empty() => {
            refusal.more.insert("left_out".into(), left_out_json(&left_out));
            Err(refusal)
        }
        _ => Ok((faces, left_out, deadline)),
    }
}

/// One reply, or a list in which a picture that cannot be read has an error.
fn listed(
    replies: Vec<Result<Value, Refusal>>,
    is_batch: bool,
    mut head: Map<String, Value>,
) -> Outcome {
    if is_batch {
        let pictures = replies.into_iter().map(|reply| match reply {
            Ok(value) => value,
            Err(refusal) => {
                let mut object = refusal.more;
                object.insert("error".into(), json!(refusal.sentence));
                Value::Object(object)
            }
        });
        head.insert("pictures".into(), pictures.collect());
        return Ok(reply(&Value::Object(head)));
    }
    let one = replies.into_iter().next().unwrap_or_else(|| Err(Refusal::internal()))?;
    if let Value::Object(own) = one {
        head.extend(own);
    }
    Ok(reply(&Value::Object(head)))
}

impl Refusal {
    /// With the name of the picture that it is about.
    fn about(mut self, upload: &Upload) -> Self {
        self.more.insert("file".into(), json!(upload.name.to_string_lossy()));
        self
    }
}

/// The gallery as it is in the file now.
fn refresh(state: &ServerState, gallery: &mut Gallery) -> Result<(), Refusal> {
    gallery.refresh().map(drop).map_err(|error| failed(state, &error))
}

/// An error of the gallery's file.
fn failed(state: &ServerState, error: &Error) -> Refusal {
    state.trouble(&error.to_string());
    match error.to_string().contains("in use by another process") {
        true => Refusal::busy("the gallery is in use by another process; try again", 2),
        false => Refusal::internal(),
    }
}

/// The gallery says that what was asked for is not there, or that something is wrong with its file.
fn missing(state: &ServerState, error: &Error, sentence: String) -> Refusal {
    match error {
        Error::Config(_) => Refusal::not_found(sentence),
        _ => failed(state, error),
    }
}

fn nobody(name: &str) -> String {
    format!("{name}: nobody of that name is enrolled")
}

fn no_group(group: i64) -> String {
    format!("{group}: there is no unknown person of that number")
}

fn impossible(name: &str) -> Refusal {
    Refusal::bad_request(format!(
        "{name:?}: a name has letters, no control characters and no space at its ends"
    ))
}

/// The name of a person in the path.
fn person(part: Part) -> Result<String, Refusal> {
    let extract::Path(name) =
        part.map_err(|_| Refusal::bad_request("the name in the path is no percent-encoded UTF-8"))?;
    match check_name(&name) {
        Ok(()) => Ok(name),
        Err(_) => Err(impossible(&name)),
    }
}

/// The number of an unknown person in the path.
fn group(part: Part) -> Result<i64, Refusal> {
    let text = part.map(|extract::Path(text)| text).unwrap_or_default();
    text.parse().map_err(|_| {
        Refusal::not_found(format!(
            "{text:?}: unknown people have numbers; GET /unknown lists them"
        ))
    })
}

fn parsed<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Refusal::new(StatusCode::BAD_REQUEST, rejection.body_text())),
    }
}
