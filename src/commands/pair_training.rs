//! What `train-pairs` and `train-triplet --triplets` have in common.

use std::process::ExitCode;

use serde::Serialize;
use tch::Tensor;

use super::context::Context;
use super::output::line;
use super::training::{device_summary, print_figures, resolve_auto, train};
use super::trunk::load_into;
use crate::models::{Architecture, EMBEDDING_LAYER, HEAD_PREFIX, HeadKind, PairNet};
use crate::recognise::{DataCard, ModelCard, ModelKind, PairCard};
use crate::train::fit_result::FitResult;
use crate::train::optim::Optimizer;
use crate::train::plan::FitConfig;
use crate::train::run_folder::RunFolder;
use crate::train::settings::TuningSettings;
use crate::train::task::Task;
use crate::weights::Source;
use crate::weights::load::LoadOptions;
use crate::weights::manifest::untrained;
use crate::{Error, Result};

/// The network of the flags.
pub struct NetChoice<'a> {
    pub architecture: Architecture,
    pub head: HeadKind,
    pub embedding_dim: Option<i64>,
    pub input_size: Option<u32>,
    pub weights: Option<&'a str>,
    pub allow_missing: &'a [String],
}

/// A network ready to train.
pub struct Trainable {
    pub net: PairNet,
    pub source: Source,
    /// The parameters of trunk and head that are not frozen.
    pub params: Vec<(String, Tensor)>,
}

/// Builds a network, loads the weights of its trunk, reports what it is, and freezes blocks.
///
/// # Errors
/// An impossible network, weights that do not fit, or nothing left to train.
pub fn build(
    context: &Context,
    choice: &NetChoice,
    tuning: &mut TuningSettings,
) -> Result<Trainable> {
    let device = context.device()?;
    let NetChoice { architecture, head, embedding_dim, input_size, .. } = *choice;
    let mut net = PairNet::build(architecture, head, embedding_dim, input_size, device)?;
    // The head takes what is below the embedding layer that a distilled trunk may have.
    let options = LoadOptions { extras: &[EMBEDDING_LAYER], allow_missing: choice.allow_missing };
    let (source, text) = load_into(&net.backbone, choice.weights, &options)?;
    let deterministic = context.common.deterministic;
    resolve_auto(tuning, &source, &mut net.backbone, deterministic, &context.say)?;
    context.say.line(&format!("trunk: {text}"));
    context.say.line(&format!("training: {}", device_summary(device, tuning)));
    let untrained = untrained(choice.weights, &source, architecture)?;
    untrained.iter().for_each(|warning| context.say.warn(warning));
    context.say.line(&describe_head(&net));
    net.backbone.params.freeze(&tuning.freeze)?;
    let params = net.trainable();
    match params.is_empty() {
        true => Err(Error::Config("--freeze: nothing left to train".into())),
        false => Ok(Trainable { net, source, params }),
    }
}

/// Runs the training loop and prints a summary.
pub fn learn<S: Serialize>(
    context: &Context,
    task: &mut dyn Task,
    optimizer: &mut Optimizer,
    plan: &FitConfig,
    run: &RunFolder,
    command: (&str, &S),
) -> anyhow::Result<ExitCode> {
    let outcome = train(context, task, optimizer, plan, run, command)?;
    summary(&outcome)?;
    Ok(ExitCode::SUCCESS)
}

fn describe_head(net: &PairNet) -> String {
    let answer = match net.kind().gives_logit() {
        true => "one logit per pair".to_owned(),
        false => format!("embeddings of {} dimensions, compared by distance", net.dim()),
    };
    let millions = net.params.parameter_count() as f64 / 1e6;
    format!("{HEAD_PREFIX}: {}, {millions:.1} M parameters, {answer}", net.kind().name())
}

/// The card of the run's model files.
pub fn card(
    net: &PairNet,
    source: &Source,
    data: DataCard,
    seed: u64,
    settings: serde_json::Value,
) -> ModelCard {
    ModelCard {
        embedding_dim: net.dim(),
        seed,
        data,
        settings,
        pair: Some(PairCard { head: net.kind(), threshold: None, probability: None }),
        ..ModelCard::new(ModelKind::Pairs, &net.backbone, source.describe())
    }
}

fn summary(outcome: &FitResult) -> std::io::Result<()> {
    let labels = [("verification", "verification"), ("auc", "AUC"), ("f1", "F1")];
    print_figures("validation pairs", &labels, outcome)?;
    if outcome.best.is_unmeasured() {
        line("no validation data: the best model is the one of the last epoch")?;
    } else {
        line(&format!("best epoch: {} of {}", outcome.best_epoch, outcome.epochs))?;
    }
    line(&format!("model: {}", outcome.model.display()))?;
    line("next: visage verify A.jpg B.jpg")
}
