//! `visage use`.

use std::process::ExitCode;

use super::context::Context;
use super::output::line;
use super::runs::list;
use crate::cli;
use crate::recognise::runs;
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
        list(context, folder, false)?;
    }
    Ok(ExitCode::SUCCESS)
}
