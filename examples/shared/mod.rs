//! What the examples that compare two pictures share: arguments, people, answers, figures.
#![allow(dead_code)] // not every example needs all of it
#![allow(clippy::print_stdout)] // an example talks

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use visage::data::celeba::{self, CelebaFiles};
use visage::data::{
    Dataset, FaceFolder, Pair, PairSampler, Part, PictureStore, Split, formats, source,
};
use visage::eval::pair_scores::PairScores;
use visage::eval::verification::Pairs;
use visage::figures::{self, Curve, Histogram, Series};
use visage::metric::PairLabels;
use visage::models::PairNet;
use visage::train::frozen_prefix::FrozenPrefix;
use visage::train::settings::{AugmentSettings, TuningSettings};
use visage::train::tuples::EvalPair;
use visage::verdict::Verdict;

/// Decides everything that is drawn.
pub const SEED: u64 = 0;
/// The most questions asked of people the training has not seen.
const MAX_EVAL_PAIRS: usize = 2000;
/// Pictures in one pass without a gradient.
const PIECE: usize = 32;

/// A published workflow through the library's public functions.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// A CelebA folder, or one with a folder per identity; without it data/celeba is taken where it
    /// exists, else data/avengers, else the ORL faces (fetched once)
    pub data: Option<PathBuf>,
    /// The folder that figures are written to
    #[arg(default_value = "figures")]
    pub figures: PathBuf,
    /// Passes over the training data
    #[arg(long)]
    pub epochs: Option<usize>,
    /// The side of the pictures in pixels: a small one is quick
    #[arg(long)]
    pub side: Option<u32>,
    /// Pairs or triplets in a batch
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch: Option<u16>,
    /// The trunk's weights, a file of torchvision's (`visage fetch --list`); without it they are random
    #[arg(long)]
    pub weights: Option<String>,
    /// A slice: so many people of CelebA, or so many strips
    #[arg(long)]
    pub limit: Option<usize>,
}

impl Arguments {
    /// The folder to read, having said which.
    pub fn data(&self) -> anyhow::Result<PathBuf> {
        let celeba = Path::new("data/celeba");
        let chosen = self.data.as_deref().or(celeba.is_dir().then_some(celeba));
        let found = source::resolve(chosen, Path::new("."))?;
        println!("faces: {}", found.name);
        if self.data.is_none() && chosen.is_none() {
            println!("(`visage fetch celeba` says how to get CelebA)");
        }
        Ok(found.path)
    }
}

/// Pictures, who is on them, and a split between people: nobody is on both sides.
pub struct People {
    /// The pictures.
    pub faces: PictureStore,
    /// The identity of each.
    pub labels: Vec<usize>,
    /// Those to train on.
    pub train: Vec<usize>,
    /// Pairs of those held back, half of them of one person.
    pub eval_pairs: Vec<EvalPair>,
}

/// Reads CelebA, or a folder of identities; a fifth of the people is held back, or CelebA's official
/// validation part where its file is there.
pub fn people(arguments: &Arguments, side: u32) -> anyhow::Result<People> {
    let data = arguments.data()?;
    let dataset: Arc<dyn Dataset> = match CelebaFiles::find(&data) {
        Ok(files) => {
            let mut celeba = celeba::open(&files)?;
            let limit = arguments.limit.unwrap_or(usize::MAX);
            celeba.records.retain(|record| record.identity < limit);
            Arc::new(celeba)
        }
        Err(_) => formats::open(&data)?,
    };
    let folder = FaceFolder::decode(&dataset, false, side, &|_, _| {})?;
    let split = match Split::official(&folder) {
        Some(split) => split,
        None => Split::between_people(&folder, 0.2, SEED)?,
    };
    let labels = folder.labels();
    let (train, unseen) = (split.indices(Part::Train), split.indices(Part::Validation));
    println!(
        "{} people: {} pictures to train, {} of others to measure",
        folder.identities.len(),
        train.len(),
        unseen.len()
    );
    let sampler = PairSampler::new(&labels, &unseen, SEED)?;
    let asked = sampler.pairs(MAX_EVAL_PAIRS.min(4 * unseen.len()))?.epoch(0);
    let eval_pairs = asked.iter().map(|pair| (pair.a, pair.b, pair.label.is_same())).collect();
    Ok(People { faces: folder.fitted, labels, train, eval_pairs })
}

/// What stands in front of the first stage that trains: pictures, mirrored at random or not, through
/// the frozen stages, whose output is computed once and kept, in `folder` where it is much.
pub fn prefix<'a>(
    net: &'a PairNet,
    faces: &'a PictureStore,
    flip: bool,
    folder: &Path,
) -> anyhow::Result<FrozenPrefix<'a>> {
    visage::files::create_folder(folder)?;
    let augmentation = AugmentSettings { flip, crop: false, jitter: false };
    let settings = TuningSettings { augmentation, ..TuningSettings::default() };
    let mut prefix = FrozenPrefix::new(&net.backbone, faces, &settings, PIECE, folder);
    prefix.begin(1)?.iter().for_each(|note| println!("{note}"));
    Ok(prefix)
}

/// The pictures of a batch of pairs, all first ones and then all second ones, and what is known of
/// the pairs.
pub fn tuple_source(batch: &[Pair]) -> (Vec<usize>, PairLabels) {
    let (first, second) = (batch.iter().map(|pair| pair.a), batch.iter().map(|pair| pair.b));
    let labels: Vec<Verdict> = batch.iter().map(|pair| pair.label).collect();
    (first.chain(second).collect(), PairLabels::new(&labels))
}

/// The answers, scored.
pub fn score(pairs: &Pairs) -> anyhow::Result<PairScores> {
    PairScores::of(pairs, None, SEED).context("pairs of both kinds are needed to measure on")
}

/// The scores in one line; the accuracy is that of ten folds, each decided by the others' threshold.
pub fn headline(scores: &PairScores) -> String {
    let folds = scores.folds.as_ref();
    let accuracy = folds.map_or("-".into(), |folds| format!("{:.1} %", 100.0 * folds.mean()));
    let (auc, eer) = (scores.auc, 100.0 * scores.eer);
    format!("unseen people: accuracy {accuracy}, AUC {auc:.3}, equal errors {eer:.1} %")
}

/// Draws `roc.png`, and `distances.png` with one histogram a kind.
pub fn draw_answers(pairs: &Pairs, scores: &PairScores, folder: &Path) -> anyhow::Result<()> {
    let points = scores.roc.points().iter().map(|point| (point.far, point.tar)).collect();
    let title = format!("{} pairs of unseen people, AUC {:.3}", pairs.len(), scores.auc);
    let roc = figures::curve(&Curve {
        title: &title,
        x_label: "false accept rate",
        y_label: "true accept rate",
        series: &[Series { name: "ROC".into(), points }],
        x_range: Some((0.0, 1.0)),
        y_range: Some((0.0, 1.0)),
        diagonal: true,
    });
    save(folder, "roc.png", &roc)?;
    let of = |kind: bool| pairs.of_kind(kind).map(f64::from).collect();
    let histograms = figures::histogram(&Histogram {
        title: &title,
        x_label: "distance of the two pictures",
        kinds: &[("same", of(true)), ("different", of(false))],
        line: Some(("threshold", scores.threshold)),
    });
    save(folder, "distances.png", &histograms)
}

/// Draws one value a step.
pub fn draw_steps(values: &[f64], what: &str, folder: &Path, file: &str) -> anyhow::Result<()> {
    let points = (1..).zip(values).map(|(step, value)| (f64::from(step), *value)).collect();
    let chart = figures::curve(&Curve {
        title: what,
        x_label: "step",
        y_label: what,
        series: &[Series { name: what.into(), points }],
        x_range: None,
        y_range: None,
        diagonal: false,
    });
    save(folder, file, &chart)
}

fn save(folder: &Path, file: &str, picture: &image::RgbImage) -> anyhow::Result<()> {
    let path = folder.join(file);
    figures::save_png(&path, picture)?;
    println!("wrote {}", path.display());
    Ok(())
}
