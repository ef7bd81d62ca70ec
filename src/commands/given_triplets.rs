//! `visage train-triplet --triplets`: trains a pair network on given triplets.

use std::path::Path;
use std::process::ExitCode;

use super::context::Context;
use super::output::count;
use super::pair_training::{NetChoice, Trainable, build, card, learn};
use super::training::{plan, warm_up_batchnorm};
use crate::data::people::{Layout, People};
use crate::data::triplets::TripletSet;
use crate::metric::losses::TripletMarginLoss;
use crate::models::HeadKind;
use crate::recognise::DataCard;
use crate::train::dataset::PICTURE_MEMORY;
use crate::train::frozen_prefix::FrozenPrefix;
use crate::train::optim::Optimizer;
use crate::train::set_up::settings_json;
use crate::train::settings::{BnMode, TripletSettings};
use crate::train::stages::scale_layers;
use crate::train::tuples::{EvalPair, TupleConfig, TupleSource, TupleTask};
use crate::{Error, Result};

/// The default margin, that of the published passport system.
const MARGIN: f64 = 0.3;

pub fn run(
    context: &Context,
    mut settings: TripletSettings,
    path: &Path,
) -> anyhow::Result<ExitCode> {
    let say = &context.say;
    let seed = settings.data.seed;
    context.seed(seed)?;
    let head = *settings.head.get_or_insert(HeadKind::Projection);
    let choice = NetChoice {
        architecture: settings.resolve_backbone()?,
        head,
        embedding_dim: settings.embedding_dim,
        input_size: settings.trunk.input_size,
        weights: settings.trunk.weights.as_deref(),
        allow_missing: &settings.trunk.allow_missing,
    };
    let Trainable { mut net, source, params } = build(context, &choice, &mut settings.tuning)?;
    settings.check_pieces()?;

    let (train, validation) = open(path, settings.data.val_fraction, seed)?;
    for note in train.notes.iter().chain(&validation.notes) {
        say.line(&format!("note: {note}"));
    }
    say.line(&format!(
        "data: {}, {} to train, {} of other people to validate",
        path.display(),
        count(train.len(), "triplet"),
        validation.len()
    ));
    if train.is_empty() {
        return Err(Error::Data(format!("{}: no triplets left to train on", path.display())).into());
    }
    // Both parts in one list: the validation triplets follow the training ones.
    let mut all = train.clone();
    all.triplets.extend(validation.triplets.iter().cloned());
    let bar = say.progress("reading pictures", all.files() as u64, "files");
    let fitting = settings.data.fitting(net.backbone.input.size);
    let (faces, numbers) = all.pictures(fitting, &|| bar.inc(1))?;
    bar.finish();
    faces.note(PICTURE_MEMORY).iter().for_each(|note| say.line(&format!("note: {note}")));
    let (own, held_back) = numbers.split_at(train.len());
    let eval_pairs: Vec<EvalPair> =
        held_back.iter().flat_map(|&[a, p, n]| [(a, p, true), (a, n, false)]).collect();
    settings.margin.get_or_insert(MARGIN);
    settings.embedding_dim = head.default_dim().map(|_| net.dim());
    settings.fill_in(&source, net.backbone.input.size);
    let loss = TripletMarginLoss {
        distance: settings.distance,
        hinge: settings.hinge,
        margin: settings.margin.unwrap_or(MARGIN),
        reduction: settings.reduction,
    };
    let tuple_source = TupleSource::Triplets { triplets: own.to_vec(), loss, seed };
    let data = DataCard {
        path: path.to_string_lossy().into_owned(),
        fingerprint: String::new(),
        train: train.len(),
        validation: validation.len(),
    };
    let card = card(&net, &source, data, seed, settings_json(&settings)?);
    let config = TupleConfig {
        labels: &[],
        eval_pairs,
        card: &card,
        batch_statistics: settings.tuning.bn == Some(BnMode::Train),
        batch: settings.batch_size,
        seed,
        model_ema: settings.tuning.model_ema,
    };
    let seen: Vec<usize> = own.iter().flatten().copied().collect();
    warm_up_batchnorm(&mut net.backbone, &source, &settings.tuning, &faces, &seen)?;
    let run = context.run_folder(&settings.out, "train-triplet", &settings)?;
    run.check_data(&card.data, say)?;
    let prefix = FrozenPrefix::new(&net.backbone, &faces, &settings.tuning, usize::MAX, run.path());
    let mut task = TupleTask::new(&net, prefix, tuple_source, config);
    let lr = settings.lr();
    let mut optimizer = Optimizer::new(settings.schedule.optimizer(lr), params)?;
    scale_layers(&mut optimizer, &net.backbone, settings.tuning.lr_decay_by_layer);
    let plan = plan(&settings.schedule, settings.epochs, lr, &net.backbone);
    learn(context, &mut task, &mut optimizer, &plan, &run, ("train-triplet", &settings))
}

/// Strips or lists as they are; from passport folders one triplet per photo. No person is in both
/// parts.
fn open(path: &Path, val_fraction: f64, seed: u64) -> Result<(TripletSet, TripletSet)> {
    let passports = || People::scan(path).ok().filter(|found| found.layout == Layout::Passports);
    let set = match path.is_dir().then(passports).flatten() {
        Some(people) => TripletSet::of_people(&people, &people.draw(None, None, seed)),
        None => TripletSet::open(path)?,
    };
    set.split(val_fraction, seed)
}
