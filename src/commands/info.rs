//! `visage info`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::context::Context;
use super::output::{count, identities, line, percent};
use crate::cli;
use crate::recognise::runs::{self, Choice, ChosenBy};
use crate::recognise::{ModelCard, ModelKind, Unknown};
use crate::train::scoring::is_internal;
use crate::words::enumerate;
use crate::{Result, weights};

/// Figures that are no shares: distances and coefficients.
const NO_SHARES: [&str; 3] = ["threshold", "nll", "temperature"];

pub fn run(context: &Context, flags: &cli::Info) -> anyhow::Result<ExitCode> {
    let choice = choose(context, flags)?;
    let card = ModelCard::peek(&choice.path)?;
    if flags.json {
        let mut object = json!(card);
        object["model"] = json!(choice.path.to_string_lossy());
        line(&object.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in rows(&choice, &card) {
        line(&format!("{name:<16}{value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The model of the argument, or else of the newest run, whatever its kind.
fn choose(context: &Context, flags: &cli::Info) -> Result<Choice> {
    match (&flags.model, runs::list(context.runs()).pop()) {
        (Some(path), _) => Ok(Choice { path: weights::model_path(path)?, by: ChosenBy::Flag }),
        (None, Some(newest)) => Ok(Choice { path: newest.path, by: ChosenBy::Age }),
        (None, None) => runs::choose(context.runs(), None, &[ModelKind::Trunk]),
    }
}

/// The card as names and values.
fn rows(choice: &Choice, card: &ModelCard) -> Vec<(String, String)> {
    let side = card.input.size;
    let mut rows = vec![
        ("model", choice.to_string()),
        ("kind", card.kind.name().to_owned()),
        ("network", card.network()),
        ("started from", card.weights.clone()),
        ("input", format!("{side} x {side} pixels")),
        ("embedding", count(card.embedding_dim as usize, "number")),
        ("written by", format!("visage {}", card.version)),
        ("epoch", card.epoch.to_string()),
    ];
    if !card.classes.is_empty() {
        let names: Vec<&str> = card.classes.iter().map(String::as_str).collect();
        rows.push(("identities", format!("{}: {}", identities(names.len()), enumerate(&names))));
    }
    if !card.data.path.is_empty() {
        let data = &card.data;
        let (path, train, validation) = (&data.path, data.train, data.validation);
        rows.push(("data", format!("{path}: {train} to train, {validation} to validate")));
    }
    if !card.gallery.is_empty() {
        rows.push(("gallery", count(card.gallery.len(), "training picture")));
    }
    if let Some(calibration) = &card.calibration {
        let (what, below) = match calibration.unknown {
            Unknown::KnownBelow(share) => ("probability of a known face", share),
            Unknown::ProbabilityBelow(share) => ("probability of the answer", share),
        };
        rows.push(("UNKNOWN", format!("{what} below {}", percent(below))));
        rows.extend(calibration.fpir.as_ref().map(|fpir| ("strangers", fpir.to_string())));
        rows.push(("temperature", format!("{:.4}", calibration.temperature)));
    }
    if let Some(threshold) = card.pair.as_ref().and_then(|pair| pair.threshold) {
        rows.push(("threshold", format!("{threshold:.4}: same person below it")));
    }
    let mut rows: Vec<(String, String)> =
        rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let figures = card.metrics.iter().filter(|(name, _)| !is_internal(name));
    rows.extend(figures.enumerate().map(|(number, (name, value))| {
        let title = if number == 0 { "figures" } else { "" };
        let value = match NO_SHARES.contains(&name.as_str()) {
            true => format!("{value:.4}"),
            false => percent(*value),
        };
        (title.to_owned(), format!("{name:<26}{value}"))
    }));
    let settings = card.settings.as_object().into_iter().flatten();
    rows.extend(settings.enumerate().map(|(number, (name, value))| {
        let title = if number == 0 { "settings" } else { "" };
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (title.to_owned(), format!("{name:<26}{value}"))
    }));
    rows
}
