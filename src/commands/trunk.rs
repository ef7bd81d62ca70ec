//! `--model FILE`, or `--backbone B --weights W`, or the newest run: the trunk that embeds.

use super::Context;
use crate::Result;
use crate::cli::TrunkChoice;
use crate::models::Backbone;
use crate::recognise::{ModelKind, Recogniser, model_file};
use crate::weights::Source;

/// Loads the trunk the flags ask for and tells which it is.
///
/// # Errors
/// The model or the weights cannot be loaded, or there is no run to take a model from.
pub fn load(context: &Context, choice: &TrunkChoice) -> Result<Backbone> {
    let device = context.device()?;
    if let Some(architecture) = choice.backbone {
        let source = Source::resolve(choice.weights.as_deref(), architecture)?;
        let backbone = Backbone::new(architecture, device);
        source.load_into(&backbone)?;
        context.say.line(&format!("trunk: {}, {}", architecture.name(), source.describe()));
        return Ok(backbone);
    }
    let path = match &choice.model {
        Some(path) => path.clone(),
        None => model_file::newest(context.runs(), ModelKind::Classifier)
            .or_else(|_| model_file::newest(context.runs(), ModelKind::Trunk))?,
    };
    let model = Recogniser::load(&path, device)?;
    context.say.line(&format!("trunk: {} of {}", model.card.architecture.name(), path.display()));
    Ok(model.backbone)
}
