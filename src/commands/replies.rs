//! The output of `classify` for a picture: sentences, JSON, and labels on a drawing.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::detection::short;
use crate::detect::Face;
use crate::figures::FaceLabel;
use crate::recognise::{Answer, Identifier};

/// Formats answers.
pub struct AnswerFormat<'a> {
    pub identifier: &'a dyn Identifier,
    /// Number of candidates to show.
    pub top: usize,
    /// The model file, or the gallery.
    pub model: &'a Path,
}

/// The answers about one picture.
pub struct Reply<'a> {
    pub path: &'a Path,
    /// The picture's width and height.
    pub size: (u32, u32),
    /// The picture was used as it is.
    pub is_crop: bool,
    /// Its faces, the largest first.
    pub faces: Vec<(Option<Face>, Answer)>,
}

impl AnswerFormat<'_> {
    fn name(&self, label: usize) -> &str {
        self.identifier.name(label)
    }

    /// The sentence of the original notebook.
    fn sentence(&self, answer: &Answer) -> String {
        let Some(&(label, probability)) = answer.ranking.first() else { return String::new() };
        let (name, probability) = (self.name(label), 100.0 * probability);
        if answer.is_known {
            format!("{name} with {probability:.2}% probability")
        } else {
            format!("UNKNOWN FACE, but similar to {name} with {probability:.2}% probability")
        }
    }

    /// One line for each further candidate.
    fn candidates(&self, answer: &Answer) -> Vec<String> {
        let line = |(rank, &(label, probability)): (usize, &(usize, f64))| {
            let name = self.name(label);
            format!("  {}. {name} with {:.2}% probability", rank + 1, 100.0 * probability)
        };
        answer.ranking.iter().enumerate().take(self.top).skip(1).map(line).collect()
    }

    /// The label on a drawing.
    fn label(&self, answer: &Answer) -> String {
        let Some(&(label, probability)) = answer.ranking.first() else { return String::new() };
        let (name, probability) = (self.name(label), 100.0 * probability);
        if answer.is_known {
            format!("{name} {probability:.1} %")
        } else {
            format!("UNKNOWN ({name} {probability:.1} %)")
        }
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
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

impl Reply<'_> {
    /// One sentence per face, from left to right, followed by its candidates; prefixed with the file
    /// name if there are `several` files.
    pub fn text(&self, format: &AnswerFormat, several: bool) -> Vec<String> {
        let prefix = if several { format!("{}: ", self.path.display()) } else { String::new() };
        if self.faces.is_empty() {
            return vec![format!("{prefix}no face found")];
        }
        let mut faces: Vec<_> = self.faces.iter().map(|face| (self.bounds(face), face)).collect();
        faces.sort_by(|(a, _), (b, _)| (a[0] + a[2]).total_cmp(&(b[0] + b[2])));
        let all = faces.len();
        let mut lines = Vec::new();
        for (number, ([x1, y1, ..], (_, answer))) in faces.iter().enumerate() {
            let which = match all {
                1 => String::new(),
                _ => format!("face {} of {all} at {x1:.0},{y1:.0}: ", number + 1),
            };
            lines.push(format!("{prefix}{which}{}", format.sentence(answer)));
            lines.extend(format.candidates(answer));
        }
        lines
    }

    /// One object: the identity of the largest face, and all faces with their boxes.
    pub fn json(&self, format: &AnswerFormat) -> String {
        let face = |one: &(Option<Face>, Answer)| {
            let (found, answer) = one;
            let mut face = Map::new();
            face.insert("box".into(), json!(self.bounds(one).map(short)));
            face.insert("detection".into(), json!(found.map(|face| f64::from(face.probability))));
            let landmarks = found.map(|face| face.landmarks.map(|point| point.map(short)));
            face.insert("landmarks".into(), json!(landmarks));
            face.extend(format.object(Some(answer)));
            Value::Object(face)
        };
        let faces: Vec<Value> = self.faces.iter().map(face).collect();
        let mut object = Map::new();
        object.insert("file".into(), json!(self.path.to_string_lossy()));
        object.extend(format.object(self.faces.first().map(|(_, answer)| answer)));
        object.insert("crop".into(), json!(self.is_crop));
        object.insert("model".into(), json!(format.model.to_string_lossy()));
        object.insert("faces".into(), json!(faces));
        Value::Object(object).to_string()
    }

    /// The boxes and labels to draw.
    pub fn marks(&self, format: &AnswerFormat) -> Vec<FaceLabel> {
        let mark = |face: &(Option<Face>, Answer)| FaceLabel {
            bounds: self.bounds(face).map(f64::from),
            landmarks: Vec::new(),
            words: format.label(&face.1),
            is_known: face.1.is_known,
        };
        self.faces.iter().map(mark).collect()
    }

    /// A face's box, clipped to the picture, or the whole picture.
    fn bounds(&self, (face, _): &(Option<Face>, Answer)) -> [f32; 4] {
        let (width, height) = (self.size.0 as f32, self.size.1 as f32);
        let [x1, y1, x2, y2] = face.map_or([0.0, 0.0, width, height], |face| face.bounds);
        let (x, y) = (|at: f32| at.clamp(0.0, width), |at: f32| at.clamp(0.0, height));
        [x(x1), y(y1), x(x2), y(y2)]
    }
}
