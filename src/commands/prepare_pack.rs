//! `visage prepare pack`: a data set in one file or in shards.

use std::process::ExitCode;

use super::context::Context;
use super::output;
use super::output::{count, identities, line};
use crate::cli::PreparePack;
use crate::data::formats;
use crate::data::pack::{PackOptions, pack};

/// Number of pictures left out that are named.
const SHOWN: usize = 5;

pub fn run(context: &Context, flags: &PreparePack) -> anyhow::Result<ExitCode> {
    let dataset = formats::open(&flags.input)?;
    for note in dataset.notes() {
        context.say.line(&format!("note: {note}"));
    }
    if dataset.record(0).is_some_and(|record| record.part.is_some()) {
        context.say.warn(&format!(
            "{} divides its pictures into training and validation; a packed data set does not: train \
             with --split",
            flags.input.display()
        ));
    }
    let options = PackOptions { shard_size: flags.shard_size << 20, force: flags.force };
    let bar = context.say.progress("packing", dataset.len() as u64, "pictures");
    let summary = pack(dataset.as_ref(), &flags.output, options, &|| bar.inc(1))?;
    bar.finish();
    for (path, reason) in summary.left_out.iter().take(SHOWN) {
        context.say.warn(&format!("left out {}: {reason}", path.display()));
    }
    if summary.left_out.len() > SHOWN {
        context.say.warn(&format!("and {} more", summary.left_out.len() - SHOWN));
    }
    let files = match summary.files.as_slice() {
        [first, .., last] if flags.output.extension().is_some_and(|ending| ending == "tar") => {
            format!("{} to {}", first.display(), last.display())
        }
        files => files.first().map_or_else(String::new, |file| file.display().to_string()),
    };
    let kept = match summary.kept {
        0 => String::new(),
        kept => format!("; {} of an interrupted run kept", count(kept, "shard")),
    };
    let printed = line(&format!(
        "{} of {} packed into {files}{kept}; {} left out",
        count(summary.pictures, "picture"),
        identities(dataset.identities().len()),
        match summary.left_out.len() {
            0 => "none".to_owned(),
            some => some.to_string(),
        }
    ));
    output::exit(printed, 0)
}
