//! `visage fetch`: downloads data sets and weights by name, once their terms are accepted.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::context::Context;
use super::output::{self, count};
use crate::cli::Fetch;
use crate::fetch::catalogue::{self, Item, Origin};
use crate::fetch::{self, FetchOptions, Patience, kaggle};
use crate::files::write_atomically;
use crate::weights::manifest;
use crate::{Error, Result};

/// Milliseconds before the first retry, instead of a second.
const PAUSE_VARIABLE: &str = "VISAGE_RETRY_PAUSE_MS";
/// Folder of the records of accepted terms.
const ACCEPTED: &str = "data/.accepted";

pub fn run(context: &Context, flags: &Fetch) -> anyhow::Result<ExitCode> {
    let Some(name) = flags.name.as_deref().filter(|_| !flags.list) else {
        return list();
    };
    if manifest::entries()?.iter().any(|entry| entry.name == name) {
        let text = format!("{name} is part of the program: use --weights {name}");
        output::line(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let item = catalogue::item(name)?;
    let to = flags.to.clone().unwrap_or_else(|| PathBuf::from(&item.place));
    agree(context, &item, flags)?;
    let bar = OnceCell::new();
    let shown = std::cell::Cell::new(0);
    let service = std::env::var(kaggle::SERVICE_VARIABLE);
    let options = FetchOptions {
        to: &to,
        from: &flags.from,
        kaggle: service.as_deref().unwrap_or(kaggle::SERVICE),
        patience: patience()?,
        say: &|text| context.say.line(text),
        progress: &|here, total| {
            let total = total.unwrap_or(0) / 1000;
            let bar = bar.get_or_init(|| context.say.progress(&item.name, total, "kB"));
            // A restarted download counts from where it was.
            bar.inc((here / 1000).saturating_sub(shown.get()));
            shown.set(shown.get().max(here / 1000));
        },
    };
    let fetched = fetch::fetch(&item, &options)?;
    let sum = match (&fetched.sha256, fetched.checked) {
        (Some(sum), true) => format!(", SHA-256 {sum} as in the manifest"),
        (Some(sum), false) => format!(", SHA-256 {sum} (not in the manifest)"),
        (None, _) => String::new(),
    };
    let files = count(fetched.files, "file");
    output::line(&format!("{}: {files} in {}{sum}", item.title, to.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the terms until they are accepted once. They are not asked for an archive of the user.
fn agree(context: &Context, item: &Item, flags: &Fetch) -> anyhow::Result<()> {
    let terms = format!("{}\nsource: {}\nterms: {}\n", item.title, item.source, item.terms);
    let record = Path::new(ACCEPTED).join(&item.name);
    if std::fs::read_to_string(&record).is_ok_and(|agreed| agreed == terms) {
        return Ok(());
    }
    for line in terms.lines() {
        context.say.line(line);
    }
    if item.origins.is_empty() || !flags.from.is_empty() {
        return Ok(());
    }
    if !flags.accept_licence {
        bail!(
            "{}: terms of use: {}; if you accept them, run the command again with \
             --accept-licence",
            item.title,
            item.terms
        );
    }
    write_atomically(&record, |out| std::io::Write::write_all(out, terms.as_bytes()))?;
    Ok(())
}

fn patience() -> Result<Patience> {
    let patience = Patience::default();
    let Ok(text) = std::env::var(PAUSE_VARIABLE) else { return Ok(patience) };
    match text.parse() {
        Ok(pause) => Ok(Patience { pause: Duration::from_millis(pause), ..patience }),
        Err(_) => {
            let text = format!("{PAUSE_VARIABLE} {text}: must be a number of milliseconds");
            Err(Error::Config(text))
        }
    }
}

fn list() -> anyhow::Result<ExitCode> {
    for entry in manifest::entries()? {
        let (name, licence) = (&entry.name, &entry.licence);
        output::line(&format!(
            "{name:22} {}\n{:22} part of the program; {licence}",
            entry.embedding, ""
        ))?;
    }
    for item in catalogue::items()? {
        let from: Vec<String> = item
            .origins
            .iter()
            .map(|origin| match origin {
                Origin::Pip => "pip".into(),
                Origin::Kaggle(name) => format!("Kaggle {name}"),
                Origin::Url(url) => url.clone(),
            })
            .collect();
        let from = match from.is_empty() {
            true => "your own archive (--from)".into(),
            false => from.join(" or "),
        };
        let there = if Path::new(&item.place).exists() { " (present)" } else { "" };
        let (name, title, place, terms) = (item.name, item.title, item.place, item.terms);
        output::line(&format!("{name:22} {title}\n{:22} to {place}{there}, from {from}", ""))?;
        output::line(&format!("{:22} terms: {terms}", ""))?;
    }
    Ok(ExitCode::SUCCESS)
}
