//! The command line: subcommands, their flags, and how a `config.toml` fills the flags not given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::audit::mislabels;
use crate::data::strip_folder::CutLayout;
use crate::detect::{MinFace, Template};
use crate::device::{DeviceChoice, Precision};
use crate::export::{Batch, Format};
use crate::models::Architecture;
use crate::recognise::FaceSearch;
use crate::train::recipes;
use crate::train::settings::{ClassifierSettings, LrFindSettings, PairSettings, TripletSettings};
use crate::{Error, Result};

/// Train a face recogniser on folders of pictures, and ask it who is on a picture.
#[derive(Debug, Parser)]
#[command(
    name = "visage",
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Start with `visage doctor`, or:\n  visage train-triplet --data DIR\n  \
    visage train-classifier --data DIR\n  visage classify face.png")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to do it.
    #[command(flatten)]
    pub common: Common,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Where to compute: cpu, cuda, cuda:N, or auto
    #[arg(long, global = true, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Threads libtorch computes with [default: one a core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Say nothing but results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune a trunk with triplet loss: one picture of a person near the others, far from
    /// everybody else's
    TrainTriplet(Box<Configured<TripletSettings>>),
    /// Train a network that tells whether two pictures show one person
    TrainPairs(Box<Configured<PairSettings>>),
    /// Train a linear classifier on the frozen trunk of a triplet run
    TrainClassifier(Box<Configured<ClassifierSettings>>),
    /// Find a learning rate for train-triplet: let it rise until the loss explodes
    LrFind(Box<LrFind>),
    /// Name the faces on pictures
    Classify(Classify),
    /// Find the faces on photos: boxes, landmarks, probabilities
    Detect(Detect),
    /// Measure a model on a labelled folder, and on strangers; or on a list of pairs
    Evaluate(Evaluate),
    /// Tell whether two pictures show one person: exit code 0 for the same, 1 for two, 2 for an error
    Verify(VerifyFaces),
    /// Look for what is wrong with a data set: broken files, copies, wrong names, poor pictures
    Audit(Box<Audit>),
    /// Draw the embeddings of a folder as a t-SNE scatter plot
    Tsne(Tsne),
    /// Write the embeddings of pictures to a file
    Embed(Embed),
    /// Show, compare and convert weight files, PyTorch's and others
    Weights(Weights),
    /// Write a model as TorchScript or ONNX, to run without Visage
    Export(Export),
    /// List the architectures, or show one with its blocks and known weights
    Models(Models),
    /// Make training data out of pictures
    Prepare(Prepare),
    /// Bring a data set or weights by name, or unpack an archive of them
    Fetch(Fetch),
    /// Time this machine at the work of training and recognition, next to PyTorch where asked for
    Bench(Bench),
    /// Show what this installation has, and what to do about what it lacks
    Doctor(Doctor),
}

/// A command whose flags can also come from a file.
#[derive(Debug, Clone, Args)]
pub struct Configured<S: Args> {
    /// Take the settings from a run's config.toml; flags given here win
    #[arg(long, value_name = "FILE", conflicts_with = "recipe")]
    pub config: Option<PathBuf>,
    /// Take the settings of a published workflow; flags given here win
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(recipes::names()))]
    pub recipe: Option<String>,
    /// The settings.
    #[command(flatten)]
    pub settings: S,
}

/// Flags of `lr-find`.
#[derive(Debug, Args)]
#[command(mut_arg("out", |out| out.default_value("runs/lr-find").help(
    "Folder for lr_find.csv, lr_find.png and TensorBoard's files, never taken from --config; an \
     older run there is kept under another name")))]
#[command(after_help = "Give the flags of the training to come. --lr, --schedule, --epochs and \
    their like have no effect here; with --unfreeze-every all that trains in the end trains from \
    the start.")]
pub struct LrFind {
    /// What to train, and the range.
    #[command(flatten)]
    pub configured: Configured<LrFindSettings>,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `classify`.
#[derive(Debug, Args)]
pub struct Classify {
    /// Pictures, or folders of pictures
    #[arg(required = true, value_name = "FILE|DIR")]
    pub inputs: Vec<PathBuf>,
    /// Model file [default: the newest runs/*/best.safetensors with a classifier]
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Show the N likeliest identities
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub top: u16,
    /// Name a face only from this probability on, in percent [default: the model's own]
    #[arg(long, value_name = "PERCENT")]
    pub unknown: Option<f64>,
    /// One JSON object a picture on stdout, with every face
    #[arg(long)]
    pub json: bool,
    /// When to search for faces: auto takes a picture as it is where its face fills it as the
    /// model's training pictures are filled, and cuts the faces out of all others
    #[arg(long, value_enum, value_name = "auto|always|never", default_value = "auto")]
    pub detect: FaceSearch,
    /// Draw boxes, names and probabilities: a PNG of one picture, or a folder of those of several
    #[arg(long, value_name = "PNG|DIR")]
    pub draw: Option<PathBuf>,
    /// The search.
    #[command(flatten)]
    pub search: Search,
}

/// How faces are searched for (MTCNN).
#[derive(Debug, Clone, Args)]
pub struct Search {
    /// The smallest face: the side of its box in pixels, or a share of the photo's shorter side
    /// (10%); time falls with its square
    #[arg(long, value_name = "PIXELS|SHARE", default_value_t = MinFace::Pixels(20.0))]
    pub min_face: MinFace,
    /// What the last network must think of a face at least, or what each of the three must
    #[arg(long, value_name = "P[,R,O]", value_delimiter = ',', default_values_t = [0.6, 0.7, 0.7])]
    pub threshold: Vec<f32>,
}

/// Flags of `detect`.
#[derive(Debug, Args)]
pub struct Detect {
    /// Photos, or folders of photos
    #[arg(required = true, value_name = "FILE|DIR")]
    pub inputs: Vec<PathBuf>,
    /// One JSON object a photo on stdout
    #[arg(long)]
    pub json: bool,
    /// Write a table, one row a face
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write every photo with its faces marked into this folder (PNG)
    #[arg(long, value_name = "DIR")]
    pub draw: Option<PathBuf>,
    /// The search.
    #[command(flatten)]
    pub search: Search,
}

/// Flags of `evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// The model: one with a classifier, or with --pairs any trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Folder with one sub-folder of pictures per identity, or that the paths of --pairs begin in
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Measure on the pairs of this list: LFW's pairs.txt, or a table with columns a, b and same
    #[arg(long, value_name = "FILE", conflicts_with_all = ["strangers", "confusion", "unknown"])]
    pub pairs: Option<PathBuf>,
    /// Cut pictures to a central square of so many pixels first (LFW: 156)
    #[arg(long, value_name = "PIXELS", requires = "pairs", value_parser = clap::value_parser!(u32).range(1..))]
    pub centre_crop: Option<u32>,
    /// Where to draw the ROC curve of the pairs (PNG)
    #[arg(long, value_name = "FILE", requires = "pairs")]
    pub roc: Option<PathBuf>,
    /// Where to draw the distances of same and of different pairs (PNG)
    #[arg(long, value_name = "FILE", requires = "pairs")]
    pub histogram: Option<PathBuf>,
    /// Folder of faces the model shall not know; identities it knows are left out of them
    #[arg(long, value_name = "DIR")]
    pub strangers: Option<PathBuf>,
    /// Where to draw the confusion matrix (PNG)
    #[arg(long, value_name = "FILE")]
    pub confusion: Option<PathBuf>,
    /// Name a face only from this probability on, in percent [default: the model's own]
    #[arg(long, value_name = "PERCENT")]
    pub unknown: Option<f64>,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyFaces {
    /// A picture of a face
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Pictures nearer than this show one person [default: the model's own]
    #[arg(long, value_name = "DISTANCE")]
    pub threshold: Option<f64>,
    /// Cut both pictures to a central square of so many pixels first
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub centre_crop: Option<u32>,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Which trunk computes embeddings: a model's, or a bare backbone with weights.
#[derive(Debug, Clone, Args)]
pub struct TrunkChoice {
    /// Model file [default: the newest runs/*/best.safetensors]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backbone", "weights"])]
    pub model: Option<PathBuf>,
    /// Architecture of an untrained trunk
    #[arg(long, value_enum)]
    pub backbone: Option<Architecture>,
    /// Its weights: a known name, a file, or `none` [default: the backbone's own]
    #[arg(long, value_name = "NAME|FILE|none", requires = "backbone")]
    pub weights: Option<String>,
    /// Trunk parameters below these key prefixes may be missing from the --weights file
    #[arg(long, value_name = "PREFIX,...", value_delimiter = ',', requires = "backbone")]
    pub allow_missing: Vec<String>,
    /// Side of the input pictures in pixels [default: the backbone's own]
    #[arg(long, value_name = "PIXELS", requires = "backbone")]
    pub input_size: Option<u32>,
}

impl TrunkChoice {
    /// The same with the trunk that comes with Visage.
    pub fn embedded(&self) -> Self {
        Self { backbone: Some(Architecture::OpenFace), model: None, ..self.clone() }
    }
}

/// Flags of `audit`.
#[derive(Debug, Args)]
#[command(
    mut_arg("model", |model| model.help(
        "Model file of the trunk that judges names [default: the OpenFace trunk that comes with \
         Visage; one trained on these very folders has learnt their mistakes]")),
    after_help = "Nothing is moved or deleted. The exit code is 0 where nothing serious is found, 1 \
        where there are findings of high severity (unreadable, leak, two-names, mislabel), and 2 \
        for an error. Names are judged by the trunk: leave-one-out, by the three nearest different \
        photos of each identity. On loose photos the face is cut out first."
)]
pub struct Audit {
    /// Folder with one sub-folder of pictures per identity, or with pictures alone
    #[arg(value_name = "DIR")]
    pub data: PathBuf,
    /// A split of it (split.csv of a run): one photo in two parts is found
    #[arg(long, value_name = "FILE")]
    pub split: Option<PathBuf>,
    /// The trunk that judges names.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Take a name for wrong from this margin on: the distance to its own identity less the one to
    /// the nearest other; raise it for thousands of identities
    #[arg(long, value_name = "DISTANCE", default_value_t = mislabels::MISLABEL)]
    pub margin: f64,
    /// Search no faces: faster by about 20 ms a picture
    #[arg(long)]
    pub no_detect: bool,
    /// Look at the central square of so many pixels, in place of the face (LFW: 156)
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub centre_crop: Option<u32>,
    /// Report pictures with a side below this [default: the trunk's input]
    #[arg(long, value_name = "PIXELS")]
    pub min_side: Option<u32>,
    /// Report pictures whose Laplacian varies less than that at 96 x 96 pixels
    #[arg(long, value_name = "VARIANCE", default_value_t = 60.0)]
    pub min_sharpness: f64,
    /// Report pictures with a mean grey value (0 to 255) so near to black or white
    #[arg(long, value_name = "VALUE", default_value_t = 30.0)]
    pub min_light: f64,
    /// Report pictures whose grey values deviate less than that
    #[arg(long, value_name = "VALUE", default_value_t = 15.0)]
    pub min_contrast: f64,
    /// Report pictures so many times longer than wide, or wider than long
    #[arg(long, value_name = "TIMES", default_value_t = 2.0)]
    pub max_aspect: f64,
    /// Report identities with so many times fewer or more pictures than the median
    #[arg(long, value_name = "TIMES", default_value_t = 3.0)]
    pub imbalance: f64,
    /// List the N worst findings, or `all`
    #[arg(long, value_name = "N", default_value = "20", value_parser = top)]
    pub top: usize,
    /// One JSON object on stdout, with all findings
    #[arg(long)]
    pub json: bool,
    /// Write all findings as a table
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write one page with thumbnails that any browser shows
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// A number, or `all`.
fn top(text: &str) -> Result<usize, String> {
    match text {
        "all" => Ok(usize::MAX),
        number => number.parse().map_err(|_| "expected a number, or `all`".to_owned()),
    }
}

/// Flags of `tsne`.
#[derive(Debug, Args)]
pub struct Tsne {
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Folder with one sub-folder of pictures per identity [default: as train-triplet]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The picture (PNG)
    #[arg(long, value_name = "FILE", default_value = "tsne.png")]
    pub out: PathBuf,
    /// How many neighbours each point minds (lowered where the data is small)
    #[arg(long, default_value_t = 20.0)]
    pub perplexity: f64,
    /// Gradient steps
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub iterations: usize,
}

/// Flags of `embed`.
#[derive(Debug, Args)]
pub struct Embed {
    /// Pictures, or folders of pictures (a picture's label is its folder's name)
    #[arg(required = true, value_name = "FILE|DIR")]
    pub inputs: Vec<PathBuf>,
    /// The trunk.
    #[command(flatten)]
    pub trunk: TrunkChoice,
    /// Where to write: .npy (with the paths and labels beside it as .csv), .csv or .safetensors
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What the trunk computes in: bf16 is faster where the processor multiplies it, and moves an
    /// embedding by about 0.01
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
}

/// Flags of `weights`.
#[derive(Debug, Args)]
pub struct Weights {
    /// What to do with the files.
    #[command(subcommand)]
    pub action: WeightsAction,
}

/// The subcommands of `weights`. Files are recognised by their content: torch.save (of any age),
/// TorchScript, safetensors, tch's .ot, NumPy's .npz.
#[derive(Debug, Subcommand)]
pub enum WeightsAction {
    /// Write a weight file in another format, chosen by the new file's ending (`visage export`
    /// writes TorchScript and ONNX)
    Convert {
        /// A weight file of any format
        #[arg(value_name = "IN")]
        input: PathBuf,
        /// The new file: .safetensors, or .pth or .pt for torch.load
        #[arg(value_name = "OUT")]
        output: PathBuf,
    },
    /// Show a weight file's tensors: shape, dtype, size, and what the values look like
    Inspect {
        /// A weight file of any format
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Compare two weight files; the exit code is 0 where they hold the same tensors, else 1
    Diff {
        /// A weight file of any format
        #[arg(value_name = "A")]
        a: PathBuf,
        /// Another, perhaps of another format
        #[arg(value_name = "B")]
        b: PathBuf,
        /// One JSON object on stdout
        #[arg(long)]
        json: bool,
    },
    /// Compare a network layer by layer with what PyTorch computed; the exit code is 0 where they
    /// agree, else 1
    Verify(Verify),
}

/// Flags of `weights verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A weight file of any format, or a model file
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// What PyTorch computed with it, written by tests/parity/reference.py
    #[arg(long, value_name = "FILE")]
    pub against: PathBuf,
    /// The architecture, where it shall be no other than this
    #[arg(long, value_enum)]
    pub backbone: Option<Architecture>,
    /// Keys that begin so may be missing; layers are compared then, and no results
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub allow_missing: Vec<String>,
    /// The largest relative difference of outputs and layers
    #[arg(long, value_name = "SHARE", default_value_t = 1e-5)]
    pub tolerance: f64,
    /// The largest relative difference of gradients
    #[arg(long, value_name = "SHARE", default_value_t = 1e-4)]
    pub gradient_tolerance: f64,
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(after_help = "The graph takes `pictures`, float32 [N, 3, H, W], RGB in [0, 1] (it \
    normalises them itself), and gives `embedding` [N, D] of length one and, for a classifier, \
    `logits` [N, classes], already divided by the calibrated temperature: their softmax are \
    probabilities. When to say UNKNOWN is not part of it.")]
pub struct Export {
    /// A model file; or, with --backbone, a weight file, a known name, or `none`
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The new file: .pt or .torchscript for TorchScript, or .onnx
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// What to write [default: what OUT's ending says]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// MODEL holds the bare weights of this architecture
    #[arg(long, value_enum, hide_possible_values = true)]
    pub backbone: Option<Architecture>,
    /// Pictures that an ONNX file takes at once: a number, or `dynamic` for any
    #[arg(long, value_name = "N", default_value_t = Batch::Dynamic)]
    pub batch: Batch,
}

/// Flags of `models`.
#[derive(Debug, Args)]
pub struct Models {
    /// Everything about this one
    #[arg(value_enum, value_name = "NAME", hide_possible_values = true)]
    pub name: Option<Architecture>,
    /// JSON on stdout: one object, or a list of them
    #[arg(long)]
    pub json: bool,
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
    /// Build strips (anchor, positive and negative in one row) from folders of faces, or cut strips
    /// into triplets
    Strips(Strips),
    /// Cut the faces out of a tree of photos, upright: the same tree of crops
    Faces(Faces),
}

/// Which of a photo's faces are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The largest
    Largest,
    /// The one nearest the middle
    Central,
    /// All
    All,
}

/// Flags of `prepare faces`.
#[derive(Debug, Args)]
#[command(
    after_help = "OUT/faces.csv tells what became of every photo: ok, several faces (one was \
    kept), no face, too small, blurred, unreadable. All but the ok ones are linked from \
    OUT-quarantine, to be looked at. A second run goes on where the first one stopped."
)]
pub struct Faces {
    /// A folder of photos, with sub-folders or without
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The folder of crops (PNG); made, or gone on with
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Which faces of a photo are kept
    #[arg(long, value_enum, default_value = "largest")]
    pub keep: Keep,
    /// How a crop is framed: for which backbone
    #[arg(long, value_enum, default_value = "openface")]
    pub template: Template,
    /// Width of a crop in pixels [default: the template's own]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub size: Option<u32>,
    /// Pixels of the crop's width that show what lies around the template's face
    #[arg(long, value_name = "PIXELS", default_value_t = 0.0)]
    pub margin: f64,
    /// Leave out faces whose box is smaller than that on the photo, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 0.0)]
    pub min_size: f64,
    /// Leave out crops whose Laplacian varies less than that (faces.csv has everyone's; it depends on
    /// the crop's size)
    #[arg(long, value_name = "VARIANCE", default_value_t = 0.0)]
    pub min_sharpness: f64,
    /// The search.
    #[command(flatten)]
    pub search: Search,
}

/// Flags of `prepare strips`.
#[derive(Debug, Args)]
pub struct Strips {
    /// Passport folders (trainset/*/user/*, one picture named *script* in each) or a folder with one
    /// sub-folder of pictures per identity; with --cut a folder of strips
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The folder to make; must not exist
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// Cut the strips of IN into triplets
    #[arg(long)]
    pub cut: bool,
    /// Side of each of a strip's three pictures, in pixels
    #[arg(long, value_name = "S", default_value_t = 224, conflicts_with = "cut",
        value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub size: u32,
    /// Strips of each person [default: one for each photo]
    #[arg(long, value_name = "N", conflicts_with = "cut",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: Option<u32>,
    /// Make no more than N in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// What decides which pictures meet
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "cut")]
    pub seed: u64,
    /// Write JPEG of this quality in place of PNG
    #[arg(long, value_name = "QUALITY", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub jpeg: Option<u8>,
    /// How cut triplets are laid out
    #[arg(long, value_enum, default_value = "folders", requires = "cut")]
    pub layout: CutLayout,
}

/// Flags of `fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// What to fetch; --list shows what there is
    #[arg(value_name = "NAME", required_unless_present = "list")]
    pub name: Option<String>,
    /// Show what can be fetched, from where, and under which terms
    #[arg(long, conflicts_with_all = ["name", "from", "to"])]
    pub list: bool,
    /// Unpack this archive (zip, tar, tgz) in place of a download; other files are copied. May be
    /// given several times
    #[arg(long, value_name = "FILE")]
    pub from: Vec<PathBuf>,
    /// Where it goes; must not exist [default: data/NAME, or pretrained/FILE]
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// Agree to the terms of use, which are shown until you do
    #[arg(long, alias = "accept-license")]
    pub accept_licence: bool,
}

/// Flags of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// The same work in this Python (with torch, safetensors, numpy and pillow), in turns; where it has
    /// onnxruntime or openvino, these embed with the exported network, too
    #[arg(long, value_name = "PYTHON", num_args = 0..=1, default_missing_value = "python3")]
    pub against_pytorch: Option<PathBuf>,
    /// Time these measures alone: load, forward, forward-16, embed, embed-16, step, mine, classifier, cold
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// How often each is timed; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
    /// Pictures in a batch
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(12..))]
    pub batch: u16,
    /// Embeddings that are mined together
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u16).range(12..))]
    pub mined: u16,
    /// What training steps compute in
    #[arg(long, value_enum, default_value_t = Precision::Auto)]
    pub precision: Precision,
    /// Folder of the pictures to load and embed [default: data/avengers or the ORL faces, where they
    /// are]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The most of them, spread over the folder
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    pub pictures: u16,
    /// Show where the time of forward and step goes, operator by operator
    #[arg(long, conflicts_with = "json")]
    pub profile: bool,
    /// One JSON object a measure on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// One JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Parses the process's arguments and reads the `--config` file, if one is named.
///
/// Help, version and misuse end the process here, as clap does.
///
/// # Errors
/// A config file that cannot be read or holds an unknown key or an impossible value.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli> {
    let matches = Cli::command().get_matches_from(arguments);
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some((name, flags)) = matches.subcommand() {
        match &mut cli.command {
            Command::TrainTriplet(command) => command.fill(name, flags)?,
            Command::TrainPairs(command) => command.fill(name, flags)?,
            Command::TrainClassifier(command) => command.fill(name, flags)?,
            Command::LrFind(command) => {
                // The file's --out is the folder of the run that wrote it.
                let out = command.configured.settings.triplet.out.clone();
                command.configured.fill(name, flags)?;
                command.configured.settings.triplet.out = out;
            }
            _ => {}
        }
    }
    Ok(cli)
}

impl<S: Args + Clone + Serialize + DeserializeOwned> Configured<S> {
    /// Replaces every setting that was not given as a flag by the config file's.
    fn fill(&mut self, command: &str, flags: &ArgMatches) -> Result<()> {
        let (path, file) = match (&self.config, &self.recipe) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
                let file: toml::Table = toml::from_str(&text)
                    .map_err(|error| Error::Config(format!("{}: {error}", path.display())))?;
                (path.clone(), file)
            }
            (None, Some(name)) => {
                (PathBuf::from(recipes::file(name)), recipes::table(name, command)?)
            }
            (None, None) => return Ok(()),
        };
        let path = &path;
        self.settings = overlay(&self.settings, file, flags, path, command)?;
        Ok(())
    }
}

fn overlay<S: Args + Serialize + DeserializeOwned>(
    settings: &S,
    file: toml::Table,
    flags: &ArgMatches,
    path: &Path,
    command: &str,
) -> Result<S> {
    let fail = |reason: String| Error::Config(format!("{}: {reason}", path.display()));
    let known: Vec<String> = S::augment_args(clap::Command::new("settings"))
        .get_arguments()
        .map(|argument| argument.get_id().as_str().replace('_', "-"))
        .collect();
    let mut table = toml::Table::try_from(settings).map_err(|error| fail(error.to_string()))?;
    for (key, value) in file {
        if !known.contains(&key) {
            let near = known
                .iter()
                .filter(|name| strsim::jaro_winkler(name, &key) > 0.8)
                .max_by(|a, b| {
                    strsim::jaro_winkler(a, &key).total_cmp(&strsim::jaro_winkler(b, &key))
                })
                .map(|name| format!("; did you mean `{name}`?"));
            let near = near.unwrap_or_default();
            return Err(fail(format!("`{key}` is not a setting of {command}{near}")));
        }
        let given = flags.value_source(&key.replace('-', "_")) == Some(ValueSource::CommandLine);
        if !given {
            table.insert(key, value);
        }
    }
    table.try_into().map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triplet(arguments: &[&str]) -> Result<TripletSettings> {
        let all = ["visage", "train-triplet"].iter().chain(arguments).map(OsString::from);
        match parse(all)?.command {
            Command::TrainTriplet(command) => Ok(command.settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_surface_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "margin = 0.5\nepochs = 3\nflip = false\noptimizer = \"sgd\"\n")
            .unwrap();
        let path = path.to_str().unwrap();
        let settings = triplet(&["--config", path, "--epochs", "7"]).unwrap();
        assert_eq!((settings.margin, settings.epochs, settings.tuning.flip), (Some(0.5), 7, false));
        assert_eq!(settings.pictures_per_identity, 4);
        assert_eq!(settings.lr(), 6e-3);
    }

    #[test]
    fn a_written_config_is_read_back_to_the_same_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let settings =
            triplet(&["--freeze", "layer1,layer2", "--weights", "none", "-p", "3"]).unwrap();
        let text = crate::train::run_folder::config_text("train-triplet", &settings).unwrap();
        std::fs::write(&path, text).unwrap();
        assert_eq!(triplet(&["--config", path.to_str().unwrap()]).unwrap(), settings);
    }

    #[test]
    fn every_recipe_is_read_whole_and_flags_win_over_it() {
        for (name, text) in recipes::ALL {
            let commands: toml::Table = toml::from_str(text).unwrap();
            for (command, recipe) in &commands {
                let arguments = ["visage", command, "--recipe", name].map(OsString::from);
                let settings = match parse(arguments).unwrap().command {
                    Command::TrainTriplet(mut command) => {
                        if recipe.as_table().is_some_and(|recipe| recipe.contains_key("head")) {
                            // A pair network: the folder of triplets is the user's.
                            command.settings.triplets = Some("strips".into());
                        }
                        command.settings.check().unwrap();
                        toml::Table::try_from(command.settings)
                    }
                    Command::TrainPairs(command) => {
                        command.settings.check().unwrap();
                        toml::Table::try_from(command.settings)
                    }
                    Command::TrainClassifier(command) => toml::Table::try_from(command.settings),
                    other => panic!("{other:?}"),
                };
                let settings = settings.unwrap();
                for (key, value) in recipe.as_table().unwrap() {
                    assert_eq!(settings.get(key), Some(value), "{name}, {command}: {key}");
                }
            }
        }
        let settings = triplet(&["--recipe", "passport-vgg16", "--epochs", "2"]).unwrap();
        assert_eq!((settings.epochs, settings.margin), (2, Some(0.3)));
        let wrong = triplet(&["--recipe", "celeba-siamese-densenet"]).unwrap_err().to_string();
        assert!(wrong.contains("`visage train-pairs`"), "{wrong}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "margn = 0.5\n").unwrap();
        let error = triplet(&["--config", path.to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("`margn`") && error.contains("`margin`"), "{error}");
    }
}
