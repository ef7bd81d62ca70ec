//! `visage prepare`: makes training data from pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::context::Context;
use super::output::count;
use super::{output, prepare_faces, prepare_pack};
use crate::cli::{PrepareAction, PrepareStrips};
use crate::data::people::{Layout, People};
use crate::data::picture;
use crate::data::strip_folder::{BuildOptions, QUARANTINE, Summary, build, cut_folder};
use crate::data::strips::StripFormat;

/// Number of quarantined files to list.
const SHOWN: usize = 5;

pub fn run(context: &Context, action: &PrepareAction) -> anyhow::Result<ExitCode> {
    match action {
        PrepareAction::Strips(flags) if flags.cut => cut(context, flags),
        PrepareAction::Strips(flags) => strips(context, flags),
        PrepareAction::Faces(flags) => prepare_faces::run(context, flags),
        PrepareAction::Pack(flags) => prepare_pack::run(context, flags),
    }
}

fn strips(context: &Context, flags: &PrepareStrips) -> anyhow::Result<ExitCode> {
    let people = People::scan(&flags.input)?;
    let layout = match people.layout {
        Layout::Passports => "passports and photos",
        Layout::Faces => "one folder per identity",
    };
    let found = count(people.usable().count(), "person").replace("persons", "people");
    context.say.line(&format!("{}: {found} with enough pictures, {layout}", flags.input.display()));
    for note in &people.notes {
        context.say.line(&format!("note: {note}"));
    }
    let options = BuildOptions {
        size: flags.size,
        per_person: flags.count.map(|count| count as usize),
        limit: limit(flags),
        seed: flags.seed,
        format: format(flags),
    };
    let total = people.draw(options.per_person, options.limit, options.seed).len();
    let bar = context.say.progress("strips", total as u64, "strips");
    let summary = build(people, &flags.input, &flags.output, &options, &|_, _| bar.inc(1))?;
    bar.finish();
    conclude(context, flags, &summary, "strip", "written to")
}

fn cut(context: &Context, flags: &PrepareStrips) -> anyhow::Result<ExitCode> {
    let total = picture::walk(&flags.input)?.len().min(limit(flags).unwrap_or(usize::MAX));
    let bar = context.say.progress("cutting", total as u64, "strips");
    let summary = cut_folder(
        &flags.input,
        &flags.output,
        flags.layout,
        format(flags),
        limit(flags),
        &|_, _| bar.inc(1),
    )?;
    bar.finish();
    conclude(context, flags, &summary, "strip", "cut into triplets in")
}

fn limit(flags: &PrepareStrips) -> Option<usize> {
    flags.limit.map(|limit| limit as usize)
}

fn format(flags: &PrepareStrips) -> StripFormat {
    flags.jpeg.map_or(StripFormat::Png, StripFormat::Jpeg)
}

/// Prints the counts, and which files were quarantined.
fn conclude(
    context: &Context,
    flags: &PrepareStrips,
    summary: &Summary,
    what: &str,
    done: &str,
) -> anyhow::Result<ExitCode> {
    let Summary { done: made, people, quarantined } = summary;
    for (file, reason) in quarantined.iter().take(SHOWN) {
        context.say.warn(&format!("{}: {reason}", shown(&flags.input, file).display()));
    }
    if quarantined.len() > SHOWN {
        context.say.warn(&format!("and {} more", quarantined.len() - SHOWN));
    }
    let people = match people {
        Some(people) => format!(" of {}", count(*people, "person").replace("persons", "people")),
        None => String::new(),
    };
    let aside = match quarantined.len() {
        0 => "none quarantined".to_owned(),
        broken => {
            let list = flags.output.join(QUARANTINE);
            format!("{} quarantined, listed in {}", count(broken, "file"), list.display())
        }
    };
    let text = format!("{}{people} {done} {}; {aside}", count(*made, what), flags.output.display());
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown(root: &Path, file: &Path) -> PathBuf {
    file.strip_prefix(root).unwrap_or(file).to_path_buf()
}
