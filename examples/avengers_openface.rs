//! # Naming five Avengers actors with OpenFace
//!
//! The notebook this replaces cropped faces, fine-tuned OpenFace nn4.small2 with triplet loss,
//! froze it, trained a linear classifier, and drew a t-SNE picture. Here are the same steps through
//! the library, from a folder of faces to a named one:
//!
//! ```text
//! cargo run --release --example avengers_openface -- data/avengers figures
//! ```
//!
//! Both arguments are optional: without the first the default data is used (the ORL faces, fetched
//! once, unless `data/avengers` exists), without the second figures land in `figures`. A third one
//! sets the number of epochs. Expected output: one line of scores an epoch, a table of the
//! untouched and the tuned trunk, `figures/tsne.png`, and a sentence like
//! `chris_evans with 91.27% probability`.
#![allow(clippy::print_stdout)] // an example talks

use std::path::{Path, PathBuf};

use anyhow::Context;
use tch::Device;
use visage::data::{FaceFolder, Part, Split, near_duplicates, picture, source};
use visage::eval::tsne::{TsneOptions, tsne};
use visage::figures::{self, Scatter};
use visage::metric::losses::TripletMarginLoss;
use visage::metric::miners::BATCH_HARD;
use visage::models::{Architecture, Backbone, Mode};
use visage::recognise::{Classifier, GalleryFace, Head, KnownFaces, embed_pictures, embed_stored};
use visage::train::calibrate::{OpenSetCalibration, calibrate};
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind, StepRates};
use visage::train::scoring::{Labelled, score};
use visage::train::step::Stepper;
use visage::weights::Source;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().map(PathBuf::from);
    let out = PathBuf::from(arguments.next().unwrap_or_else(|| "figures".into()));
    let epochs: usize = arguments.next().map_or(Ok(10), |text| text.parse())?;
    tch::manual_seed(0);

    // ## 1. Faces
    // One folder an identity. Every picture is decoded once, cut to the largest central square and
    // resized to the network's 96 pixels. Pictures of the same photo never end up on both sides of
    // the split, or validation would be a memory test.
    let data = source::resolve(data.as_deref(), Path::new("."))?;
    println!("faces: {}", data.name);
    let folder = FaceFolder::open(&data.path, false, 96, &|_, _| {})?;
    let groups = near_duplicates::groups(&folder.looks);
    let split = Split::stratified(&folder, &groups, 0.25, 0)?;
    let (train, validation) = (split.indices(Part::Train), split.indices(Part::Validation));
    let labels = folder.labels();
    println!("{} to train, {} to validate", train.len(), validation.len());

    // ## 2. A pretrained trunk
    // The embedded weights are loaded strictly: a missing, unused or wrongly shaped tensor is an
    // error. Its score before training is the bar.
    let backbone = Backbone::new(Architecture::OpenFace, Device::Cpu);
    Source::resolve(None, Architecture::OpenFace)?.load_into(&backbone)?;
    let faces = &folder.fitted;
    let parts = |backbone: &Backbone| -> anyhow::Result<(Labelled, Labelled)> {
        let embeddings = embed_stored(backbone, faces, &faces.all())?;
        let all = Labelled { embeddings, labels: labels.clone() };
        Ok((all.subset(&train), all.subset(&validation)))
    };
    let (before_train, before_validation) = parts(&backbone)?;
    println!("untouched: {}", score(&before_train, &before_validation).headline);

    // ## 3. Triplet loss
    // P identities x K pictures a batch, one forward pass, the hardest positive and negative of
    // every anchor. Batch normalisation keeps its statistics: five identities would spoil them.
    let train_labels: Vec<usize> = train.iter().map(|&i| labels[i]).collect();
    let sampler = visage::data::PkSampler::new(&train_labels, 5, 4, 0)?;
    let config = OptimizerConfig { lr: 6e-5, ..OptimizerConfig::new(OptimizerKind::Adam) };
    let mut optimizer = Optimizer::new(config, backbone.params.trainable())?;
    let mut stepper = Stepper::new(&mut optimizer);
    let loss = TripletMarginLoss::default();
    for epoch in 1..=epochs {
        let mut sum = 0.0;
        let batches = sampler.epoch(epoch);
        for (step, batch) in batches.iter().enumerate() {
            let pictures: Vec<usize> = batch.iter().map(|&i| train[i]).collect();
            let seed = (epoch * 1000 + step) as u64;
            let pixels = faces.batch(&pictures, Device::Cpu)?;
            let pixels = visage::data::Augment::ALL.apply(&pixels, 96, seed)?;
            let embeddings = backbone.embed(&pixels, Mode::EVAL);
            let own: Vec<i64> = pictures.iter().map(|&i| labels[i] as i64).collect();
            let own = tch::Tensor::from_slice(&own);
            let distances = visage::metric::distance::pairwise(&embeddings);
            let triplets = BATCH_HARD.mine(&distances.detach(), &own, loss.margin, seed);
            let output = loss.forward_distances(&distances, &own, &triplets);
            sum += stepper.step(StepRates::lr(6e-5), || Ok(output.loss.into()))?.loss();
        }
        let (train, validation) = parts(&backbone)?;
        let headline = score(&train, &validation).headline;
        println!("epoch {epoch}: loss {:.4}, {headline}", sum / batches.len() as f64);
    }

    // ## 4. A linear classifier on the frozen trunk
    // The features do not change any more, so they are computed once. The library's
    // `ClassifierTask` adds mirrored pictures, early stopping and model files.
    backbone.params.freeze_all();
    let (train_part, validation_part) = parts(&backbone)?;
    let head = train_head(&train_part, folder.identities.len())?;

    // ## 5. When to say UNKNOWN
    // The distance to the nearest training face tells a known face from a stranger's; the softmax,
    // with its temperature fitted on validation, tells the known faces apart.
    let nobody = train_part.embeddings.subset(&[]);
    let known = OpenSetCalibration::fit(&train_part, &validation_part, &nobody, None, None)?;
    let calibration = calibrate(&head, &validation_part, &known)?;
    let face = |&i: &usize| GalleryFace {
        path: folder.pictures[i].path.to_string_lossy().into_owned(),
        sha256: folder.digest(i),
    };
    let faces_behind = train.iter().map(face).collect();
    let gallery = KnownFaces {
        embeddings: train_part.embeddings.clone(),
        labels: train_part.labels.clone(),
        faces: faces_behind,
    };
    let classifier = Classifier { head, gallery, calibration };
    let answers = classifier.answer(&validation_part.embeddings)?;
    let right = answers
        .iter()
        .zip(&validation_part.labels)
        .filter(|(answer, label)| answer.ranking.first().is_some_and(|best| best.0 == **label))
        .count();
    println!("classifier: {right} of {} validation faces right", answers.len());

    // ## 6. The map
    let all = embed_stored(&backbone, faces, &faces.all())?;
    let options = TsneOptions { perplexity: 20.0, iterations: 1000, seed: 0 };
    let points = tsne(&all, &options, |_, _| {})?;
    let held_back: Vec<bool> = split.parts.iter().map(|part| *part == Part::Validation).collect();
    let map = figures::scatter(&Scatter {
        title: "OpenFace after triplet loss",
        names: &folder.identities,
        points: &points,
        labels: &labels,
        validation: &held_back,
    });
    figures::save_png(&out.join("tsne.png"), &map)?;
    println!("wrote {}", out.join("tsne.png").display());

    // ## 7. Who is this?
    let path = &folder.pictures[*validation.first().context("no validation picture")?].path;
    let face = embed_pictures(&backbone, &[picture::decode(path)?])?;
    for answer in classifier.answer(&face)? {
        let (label, probability) = answer.ranking[0];
        let name = &folder.identities[label];
        let percent = 100.0 * probability;
        match answer.is_known {
            true => println!("{}: {name} with {percent:.2}% probability", path.display()),
            false => println!("UNKNOWN FACE, but similar to {name} with {percent:.2}% probability"),
        }
    }
    Ok(())
}

/// Cross-entropy on cached features: 100 passes over everything at once.
fn train_head(train: &Labelled, classes: usize) -> anyhow::Result<Head> {
    let shape = [train.labels.len() as i64, train.embeddings.dim() as i64];
    let features = tch::Tensor::from_slice(train.embeddings.values()).view(shape);
    let targets: Vec<i64> = train.labels.iter().map(|&label| label as i64).collect();
    let targets = tch::Tensor::from_slice(&targets);
    let (layer, params) = visage::models::Params::collect(Device::Cpu, |root| {
        visage::models::layers::Linear::new(root, shape[1], classes as i64)
    });
    let mut optimizer =
        Optimizer::new(OptimizerConfig::new(OptimizerKind::Adam), params.trainable())?;
    let mut stepper = Stepper::new(&mut optimizer);
    for _ in 0..100 {
        let loss = || Ok(layer.forward(&features).cross_entropy_for_logits(&targets).into());
        stepper.step(StepRates::lr(0.05), loss)?;
    }
    let mut tensors = params.snapshot().into_iter().map(|(_, tensor)| tensor);
    let (weight, bias) = tensors.next().zip(tensors.next()).context("the head has no tensors")?;
    Ok(Head { weight, bias })
}
