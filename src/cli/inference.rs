//! Flags of the commands that use a trained model.

use std::path::PathBuf;

use clap::Args;

use crate::detect::MinFace;
use crate::device::Precision;
use crate::models::Architecture;
use crate::recognise::FaceSearch;
use crate::train::settings::{input_size, percent};

/// When to run the face detector.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Face detector")]
pub struct FaceFlag {
    /// When to run the face detector: auto crops the main face from each photo and uses a picture
    /// as it is if a face fills it, if no face is found, or if the model was trained on pictures
    /// without faces or on given triplets
    #[arg(long, value_enum, value_name = "auto|always|never", default_value = "auto")]
    pub detect: FaceSearch,
}

/// Flags of `classify`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Model",
    mut_arg("detect", |detect| detect.help(
        "When to run the face detector: auto uses a picture as it is if the face fills it as in the \
         model's training pictures, and crops the faces from all others")),
)]
pub struct Classify {
    /// Pictures, or folders of pictures
    #[arg(required = true, value_name = "FILE|DIR", help_heading = "Arguments")]
    pub inputs: Vec<PathBuf>,
    /// Model file or run folder [default: the classifier pinned with `visage use`, or the newest
    /// run's]
    #[arg(long, value_name = "FILE|RUN")]
    pub model: Option<PathBuf>,
    /// Minimum probability for a name, in percent (below it the face is UNKNOWN); write values up to
    /// 1 with a percent sign, such as 0.5% [default: the model's threshold]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub unknown: Option<f64>,
    /// When to run it.
    #[command(flatten)]
    pub face: FaceFlag,
    /// The face detector.
    #[command(flatten)]
    pub detector: DetectorFlags,
    /// Show the N most likely identities
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Output",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Print one JSON object per picture, with all its faces
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Draw boxes, names and probabilities: a PNG for one picture, or a folder for several
    #[arg(long, value_name = "PNG|DIR", help_heading = "Output")]
    pub draw: Option<PathBuf>,
}

/// Flags of the face detector (MTCNN).
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Face detector")]
pub struct DetectorFlags {
    /// Minimum face size: the side of the box in pixels, or a share of the photo's shorter side
    /// (10%); larger is faster
    #[arg(long, value_name = "PIXELS|SHARE", default_value_t = MinFace::Pixels(20.0))]
    pub min_face: MinFace,
    /// Minimum face probability from 0 to 1: one value for O-Net, or three for P-Net, R-Net and O-Net
    #[arg(
        long,
        alias = "threshold",
        value_name = "O|P,R,O",
        value_delimiter = ',',
        default_value = "0.6,0.7,0.7"
    )]
    pub face_threshold: Vec<f32>,
}

/// Flags of `detect`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Detect {
    /// Photos, or folders of photos
    #[arg(required = true, value_name = "FILE|DIR", help_heading = "Arguments")]
    pub inputs: Vec<PathBuf>,
    /// The face detector.
    #[command(flatten)]
    pub detector: DetectorFlags,
    /// Print one JSON object per photo
    #[arg(long)]
    pub json: bool,
    /// Write a CSV table with one row per face
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the photos with their faces marked to this folder (PNG)
    #[arg(long, value_name = "DIR")]
    pub draw: Option<PathBuf>,
}

/// Flags of `evaluate`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct Evaluate {
    /// Folder with one sub-folder of pictures per identity, or a record file (X.rec), WebDataset shards
    /// ('X-{000..003}.tar') or a table (X.csv); with --pairs the root of its paths
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Evaluate on a list of pairs: LFW's pairs.txt, or a table with columns a, b and same
    #[arg(long, value_name = "FILE", conflicts_with_all = ["strangers", "confusion", "unknown", "fnir_curve"])]
    pub pairs: Option<PathBuf>,
    /// With --pairs: use this central square, without face detection (LFW: 156)
    #[arg(long, alias = "center-crop", value_name = "PIXELS", requires = "pairs",
        conflicts_with = "detect", value_parser = clap::value_parser!(u32).range(1..))]
    pub centre_crop: Option<u32>,
    /// Folder of unknown people, cropped as in `classify`: report how many of their faces are
    /// called UNKNOWN, and the FNIR (known faces not named) at FPIRs (strangers named) of 10, 3, 1
    /// and 0.3 %; the model's own identities are excluded
    #[arg(long, value_name = "DIR")]
    pub strangers: Option<PathBuf>,
    /// When to search pictures for faces.
    #[command(flatten)]
    pub face: FaceFlag,
    /// The model: one with a classifier, or with --pairs any trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Minimum probability for a name, in percent; write values up to 1 with a percent sign, such
    /// as 0.5% [default: the model's threshold]
    #[arg(long, value_name = "PERCENT", value_parser = percent, help_heading = "Model")]
    pub unknown: Option<f64>,
    /// Draw the confusion matrix (PNG)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub confusion: Option<PathBuf>,
    /// With --strangers: draw FNIR (known not named) over FPIR (strangers named) (PNG)
    #[arg(long, value_name = "FILE", requires = "strangers", help_heading = "Output")]
    pub fnir_curve: Option<PathBuf>,
    /// With --pairs: draw the ROC curve (PNG)
    #[arg(long, value_name = "FILE", requires = "pairs", help_heading = "Output")]
    pub roc: Option<PathBuf>,
    /// With --pairs: draw a histogram of same and different distances (PNG)
    #[arg(long, value_name = "FILE", requires = "pairs", help_heading = "Output")]
    pub histogram: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decision")]
pub struct Verify {
    /// First picture
    #[arg(value_name = "A", help_heading = "Arguments")]
    pub a: PathBuf,
    /// Second picture
    #[arg(value_name = "B", help_heading = "Arguments")]
    pub b: PathBuf,
    /// Maximum distance for the same person; negative values make sense only for pair networks
    /// with a logit head, whose distance is the negated logit [default: the model's threshold]
    #[arg(long, value_name = "DISTANCE", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// Use the central square of this size, without face detection
    #[arg(long, alias = "center-crop", value_name = "PIXELS", help_heading = "Data",
        conflicts_with = "detect", value_parser = clap::value_parser!(u32).range(1..))]
    pub centre_crop: Option<u32>,
    /// When to search pictures for faces.
    #[command(flatten)]
    pub face: FaceFlag,
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Which trunk computes embeddings: a model's, or a bare backbone with weights.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct TrunkChoice {
    /// Model file or run folder [default: the model pinned with `visage use`, or the newest run's,
    /// or without any the pretrained dlib-resnet]
    #[arg(long, value_name = "FILE|RUN", conflicts_with_all = ["backbone", "weights"])]
    pub model: Option<PathBuf>,
    /// Use a bare backbone of this architecture instead of a model file
    #[arg(long, value_enum)]
    pub backbone: Option<Architecture>,
    /// Weights of the backbone: a known name, a file, or `none` for random weights [default: the
    /// backbone's pretrained weights]
    #[arg(long, value_name = "NAME|FILE|none", requires = "backbone")]
    pub weights: Option<String>,
    /// Allow parameters with these key prefixes to be missing from the --weights file
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', requires = "backbone")]
    pub allow_missing: Vec<String>,
    /// Input size in pixels [default: the backbone's]
    #[arg(long, value_name = "PIXELS", requires = "backbone", value_parser = input_size())]
    pub input_size: Option<u32>,
}

impl TrunkChoice {
    /// No flag was given.
    pub fn is_default(&self) -> bool {
        self.model.is_none() && self.backbone.is_none()
    }

    /// The same with the pretrained trunk of an architecture.
    pub fn pretrained(&self, architecture: Architecture) -> Self {
        Self { backbone: Some(architecture), model: None, ..self.clone() }
    }
}

/// Flags of `tsne`.
#[derive(Debug, Args)]
#[command(next_help_heading = "t-SNE")]
pub struct Tsne {
    /// Folder with one sub-folder of pictures per identity, or what else train-triplet takes [default: as
    /// for train-triplet]
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data: Option<PathBuf>,
    /// When to search pictures for faces.
    #[command(flatten)]
    pub face: FaceFlag,
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Perplexity: effective number of neighbours per point (reduced for small data sets)
    #[arg(long, default_value_t = 20.0)]
    pub perplexity: f64,
    /// Number of gradient steps
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub iterations: usize,
    /// The plot (PNG)
    #[arg(long, value_name = "FILE", default_value = "tsne.png", help_heading = "Output")]
    pub out: PathBuf,
}

/// Flags of `embed`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct Embed {
    /// Pictures, folders of pictures (the label of a picture is its folder's name), record files (X.rec),
    /// WebDataset shards ('X-{000..003}.tar') or tables (X.csv)
    #[arg(required = true, value_name = "FILE|DIR", help_heading = "Arguments")]
    pub inputs: Vec<PathBuf>,
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// When to search pictures for faces.
    #[command(flatten)]
    pub face: FaceFlag,
    /// Precision of the trunk's forward pass: bf16 is faster on CPUs and GPUs that support it and
    /// changes an embedding by about 0.01
    #[arg(long, value_enum, default_value_t = Precision::F32, help_heading = "Model")]
    pub precision: Precision,
    /// Output file: .npy (with paths and labels in a .csv beside it), .csv or .safetensors
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
}
