//! The trunk of a command: `--model FILE`, `--backbone B --weights W`, or the newest run.

use std::borrow::Cow;
use std::path::PathBuf;

use super::context::Context;
use super::output::percent;
use crate::cli::TrunkChoice;
use crate::detect::DetectOptions;
use crate::models::{Architecture, Backbone};
use crate::recognise::runs::Choice;
use crate::recognise::{
    Comparison, Embedder, FaceSearch, Faces, ModelCard, ModelKind, PairModel, Recogniser, Viewer,
    runs,
};
pub use crate::weights::{Bare, Built, load_into};
use crate::{Error, Result};

/// The kinds of models that embed one picture, in the order of preference.
pub const EMBEDDERS: &[ModelKind] = &[ModelKind::Classifier, ModelKind::Trunk];
/// The kinds of models that compare two pictures, in the order of preference.
pub const COMPARERS: &[ModelKind] = &[ModelKind::Pairs, ModelKind::Classifier, ModelKind::Trunk];

/// The pretrained trunk that is used where none is named or trained.
pub const DEFAULT: Architecture = Architecture::DlibResnet;

/// A trunk, and the split.csv beside its model file, if there is one.
pub struct LoadedTrunk {
    pub backbone: Backbone,
    pub split: Option<PathBuf>,
    /// See [`Loaded::source`].
    pub source: String,
}

/// The loaded model of the flags.
pub enum Loaded {
    /// A model file of Visage.
    Model { path: PathBuf, model: Box<Recogniser> },
    /// A trunk with bare weights.
    Bare(Box<Built>),
    /// A pair network.
    Pairs { path: PathBuf, model: Box<PairModel> },
}

impl Loaded {
    pub fn embedder(&self) -> &dyn Embedder {
        match self {
            Self::Model { model, .. } => &model.backbone,
            Self::Bare(built) => &built.backbone,
            Self::Pairs { model, .. } => &model.net,
        }
    }

    /// The trunk alone, and the split.csv beside its model file.
    ///
    /// # Errors
    /// It is a pair network.
    pub fn into_trunk(self) -> Result<LoadedTrunk> {
        let source = self.source();
        Ok(match self {
            Self::Bare(built) => LoadedTrunk { backbone: built.backbone, split: None, source },
            Self::Model { path, model } => {
                let split = Some(path.with_file_name("split.csv")).filter(|path| path.is_file());
                LoadedTrunk { backbone: model.backbone, split, source }
            }
            Self::Pairs { .. } => {
                let text = "--model: this is a pair network; use `visage verify A B` or `visage \
                            evaluate --pairs` with it";
                return Err(Error::Config(text.into()));
            }
        })
    }

    /// What there is to know about the model.
    pub fn card(&self) -> Cow<'_, ModelCard> {
        match self {
            Self::Model { model, .. } => Cow::Borrowed(&model.card),
            Self::Pairs { model, .. } => Cow::Borrowed(&model.card),
            Self::Bare(built) => {
                let weights = built.source.describe();
                Cow::Owned(ModelCard::new(ModelKind::Trunk, &built.backbone, weights))
            }
        }
    }

    /// A short name for figures.
    pub fn name(&self) -> String {
        match self {
            Self::Model { path, model } => {
                format!("{} of {}", model.card.architecture.name(), path.display())
            }
            Self::Bare(built) => {
                format!("{}, {}", built.backbone.architecture.name(), built.source.describe())
            }
            Self::Pairs { model, .. } => model.card.network(),
        }
    }

    /// The model file, or the name or file of bare weights: the key `model` of JSON output.
    pub fn source(&self) -> String {
        match self {
            Self::Model { path, .. } | Self::Pairs { path, .. } => path.to_string_lossy().into(),
            Self::Bare(built) => built.source.flag(),
        }
    }

    /// Finds the face on each picture, of several the main one, or its central square of `centre`
    /// pixels.
    ///
    /// A model trained on given triplets, or written by an older version, does not know how its training
    /// pictures framed the face: `auto` uses pictures as they are.
    ///
    /// # Errors
    /// The detector cannot be loaded.
    pub fn viewer(
        &self,
        context: &Context,
        detect: FaceSearch,
        centre: Option<u32>,
    ) -> Result<Viewer> {
        let card = self.card();
        let unframed = !matches!(self, Self::Bare(_)) && card.framing.is_none();
        if centre.is_some() || (unframed && detect == FaceSearch::Auto) {
            return Ok(Viewer::whole(card.input.size, centre));
        }
        main_face(context, &card, detect)
    }

    /// How it compares two pictures.
    pub fn comparison(&self) -> Comparison<'_> {
        match self {
            Self::Model { .. } | Self::Bare(_) => Comparison::Euclidean,
            Self::Pairs { model, .. } => Comparison::of(&model.net),
        }
    }
}

/// Finds the main face on each picture as the model of that card needs it; `auto` takes the whole picture
/// where it finds none.
///
/// # Errors
/// The detector cannot be loaded.
pub fn main_face(context: &Context, card: &ModelCard, detect: FaceSearch) -> Result<Viewer> {
    let mut viewer = Viewer::new(card, detect, DetectOptions::default(), context.device()?)?;
    viewer.wanted = match detect {
        FaceSearch::Auto => Faces::MainOrWhole,
        FaceSearch::Always | FaceSearch::Never => Faces::Main,
    };
    Ok(viewer)
}

/// Reports the model in use: its file, kind, network and best validation figure.
pub fn report(context: &Context, choice: &Choice, card: &ModelCard) {
    let figure = card.headline().map(|(name, value)| {
        format!(", validation {name} {} at epoch {}", percent(value), card.epoch)
    });
    let (kind, network) = (card.kind.name(), card.network());
    let figure = figure.unwrap_or_default();
    context.say.line(&format!("model: {choice}: {kind}, {network}{figure}"));
}

/// Loads the trunk of the flags and reports which it is.
///
/// # Errors
/// The model or the weights cannot be loaded.
pub fn load(context: &Context, choice: &TrunkChoice) -> Result<LoadedTrunk> {
    open(context, choice, EMBEDDERS)?.into_trunk()
}

/// Loads and reports the model of the flags; without flags the pinned or the newest one of `kinds`, or
/// else [`DEFAULT`].
///
/// # Errors
/// As [`load`].
pub fn open(context: &Context, choice: &TrunkChoice, kinds: &[ModelKind]) -> Result<Loaded> {
    let device = context.device()?;
    let found = match choice.backbone {
        None => runs::find(context.runs(), choice.model.as_deref(), kinds)?,
        Some(_) => None,
    };
    let Some(choice) = found else {
        let architecture = choice.backbone.unwrap_or_else(|| {
            context.say.line("note: no trained model yet; using a pretrained trunk");
            DEFAULT
        });
        tch::manual_seed(0); // the same random weights every time
        let bare = Bare {
            architecture,
            weights: choice.weights.as_deref(),
            allow_missing: &choice.allow_missing,
            embedding_dim: None,
            input_size: choice.input_size,
        };
        let built = bare.build(device)?;
        context.say.line(&format!("trunk: {}", built.line));
        return Ok(Loaded::Bare(Box::new(built)));
    };
    if ModelCard::peek(&choice.path).is_ok_and(|card| card.kind == ModelKind::Pairs) {
        let model = PairModel::load(&choice.path, device)?;
        report(context, &choice, &model.card);
        return Ok(Loaded::Pairs { path: choice.path, model: Box::new(model) });
    }
    let model = Recogniser::load(&choice.path, device)?;
    report(context, &choice, &model.card);
    Ok(Loaded::Model { path: choice.path, model: Box::new(model) })
}
