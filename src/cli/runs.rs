//! Flags of the commands about runs and their models.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Flags of `info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Model file or run folder [default: the newest run's]
    #[arg(value_name = "FILE|RUN", help_heading = "Arguments")]
    pub model: Option<PathBuf>,
    /// Print the model card as one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Flags of `use`.
#[derive(Debug, Args)]
#[command(
    after_help = "There is one pinned model of each kind: trunk, classifier, pair network. Commands \
    take a pinned model before the newest run's, and say so."
)]
pub struct Use {
    /// Run folder or model file to pin
    #[arg(value_name = "RUN|FILE", help_heading = "Arguments",
        required_unless_present_any = ["list", "unset"])]
    pub run: Option<PathBuf>,
    /// The same as `visage runs`
    #[arg(long, conflicts_with = "run", help_heading = "Action")]
    pub list: bool,
    /// Remove all pins: commands take the newest run's model again
    #[arg(long, conflicts_with_all = ["run", "list"], help_heading = "Action")]
    pub unset: bool,
}

/// Flags of `runs`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "A run is running, finished, interrupted (--resume goes on with it), or stopped, because its \
    training went wrong. pinned and newest mark the models that commands take if none is named."
)]
pub struct Runs {
    /// Folder of runs [default: runs]
    #[arg(value_name = "DIR", help_heading = "Arguments")]
    pub folder: Option<PathBuf>,
    /// Print the runs as one JSON array
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// What to do with runs, besides listing them.
    #[command(subcommand)]
    pub action: Option<RunsAction>,
}

/// The subcommands of `runs`.
#[derive(Debug, Subcommand)]
pub enum RunsAction {
    /// Delete runs, asking first
    Rm(RunsRemove),
    /// Show the settings and best metrics in which two runs differ
    Diff(RunsDiff),
}

/// Flags of `runs rm`.
#[derive(Debug, Args)]
pub struct RunsRemove {
    /// Run folders to delete
    #[arg(value_name = "RUN", required = true, help_heading = "Arguments")]
    pub runs: Vec<PathBuf>,
    /// Delete without a question
    #[arg(long, short, help_heading = "Action")]
    pub yes: bool,
}

/// Flags of `runs diff`.
#[derive(Debug, Args)]
pub struct RunsDiff {
    /// A run folder
    #[arg(value_name = "A", help_heading = "Arguments")]
    pub first: PathBuf,
    /// Another run folder
    #[arg(value_name = "B", help_heading = "Arguments")]
    pub second: PathBuf,
    /// Print the differences as one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
