//! `visage classify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use image::RgbImage;

use super::replies::{Reply, Words};
use super::{Context, detection, inputs, output, trunk};
use crate::cli;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::figures::{self, save_png};
use crate::recognise::recogniser::BATCH;
use crate::recognise::{ModelKind, Recogniser, View, Viewer, runs};
use crate::train::settings::percentage;
use crate::{Error, Result};

/// Number of pictures above which a progress bar is shown.
const MANY: usize = 64;

pub fn run(context: &Context, flags: &cli::Classify) -> anyhow::Result<ExitCode> {
    let options = detection::options(&flags.detector)?;
    let (model, source) = load(context, flags.model.as_deref(), flags.unknown)?;
    let classifier = model.classifier()?;
    let viewer = Viewer::new(&model.card, flags.detect, options, context.device()?)?;
    let (files, failed) = inputs::collect(&flags.inputs, &context.say);
    let mut job = Job {
        context,
        model: &model,
        words: Words {
            classifier,
            names: &model.card.classes,
            top: usize::from(flags.top),
            model: &source,
        },
        json: flags.json,
        several: files.len() + failed > 1,
        drawings: drawings(flags, &files)?,
        done: 0,
        failed,
    };
    let bar =
        (files.len() > MANY).then(|| context.say.progress("faces", files.len() as u64, "pictures"));
    let (mut waiting, mut faces, mut pixels) = (Vec::new(), 0, 0);
    detection::stream(&files, bar.as_ref(), picture::decode, |paths, decoded| {
        let pictures: Vec<&RgbImage> = decoded.iter().flatten().collect();
        let mut views = viewer.view(&pictures)?.into_iter();
        for (path, outcome) in paths.iter().zip(decoded) {
            let seen = outcome.and_then(|picture| {
                let size = picture.dimensions();
                let view = views
                    .next()
                    .ok_or_else(|| Error::Data("the detector returned too few pictures".into()))?;
                faces += view.parts.len();
                let picture = job.drawings.is_some().then_some(picture);
                pixels += picture.as_ref().map_or(0, |_| u64::from(size.0) * u64::from(size.1));
                Ok(Seen { path: path.clone(), size, view, picture })
            });
            waiting.push(seen);
            // A full batch for the trunk, or as many pictures to draw on as fit in memory.
            if faces.max(waiting.len()) >= BATCH || pixels >= detection::PIXELS {
                job.answer(std::mem::take(&mut waiting))?;
                (faces, pixels) = (0, 0);
            }
        }
        Ok(())
    })?;
    job.answer(waiting)?;
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

/// A picture whose faces are not named yet.
struct Seen {
    path: PathBuf,
    size: (u32, u32),
    view: View,
    /// Its pixels, if it is drawn on.
    picture: Option<RgbImage>,
}

/// The state of the command.
struct Job<'a> {
    context: &'a Context,
    model: &'a Recogniser,
    words: Words<'a>,
    json: bool,
    several: bool,
    drawings: Option<Vec<PathBuf>>,
    /// Number of pictures done ...
    done: usize,
    /// ... and of those that could not be read.
    failed: usize,
}

impl Job<'_> {
    /// Names all faces on the pictures, prints and draws the result.
    fn answer(&mut self, mut seen: Vec<Result<Seen>>) -> anyhow::Result<()> {
        let parts = seen.iter_mut().flatten().flat_map(|seen| &mut seen.view.parts);
        let pixels: Vec<RgbImage> = parts.map(|part| std::mem::take(&mut part.pixels)).collect();
        let embeddings = self.model.embed(&pixels)?;
        let mut rows = embeddings.values().chunks_exact(embeddings.dim());
        for outcome in seen {
            let drawing = self.drawings.as_ref().and_then(|names| names.get(self.done));
            self.done += 1;
            let Seen { path, size, view, picture } = match outcome {
                Ok(seen) => seen,
                Err(error) => {
                    self.context.say.error(&error.to_string());
                    self.failed += 1;
                    continue;
                }
            };
            let mut faces = Vec::new();
            for (part, row) in view.parts.iter().zip(rows.by_ref()) {
                // Face by face, so that an answer does not depend on the other faces of a picture.
                let one = Embeddings::new(1, row.len(), row.to_vec())?;
                let answers = self.words.classifier.answer(&one)?;
                faces.extend(answers.into_iter().map(|answer| (part.face, answer)));
            }
            let reply = Reply { path: &path, size, is_crop: view.is_crop, faces };
            let lines = match self.json {
                true => vec![reply.json(&self.words)],
                false => reply.text(&self.words, self.several),
            };
            for line in lines {
                self.context.say.suspend(|| output::line(&line))?;
            }
            if let (Some(drawing), Some(picture)) = (drawing, &picture) {
                save_png(drawing, &figures::faces(picture, &reply.marks(&self.words)))?;
            }
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
