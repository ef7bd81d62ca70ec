//! Flags of `gallery`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DetectorFlags, FaceFlag, TrunkChoice};
use crate::train::settings::percent;

/// Flags of `gallery`.
#[derive(Debug, Args)]
#[command(
    after_help = "For example, with the file gallery.db:\n  visage gallery enroll --name 'Ann Lee' ann1.jpg ann2.jpg\n  \
    visage gallery enroll --tree people/\n  visage gallery identify photo.jpg\n  \
    visage gallery forget 'Ann Lee'"
)]
pub struct Gallery {
    /// What to do.
    #[command(subcommand)]
    pub action: GalleryAction,
}

/// The subcommands of `gallery`.
#[derive(Debug, Subcommand)]
pub enum GalleryAction {
    /// Enrol people: add faces of them
    #[command(visible_alias = "enrol")]
    Enroll(Box<GalleryEnroll>),
    /// Name the faces in pictures
    Identify(Box<GalleryIdentify>),
    /// List the people, or the unknown people who were remembered
    List(GalleryList),
    /// Show a person's faces: where each is from, and how near it is to the others
    Show(GalleryShow),
    /// Give a person another name
    Rename(GalleryRename),
    /// Merge two people
    Merge(GalleryMerge),
    /// Delete a person and erase all their data from the file
    Forget(GalleryForget),
    /// Reject a match: mark the face in a picture as not this person, so that it is not matched
    /// again
    Reject(Box<GalleryReject>),
    /// Group the remembered faces of unknown people again
    Cluster(GalleryDb),
    /// Enrol an unknown person under a name
    Promote(GalleryPromote),
    /// Write all embeddings to a NumPy file and a CSV table
    Export(GalleryExport),
    /// Enrol embeddings from a file that `embed` or `export` wrote, or from a classifier
    Import(Box<GalleryImport>),
    /// Check that the file is sound: exit code 0 if so, 1 if not
    Check(GalleryDb),
}

/// The file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gallery")]
pub struct GalleryDb {
    /// The gallery's file
    #[arg(long, value_name = "FILE", default_value = "gallery.db")]
    pub db: PathBuf,
}

/// The file, and how the faces on pictures are found and embedded for it.
#[derive(Debug, Args)]
pub struct GalleryFaces {
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
    /// When to run the detector.
    #[command(flatten)]
    pub face: FaceFlag,
    /// The detector.
    #[command(flatten)]
    pub detector: DetectorFlags,
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
}

/// The promise about strangers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Threshold")]
pub struct GalleryThreshold {
    /// Maximum share of strangers who get a name, in percent (false-positive identification rate);
    /// write values up to 1 with a percent sign, such as 0.5%. It is kept for later calls
    /// [default: 1%, or as little as the strangers can show]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub fpir: Option<f64>,
    /// Folder of people who will not be enrolled, on whom the threshold is chosen; only their
    /// embeddings are kept [default: strangers that come with Visage, for its own trunks]
    #[arg(long, value_name = "DIR")]
    pub strangers: Option<PathBuf>,
}

/// Flags of `gallery enroll`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "People",
    mut_arg("model", |model| model.help("Model file or run folder of the trunk of a new gallery \
        [default: the pretrained dlib-resnet]; later calls use the gallery's trunk")),
    mut_arg("detect", |detect| detect.help(
        "When to run the face detector: auto uses a picture as it is if a face fills it, and crops \
         the face from all others")),
    after_help = "A picture with no face or with several of about the same size is reported and \
        left out; the exit code is 1 then."
)]
pub struct GalleryEnroll {
    /// Pictures of the person, or folders of pictures
    #[arg(value_name = "FILE|DIR", help_heading = "Arguments", required_unless_present = "tree")]
    pub inputs: Vec<PathBuf>,
    /// The person's name
    #[arg(long, required_unless_present = "tree")]
    pub name: Option<String>,
    /// Folder with one sub-folder of pictures per person, named like them
    #[arg(long, value_name = "DIR", conflicts_with_all = ["name", "inputs"])]
    pub tree: Option<PathBuf>,
    /// Keep a small picture of each face in the gallery
    #[arg(long)]
    pub thumbnails: bool,
    /// The threshold.
    #[command(flatten)]
    pub threshold: GalleryThreshold,
    /// How faces are found and embedded.
    #[command(flatten)]
    pub faces: GalleryFaces,
    /// Print one JSON object
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Flags of `gallery identify`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Output",
    mut_arg("model", |model| model.help("Where the gallery's trunk is now, if its file was moved")),
    mut_arg("detect", |detect| detect.help(
        "When to run the face detector: auto uses a picture as it is if a face fills it, and crops \
         the faces from all others")),
)]
pub struct GalleryIdentify {
    /// Pictures, or folders of pictures
    #[arg(required = true, value_name = "FILE|DIR", help_heading = "Arguments")]
    pub inputs: Vec<PathBuf>,
    /// Remember the faces of unknown people, and say when one was seen before
    #[arg(long, help_heading = "Unknown people")]
    pub remember_strangers: bool,
    /// Show the N likeliest people
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Show the nearest enrolled faces
    #[arg(long)]
    pub reasons: bool,
    /// Print one JSON object per picture, with all its faces
    #[arg(long)]
    pub json: bool,
    /// Draw boxes, names and probabilities: a PNG for one picture, or a folder for several
    #[arg(long, value_name = "PNG|DIR")]
    pub draw: Option<PathBuf>,
    /// How faces are found and embedded.
    #[command(flatten)]
    pub faces: GalleryFaces,
}

/// Flags of `gallery list`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct GalleryList {
    /// List the unknown people who were remembered
    #[arg(long)]
    pub unknown: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery show`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct GalleryShow {
    /// The person
    #[arg(value_name = "NAME", help_heading = "Arguments")]
    pub name: String,
    /// Write the thumbnails to this folder (PNG)
    #[arg(long, value_name = "DIR")]
    pub thumbnails: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery rename`.
#[derive(Debug, Args)]
pub struct GalleryRename {
    /// The person
    #[arg(value_name = "NAME", help_heading = "Arguments")]
    pub name: String,
    /// The new name
    #[arg(value_name = "NEW", help_heading = "Arguments")]
    pub new: String,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery merge`.
#[derive(Debug, Args)]
pub struct GalleryMerge {
    /// The person whose faces move
    #[arg(value_name = "FROM", help_heading = "Arguments")]
    pub from: String,
    /// The person who gets them
    #[arg(value_name = "INTO", help_heading = "Arguments")]
    pub into: String,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery forget`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Who")]
pub struct GalleryForget {
    /// The people
    #[arg(value_name = "NAME", help_heading = "Arguments",
        required_unless_present_any = ["unknown", "all_unknown"])]
    pub names: Vec<String>,
    /// Forget the unknown person of this number
    #[arg(long, value_name = "N")]
    pub unknown: Vec<i64>,
    /// Forget all unknown people
    #[arg(long)]
    pub all_unknown: bool,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery reject`.
#[derive(Debug, Args)]
#[command(
    mut_arg("model", |model| model.help("Where the gallery's trunk is now, if its file was moved")),
)]
pub struct GalleryReject {
    /// The person
    #[arg(value_name = "NAME", help_heading = "Arguments")]
    pub name: String,
    /// Pictures of one face each that is not theirs
    #[arg(required = true, value_name = "FILE|DIR", help_heading = "Arguments")]
    pub inputs: Vec<PathBuf>,
    /// How faces are found and embedded.
    #[command(flatten)]
    pub faces: GalleryFaces,
}

/// Flags of `gallery promote`.
#[derive(Debug, Args)]
pub struct GalleryPromote {
    /// The number of the unknown person
    #[arg(value_name = "N", help_heading = "Arguments")]
    pub group: i64,
    /// The name; if the person is enrolled, the faces are added
    #[arg(value_name = "NAME", help_heading = "Arguments")]
    pub name: String,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery export`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct GalleryExport {
    /// Output file, .npz: `embeddings` [N, D] and `labels` [N]; a .csv beside it names the person
    /// and the picture of each row
    #[arg(long, value_name = "FILE", default_value = "gallery.npz")]
    pub out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
}

/// Flags of `gallery import`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Source",
    mut_arg("model", |model| model.help("Model file or run folder of the trunk that made the \
        embeddings [default: the gallery's, or the pretrained dlib-resnet]")),
)]
pub struct GalleryImport {
    /// A .csv with columns path, label, e0, e1, ...; a .npy or .npz with a .csv beside it; or the
    /// model file or run folder of a classifier
    #[arg(value_name = "FILE|RUN", help_heading = "Arguments")]
    pub from: PathBuf,
    /// The file.
    #[command(flatten)]
    pub db: GalleryDb,
    /// The threshold.
    #[command(flatten)]
    pub threshold: GalleryThreshold,
    /// The trunk of the embeddings.
    #[command(flatten)]
    pub trunk: TrunkChoice,
}
