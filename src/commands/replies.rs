//! The output of `classify` and `gallery identify` for a picture: sentences, JSON, and a drawing.

use std::path::{Path, PathBuf};

use image::RgbImage;
use serde_json::{Map, Value, json};

use super::detection::short;
use super::{Context, detection, output};
use crate::data::picture;
use crate::detect::Face;
use crate::eval::Embeddings;
use crate::figures::{self, FaceLabel, save_png};
use crate::gallery::Sighting;
use crate::recognise::{Answer, Identifier, Reason, View};
use crate::words::count;
use crate::{Error, Result};

/// Formats answers.
pub struct AnswerFormat<'a> {
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
    pub seen: Option<Sighting>,
}

/// The answers about one picture.
pub struct Reply<'a> {
    pub path: &'a Path,
    /// The picture's width and height.
    pub size: (u32, u32),
    /// The picture was used as it is.
    pub is_crop: bool,
    /// Its faces, the largest first.
    pub faces: Vec<Answered>,
}

/// Prints replies and draws pictures, in the order of the files.
pub struct Printer<'a> {
    context: &'a Context,
    json: bool,
    several: bool,
    drawings: Option<Vec<PathBuf>>,
    /// Number of pictures done ...
    done: usize,
    /// ... and of those that could not be read.
    pub failed: usize,
}

impl<'a> Printer<'a> {
    /// For these files; `failed` other inputs could not be read, and were reported.
    ///
    /// # Errors
    /// One PNG for several pictures, or a drawing that would overwrite one of the pictures.
    pub fn new(
        context: &'a Context,
        json: bool,
        draw: Option<&Path>,
        inputs: &[PathBuf],
        files: &[PathBuf],
        failed: usize,
    ) -> Result<Self> {
        let drawings = draw.map(|out| drawings(out, inputs, files)).transpose()?;
        let several = files.len() + failed > 1;
        Ok(Self { context, json, several, drawings, done: 0, failed })
    }

    /// A picture that cannot be read.
    pub fn fail(&mut self, error: &Error) {
        self.done += 1;
        self.failed += 1;
        self.context.say.error(&error.to_string());
    }

    /// Prints a reply, and draws it if asked to.
    ///
    /// # Errors
    /// Standard output is closed, or the drawing cannot be written.
    pub fn print(
        &mut self,
        format: &AnswerFormat,
        reply: &Reply,
        picture: Option<&RgbImage>,
    ) -> anyhow::Result<()> {
        let drawing = self.drawings.as_ref().and_then(|names| names.get(self.done));
        self.done += 1;
        let lines = match self.json {
            true => vec![reply.json(format)],
            false => reply.text(format, self.several),
        };
        for line in lines {
            self.context.say.suspend(|| output::line(&line))?;
        }
        if let (Some(drawing), Some(picture)) = (drawing, picture) {
            save_png(drawing, &figures::faces(picture, &reply.marks(format)))?;
        }
        Ok(())
    }
}

/// The files of the drawings of all `files`.
fn drawings(out: &Path, inputs: &[PathBuf], files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_png = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    let is_one = matches!(inputs, [only] if !only.is_dir());
    if !is_png && !out.is_dir() && picture::is_picture(out) {
        let text = format!("--draw {}: drawings are PNG; the name must end in .png", out.display());
        return Err(Error::Config(text));
    }
    let names = match is_png && !out.is_dir() {
        false => detection::drawn_names(out, inputs, files),
        true if is_one => vec![out.to_owned()],
        true => {
            let out = out.display();
            let text = format!("--draw {out}: one file for several pictures; give a folder");
            return Err(Error::Config(text));
        }
    };
    detection::keep_photos(&names, files)?;
    Ok(names)
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
    fn name(&self, label: usize) -> &str {
        self.identifier.name(label)
    }

    /// The sentence of the original notebook.
    fn sentence(&self, answer: &Answer) -> String {
        let Some(&(label, probability)) = answer.ranking.first() else {
            return "UNKNOWN FACE".into();
        };
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

    /// One line for each reason, and one for an unknown person who was seen before.
    fn notes(&self, one: &Answered) -> Vec<String> {
        let mut lines = Vec::new();
        for reason in one.answer.reasons.iter().filter(|_| self.shows_reasons) {
            let path = self.identifier.picture_of(reason.neighbour).unwrap_or_default();
            let (name, distance) = (self.name(reason.identity), reason.distance);
            lines.push(format!("  near: {name}, {path}, at distance {distance:.3}"));
        }
        if let Some(Sighting { group, is_new }) = &one.seen {
            let (id, first) = (group.id, &group.first_seen);
            lines.push(match is_new {
                true => format!("  remembered as unknown {id}"),
                false => {
                    format!("  unknown {id}: {}, first seen {first}", count(group.faces, "picture"))
                }
            });
        }
        lines
    }

    /// The label on a drawing.
    fn label(&self, answer: &Answer) -> String {
        let Some(&(label, probability)) = answer.ranking.first() else {
            return "UNKNOWN".into();
        };
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
        for (number, ([x1, y1, ..], one)) in faces.iter().enumerate() {
            let which = match all {
                1 => String::new(),
                _ => format!("face {} of {all} at {x1:.0},{y1:.0}: ", number + 1),
            };
            lines.push(format!("{prefix}{which}{}", format.sentence(&one.answer)));
            lines.extend(format.candidates(&one.answer));
            lines.extend(format.notes(one));
        }
        lines
    }

    /// One object: the identity of the largest face, and all faces with their boxes.
    pub fn json(&self, format: &AnswerFormat) -> String {
        let face = |one: &Answered| {
            let Answered { face: found, answer, seen } = one;
            let mut face = Map::new();
            face.insert("box".into(), json!(self.bounds(one).map(short)));
            face.insert("detection".into(), json!(found.map(|face| f64::from(face.probability))));
            let landmarks = found.map(|face| face.landmarks.map(|point| point.map(short)));
            face.insert("landmarks".into(), json!(landmarks));
            face.extend(format.object(Some(answer)));
            if let Some(Sighting { group, .. }) = seen {
                let (id, pictures, first) = (group.id, group.faces, &group.first_seen);
                let seen = json!({"id": id, "pictures": pictures, "first_seen": first});
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
        Value::Object(object).to_string()
    }

    /// The boxes and labels to draw.
    pub fn marks(&self, format: &AnswerFormat) -> Vec<FaceLabel> {
        let mark = |one: &Answered| FaceLabel {
            bounds: self.bounds(one).map(f64::from),
            landmarks: Vec::new(),
            words: format.label(&one.answer),
            is_known: one.answer.is_known,
        };
        self.faces.iter().map(mark).collect()
    }

    /// A face's box, clipped to the picture, or the whole picture.
    fn bounds(&self, one: &Answered) -> [f32; 4] {
        bounds(one.face.as_ref(), self.size)
    }
}

/// A face's box, clipped to the picture of this size, or the whole picture.
pub fn bounds(face: Option<&Face>, size: (u32, u32)) -> [f32; 4] {
    let (width, height) = (size.0 as f32, size.1 as f32);
    let [x1, y1, x2, y2] = face.map_or([0.0, 0.0, width, height], |face| face.bounds);
    let (x, y) = (|at: f32| at.clamp(0.0, width), |at: f32| at.clamp(0.0, height));
    [x(x1), y(y1), x(x2), y(y2)]
}
