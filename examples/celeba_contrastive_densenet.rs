//! # Contrastive embeddings of CelebA with a cyclical learning rate
//!
//! The notebook this replaces put 32 outputs on DenseNet121 and trained them with contrastive loss on
//! pairs of CelebA's pictures, with an Adam whose learning rate went up and down in triangles, each
//! half as high as the one before, while beta1 went the other way. The same through the library:
//!
//! ```text
//! cargo run --release --example celeba_contrastive_densenet -- data/celeba figures \
//!     --weights densenet121-a639ec97.pth
//! ```
//!
//! Everything is optional. The first argument is a CelebA folder (`img_align_celeba` beside
//! `identity_CelebA.txt`; `visage fetch celeba` says how to get them) or a folder of identities;
//! without it other faces stand in, and the first line says which. The second is the folder for
//! figures. `--limit 500` takes so many people only, and `--side 64 --epochs 4` makes it quick.
//! Without `--weights` the trunk starts at random.
//!
//! Expected output: one line an epoch, of the loss, the rates at its end, and the scores; then
//! `figures/loss.png`, `figures/learning_rate.png` and `figures/beta1.png`, the last two mirror
//! images of each other, and a sentence like `the rate was highest, 0.0010, at step 132`.
#![allow(clippy::print_stdout)] // an example talks

mod shared;

use anyhow::Context;
use clap::Parser;
use visage::data::PairSampler;
use visage::device::DeviceChoice;
use visage::metric::losses::ContrastiveLoss;
use visage::models::{Architecture, HeadKind, Mode, PairNet};
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind};
use visage::train::schedule::{Cycle, CycleShape, Schedule};
use visage::train::step::Stepper;
use visage::train::tuples::pair_distances;
use visage::weights::Source;

/// The top of the first triangle; the bottom is a quarter of it.
const LR: f64 = 1e-3;
/// Epochs from one bottom to the next.
const CYCLE: usize = 4;

fn main() -> anyhow::Result<()> {
    let arguments = shared::Arguments::parse();
    let out = &arguments.figures;
    let epochs = arguments.epochs.unwrap_or(20);
    let batch_size = usize::from(arguments.batch.unwrap_or(32));
    let device = DeviceChoice::default().resolve()?;
    tch::manual_seed(shared::SEED as i64);

    // ## 1. DenseNet121 with 32 outputs
    let architecture = Architecture::DenseNet121;
    let head = HeadKind::Projection;
    let net = PairNet::build(architecture, head, Some(32), arguments.side, device)?;
    let source = Source::resolve(arguments.weights.as_deref(), architecture)?;
    source.load_into(&net.backbone)?;
    println!("trunk: densenet121, {}; vectors of {}", source.describe(), net.dim());
    // Pretrained batch normalisation keeps its statistics; a random one has none worth keeping.
    let trunk_mode = Mode { dropout: true, batch_statistics: source == Source::Random };

    // ## 2. People to train on, others to measure on, and pairs drawn anew each epoch
    let people = shared::people(&arguments, net.backbone.input.size)?;
    let mut prefix = shared::prefix(&net, &people.faces, true, out)?;
    let untouched = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
    println!("untouched: {}", shared::headline(&shared::score(&untouched)?));
    let sampler = PairSampler::new(&people.labels, &people.train, shared::SEED)?;
    let steps_per_epoch = sampler.epoch(1).len().div_ceil(batch_size);

    // ## 3. Triangles
    // A schedule is a pure function of the step: nothing to save, nothing to lose. While the rate is
    // high the momentum is low (0.85) and the other way round (0.95), so that their product, which
    // is what moves the weights, stays moderate; beta2 is 0.99 all along.
    let steps_up = (CYCLE * steps_per_epoch / 2).max(1) as u64;
    let schedule = Schedule::Cyclic(Cycle::new(CycleShape::Triangular2, steps_up));
    schedule.validate()?;

    // ## 4. The loop
    let loss = ContrastiveLoss::default();
    let config = OptimizerConfig { lr: LR, ..OptimizerConfig::new(OptimizerKind::Adam) };
    let mut optimizer = Optimizer::new(config, net.trainable())?;
    let mut stepper = Stepper::new(&mut optimizer);
    let (mut losses, mut lrs, mut betas) = (Vec::new(), Vec::new(), Vec::new());
    for epoch in 1..=epochs {
        for batch in sampler.epoch(epoch).chunks(batch_size) {
            let step = losses.len() as u64;
            let (pictures, labels) = shared::tuple_source(batch);
            let (stage, maps) = prefix.views(&pictures, step)?;
            let vectors = net.vectors(stage, &maps, trunk_mode, Mode::TRAIN)?;
            let halves = vectors.chunk(2, 0);
            let output = loss.forward(&halves[0], &halves[1], &labels);
            // One value carries all that changes at this step: rate, beta1, beta2.
            let rates = schedule.rates(step, LR);
            losses.push(stepper.step(rates, || Ok(output.loss.into()))?.loss());
            lrs.push(rates.lr);
            betas.extend(rates.momentum);
        }
        let answers = pair_distances(&net, &mut prefix, &people.eval_pairs)?;
        let headline = shared::headline(&shared::score(&answers)?);
        let own = &losses[losses.len() - steps_per_epoch..];
        let mean = own.iter().sum::<f64>() / own.len() as f64;
        let (lr, beta) = lrs.last().zip(betas.last()).context("an epoch without a step")?;
        println!("epoch {epoch}: loss {mean:.4}, rate {lr:.5}, beta1 {beta:.3}, {headline}");
    }

    // ## 5. What happened
    shared::draw_steps(&losses, "contrastive loss", out, "loss.png")?;
    shared::draw_steps(&lrs, "learning rate", out, "learning_rate.png")?;
    shared::draw_steps(&betas, "beta1", out, "beta1.png")?;
    let highest = (1..).zip(&lrs).max_by(|a, b| a.1.total_cmp(b.1));
    if let Some((step, lr)) = highest {
        println!("the rate was highest, {lr:.4}, at step {step}");
    }
    Ok(())
}
