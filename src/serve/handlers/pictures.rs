//! Routes that look at pictures: who is it, are they the same, where are faces, their embeddings.

use std::path::Path;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{self, Query};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::gallery::{failed, refresh};
use super::look::{Looked, Outcome, Shared, look, parsed};
use crate::Error;
use crate::eval::distance::euclidean;
use crate::gallery::Gallery;
use crate::recognise::reply::{AnswerFormat, Compared, Reply, answer, bounds, detected, short};
use crate::serve::body;
use crate::serve::gate;
use crate::serve::job::{Answer, Work};
use crate::serve::keys::Role;
use crate::serve::queue::sha256;
use crate::serve::refusal::{Refusal, reply};
use crate::serve::state::ServerState;

/// The number of candidates of `?top=`.
const MOST: usize = 100;

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
