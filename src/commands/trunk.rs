//! The trunk of a command: `--model FILE`, `--backbone B --weights W`, or the newest run.

use std::path::PathBuf;

use super::Context;
use super::output::percent;
use crate::cli::TrunkChoice;
use crate::models::Backbone;
use crate::recognise::runs::Choice;
use crate::recognise::{Comparison, Embedder, ModelCard, ModelKind, PairModel, Recogniser, runs};
pub use crate::weights::{Bare, Built, load_into};
use crate::{Error, Result};

/// The kinds of models that embed one picture, in the order of preference.
const EMBEDDERS: &[ModelKind] = &[ModelKind::Classifier, ModelKind::Trunk];
/// The kinds of models that compare two pictures, in the order of preference.
pub const COMPARERS: &[ModelKind] = &[ModelKind::Pairs, ModelKind::Classifier, ModelKind::Trunk];

/// A trunk, and the split.csv beside its model file, if there is one.
pub struct Trunk {
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

    /// How it compares two pictures.
    pub fn comparison(&self) -> Comparison<'_> {
        match self {
            Self::Model { .. } | Self::Bare(_) => Comparison::Euclidean,
            Self::Pairs { model, .. } => Comparison::of(&model.net),
        }
    }
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
/// The model or the weights cannot be loaded, or there is no finished run.
pub fn load(context: &Context, choice: &TrunkChoice) -> Result<Trunk> {
    let loaded = open(context, choice, EMBEDDERS)?;
    let source = loaded.source();
    Ok(match loaded {
        Loaded::Bare(built) => Trunk { backbone: built.backbone, split: None, source },
        Loaded::Model { path, model } => {
            let split = Some(path.with_file_name("split.csv")).filter(|path| path.is_file());
            Trunk { backbone: model.backbone, split, source }
        }
        Loaded::Pairs { .. } => {
            let text = "--model: this is a pair network; use `visage verify A B` or `visage evaluate \
                        --pairs` with it";
            return Err(Error::Config(text.into()));
        }
    })
}

/// Loads and reports the model of the flags; without flags the pinned or the newest one of `kinds`.
///
/// # Errors
/// As [`load`].
pub fn open(context: &Context, choice: &TrunkChoice, kinds: &[ModelKind]) -> Result<Loaded> {
    let device = context.device()?;
    if let Some(architecture) = choice.backbone {
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
    }
    let choice = runs::choose(context.runs(), choice.model.as_deref(), kinds)?;
    if ModelCard::peek(&choice.path).is_ok_and(|card| card.kind == ModelKind::Pairs) {
        let model = PairModel::load(&choice.path, device)?;
        report(context, &choice, &model.card);
        return Ok(Loaded::Pairs { path: choice.path, model: Box::new(model) });
    }
    let model = Recogniser::load(&choice.path, device)?;
    report(context, &choice, &model.card);
    Ok(Loaded::Model { path: choice.path, model: Box::new(model) })
}
