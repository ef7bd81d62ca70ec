//! Flags of the commands that look at the machine.

use std::path::PathBuf;

use clap::Args;

use crate::device::Precision;
use crate::models::Architecture;

/// Flags of `bench`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Benchmarks")]
pub struct Bench {
    /// Run the same work in this Python (with torch, safetensors, numpy and pillow; for other backbones
    /// torchvision or facenet-pytorch), alternating with Visage; if it has onnxruntime or openvino, they
    /// run the exported network, too
    #[arg(long, value_name = "PYTHON", num_args = 0..=1, default_missing_value = "python3")]
    pub against_pytorch: Option<PathBuf>,
    /// Architecture to benchmark; any but openface has only forward, forward-16 and step
    #[arg(long, value_enum, default_value_t = Architecture::OpenFace)]
    pub backbone: Architecture,
    /// Run only these: load, forward, forward-16, embed, embed-16, step, mine, classifier, cold
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Number of timed repetitions; the median is reported
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
    /// Batch size
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(12..))]
    pub batch: u16,
    /// Number of embeddings in a mining batch
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u16).range(12..))]
    pub mined: u16,
    /// Precision of training steps
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    pub precision: Precision,
    /// Folder of pictures to load and embed [default: data/avengers or the ORL faces, if present]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data: Option<PathBuf>,
    /// Maximum number of pictures, spread over the folder
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Data",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub pictures: u16,
    /// Profile the operators of forward and step
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub profile: bool,
    /// Print one JSON object per measurement
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
