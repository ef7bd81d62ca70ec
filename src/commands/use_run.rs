//! `visage use`.

use std::process::ExitCode;

use super::Context;
use super::output::{line, percent};
use crate::cli;
use crate::recognise::{ModelKind, runs};
use crate::weights::model_path;

pub fn run(context: &Context, flags: &cli::Use) -> anyhow::Result<ExitCode> {
    let folder = context.runs();
    if let Some(run) = &flags.run {
        let path = model_path(run)?;
        let kind = runs::pin(folder, &path)?.name();
        line(&format!("pinned {kind}: {}", path.display()))?;
    } else if flags.unset {
        let text = match runs::unpin(folder)? {
            true => "no model is pinned any more: commands take the newest run's",
            false => "no model was pinned",
        };
        line(text)?;
    } else {
        list(context)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One row per finished run, the oldest first; then the pins that are not among them.
fn list(context: &Context) -> anyhow::Result<()> {
    let folder = context.runs();
    let models = runs::list(folder);
    let mut pins = Vec::new();
    for kind in [ModelKind::Trunk, ModelKind::Classifier, ModelKind::Pairs] {
        pins.extend(runs::pinned(folder, kind)?.map(|path| (kind, path)));
    }
    if models.is_empty() {
        context.say.line(&format!("note: no finished runs under {}", folder.display()));
    }
    for (number, model) in models.iter().enumerate() {
        let card = &model.card;
        let is_newest = !models[number + 1..].iter().any(|other| other.card.kind == card.kind);
        let mark = match pins.iter().position(|(_, path)| *path == model.path) {
            Some(pin) => {
                pins.remove(pin);
                "pinned"
            }
            None if is_newest => "newest",
            None => "",
        };
        let run = model.path.parent().unwrap_or(&model.path).display().to_string();
        let figure = card.headline().map_or_else(
            || "-".into(),
            |(name, value)| format!("validation {name} {}", percent(value)),
        );
        let (kind, network) = (card.kind.name(), card.network());
        line(format!("{run:<26} {kind:<13} {network:<26} {figure:<36} {mark}").trim_end())?;
    }
    for (kind, path) in pins {
        line(&format!("{:<26} {:<13} pinned", path.display().to_string(), kind.name()))?;
    }
    Ok(())
}
