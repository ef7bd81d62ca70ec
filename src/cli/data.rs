//! Flags of the commands that get, check and make data.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{DetectorFlags, TrunkChoice};
use crate::audit::mislabels;
use crate::data::strip_folder::CutLayout;
use crate::detect::Template;

/// Flags of `audit`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Checks",
    mut_arg("model", |model| model.help(
        "Model file of the trunk that checks labels [default: the OpenFace trunk that comes with \
         Visage; a trunk trained on these folders has learnt their wrong labels]")),
    after_help = "Nothing is moved or deleted. The exit code is 0 if nothing serious is found, 1 \
        if there are findings of high severity (unreadable, leak, two-names, mislabel), and 2 on \
        an error. Labels are checked with the trunk's embeddings: leave-one-out, by the three \
        nearest different photos of each identity. On loose photos the face is cropped first."
)]
pub struct Audit {
    /// Folder with one sub-folder of pictures per identity, or a folder of pictures; or a record file
    /// (X.rec), WebDataset shards ('X-{000..003}.tar') or a table (X.csv)
    #[arg(value_name = "DIR", help_heading = "Arguments")]
    pub data: PathBuf,
    /// The split.csv of a training run: find photos that are in both parts
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub split: Option<PathBuf>,
    /// Check the central square of this size instead of the detected face (LFW: 156)
    #[arg(long, alias = "center-crop", value_name = "PIXELS", help_heading = "Data",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub centre_crop: Option<u32>,
    /// Skip face detection: about 20 ms faster per picture
    #[arg(long, help_heading = "Data")]
    pub no_detect: bool,
    /// The trunk that checks labels.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Report a label as wrong if the distance to its own identity exceeds the distance to the
    /// nearest other one by this margin; raise it for thousands of identities
    #[arg(long, value_name = "DISTANCE", default_value_t = mislabels::MISLABEL)]
    pub margin: f64,
    /// Minimum side of a picture in pixels [default: the trunk's input size]
    #[arg(long, value_name = "PIXELS")]
    pub min_side: Option<u32>,
    /// Minimum sharpness: variance of the Laplacian at 96 x 96 pixels
    #[arg(long, value_name = "VARIANCE", default_value_t = 60.0)]
    pub min_sharpness: f64,
    /// Minimum distance of the mean grey value (0 to 255) from black and from white
    #[arg(long, value_name = "VALUE", default_value_t = 30.0)]
    pub min_light: f64,
    /// Minimum contrast: standard deviation of the grey values
    #[arg(long, value_name = "VALUE", default_value_t = 15.0)]
    pub min_contrast: f64,
    /// Maximum aspect ratio
    #[arg(long, value_name = "RATIO", default_value_t = 2.0)]
    pub max_aspect: f64,
    /// Report identities with this many times fewer or more pictures than the median
    #[arg(long, value_name = "RATIO", default_value_t = 3.0)]
    pub imbalance: f64,
    /// Print the N worst findings, or `all`
    #[arg(long, value_name = "N", default_value = "20", value_parser = top, help_heading = "Output")]
    pub top: usize,
    /// Print one JSON object with all findings
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Write all findings to a CSV table
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Write all findings to an HTML page with thumbnails
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
}

/// A number, or `all`.
fn top(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        number => number.parse().map_err(|_| "expected a number or `all`".to_owned()),
    }
}

/// Flags of `prepare`.
#[derive(Debug, Args)]
pub struct Prepare {
    /// What to make.
    #[command(subcommand)]
    pub action: PrepareAction,
}

/// The subcommands of `prepare`.
#[derive(Debug, Subcommand)]
pub enum PrepareAction {
    /// Build strips (anchor, positive and negative side by side) from folders of faces, or cut
    /// strips into triplets
    Strips(PrepareStrips),
    /// Detect, align and crop the faces in a folder of photos, keeping its sub-folders
    Faces(PrepareFaces),
    /// Pack a data set into one record file (MXNet's RecordIO) or into tar shards (WebDataset)
    Pack(PreparePack),
}

/// Which faces of a photo to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The largest face
    Largest,
    /// The face nearest to the centre
    Central,
    /// All faces
    All,
}

/// Flags of `prepare faces`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Crops",
    after_help = "OUT/faces.csv lists the outcome for every photo: ok, several faces (one was \
    kept), no face, too small, blurred, unreadable. Photos that are not ok are linked from \
    OUT-quarantine for review. Run the same command again to resume."
)]
pub struct PrepareFaces {
    /// Folder of photos, with or without sub-folders
    #[arg(value_name = "IN", help_heading = "Arguments")]
    pub input: PathBuf,
    /// Folder for the crops (PNG): a new one, or one to resume
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub output: PathBuf,
    /// Which faces of a photo to keep
    #[arg(long, value_enum, default_value = "largest")]
    pub keep: Keep,
    /// How to align and crop faces: for which backbone
    #[arg(long, value_enum, default_value = "openface")]
    pub template: Template,
    /// Width of a crop in pixels [default: the template's]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub size: Option<u32>,
    /// Margin around the template's face, in pixels of the crop
    #[arg(long, value_name = "PIXELS", default_value_t = 0.0)]
    pub margin: f64,
    /// Minimum side of a face's box on the photo, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 0.0)]
    pub min_size: f64,
    /// Minimum sharpness of a crop: variance of its Laplacian (faces.csv lists it; it depends on the
    /// crop's size)
    #[arg(long, value_name = "VARIANCE", default_value_t = 0.0)]
    pub min_sharpness: f64,
    /// The face detector.
    #[command(flatten)]
    pub detector: DetectorFlags,
}

/// Flags of `prepare pack`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Packing",
    after_help = "The pictures' own bytes are written, in the order of the data set; unreadable ones are \
    left out. Every file is read again and compared before it gets its name. Run the same command again \
    to resume shards. Train with --data OUT."
)]
pub struct PreparePack {
    /// The data set: a folder with one sub-folder of pictures per identity, or any other that --data of
    /// train-triplet takes
    #[arg(value_name = "IN", help_heading = "Arguments")]
    pub input: PathBuf,
    /// X.rec (X.idx and X.lst are written beside it), X.tar, or 'X-{000..999}.tar' for as many shards as
    /// are needed
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub output: PathBuf,
    /// Size of a shard
    #[arg(long, value_name = "MB", default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub shard_size: u64,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
}

/// Flags of `prepare strips`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Strips")]
pub struct PrepareStrips {
    /// Passport folders (trainset/*/user/*, with one picture named *script* in each), or a folder
    /// with one sub-folder of pictures per identity; with --cut a folder of strips
    #[arg(value_name = "IN", help_heading = "Arguments")]
    pub input: PathBuf,
    /// New folder for the output; must not exist
    #[arg(value_name = "OUT", help_heading = "Arguments")]
    pub output: PathBuf,
    /// Cut the strips in IN into triplets
    #[arg(long)]
    pub cut: bool,
    /// Side of the three pictures of a strip, in pixels
    #[arg(long, value_name = "S", default_value_t = 224, conflicts_with = "cut",
        value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub size: u32,
    /// Number of strips per person [default: one per photo]
    #[arg(long, value_name = "N", conflicts_with = "cut",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: Option<u32>,
    /// Maximum number of strips in total
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Random seed for choosing the pictures of a strip
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "cut")]
    pub seed: u64,
    /// Write JPEG of this quality instead of PNG
    #[arg(long, value_name = "QUALITY", help_heading = "Output",
        value_parser = clap::value_parser!(u8).range(1..=100))]
    pub jpeg: Option<u8>,
    /// Folder layout of cut triplets
    #[arg(long, value_enum, default_value = "folders", requires = "cut", help_heading = "Output")]
    pub layout: CutLayout,
}

/// Flags of `fetch`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Fetch options")]
pub struct Fetch {
    /// Name of the data set or weights; --list shows all
    #[arg(value_name = "NAME", required_unless_present = "list", help_heading = "Arguments")]
    pub name: Option<String>,
    /// List what can be fetched, with source and terms of use
    #[arg(long, conflicts_with_all = ["name", "from", "to"])]
    pub list: bool,
    /// Unpack this archive (zip, tar, tgz) instead of downloading; other files are copied; can be
    /// given several times
    #[arg(long, value_name = "FILE")]
    pub from: Vec<PathBuf>,
    /// Destination; must not exist [default: data/NAME, or pretrained/FILE]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Accept the terms of use
    #[arg(long, alias = "accept-license")]
    pub accept_licence: bool,
}
