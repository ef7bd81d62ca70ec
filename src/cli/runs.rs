//! Flags of the commands about runs and their models.

use std::path::PathBuf;

use clap::Args;

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
    /// List the finished runs with their best figures, and mark the models that commands take
    #[arg(long, conflicts_with = "run", help_heading = "Action")]
    pub list: bool,
    /// Remove all pins: commands take the newest run's model again
    #[arg(long, conflicts_with_all = ["run", "list"], help_heading = "Action")]
    pub unset: bool,
}
