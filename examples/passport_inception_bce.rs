//! # One person or two? A frozen InceptionV3 with a small head
//!
//! The program this replaces kept InceptionV3 as it was, put two convolutions with pooling on its last
//! map, laid the two pictures' vectors side by side, and let dense layers answer with one number,
//! trained with binary cross-entropy. The same steps through the library:
//!
//! ```text
//! cargo run --release --example passport_inception_bce -- data/faces figures \
//!     --weights inception_v3_google-0cc3c7bd.pth
//! ```
//!
//! Everything is optional. The first argument is a folder of identities or a CelebA folder; without
//! it other faces stand in, and the first line says which. The second is the folder for figures.
//! `--side 171` makes it quick: the head needs a map of 4x4, and there it is just that. Without
//! `--weights` the frozen trunk is random: everything runs, and little is learnt.
//!
//! Expected output: one line an epoch, `figures/loss.png`, `figures/roc.png`,
//! `figures/distances.png`, and last the F1 on people the training has never seen (the original
//! reports 0.77, on pairs of its own).
#![allow(clippy::print_stdout)] // an example talks

mod shared;

use anyhow::Context;
use clap::Parser;
use visage::data::PairSampler;
use visage::device::DeviceChoice;
use visage::eval::folds::f1_at;
use visage::metric::losses::PairBceLoss;
use visage::models::{Architecture, HeadKind, Mode, PairNet};
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind, StepRates};
use visage::train::stages::estimate_bn_statistics;
use visage::train::step::Stepper;
use visage::train::tuples::pair_distances;
use visage::weights::Source;

/// Constant, with a momentum of 0.9.
const LR: f64 = 0.01;

fn main() -> anyhow::Result<()> {
    let arguments = shared::Arguments::parse();
    let out = &arguments.figures;
    let epochs = arguments.epochs.unwrap_or(10);
    let batch_size = usize::from(arguments.batch.unwrap_or(4));
    let device = DeviceChoice::default().resolve()?;
    tch::manual_seed(shared::SEED as i64);

    // ## 1. A trunk and its head
    let architecture = Architecture::InceptionV3;
    let mut net = PairNet::build(architecture, HeadKind::Conv, None, arguments.side, device)?;
    let source = Source::resolve(arguments.weights.as_deref(), architecture)?;
    source.load_into(&net.backbone)?;
    println!("trunk: inception-v3, {}", source.describe());

    // ## 2. Pairs of people to train on, and of others; and a trunk that never changes
    // All of it is frozen, batch normalisation included. A random one has no statistics yet and would
    // give maps of any scale, so it looks at some pictures first. There are no random views, as in
    // the original: the map of a picture is computed once, and what an epoch costs is the head.
    let people = shared::people(&arguments, net.backbone.input.size)?;
    if source == Source::Random {
        estimate_bn_statistics(&mut net.backbone, &people.faces, &people.train)?;
    }
    net.backbone.params.freeze_all();
    let mut prefix = shared::prefix(&net, &people.faces, false, out)?;
    let untouched = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
    println!("untouched: {}", shared::headline(&shared::score(&untouched)?));
    let sampler = PairSampler::new(&people.labels, &people.train, shared::SEED)?;

    // ## 3. Binary cross-entropy
    // The head's number is a logit: above 0 means one person. Labels are words here and become 0
    // and 1 inside the loss, because published systems disagree on which is which.
    let loss = PairBceLoss::default();
    let config = OptimizerConfig { lr: LR, ..OptimizerConfig::new(OptimizerKind::Sgd) };
    let mut optimizer = Optimizer::new(config, net.trainable())?;
    let mut stepper = Stepper::new(&mut optimizer);
    let mut losses = Vec::new();
    for epoch in 1..=epochs {
        let before = losses.len();
        for batch in sampler.epoch(epoch).chunks(batch_size) {
            let (pictures, labels) = shared::tuple_source(batch);
            let (stage, maps) = prefix.plain(&pictures)?;
            let vectors = net.vectors(stage, &maps, Mode::EVAL, Mode::TRAIN)?;
            let halves = vectors.chunk(2, 0);
            let logits = net.join(&halves[0], &halves[1], Mode::TRAIN);
            let output = loss.forward(&logits.context("this head gives no logit")?, &labels);
            losses.push(stepper.step(StepRates::lr(LR), || Ok(output.loss.into()))?.loss());
        }
        let answers = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
        let headline = shared::headline(&shared::score(&answers)?);
        let own = &losses[before..];
        let mean = own.iter().sum::<f64>() / own.len() as f64;
        println!("epoch {epoch}: loss {mean:.4}, {headline}");
    }

    // ## 4. F1 on people never seen
    // Two pictures are further apart the lower their logit, which is averaged over both orders of
    // the two. One person where the network itself says so: a logit above 0.
    let answers = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
    let scores = shared::score(&answers)?;
    shared::draw_steps(&losses, "binary cross-entropy", out, "loss.png")?;
    shared::draw_answers(&answers, &scores, out)?;
    let f1 = f1_at(&answers, 0.0).unwrap_or_default();
    println!("F1 on unseen people: {f1:.3} at even odds, {:.3} at the best threshold", scores.f1);
    Ok(())
}
