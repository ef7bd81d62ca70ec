//! The output of `classify` and `gallery identify` for a picture: sentences, or JSON, and a drawing.

use std::path::{Path, PathBuf};

use image::RgbImage;

use super::context::Context;
use super::{detection, output};
use crate::data::picture;
use crate::figures::{self, FaceLabel, save_png};
use crate::recognise::Answer;
use crate::recognise::reply::{AnswerFormat, Answered, Reply, Seen};
use crate::words::count;
use crate::{Error, Result};

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
            true => vec![reply.json(format).to_string()],
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

impl AnswerFormat<'_> {
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
        if let Some(Seen { id, pictures, first_seen, is_new }) = &one.seen {
            lines.push(match is_new {
                true => format!("  remembered as unknown {id}"),
                false => {
                    format!(
                        "  unknown {id}: {}, first seen {first_seen}",
                        count(*pictures, "picture")
                    )
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
}
