//! `visage classify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::context::Context;
use super::inputs::{self, embed};
use super::replies::Printer;
use super::{detection, trunk};
use crate::Result;
use crate::cli;
use crate::recognise::reply::{AnswerFormat, Reply, answer};
use crate::recognise::{ModelKind, Recogniser, Viewer, runs};
use crate::train::settings::percentage;

pub fn run(context: &Context, flags: &cli::Classify) -> anyhow::Result<ExitCode> {
    let options = detection::options(&flags.detector)?;
    let (model, source) = load(context, flags.model.as_deref(), flags.unknown)?;
    model.classifier()?;
    let mut viewer = Viewer::new(&model.card, flags.face.detect, options, context.device()?)?;
    viewer.keeps_pictures = flags.draw.is_some();
    let (files, failed) = inputs::collect(&flags.inputs, &context.say);
    let (draw, inputs) = (flags.draw.as_deref(), &flags.inputs);
    let mut printer = Printer::new(context, flags.json, draw, inputs, &files, failed)?;
    let top = usize::from(flags.top);
    let format = AnswerFormat { identifier: &model, top, model: &source, shows_reasons: false };
    embed(&model.backbone, &viewer, &files, &context.say, |path, seen| {
        let (view, rows) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                printer.fail(&error);
                return Ok(());
            }
        };
        let faces = answer(&model, &view, &rows)?;
        let reply = Reply { path, size: view.size, is_crop: view.is_crop, faces };
        printer.print(&format, &reply, view.picture.as_ref())
    })?;
    Ok(ExitCode::from(u8::from(printer.failed > 0)))
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
