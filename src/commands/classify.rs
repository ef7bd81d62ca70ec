//! `visage classify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use image::RgbImage;

use super::replies::{Reply, Words};
use super::{Context, output, photos};
use crate::cli;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::figures::{self, save_png};
use crate::recognise::recogniser::BATCH;
use crate::recognise::{ModelKind, Recogniser, View, Viewer, model_file};
use crate::train::settings::percentage;
use crate::{Error, Result};

/// From so many pictures on there is a progress bar.
const MANY: usize = 64;

pub fn run(context: &Context, flags: &cli::Classify) -> anyhow::Result<ExitCode> {
    let options = photos::options(&flags.search)?;
    let model = load(context, flags.model.as_deref(), flags.unknown)?;
    let classifier = model.classifier()?;
    let viewer = Viewer::new(&model.card, flags.detect, options, context.device()?)?;
    let (files, failed) = collect(&flags.inputs, &context.say);
    let mut job = Job {
        context,
        model: &model,
        words: Words { classifier, names: &model.card.classes, top: usize::from(flags.top) },
        json: flags.json,
        several: files.len() + failed > 1,
        drawings: drawings(flags, &files)?,
        done: 0,
        failed,
    };
    let bar =
        (files.len() > MANY).then(|| context.say.progress("faces", files.len() as u64, "pictures"));
    let (mut waiting, mut faces, mut pixels) = (Vec::new(), 0, 0);
    photos::stream(&files, bar.as_ref(), picture::decode, |paths, decoded| {
        let pictures: Vec<&RgbImage> = decoded.iter().flatten().collect();
        let mut views = viewer.view(&pictures)?.into_iter();
        for (path, outcome) in paths.iter().zip(decoded) {
            let seen = outcome.and_then(|picture| {
                let size = picture.dimensions();
                let view = views.next().ok_or_else(|| Error::Data("a picture got lost".into()))?;
                faces += view.parts.len();
                let picture = job.drawings.is_some().then_some(picture);
                pixels += picture.as_ref().map_or(0, |_| u64::from(size.0) * u64::from(size.1));
                Ok(Seen { path: path.clone(), size, view, picture })
            });
            waiting.push(seen);
            // As many faces together as the trunk takes, and no more pictures to draw on than fit.
            if faces.max(waiting.len()) >= BATCH || pixels >= photos::PIXELS {
                job.answer(std::mem::take(&mut waiting))?;
                (faces, pixels) = (0, 0);
            }
        }
        Ok(())
    })?;
    job.answer(waiting)?;
    Ok(ExitCode::from(u8::from(job.failed > 0)))
}

/// Where the drawings of all `files` go.
///
/// # Errors
/// One PNG for several pictures, or a place where one of the pictures lies.
fn drawings(flags: &cli::Classify, files: &[PathBuf]) -> Result<Option<Vec<PathBuf>>> {
    let Some(out) = &flags.draw else { return Ok(None) };
    let is_png = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    let is_one = matches!(&flags.inputs[..], [only] if !only.is_dir());
    if !is_png && !out.is_dir() && picture::is_picture(out) {
        let text = format!("--draw {}: drawings are PNG; end the name in .png", out.display());
        return Err(Error::Config(text));
    }
    let names = match is_png && !out.is_dir() {
        false => photos::drawn_names(out, &flags.inputs, files),
        true if is_one => vec![out.clone()],
        true => {
            let out = out.display();
            let text = format!("--draw {out}: is one picture; name a folder for those of several");
            return Err(Error::Config(text));
        }
    };
    photos::keep_photos(&names, files)?;
    Ok(Some(names))
}

/// A picture that waits for its faces' names.
struct Seen {
    path: PathBuf,
    size: (u32, u32),
    view: View,
    /// Where it will be drawn on.
    picture: Option<RgbImage>,
}

/// What answers need.
struct Job<'a> {
    context: &'a Context,
    model: &'a Recogniser,
    words: Words<'a>,
    json: bool,
    several: bool,
    drawings: Option<Vec<PathBuf>>,
    /// Pictures answered ...
    done: usize,
    /// ... and those that could not be read.
    failed: usize,
}

impl Job<'_> {
    /// Names all faces on the pictures, says and draws it.
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
                // Face by face: an answer does not depend on who else is on the picture.
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

/// Loads the classifier a command works with.
///
/// # Errors
/// No such model, or one without a head.
pub fn load(context: &Context, model: Option<&Path>, unknown: Option<f64>) -> Result<Recogniser> {
    if let Some(percent) = unknown {
        percentage("--unknown", percent)?;
    }
    let path = match model {
        Some(path) => path.to_owned(),
        None => model_file::newest(context.runs(), ModelKind::Classifier)?,
    };
    let mut model = Recogniser::load(&path, context.device()?)?;
    if let Some(percent) = unknown {
        model.demand_probability(percent / 100.0);
    }
    Ok(model)
}

/// All pictures that `inputs` name, in the order given; inputs that are not there are reported and
/// counted, the others go on.
pub fn collect(
    inputs: &[PathBuf],
    say: &crate::train::progress::Reporter,
) -> (Vec<PathBuf>, usize) {
    let (mut files, mut failed) = (Vec::new(), 0);
    for input in inputs {
        let (found, troubles) = picture::walk_on(input);
        if found.is_empty() && troubles.is_empty() {
            say.error(&format!("{}: holds no pictures", input.display()));
            failed += 1;
        }
        for trouble in &troubles {
            say.error(&trouble.to_string());
        }
        failed += troubles.len();
        files.extend(found);
    }
    (files, failed)
}
