//! `visage classify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::inputs::{self, embed};
use super::replies::{AnswerFormat, Reply};
use super::{Context, detection, output, trunk};
use crate::cli;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::figures::{self, save_png};
use crate::recognise::{ModelKind, Recogniser, View, Viewer, runs};
use crate::train::settings::percentage;
use crate::{Error, Result};

pub fn run(context: &Context, flags: &cli::Classify) -> anyhow::Result<ExitCode> {
    let options = detection::options(&flags.detector)?;
    let (model, source) = load(context, flags.model.as_deref(), flags.unknown)?;
    model.classifier()?;
    let mut viewer = Viewer::new(&model.card, flags.face.detect, options, context.device()?)?;
    viewer.keeps_pictures = flags.draw.is_some();
    let (files, failed) = inputs::collect(&flags.inputs, &context.say);
    let mut job = Job {
        context,
        format: AnswerFormat { identifier: &model, top: usize::from(flags.top), model: &source },
        json: flags.json,
        several: files.len() + failed > 1,
        drawings: drawings(flags, &files)?,
        done: 0,
        failed,
    };
    embed(&model.backbone, &viewer, &files, &context.say, |path, seen| job.answer(path, seen))?;
    Ok(ExitCode::from(u8::from(job.failed > 0)))
}

/// The files of the drawings of all `files`.
///
/// # Errors
/// One PNG for several pictures, or a drawing that would overwrite one of the pictures.
fn drawings(flags: &cli::Classify, files: &[PathBuf]) -> Result<Option<Vec<PathBuf>>> {
    let Some(out) = &flags.draw else { return Ok(None) };
    let is_png = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    let is_one = matches!(&flags.inputs[..], [only] if !only.is_dir());
    if !is_png && !out.is_dir() && picture::is_picture(out) {
        let text = format!("--draw {}: drawings are PNG; the name must end in .png", out.display());
        return Err(Error::Config(text));
    }
    let names = match is_png && !out.is_dir() {
        false => detection::drawn_names(out, &flags.inputs, files),
        true if is_one => vec![out.clone()],
        true => {
            let out = out.display();
            let text = format!("--draw {out}: one file for several pictures; give a folder");
            return Err(Error::Config(text));
        }
    };
    detection::keep_photos(&names, files)?;
    Ok(Some(names))
}

/// The state of the command.
struct Job<'a> {
    context: &'a Context,
    format: AnswerFormat<'a>,
    json: bool,
    several: bool,
    drawings: Option<Vec<PathBuf>>,
    /// Number of pictures done ...
    done: usize,
    /// ... and of those that could not be read.
    failed: usize,
}

impl Job<'_> {
    /// Names all faces on a picture, prints and draws the result.
    fn answer(&mut self, path: &Path, seen: Result<(View, Embeddings)>) -> anyhow::Result<()> {
        let drawing = self.drawings.as_ref().and_then(|names| names.get(self.done));
        self.done += 1;
        let (View { size, is_crop, faces, picture }, rows) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                self.context.say.error(&error.to_string());
                self.failed += 1;
                return Ok(());
            }
        };
        let mut answers = Vec::new();
        for (row, face) in faces.into_iter().enumerate() {
            // Face by face, so that an answer does not depend on the other faces of a picture.
            let one = self.format.identifier.identify(&rows.subset(&[row]))?;
            answers.extend(one.into_iter().map(|answer| (face, answer)));
        }
        let reply = Reply { path, size, is_crop, faces: answers };
        let lines = match self.json {
            true => vec![reply.json(&self.format)],
            false => reply.text(&self.format, self.several),
        };
        for line in lines {
            self.context.say.suspend(|| output::line(&line))?;
        }
        if let (Some(drawing), Some(picture)) = (drawing, &picture) {
            save_png(drawing, &figures::faces(picture, &reply.marks(&self.format)))?;
        }
        Ok(())
    }
}

/// Loads the classifier a command works with and reports it; returns it with its file.
///
/// # Errors
/// No such model, or one without a classifier.
pub fn load(
    context: &Context,
    model: Option<&Path>,
    unknown: Option<f64>,
) -> Result<(Recogniser, PathBuf)> {
    if let Some(percent) = unknown {
        percentage("--unknown", percent)?;
    }
    let choice = runs::choose(context.runs(), model, &[ModelKind::Classifier])?;
    let mut model = Recogniser::load(&choice.path, context.device()?)?;
    trunk::report(context, &choice, &model.card);
    if let Some(percent) = unknown {
        model.demand_probability(percent / 100.0);
    }
    Ok((model, choice.path))
}
