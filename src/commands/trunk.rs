//! The trunk of a command: `--model FILE`, `--backbone B --weights W`, or the newest run.

use std::path::PathBuf;

use super::Context;
use crate::cli::TrunkChoice;
use crate::models::Backbone;
use crate::recognise::{
    Comparison, Embedder, ModelCard, ModelKind, PairModel, Recogniser, model_file,
};
pub use crate::weights::{Bare, Built, load_into};
use crate::{Error, Result};

/// A trunk, and the split.csv beside its model file, if there is one.
pub struct Trunk {
    pub backbone: Backbone,
    pub split: Option<PathBuf>,
}

/// The loaded model of the flags.
pub enum Loaded {
    /// A model file of Visage.
    Model { path: PathBuf, model: Box<Recogniser> },
    /// A trunk with bare weights.
    Bare(Box<Built>),
    /// A pair network.
    Pairs(Box<PairModel>),
}

impl Loaded {
    pub fn embedder(&self) -> &dyn Embedder {
        match self {
            Self::Model { model, .. } => &model.backbone,
            Self::Bare(built) => &built.backbone,
            Self::Pairs(model) => &model.net,
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
            Self::Pairs(model) => {
                format!("{} and {}", model.card.architecture.name(), model.pair.head.name())
            }
        }
    }

    /// How it compares two pictures.
    pub fn comparison(&self) -> Comparison<'_> {
        match self {
            Self::Model { .. } | Self::Bare(_) => Comparison::Euclidean,
            Self::Pairs(model) => Comparison::of(&model.net),
        }
    }
}

/// Loads the trunk of the flags and reports which it is.
///
/// # Errors
/// The model or the weights cannot be loaded, or there is no finished run.
pub fn load(context: &Context, choice: &TrunkChoice) -> Result<Trunk> {
    Ok(match open(context, choice)? {
        Loaded::Bare(built) => Trunk { backbone: built.backbone, split: None },
        Loaded::Model { path, model } => {
            let split = Some(path.with_file_name("split.csv")).filter(|path| path.is_file());
            Trunk { backbone: model.backbone, split }
        }
        Loaded::Pairs(_) => {
            let text = "--model: this is a pair network; use `visage verify A B` or `visage evaluate \
                        --pairs` with it";
            return Err(Error::Config(text.into()));
        }
    })
}

/// The newest classifier of the finished runs, or else the newest trunk.
///
/// # Errors
/// There is neither.
pub fn newest(context: &Context) -> Result<PathBuf> {
    model_file::newest(context.runs(), ModelKind::Classifier)
        .or_else(|_| model_file::newest(context.runs(), ModelKind::Trunk))
}

/// Like [`open`], but without flags it prefers the newest pair network.
///
/// # Errors
/// As [`load`].
pub fn open_for_pairs(context: &Context, choice: &TrunkChoice) -> Result<Loaded> {
    if choice.model.is_none()
        && choice.backbone.is_none()
        && let Ok(path) = model_file::newest(context.runs(), ModelKind::Pairs)
    {
        return open(context, &TrunkChoice { model: Some(path), ..choice.clone() });
    }
    open(context, choice)
}

/// Like [`load`], with everything else in the model file.
///
/// # Errors
/// As [`load`].
pub fn open(context: &Context, choice: &TrunkChoice) -> Result<Loaded> {
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
    let path = match &choice.model {
        Some(path) => path.clone(),
        None => newest(context)?,
    };
    if ModelCard::peek(&path).is_ok_and(|card| card.kind == ModelKind::Pairs) {
        let model = PairModel::load(&path, device)?;
        let (trunk, head) = (model.card.architecture.name(), model.pair.head.name());
        context.say.line(&format!("pair network: {trunk} and {head} of {}", path.display()));
        return Ok(Loaded::Pairs(Box::new(model)));
    }
    let model = Recogniser::load(&path, device)?;
    context.say.line(&format!("trunk: {} of {}", model.card.architecture.name(), path.display()));
    Ok(Loaded::Model { path, model: Box::new(model) })
}
