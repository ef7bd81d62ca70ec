//! `visage runs`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use serde_json::json;

use super::context::Context;
use super::output::{columns, count, line, percent};
use crate::cli::{Runs, RunsAction, RunsDiff, RunsRemove};
use crate::recognise::{ModelKind, runs as models};
use crate::train::runs::{self, Difference, Run, RunState};
use crate::{Error, Result};

pub fn run(context: &Context, flags: &Runs) -> anyhow::Result<ExitCode> {
    match &flags.action {
        Some(RunsAction::Rm(flags)) => remove(context, flags)?,
        Some(RunsAction::Diff(flags)) => diff(flags)?,
        None => list(context, flags.folder.as_deref().unwrap_or(context.runs()), flags.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The runs in a folder as a table, then the pinned models that are not among them.
pub fn list(context: &Context, folder: &Path, json: bool) -> anyhow::Result<()> {
    let found = if folder.is_dir() { runs::list(folder)? } else { Vec::new() };
    if json {
        let listed: Vec<_> = found.iter().map(as_json).collect();
        return Ok(line(&serde_json::Value::from(listed).to_string())?);
    }
    if found.is_empty() {
        context.say.line(&format!("note: no runs in {}", folder.display()));
    }
    let newest = models::list(folder);
    let mut pins = Vec::new();
    for kind in [ModelKind::Trunk, ModelKind::Classifier, ModelKind::Pairs] {
        pins.extend(models::pinned(folder, kind)?.map(|path| (kind, path)));
    }
    let head = ["RUN", "STATE", "TRAINS", "PICTURES", "BEST", "EPOCHS", "SIZE", "USED"];
    let mut rows = vec![head.map(String::from)];
    for run in &found {
        let is_newest = |model: &models::RunModel| {
            let last = newest.iter().rfind(|other| other.card.kind == model.card.kind);
            last.is_some_and(|last| last.path == model.path)
        };
        let own = newest.iter().find(|model| model.path.parent() == Some(&run.path));
        let mark = match pins.iter().position(|(_, path)| path.parent() == Some(&run.path)) {
            Some(pin) => {
                pins.remove(pin);
                "pinned"
            }
            None if own.is_some_and(is_newest) => "newest",
            None => "",
        };
        rows.push(row(run, mark));
    }
    if rows.len() > 1 {
        columns(&rows, &[5, 6])?;
    }
    for (kind, path) in pins {
        line(&format!("pinned {}: {}", kind.name(), path.display()))?;
    }
    for run in found.iter().filter(|run| run.state == RunState::Interrupted) {
        let (command, path) = (&run.command, run.path.display());
        context.say.line(&format!("note: to go on: visage {command} --resume {path}"));
    }
    Ok(())
}

fn row(run: &Run, mark: &str) -> [String; 8] {
    let none = || "-".to_owned();
    let card = run.card.as_ref();
    let epochs = run.summary.as_ref().and_then(|summary| summary["epochs"].as_u64());
    [
        run.path.display().to_string(),
        run.state.name().into(),
        card.map_or_else(
            || run.command.clone(),
            |card| format!("{} {}", card.network(), card.kind.name()),
        ),
        card.map_or_else(none, |card| card.data.path.clone()),
        card.and_then(|card| card.headline())
            .map_or_else(none, |(name, value)| format!("{name} {}", percent(value))),
        epochs.map_or_else(none, |epochs| epochs.to_string()),
        size(run.bytes),
        mark.into(),
    ]
}

/// Megabytes as file managers count them.
fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn as_json(run: &Run) -> serde_json::Value {
    let card = run.card.as_ref();
    let headline = card.and_then(|card| card.headline());
    let started = run.started.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let cause = match &run.state {
        RunState::Stopped(cause) => Some(cause),
        _ => None,
    };
    json!({
        "run": run.path, "state": run.state.name(), "cause": cause, "command": run.command,
        "kind": card.map(|card| card.kind.name()), "network": card.map(|card| card.network()),
        "data": card.map(|card| &card.data.path),
        "best": headline.map(|(name, value)| json!({ "figure": name, "value": value })),
        "summary": run.summary, "bytes": run.bytes,
        "started": started.map(|time| time.as_secs()),
    })
}

/// Deletes runs after a question.
fn remove(context: &Context, flags: &RunsRemove) -> anyhow::Result<()> {
    let found = flags.runs.iter().map(|path| Run::open(path)).collect::<Result<Vec<_>>>()?;
    if let Some(run) = found.iter().find(|run| run.state == RunState::Running) {
        let text = format!("{}: a process is training in it; stop it first", run.path.display());
        return Err(Error::Config(text).into());
    }
    let bytes = found.iter().map(|run| run.bytes).sum();
    let names: Vec<_> = found.iter().map(|run| run.path.display().to_string()).collect();
    let what = format!("{} ({}, {})", names.join(", "), count(found.len(), "run"), size(bytes));
    if !flags.yes && !is_confirmed(&what)? {
        context.say.line("nothing was deleted");
        return Ok(());
    }
    for run in found {
        let name = run.path.display().to_string();
        run.remove()?;
        line(&format!("deleted {name}"))?;
    }
    Ok(())
}

/// Asks on the terminal.
fn is_confirmed(what: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        let text = format!("{what}: give --yes to delete without a question");
        return Err(Error::Config(text).into());
    }
    write!(std::io::stderr(), "Delete {what}? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Settings and figures that two runs do not share.
fn diff(flags: &RunsDiff) -> anyhow::Result<()> {
    let open = |path: &PathBuf| Run::open(path);
    let both = [open(&flags.first)?, open(&flags.second)?];
    let settings = runs::settings_that_differ(both.each_ref())?;
    let figures = runs::figures_that_differ(both.each_ref());
    if flags.json {
        let listed = |all: &[Difference]| -> serde_json::Value {
            all.iter().map(|one| json!({ "name": one.name, "values": one.values })).collect()
        };
        let answer = json!({ "settings": listed(&settings), "figures": listed(&figures) });
        return Ok(line(&answer.to_string())?);
    }
    let names = both.each_ref().map(|run| run.path.display().to_string());
    for (title, all) in [("SETTING", settings), ("FIGURE", figures)] {
        if all.is_empty() {
            line(&format!("{}s: the same", title.to_lowercase()))?;
            continue;
        }
        let mut rows = vec![[title.to_owned(), names[0].clone(), names[1].clone()]];
        rows.extend(all.into_iter().map(|Difference { name, values: [first, second] }| {
            [name, first.unwrap_or_else(|| "-".into()), second.unwrap_or_else(|| "-".into())]
        }));
        columns(&rows, &[])?;
    }
    Ok(())
}
