//! `visage train-pairs`.

use std::path::PathBuf;
use std::process::ExitCode;

use super::context::Context;
use super::framing;
use super::pair_training::{NetChoice, Trainable, build, card, learn};
use super::training::{plan, warm_up_batchnorm};
use crate::Result;
use crate::data::pairs::PairSampler;
use crate::metric::losses::{ContrastiveLoss, PairBceLoss};
use crate::recognise::ModelCard;
use crate::train::dataset::{self, SplitBy};
use crate::train::frozen_prefix::FrozenPrefix;
use crate::train::optim::Optimizer;
use crate::train::set_up::settings_json;
use crate::train::settings::{PairLossKind, PairSettings};
use crate::train::stages::scale_layers;
use crate::train::tuples::{EvalPair, PairLoss, TupleConfig, TupleSource, TupleTask};

/// Maximum number of validation pairs: enough for two digits, and fast.
const MAX_EVAL_PAIRS: usize = 2000;

pub fn run(context: &Context, mut settings: PairSettings) -> anyhow::Result<ExitCode> {
    settings.check()?;
    let say = &context.say;
    context.seed(settings.data.seed)?;
    let choice = NetChoice {
        architecture: settings.backbone,
        head: settings.head,
        embedding_dim: settings.embedding_dim,
        input_size: settings.trunk.input_size,
        weights: settings.trunk.weights.as_deref(),
        allow_missing: &settings.trunk.allow_missing,
    };
    let Trainable { mut net, source, params } = build(context, &choice, &mut settings.tuning)?;

    let trunk = ModelCard::of_trunk(&net.backbone, &source);
    let device = net.backbone.device();
    let data = dataset::open(&settings.data, SplitBy::Identity, &trunk, device, say)?;
    settings.data.data.get_or_insert_with(|| PathBuf::from(&data.card.path));
    settings.fill_in(&source, net.dim(), net.backbone.input.size);
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
    settings.pairs.get_or_insert(sampler.count());
    let tuple_source = TupleSource::Pairs { sampler, hard: settings.hard_negatives, loss };
    let card = ModelCard {
        framing: Some(framing::measure(context, &data)?),
        ..card(&net, &source, data.card.clone(), seed, settings_json(&settings)?)
    };
    let config = TupleConfig {
        labels: &data.parts.labels,
        eval_pairs: eval_pairs(&data.parts.labels, &data.parts.validation, seed)?,
        card: &card,
        batch_statistics: settings.batch_statistics(),
        batch: settings.batch_size,
        seed,
        model_ema: settings.tuning.model_ema,
    };
    warm_up_batchnorm(&mut net.backbone, &source, &settings.tuning, faces, &data.parts.train)?;
    let run = context.run_folder(&settings.out, "train-pairs", &settings)?;
    let prefix = FrozenPrefix::new(&net.backbone, faces, &settings.tuning, usize::MAX, run.path());
    let mut task = TupleTask::new(&net, prefix, tuple_source, config);
    let mut optimizer = Optimizer::new(settings.schedule.optimizer(settings.lr), params)?;
    scale_layers(&mut optimizer, &net.backbone, settings.tuning.lr_decay_by_layer);

    run.write_split(data.divided(), say)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr, &net.backbone);
    learn(context, &mut task, &mut optimizer, &plan, &run, ("train-pairs", &settings))
}

/// Pairs of validation pictures, half of them of the same person; none if there are too few.
fn eval_pairs(labels: &[usize], pictures: &[usize], seed: u64) -> Result<Vec<EvalPair>> {
    let Ok(sampler) = PairSampler::new(labels, pictures, seed) else { return Ok(Vec::new()) };
    let pairs = sampler.pairs(MAX_EVAL_PAIRS.min(4 * pictures.len()))?.epoch(0);
    Ok(pairs.iter().map(|pair| (pair.a, pair.b, pair.label.is_same())).collect())
}
