//! Routes about the people of the gallery, known and unknown.

use std::time::Instant;

use axum::body::Body;
use axum::extract;
use axum::extract::rejection::PathRejection;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::gallery::{failed, in_gallery, missing, refresh};
use super::look::{Outcome, Shared, look};
use crate::gallery::{Gallery, NewFace, check_name, left_out_json};
use crate::serve::body;
use crate::serve::job::{Answer, Work};
use crate::serve::refusal::Refusal;
use crate::serve::state::ServerState;

/// A part of the path.
type Part = Result<extract::Path<String>, PathRejection>;

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
    in_gallery(&state, state.deadline(), list).await
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
    in_gallery(&state, deadline, enrol).await
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
    in_gallery(&state, deadline, reject).await
}

pub async fn forget(extract::State(state): Shared, name: Part) -> Outcome {
    let name = person(name)?;
    let own = state.clone();
    let forget = move |gallery: &mut Gallery| {
        let fail = |error| missing(&own, &error, nobody(&name));
        Ok(json!({ "forgotten": gallery.forget(&name).map_err(fail)? }))
    };
    in_gallery(&state, state.deadline(), forget).await
}

pub async fn unknown(extract::State(state): Shared) -> Outcome {
    let own = state.clone();
    let list = move |gallery: &mut Gallery| {
        Ok(json!({ "unknown": gallery.unknown().map_err(|error| failed(&own, &error))? }))
    };
    in_gallery(&state, state.deadline(), list).await
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
    in_gallery(&state, state.deadline(), promote).await
}

pub async fn forget_unknown(extract::State(state): Shared, id: Part) -> Outcome {
    let group = group(id)?;
    let own = state.clone();
    let forget = move |gallery: &mut Gallery| match gallery.forget_unknown(Some(group)) {
        Ok(0) => Err(Refusal::not_found(no_group(group))),
        Ok(groups) => Ok(json!({ "forgotten": groups })),
        Err(error) => Err(failed(&own, &error)),
    };
    in_gallery(&state, state.deadline(), forget).await
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
