//! The replies about a picture as JSON: what the program prints and what the server sends.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::identifier::Identifier;
use super::recogniser::{Answer, Reason};
use super::viewer::View;
use crate::Result;
use crate::detect::Face;
use crate::eval::Embeddings;

/// Formats answers.
pub struct AnswerFormat<'a> {
    /// What puts names to faces.
    pub identifier: &'a dyn Identifier,
    /// Number of candidates to show.
    pub top: usize,
    /// The model file, or the gallery.
    pub model: &'a Path,
    /// Sentences are followed by the nearest known faces.
    pub shows_reasons: bool,
}

/// A face with its answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Where it is; `None` if the picture was not searched.
    pub face: Option<Face>,
    /// Who it is.
    pub answer: Answer,
    /// The unknown person it was remembered as.
    pub seen: Option<Seen>,
}

/// An unknown person who was remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Their number.
    pub id: i64,
    /// Number of pictures of them.
    pub pictures: usize,
    /// The day of the first picture, UTC, as YYYY-MM-DD.
    pub first_seen: String,
    /// This face is the first of them.
    pub is_new: bool,
}

/// The answers about one picture.
pub struct Reply<'a> {
    /// The picture's file.
    pub path: &'a Path,
    /// The picture's width and height.
    pub size: (u32, u32),
    /// The picture was used as it is.
    pub is_crop: bool,
    /// Its faces, the largest first.
    pub faces: Vec<Answered>,
}

/// What the distance of two pictures says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// The distance.
    pub distance: f64,
    /// Below it the pictures show the same person.
    pub threshold: f64,
    /// P(same person | distance), where the model knows it.
    pub probability: Option<f64>,
}

/// Names the faces of a picture, one by one, so that an answer does not depend on the other faces.
///
/// # Errors
/// The embeddings are of another length than those it knows.
pub fn answer(
    identifier: &dyn Identifier,
    view: &View,
    rows: &Embeddings,
) -> Result<Vec<Answered>> {
    let mut answered = Vec::new();
    for (row, &face) in view.faces.iter().enumerate() {
        let one = identifier.identify(&rows.subset(&[row]))?;
        answered.extend(one.into_iter().map(|answer| Answered { face, answer, seen: None }));
    }
    Ok(answered)
}

impl AnswerFormat<'_> {
    /// The name of an identity of an answer.
    pub fn name(&self, label: usize) -> &str {
        self.identifier.name(label)
    }

    /// The keys about the identity; null and empty if there is no face.
    fn object(&self, answer: Option<&Answer>) -> Map<String, Value> {
        let best = answer.and_then(|answer| answer.ranking.first());
        let nearest = best.map(|&(label, _)| self.name(label));
        let path = answer.and_then(|answer| self.identifier.picture_of(answer.neighbour));
        let ranking = answer.map_or(&[][..], |answer| &answer.ranking);
        let top: Vec<Value> = ranking
            .iter()
            .take(self.top)
            .map(|&(label, chance)| json!({"label": self.name(label), "probability": chance}))
            .collect();
        let keys = [
            ("label", json!(nearest.filter(|_| answer.is_some_and(|answer| answer.is_known)))),
            ("nearest", json!(nearest)),
            ("probability", json!(best.map(|(_, probability)| probability))),
            ("known_probability", json!(answer.map(|answer| answer.known))),
            ("distance", json!(answer.map(|answer| answer.distance))),
            ("nearest_path", json!(path)),
            ("top", json!(top)),
        ];
        let mut object: Map<String, Value> =
            keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let reasons = answer.map_or(&[][..], |answer| &answer.reasons);
        if !reasons.is_empty() {
            let reason = |reason: &Reason| {
                let path = self.identifier.picture_of(reason.neighbour);
                json!({"label": self.name(reason.identity), "path": path, "distance": reason.distance})
            };
            object.insert("neighbours".into(), reasons.iter().map(reason).collect());
        }
        object
    }
}

impl Reply<'_> {
    /// One object: the identity of the largest face, and all faces with their boxes.
    pub fn json(&self, format: &AnswerFormat) -> Value {
        let face = |one: &Answered| {
            let Answered { face: found, answer, seen } = one;
            let mut face = Map::new();
            face.insert("box".into(), json!(self.bounds(one).map(short)));
            face.insert("detection".into(), json!(found.map(|face| f64::from(face.probability))));
            let landmarks = found.map(|face| face.landmarks.map(|point| point.map(short)));
            face.insert("landmarks".into(), json!(landmarks));
            face.extend(format.object(Some(answer)));
            if let Some(Seen { id, pictures, first_seen, .. }) = seen {
                let seen = json!({"id": id, "pictures": pictures, "first_seen": first_seen});
                face.insert("unknown".into(), seen);
            }
            Value::Object(face)
        };
        let faces: Vec<Value> = self.faces.iter().map(face).collect();
        let mut object = Map::new();
        object.insert("file".into(), json!(self.path.to_string_lossy()));
        object.extend(format.object(self.faces.first().map(|one| &one.answer)));
        object.insert("crop".into(), json!(self.is_crop));
        object.insert("model".into(), json!(format.model.to_string_lossy()));
        object.insert("faces".into(), json!(faces));
        Value::Object(object)
    }

    /// A face's box, clipped to the picture, or the whole picture.
    pub fn bounds(&self, one: &Answered) -> [f32; 4] {
        bounds(one.face.as_ref(), self.size)
    }
}

impl Compared {
    /// The pictures show the same person.
    pub fn is_same(&self) -> bool {
        self.distance < self.threshold
    }

    /// One object about the pictures `a` and `b`.
    pub fn json(&self, model: &str, a: &Path, b: &Path) -> Value {
        json!({
            "same": self.is_same(),
            "distance": self.distance,
            "threshold": self.threshold,
            "probability": self.probability,
            "model": model,
            "a": a.to_string_lossy(),
            "b": b.to_string_lossy(),
        })
    }
}

/// `{"file", "faces": [{"box", "probability", "landmarks"}]}`.
pub fn detected(path: &Path, faces: &[Face]) -> Value {
    let face = |face: &Face| {
        json!({
            "box": face.bounds.map(short),
            "probability": f64::from(face.probability),
            "landmarks": face.landmarks.map(|point| point.map(short)),
        })
    };
    let faces: Vec<Value> = faces.iter().map(face).collect();
    json!({"file": path.to_string_lossy(), "faces": faces})
}

/// A face's box, clipped to the picture of this size, or the whole picture.
pub fn bounds(face: Option<&Face>, size: (u32, u32)) -> [f32; 4] {
    let (width, height) = (size.0 as f32, size.1 as f32);
    let [x1, y1, x2, y2] = face.map_or([0.0, 0.0, width, height], |face| face.bounds);
    let (x, y) = (|at: f32| at.clamp(0.0, width), |at: f32| at.clamp(0.0, height));
    [x(x1), y(y1), x(x2), y(y2)]
}

/// Rounds a coordinate to thousandths of a pixel, the precision of float32.
pub fn short(pixels: f32) -> f64 {
    (f64::from(pixels) * 1000.0).round() / 1000.0
}
