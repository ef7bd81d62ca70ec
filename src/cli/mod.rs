//! The command line: one file per group of subcommands; what each flag means is said there and in
//! [`crate::train::settings`].

mod config;
mod data;
mod gallery;
mod inference;
mod installation;
mod runs;
#[cfg(feature = "serve")]
mod serve;
mod weights;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use config::{Configured, LrFind, Resume, TrainTriplet, parse};
pub use data::{
    Audit, Fetch, Keep, Prepare, PrepareAction, PrepareFaces, PreparePack, PrepareStrips,
};
pub use gallery::{
    Gallery, GalleryAction, GalleryEnroll, GalleryExport, GalleryFaces, GalleryForget,
    GalleryIdentify, GalleryImport, GalleryList, GalleryReject, GalleryShow, GalleryThreshold,
};
pub use inference::{
    Classify, Detect, DetectorFlags, Embed, Evaluate, FaceFlag, TrunkChoice, Tsne, Verify,
};
pub use installation::{Bench, Doctor};
pub use runs::{Info, Runs, RunsAction, RunsDiff, RunsRemove, Use};
#[cfg(feature = "serve")]
pub use serve::Serve;
pub use weights::{Export, Models, Weights, WeightsAction, WeightsVerify};

use crate::data::picture::MAX_PIXELS;
use crate::device::DeviceChoice;
use crate::train::settings::{ClassifierSettings, DistilSettings, PairSettings};

/// Train a face recogniser on folders of pictures, and name the faces on new ones.
#[derive(Debug, Parser)]
#[command(
    name = "visage",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_flag = true
)]
#[command(after_help = "Start with `visage doctor`, or:\n  visage train-triplet --data DIR\n  \
    visage train-classifier --data DIR\n  visage classify face.png")]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
    /// The flags of every subcommand.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of every subcommand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Common {
    /// Device to compute on: cpu, cuda, cuda:N or auto
    #[arg(long, global = true, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Number of CPU threads [default: one per core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Number of threads that decode pictures [default: as --threads]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Maximum number of pixels per picture; larger pictures count as unreadable (protects against
    /// decompression bombs)
    #[arg(long, global = true, value_name = "N", default_value_t = MAX_PIXELS)]
    pub max_pixels: u64,
    /// Use deterministic CUDA kernels: the same seed gives the same weights, more slowly. Operators
    /// without one are named in a warning. CPU runs are always repeatable
    #[arg(long, global = true)]
    pub deterministic: bool,
    /// Print only results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print help
    #[arg(long, short, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a trunk with triplet loss or another metric-learning loss (--loss)
    #[command(name = "train-triplet", visible_alias = "train")]
    TrainTriplet(Box<TrainTriplet>),
    /// Train a network to tell whether two pictures show the same person
    TrainPairs(Box<Configured<PairSettings>>),
    /// Train a linear classifier on the frozen trunk of a training run
    TrainClassifier(Box<Configured<ClassifierSettings>>),
    /// Distil a teacher trunk into a student, on unlabelled pictures
    Distil(Box<Configured<DistilSettings>>),
    /// Run a learning-rate range test for train-triplet
    LrFind(Box<LrFind>),
    /// Name the faces in pictures
    Classify(Classify),
    /// Enrol, name and forget people, without training
    Gallery(Gallery),
    /// Serve a gallery over HTTP: name faces, enrol and forget people, with a page to do so by hand
    #[cfg(feature = "serve")]
    Serve(Box<Serve>),
    /// Detect faces in photos: boxes, landmarks, probabilities
    Detect(Detect),
    /// Evaluate a model on a labelled folder and on unknown people, or on a list of pairs
    Evaluate(Evaluate),
    /// Tell whether two pictures show the same person: exit code 0 if so, 1 if not, 2 on an error
    Verify(Verify),
    /// Check a data set for broken files, duplicates, wrong labels and poor pictures
    Audit(Box<Audit>),
    /// Draw the embeddings of a folder as a t-SNE scatter plot
    Tsne(Tsne),
    /// Write the embeddings of pictures to a file
    Embed(Embed),
    /// Show what a model is: kind, trunk, identities, data, metrics, settings
    Info(Info),
    /// List the training runs, compare two of them, or delete some
    Runs(Runs),
    /// Pin the model of a run, so that commands take it instead of the newest
    Use(Use),
    /// Inspect, compare and convert weight files of PyTorch and others
    Weights(Weights),
    /// Export a model to TorchScript or ONNX
    Export(Export),
    /// List the architectures, or show one with its blocks and known weights
    Models(Models),
    /// Make training data from pictures
    Prepare(Prepare),
    /// Download a data set or weights by name, or unpack an archive of them
    Fetch(Fetch),
    /// Benchmark training and inference on this machine, optionally against PyTorch
    Bench(Bench),
    /// Check this installation
    Doctor(Doctor),
}

impl Command {
    /// Whether it trains.
    pub fn trains(&self) -> bool {
        matches!(
            self,
            Self::TrainTriplet(_)
                | Self::TrainPairs(_)
                | Self::TrainClassifier(_)
                | Self::Distil(_)
                | Self::LrFind(_)
        )
    }

    /// The interrupted run that a training goes on with.
    pub fn resume(&self) -> Option<Resume> {
        match self {
            Self::TrainTriplet(command) => command.configured.resume(),
            Self::TrainPairs(command) => command.resume(),
            Self::TrainClassifier(command) => command.resume(),
            Self::Distil(command) => command.resume(),
            Self::LrFind(command) => command.configured.resume(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::config::command;

    #[test]
    fn the_surface_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_heading_and_the_global_ones_come_last() {
        fn walk(command: &mut clap::Command) {
            if command.get_name() == "help" {
                return; // clap's own, which takes no flags
            }
            let help = command.render_long_help().to_string();
            let is_heading = |line: &&str| line.ends_with(':') && !line.contains(['<', '`', ',']);
            let headings: Vec<_> = help.lines().filter(is_heading).collect();
            assert_eq!(
                headings.last(),
                Some(&"Global options:"),
                "{}:\n{help}",
                command.get_name()
            );
            let is_root = command.get_name() == "visage";
            assert!(is_root || !headings.contains(&"Options:"), "{help}");
            for argument in command.get_positionals() {
                let heading = argument.get_help_heading().unwrap_or("Arguments");
                assert_eq!(heading, "Arguments", "{}", command.get_name());
            }
            command.get_subcommands_mut().for_each(walk);
        }
        let mut root = command();
        root.build();
        walk(&mut root);
    }
}
