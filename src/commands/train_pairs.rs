//! `visage train-pairs`.

use std::process::ExitCode;

use tch::Device;

use super::output::{line, percent};
use super::trunk::load_into;
use super::{Context, dataset};
use crate::data::pairs::PairSampler;
use crate::data::store::PictureStore;
use crate::device::{self, Precision};
use crate::metric::losses::{ContrastiveLoss, PairBceLoss};
use crate::models::{Backbone, Compute, HEAD_PREFIX, PairNet, Stage};
use crate::recognise::{DataCard, ModelCard, ModelKind, PairCard};
use crate::train::fit::{Outcome, Plan, Task, fit};
use crate::train::front::Front;
use crate::train::log::RunLog;
use crate::train::optim::Optimizer;
use crate::train::run_folder::RunFolder;
use crate::train::settings::{BnMode, PairLossKind, PairSettings, TuningSettings};
use crate::train::stages::{scale_layers, settle_statistics};
use crate::train::tuples::{Course, Lesson, PairLoss, Question, TupleTask};
use crate::weights::Source;
use crate::{Error, Result};

/// Validation pairs: enough for two digits, and quick.
const QUESTIONS: usize = 2000;

pub fn run(context: &Context, mut settings: PairSettings) -> anyhow::Result<ExitCode> {
    settings.check()?;
    let say = &context.say;
    let device = context.device()?;
    tch::manual_seed(settings.data.seed as i64);
    let dim = settings.embedding_dim;
    let (architecture, side) = (settings.backbone, settings.input_size);
    let mut net = PairNet::build(architecture, settings.head, dim, side, device)?;
    let (source, text) =
        load_into(&net.backbone, settings.weights.as_deref(), &settings.allow_missing)?;
    settle(&mut settings.tuning, &source, &mut net.backbone)?;
    say.line(&format!("trunk: {text}, {}", place(device, &settings.tuning)));
    say.line(&describe_head(&net));
    let params = trainable(&net, &settings.tuning)?;

    let data = dataset::open_people(&settings.data, net.backbone.input.size, say)?;
    let faces = &data.folder.fitted;
    let seed = settings.data.seed;
    let mut sampler = PairSampler::new(&data.parts.labels, &data.parts.train, seed)?;
    if let Some(pairs) = settings.pairs {
        sampler = sampler.pairs(pairs)?;
    }
    let loss = match settings.loss() {
        PairLossKind::Contrastive => PairLoss::Contrastive(ContrastiveLoss {
            margin: settings.margin,
            ..ContrastiveLoss::default()
        }),
        PairLossKind::Bce => PairLoss::Bce(PairBceLoss::default()),
    };
    let pictures = data.parts.train.clone();
    let lesson = Lesson::Pairs { sampler, pictures, hard: settings.hard_negatives, loss };
    let card = card(&net, &source, data.card.clone(), seed, super::settings_json(&settings)?);
    let course = Course {
        labels: &data.parts.labels,
        questions: questions(&data.parts.labels, &data.parts.validation, seed)?,
        card: &card,
        batch_statistics: settings.batch_statistics(),
        batch: settings.batch_size,
        seed,
    };
    settle_random(&mut net.backbone, &source, &settings.tuning, faces, &data.parts.train)?;
    let front = Front::new(&net.backbone, faces, &settings.tuning, usize::MAX, &settings.out);
    let mut task = TupleTask::new(&net, front, lesson, course);
    let mut optimizer = Optimizer::new(settings.schedule.optimizer(settings.lr), params)?;
    scale_layers(&mut optimizer, &net.backbone, settings.tuning.lr_decay_by_layer);

    let run = context.run_folder(&settings.out, "train-pairs", &settings)?;
    data.split.write_csv(&run.split(), &data.folder)?;
    let plan = settings.schedule.plan(settings.epochs, settings.lr);
    let plan = Plan { scale_loss: net.backbone.compute().scales_loss(), ..plan };
    learn(context, &mut task, &mut optimizer, &plan, &run)
}

/// Runs the loop and tells what came of it.
pub(super) fn learn(
    context: &Context,
    task: &mut dyn Task,
    optimizer: &mut Optimizer,
    plan: &Plan,
    run: &RunFolder,
) -> anyhow::Result<ExitCode> {
    let say = &context.say;
    let mut log = RunLog::create(run.path());
    let outcome = fit(task, optimizer, plan, run, &mut log, say)?;
    for warning in log.take_warnings() {
        say.warn(&warning);
    }
    run.finish(&outcome)?;
    summary(&outcome)?;
    Ok(ExitCode::SUCCESS)
}

/// What is decided where the flags leave it open; written to config.toml as decided, so that
/// repeating the run needs no rule.
pub(super) fn settle(
    tuning: &mut TuningSettings,
    source: &Source,
    backbone: &mut Backbone,
) -> Result<()> {
    let bn = if *source == Source::Random { BnMode::Train } else { BnMode::Eval };
    tuning.bn.get_or_insert(bn);
    let half = tuning.precision.resolve(backbone.device());
    tuning.precision = Precision::of(half);
    backbone.set_compute(Compute::fast(half))
}

/// Batch normalisation that rests needs statistics, which random weights come without: the trunk
/// sees some pictures first.
pub(super) fn settle_random(
    backbone: &mut Backbone,
    source: &Source,
    tuning: &TuningSettings,
    faces: &PictureStore,
    pictures: &[usize],
) -> Result<()> {
    let rests = tuning.bn == Some(BnMode::Eval)
        || tuning.unfreeze_every > 0
        || backbone.stages().iter().any(Stage::is_frozen);
    match *source == Source::Random && rests {
        true => settle_statistics(backbone, faces, pictures),
        false => Ok(()),
    }
}

/// Where a run computes, and in what.
pub(super) fn place(device: Device, tuning: &TuningSettings) -> String {
    format!("on {} in {}", device::name(device), tuning.precision.name())
}

/// Freezes what is to be frozen; the parameters left, trunk's and head's.
pub(super) fn trainable(
    net: &PairNet,
    tuning: &TuningSettings,
) -> Result<Vec<(String, tch::Tensor)>> {
    net.backbone.params.freeze(&tuning.freeze)?;
    let params = net.trainable();
    match params.is_empty() {
        true => Err(Error::Config("--freeze: nothing is left to train".into())),
        false => Ok(params),
    }
}

pub(super) fn describe_head(net: &PairNet) -> String {
    let answer = match net.kind().gives_logit() {
        true => "one logit a pair".to_owned(),
        false => format!("vectors of {}, compared by their distance", net.dim()),
    };
    let millions = net.params.parameter_count() as f64 / 1e6;
    format!("{HEAD_PREFIX}: {}, {millions:.1} M parameters, {answer}", net.kind().name())
}

pub(super) fn card(
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

/// Pairs of validation pictures, half of them of one person; none where there are too few.
fn questions(labels: &[usize], pictures: &[usize], seed: u64) -> Result<Vec<Question>> {
    let Ok(sampler) = PairSampler::new(labels, pictures, seed) else { return Ok(Vec::new()) };
    let pairs = sampler.pairs(QUESTIONS.min(4 * pictures.len()))?.epoch(0);
    Ok(pairs.iter().map(|pair| (pair.a, pair.b, pair.label.is_same())).collect())
}

fn summary(outcome: &Outcome) -> std::io::Result<()> {
    line(&format!("{:<22}{:>12}{:>12}", "validation pairs", "untouched", "best"))?;
    let labels = [("verification", "verification"), ("auc", "AUC"), ("f1", "F1")];
    for (name, label) in labels {
        let of = |scores: &crate::train::fit::Scores| {
            scores.values.iter().find(|(other, _)| *other == name).map(|(_, value)| percent(*value))
        };
        if let (Some(before), Some(after)) = (of(&outcome.untouched), of(&outcome.best)) {
            line(&format!("{label:<22}{before:>12}{after:>12}"))?;
        }
    }
    if outcome.best.is_unmeasured() {
        line("nothing to validate on: the best model is that of the last epoch")?;
    } else {
        line(&format!("best epoch: {} of {}", outcome.best_epoch, outcome.epochs))?;
    }
    line(&format!("model: {}", outcome.model.display()))?;
    line("next: visage verify A.jpg B.jpg")
}
