//! `--model FILE`, or `--backbone B --weights W`, or the newest run: the trunk that embeds.

use std::path::PathBuf;

use super::Context;
use crate::Result;
use crate::cli::TrunkChoice;
use crate::models::Backbone;
use crate::recognise::{ModelKind, Recogniser, model_file};
use crate::weights::Source;

/// A trunk, and the split it was trained with where that lies beside its model file.
pub struct Trunk {
    pub backbone: Backbone,
    pub split: Option<PathBuf>,
}

/// Loads the trunk the flags ask for and tells which it is.
///
/// # Errors
/// The model or the weights cannot be loaded, or there is no run to take a model from.
pub fn load(context: &Context, choice: &TrunkChoice) -> Result<Trunk> {
    let device = context.device()?;
    if let Some(architecture) = choice.backbone {
        let source = Source::resolve(choice.weights.as_deref(), architecture)?;
        tch::manual_seed(0); // random weights, where asked for, are the same every time
        let backbone = Backbone::new(architecture, device);
        source.load_into(&backbone)?;
        context.say.line(&format!("trunk: {}, {}", architecture.name(), source.describe()));
        return Ok(Trunk { backbone, split: None });
    }
    let path = match &choice.model {
        Some(path) => path.clone(),
        None => model_file::newest(context.runs(), ModelKind::Classifier)
            .or_else(|_| model_file::newest(context.runs(), ModelKind::Trunk))?,
    };
    let model = Recogniser::load(&path, device)?;
    context.say.line(&format!("trunk: {} of {}", model.card.architecture.name(), path.display()));
    let split = Some(path.with_file_name("split.csv")).filter(|path| path.is_file());
    Ok(Trunk { backbone: model.backbone, split })
}
