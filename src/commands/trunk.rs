//! `--model FILE`, or `--backbone B --weights W`, or the newest run: the trunk to work with.

use std::path::PathBuf;

use tch::Device;

use super::Context;
use crate::cli::TrunkChoice;
use crate::models::{Architecture, Backbone, BuildOptions, Compute, EMBEDDING_LAYER};
use crate::recognise::{
    Comparison, Embedder, ModelCard, ModelKind, PairModel, Recogniser, model_file,
};
use crate::weights::Source;
use crate::{Error, Result};

/// A trunk to build from weights that are no model file of ours.
pub struct Bare<'a> {
    pub architecture: Architecture,
    /// The weights: a name, a file or `none`; the architecture's own where not given.
    pub weights: Option<&'a str>,
    pub allow_missing: &'a [String],
    /// A layer with so many outputs on top.
    pub embedding_dim: Option<i64>,
    pub input_size: Option<u32>,
}

/// A built trunk, where its weights came from, and a line that tells all of that.
pub struct Built {
    pub backbone: Backbone,
    pub source: Source,
    pub line: String,
}

impl Bare<'_> {
    /// Builds the trunk and loads its weights. Random ones follow `tch::manual_seed`.
    ///
    /// # Errors
    /// Weights that are not there or do not fit, or a size that cannot be.
    pub fn build(&self, device: Device) -> Result<Built> {
        let options = BuildOptions { embedding_dim: self.embedding_dim, ..BuildOptions::default() };
        let mut backbone = Backbone::build(self.architecture, device, &options)?;
        if let Some(side) = self.input_size {
            backbone.set_input_size(side)?;
        }
        // --embedding-dim asks for a layer that most files do not have.
        let mut allow_missing = self.allow_missing.to_vec();
        allow_missing.extend(self.embedding_dim.map(|_| EMBEDDING_LAYER.to_owned()));
        let (source, line) = load_into(&backbone, self.weights, &allow_missing)?;
        backbone.set_compute(Compute::fast(None))?;
        Ok(Built { backbone, source, line })
    }
}

/// Loads weights (a name, a file or `none`; the architecture's own where not given) into a trunk;
/// where they came from, and a line that tells all of that.
///
/// # Errors
/// Weights that are not there or do not fit.
pub fn load_into(
    backbone: &Backbone,
    weights: Option<&str>,
    allow_missing: &[String],
) -> Result<(Source, String)> {
    let source = Source::resolve(weights, backbone.architecture)?;
    let report = source.load_with(backbone, allow_missing)?;
    let line = format!(
        "{}, {:.1} M parameters, {}{}",
        backbone.architecture.name(),
        backbone.params.parameter_count() as f64 / 1e6,
        source.describe(),
        report.map(|report| format!(": {report}")).unwrap_or_default(),
    );
    Ok((source, line))
}

/// A trunk, and the split it was trained with where that lies beside its model file.
pub struct Trunk {
    pub backbone: Backbone,
    pub split: Option<PathBuf>,
}

/// What the flags asked for, loaded.
pub enum Loaded {
    /// A model file of ours.
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

    /// How it compares two pictures.
    pub fn comparison(&self) -> Comparison<'_> {
        match self {
            Self::Model { .. } | Self::Bare(_) => Comparison::Euclidean,
            Self::Pairs(model) => Comparison::of(&model.net),
        }
    }
}

/// Loads the trunk the flags ask for and tells which it is.
///
/// # Errors
/// The model or the weights cannot be loaded, or there is no run to take a model from.
pub fn load(context: &Context, choice: &TrunkChoice) -> Result<Trunk> {
    Ok(match open(context, choice)? {
        Loaded::Bare(built) => Trunk { backbone: built.backbone, split: None },
        Loaded::Model { path, model } => {
            let split = Some(path.with_file_name("split.csv")).filter(|path| path.is_file());
            Trunk { backbone: model.backbone, split }
        }
        Loaded::Pairs(_) => {
            let text = "--model: a pair network compares two pictures; `visage verify A B` and \
                        `visage evaluate --pairs` take it";
            return Err(Error::Config(text.into()));
        }
    })
}

/// The newest classifier, or else the newest trunk, of the finished runs.
///
/// # Errors
/// There is neither.
pub fn newest(context: &Context) -> Result<PathBuf> {
    model_file::newest(context.runs(), ModelKind::Classifier)
        .or_else(|_| model_file::newest(context.runs(), ModelKind::Trunk))
}

/// As [`open`]; without flags the newest pair network comes first, where there is one.
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

/// As [`load`], with all that is known about the model.
///
/// # Errors
/// As [`load`].
pub fn open(context: &Context, choice: &TrunkChoice) -> Result<Loaded> {
    let device = context.device()?;
    if let Some(architecture) = choice.backbone {
        tch::manual_seed(0); // random weights, where asked for, are the same every time
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
