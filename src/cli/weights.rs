//! Flags of the commands for weight files, exported models and architectures.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::export::{BatchSize, ExportFormat};
use crate::models::Architecture;

/// Flags of `weights`.
#[derive(Debug, Args)]
pub struct Weights {
    /// What to do with the files.
    #[command(subcommand)]
    pub action: WeightsAction,
}

/// The subcommands of `weights`. Files are recognised by their content: torch.save (of any age),
/// TorchScript, safetensors, tch's .ot, NumPy's .npz, ONNX.
#[derive(Debug, Subcommand)]
pub enum WeightsAction {
    /// Convert a weight file to the format of the new file's ending (`visage export` writes
    /// TorchScript and ONNX)
    Convert {
        /// Weight file of any format
        #[arg(value_name = "IN")]
        input: PathBuf,
        /// New file: .safetensors, or .pth or .pt for torch.load
        #[arg(value_name = "OUT")]
        output: PathBuf,
        /// Overwrite an existing file
        #[arg(long, help_heading = "Output")]
        force: bool,
    },
    /// Show the tensors of a weight file: shape, dtype, size, statistics of the values
    Inspect {
        /// Weight file of any format
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print one JSON object
        #[arg(long, help_heading = "Output")]
        json: bool,
    },
    /// Compare two weight files: exit code 0 if they hold the same tensors, 1 if not
    Diff {
        /// Weight file of any format
        #[arg(value_name = "A")]
        a: PathBuf,
        /// Weight file of any format
        #[arg(value_name = "B")]
        b: PathBuf,
        /// Print one JSON object
        #[arg(long, help_heading = "Output")]
        json: bool,
    },
    /// Compare a network layer by layer with PyTorch: exit code 0 if they agree, 1 if not
    Verify(WeightsVerify),
}

/// Flags of `weights verify`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
pub struct WeightsVerify {
    /// Weight file of any format, or a model file
    #[arg(value_name = "MODEL", help_heading = "Arguments")]
    pub model: PathBuf,
    /// Reference outputs of PyTorch, written by tests/parity/reference.py
    #[arg(long, value_name = "FILE")]
    pub against: PathBuf,
    /// Expected architecture: fail if the files are of another
    #[arg(long, value_enum)]
    pub backbone: Option<Architecture>,
    /// Allow keys with these prefixes to be missing; only layers are compared then, not outputs
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub allow_missing: Vec<String>,
    /// Maximum relative difference of outputs and layers
    #[arg(long, value_name = "SHARE", default_value_t = 1e-5)]
    pub tolerance: f64,
    /// Maximum relative difference of gradients
    #[arg(long, value_name = "SHARE", default_value_t = 1e-4)]
    pub gradient_tolerance: f64,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Export options",
    after_help = "The graph takes `pictures`, float32 [N, 3, H, W], RGB in [0, 1] (it normalises \
    them itself), and returns `embedding` [N, D] with unit length and, for a classifier, `logits` \
    [N, classes], already divided by the calibrated temperature: their softmax are probabilities. \
    The UNKNOWN threshold is not part of the graph."
)]
pub struct Export {
    /// A model file or run folder; or, with --backbone, a weight file, a known name, or `none`
    #[arg(value_name = "MODEL", help_heading = "Arguments")]
    pub model: PathBuf,
    /// New file: .pt or .torchscript for TorchScript, .onnx for ONNX
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// File format [default: from the ending of OUT]
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// Architecture, if MODEL holds bare weights
    #[arg(long, value_enum, hide_possible_values = true)]
    pub backbone: Option<Architecture>,
    /// Batch size of an ONNX file: a number, or `dynamic`
    #[arg(long, value_name = "N", default_value_t = BatchSize::Dynamic)]
    pub batch: BatchSize,
}

/// Flags of `models`.
#[derive(Debug, Args)]
pub struct Models {
    /// Show this architecture in full
    #[arg(
        value_enum,
        value_name = "NAME",
        hide_possible_values = true,
        help_heading = "Arguments"
    )]
    pub name: Option<Architecture>,
    /// Print JSON: one object, or a list of all
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
