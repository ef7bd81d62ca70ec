//! # Passport picture against photos: VGG16 on strips of three
//!
//! The program this replaces cut strips (passport picture, photo of the same person, photo of another
//! one) into triplets and trained new dense layers on a VGG16 whose convolutions were frozen. The
//! same steps through the library:
//!
//! ```text
//! cargo run --release --example passport_vgg16 -- data/passports figures --weights vgg16-397923af.pth
//! ```
//!
//! Everything is optional. The first argument is a folder of strips (`visage prepare strips`), of
//! passports (`trainset/*/user/*`, with `script` in the name of the passport picture) or of
//! identities, where every picture may stand for the passport's; without it other faces stand in,
//! and the first line says which. The second is the folder for figures. `--limit 500` takes so many
//! strips only, and `--side 64` makes it quick. Without `--weights` the frozen convolutions are
//! random: everything runs, and little is learnt.
//!
//! Expected output: the loss of every epoch (the published path is 0.299 at the start and about 0.010
//! after five epochs; where the file has the convolutions alone, the dense layers start at random
//! and the loss is higher: 0.90 in the first epoch and 0.35 in the fifth on 800 strips of LFW at 96
//! pixels, AUC 0.61 before and 0.64 after), accuracy and AUC on people the training has never seen,
//! `figures/loss.png`, `figures/roc.png` and `figures/distances.png`.
#![allow(clippy::print_stdout)] // an example talks

mod shared;

use clap::Parser;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use visage::data::TripletSet;
use visage::data::people::People;
use visage::data::strip_folder::{self, BuildOptions};
use visage::data::strips::StripFormat;
use visage::data::triplets::STRIPS;
use visage::device::DeviceChoice;
use visage::metric::losses::TripletMarginLoss;
use visage::models::{Architecture, HeadKind, Mode, PairNet};
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind, StepRates};
use visage::train::step::Stepper;
use visage::train::tuples::{EvalPair, pair_distances};
use visage::weights::Source;
use visage::weights::load::LoadOptions;

/// Constant, with a momentum of 0.9.
const LR: f64 = 0.001;

fn main() -> anyhow::Result<()> {
    let arguments = shared::Arguments::parse();
    let out = &arguments.figures;
    let epochs = arguments.epochs.unwrap_or(5);
    let batch_size = usize::from(arguments.batch.unwrap_or(64));
    let device = DeviceChoice::default().resolve()?;
    tch::manual_seed(shared::SEED as i64);

    // ## 1. VGG16, frozen below
    // Pooled convolutions, VGG's own dense layers to its 1000 classes, then 512 and 108. A file of
    // the convolutions alone does as well: the dense layers train anyhow.
    let architecture = Architecture::Vgg16;
    let net = PairNet::build(architecture, HeadKind::Passport, None, arguments.side, device)?;
    let source = Source::resolve(arguments.weights.as_deref(), architecture)?;
    let allow_missing = ["classifier".to_owned()];
    let options = LoadOptions { allow_missing: &allow_missing, ..LoadOptions::default() };
    source.load_with(&net.backbone, &options)?;
    net.backbone.params.freeze(&["features".to_owned()])?;
    println!("trunk: vgg16, {}; vectors of {}", source.describe(), net.dim());

    // ## 2. Strips
    // Built where the data has none; here they are needed only once, `visage prepare strips` keeps
    // them. The list beside the strips says who is on them, so that the split is one between
    // people: nobody is on both sides, not even as the stranger.
    let data = arguments.data()?;
    let built = tempfile::tempdir()?;
    let strips = match data.join(STRIPS).is_file() {
        true => data,
        false => {
            let (size, seed) = (net.backbone.input.size, shared::SEED);
            let (limit, format) = (arguments.limit, StripFormat::Jpeg(95));
            let options = BuildOptions { size, per_person: None, limit, seed, format };
            let strips = built.path().join("strips");
            strip_folder::build(People::scan(&data)?, &data, &strips, &options, &|_, _| {})?;
            strips
        }
    };
    let (train, unseen) = TripletSet::open(&strips)?.split(0.2, shared::SEED)?;
    println!("{} triplets to train, {} of other people to measure", train.len(), unseen.len());

    // ## 3. Pictures
    // Both sides decoded in one go. What the frozen convolutions make of a picture never changes,
    // so it is computed once.
    let mut all = train.clone();
    all.triplets.extend(unseen.triplets.iter().cloned());
    let (faces, triplets) = all.pictures(net.backbone.input.size, &|| {})?;
    let (own, held_back) = triplets.split_at(train.len());
    let eval_pairs: Vec<EvalPair> =
        held_back.iter().flat_map(|&[a, p, n]| [(a, p, true), (a, n, false)]).collect();
    let mut prefix = shared::prefix(&net, &faces, false, out)?;
    let untouched = pair_distances(&net, &mut prefix, &eval_pairs)?;
    println!("untouched: {}", shared::headline(&shared::score(&untouched)?));

    // ## 4. The published loss
    // max(0, mean((a - p)^2) - mean((a - n)^2) + 0.3), the means over the 108 numbers.
    let loss = TripletMarginLoss::passport();
    let config = OptimizerConfig { lr: LR, ..OptimizerConfig::new(OptimizerKind::Sgd) };
    let mut optimizer = Optimizer::new(config, net.trainable())?;
    let mut stepper = Stepper::new(&mut optimizer);
    let mut random = StdRng::seed_from_u64(shared::SEED);
    let mut order = own.to_vec();
    let mut losses = Vec::new();
    for epoch in 1..=epochs {
        order.shuffle(&mut random);
        let before = losses.len();
        for batch in order.chunks(batch_size) {
            // Anchors, positives, negatives: three blocks of rows in one pass.
            let pictures: Vec<usize> =
                (0..3).flat_map(|at| batch.iter().map(move |triplet| triplet[at])).collect();
            let (stage, maps) = prefix.plain(&pictures)?;
            let vectors = net.vectors(stage, &maps, Mode::EVAL, Mode::TRAIN)?;
            let blocks = vectors.chunk(3, 0);
            let output = loss.forward_rows(&blocks[0], &blocks[1], &blocks[2]);
            losses.push(stepper.step(StepRates::lr(LR), || Ok(output.loss.into()))?.loss());
        }
        let own = &losses[before..];
        println!("epoch {epoch}: loss {:.4}", own.iter().sum::<f64>() / own.len() as f64);
    }

    // ## 5. People never seen
    // The loss alone says little: it also falls when only the people trained on are told apart.
    let answers = pair_distances(&net, &mut prefix, &eval_pairs)?;
    let scores = shared::score(&answers)?;
    shared::draw_steps(&losses, "triplet loss", out, "loss.png")?;
    shared::draw_answers(&answers, &scores, out)?;
    println!("{}", shared::headline(&scores));
    Ok(())
}
