//! # One person or two? A siamese DenseNet121 on CelebA
//!
//! The notebook this replaces trained two DenseNet121s with shared weights on pairs of CelebA's
//! pictures: pooled features, dense, batch normalisation and leaky ReLU twice, one more dense layer,
//! and the Euclidean distance of the two vectors as the answer. The same steps through the library:
//!
//! ```text
//! cargo run --release --example celeba_siamese_densenet -- data/celeba figures \
//!     --weights densenet121-a639ec97.pth
//! ```
//!
//! Everything is optional. The first argument is a CelebA folder (`img_align_celeba` beside
//! `identity_CelebA.txt`; `visage fetch celeba` says how to get them) or a folder of identities;
//! without it other faces stand in, and the first line says which. The second is the folder for
//! figures. `--limit 500` takes so many people only, and `--side 64 --epochs 3` makes it quick:
//! small pictures and a short training. Without `--weights` the trunk starts at random, and so
//! short a training teaches it nothing: three epochs on 120 people end near guessing, AUC 0.53.
//!
//! Expected output: one line of scores before the training and one an epoch, then
//! `figures/roc.png` and `figures/distances.png`, and a sentence like `two pictures nearer than
//! 1.94 show one person`.
#![allow(clippy::print_stdout)] // an example talks

mod shared;

use clap::Parser;
use visage::data::PairSampler;
use visage::device::DeviceChoice;
use visage::metric::losses::ContrastiveLoss;
use visage::models::{Architecture, HeadKind, Mode, PairNet};
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind};
use visage::train::schedule::Schedule;
use visage::train::step::Stepper;
use visage::train::tuples::pair_distances;
use visage::weights::Source;

/// The highest learning rate.
const LR: f64 = 1e-4;

fn main() -> anyhow::Result<()> {
    let arguments = shared::Arguments::parse();
    let out = &arguments.figures;
    let epochs = arguments.epochs.unwrap_or(20);
    let batch_size = usize::from(arguments.batch.unwrap_or(32));
    let device = DeviceChoice::default().resolve()?;
    tch::manual_seed(shared::SEED as i64);

    // ## 1. A trunk with two inputs
    // Both pictures go through the same trunk and the same tower, so there is one network, and
    // "siamese" only says what is done with its vectors.
    let architecture = Architecture::DenseNet121;
    let net = PairNet::build(architecture, HeadKind::Euclidean, None, arguments.side, device)?;
    let source = Source::resolve(arguments.weights.as_deref(), architecture)?;
    source.load_into(&net.backbone)?;
    println!("trunk: densenet121, {}; vectors of {}", source.describe(), net.dim());
    // Pretrained batch normalisation keeps its statistics; a random one has none worth keeping.
    let trunk_mode = Mode { dropout: true, batch_statistics: source == Source::Random };

    // ## 2. People, not pictures, are split
    // A fifth of the people is held back: what counts is faces of people never seen before.
    let people = shared::people(&arguments, net.backbone.input.size)?;
    let mut prefix = shared::prefix(&net, &people.faces, true, out)?;
    let untouched = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
    println!("untouched: {}", shared::headline(&shared::score(&untouched)?));

    // ## 3. Pairs
    // Drawn anew each epoch, half of them of one person, so that each picture is beside its like
    // once and beside a stranger once.
    let sampler = PairSampler::new(&people.labels, &people.train, shared::SEED)?;
    let steps_per_epoch = sampler.epoch(1).len().div_ceil(batch_size);
    let total_steps = (epochs * steps_per_epoch) as u64;
    let schedule =
        Schedule::WarmupCosine { warmup_steps: total_steps / 20, total_steps, final_fraction: 0.0 };

    // ## 4. Contrastive loss
    // (1 - y)/2 D^2 + y/2 max(0, 1 - D)^2, with y = 1 for two people: one person's pictures are
    // pulled together, two people's pushed apart until they are 1 apart.
    let loss = ContrastiveLoss::default();
    let config = OptimizerConfig { lr: LR, ..OptimizerConfig::new(OptimizerKind::Adam) };
    let mut optimizer = Optimizer::new(config, net.trainable())?;
    let mut stepper = Stepper::new(&mut optimizer);
    let mut done = 0;
    for epoch in 1..=epochs {
        let mut sum = 0.0;
        for batch in sampler.epoch(epoch).chunks(batch_size) {
            // All first pictures, then all second ones, in one pass. Mirror images are more
            // pictures of the same people.
            let (pictures, labels) = shared::tuple_source(batch);
            let (stage, maps) = prefix.views(&pictures, done)?;
            let vectors = net.vectors(stage, &maps, trunk_mode, Mode::TRAIN)?;
            let halves = vectors.chunk(2, 0);
            let output = loss.forward(&halves[0], &halves[1], &labels);
            sum += stepper.step(schedule.rates(done, LR), || Ok(output.loss.into()))?.loss();
            done += 1;
        }
        let answers = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
        let headline = shared::headline(&shared::score(&answers)?);
        println!("epoch {epoch}: loss {:.4}, {headline}", sum / steps_per_epoch as f64);
    }

    // ## 5. Where to draw the line
    // The ROC shows every threshold at once; the histograms show why one is better than another.
    // The library's `TupleTask` keeps the best epoch and writes model files that `visage verify`
    // reads.
    let answers = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
    let scores = shared::score(&answers)?;
    shared::draw_answers(&answers, &scores, out)?;
    println!("two pictures nearer than {:.2} show one person", scores.threshold);
    Ok(())
}
