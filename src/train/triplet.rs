//! Fine-tuning a trunk with triplet loss: P identities x K pictures a batch, one forward pass,
//! triplets mined among the embeddings.

use std::path::Path;

use image::RgbImage;
use tch::{Kind, Tensor};

use super::blend::Blend;
use super::fit::{Scores, Step, Task};
use super::log::RunLog;
use super::scoring::{Labelled, score};
use super::settings::{BnMode, TripletSettings};
use crate::Result;
use crate::data::augment::Augment;
use crate::data::cache::FaceCache;
use crate::data::folder::FaceFolder;
use crate::data::sampler::PkSampler;
use crate::eval::{Embeddings, distance};
use crate::figures::{Triplet, strip};
use crate::metric::distance::pairwise;
use crate::metric::losses::TripletLoss;
use crate::metric::miners::{self, Miner, Selection};
use crate::models::{Backbone, Mode};
use crate::recognise::{ModelCard, recogniser};

/// Rows of the picture strip of the hardest triplets.
const HARDEST: usize = 8;
/// Side of its pictures in pixels.
const STRIP_SIDE: u32 = 192;

/// Which pictures are used how.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Every picture's identity.
    pub labels: Vec<usize>,
    /// Indices of the training pictures.
    pub train: Vec<usize>,
    /// Indices of the validation pictures.
    pub validation: Vec<usize>,
}

/// The triplet training of one trunk.
pub struct TripletTask<'a> {
    backbone: &'a Backbone,
    faces: &'a FaceCache,
    folder: &'a FaceFolder,
    parts: &'a Parts,
    card: &'a ModelCard,
    sampler: PkSampler,
    loss: TripletLoss,
    miner: Miner,
    augment: Augment,
    mode: Mode,
    blend: Blend,
    seed: u64,
}

impl<'a> TripletTask<'a> {
    /// Prepares the task: `faces` holds the pictures of `folder`, `card` is what model files say
    /// about the run.
    ///
    /// # Errors
    /// Fewer than two identities have two training pictures.
    pub fn new(
        backbone: &'a Backbone,
        faces: &'a FaceCache,
        folder: &'a FaceFolder,
        parts: &'a Parts,
        card: &'a ModelCard,
        settings: &TripletSettings,
    ) -> Result<Self> {
        let labels: Vec<_> = parts.train.iter().map(|&i| parts.labels[i]).collect();
        let sampler = PkSampler::new(
            &labels,
            settings.identities_per_batch,
            settings.pictures_per_identity,
            settings.data.seed,
        )?;
        Ok(Self {
            backbone,
            faces,
            folder,
            parts,
            card,
            sampler,
            loss: TripletLoss { margin: settings.margin, reduction: settings.reduction },
            miner: settings.miner,
            augment: settings.augment(),
            mode: Mode { dropout: true, batch_statistics: settings.bn == Some(BnMode::Train) },
            blend: Blend::new(&backbone.params, settings.blend.unwrap_or(1.0)),
            seed: settings.data.seed,
        })
    }

    /// Sentences about the sampler worth telling.
    pub fn notes(&self) -> &[String] {
        &self.sampler.notes
    }

    fn hardest_triplets(&self, train: &Labelled) -> Option<RgbImage> {
        let mut found: Vec<_> = hardest(train);
        found.truncate(HARDEST);
        let picture = |row: usize| self.folder.fitted.get(*self.parts.train.get(row)?);
        let rows: Vec<_> = found
            .into_iter()
            .filter_map(|triplet| {
                let [anchor, positive, negative] =
                    [triplet.anchor, triplet.positive, triplet.negative];
                let name =
                    |row: usize| self.folder.identities.get(*train.labels.get(row)?).cloned();
                Some(Triplet {
                    pictures: [picture(anchor)?, picture(positive)?, picture(negative)?],
                    captions: [
                        name(anchor)?,
                        format!("{:.2}", triplet.to_positive),
                        format!("{:.2} {}", triplet.to_negative, name(negative)?),
                    ],
                })
            })
            .collect();
        (!rows.is_empty()).then(|| strip(&rows, STRIP_SIDE))
    }
}

/// Embeddings of every cached picture, in evaluation mode.
///
/// # Errors
/// What libtorch raises.
pub fn embed_cached(backbone: &Backbone, faces: &FaceCache) -> Result<Embeddings> {
    let values = embed_values(backbone, faces)?;
    Embeddings::new(faces.len(), backbone.embedding_dim as usize, values)
}

fn embed_values(backbone: &Backbone, faces: &FaceCache) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    let all: Vec<usize> = (0..faces.len()).collect();
    for batch in all.chunks(recogniser::BATCH) {
        values.extend(recogniser::embed_unit(backbone, &faces.batch(batch, backbone.device())?)?);
    }
    Ok(values)
}

impl Task for TripletTask<'_> {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        let batches = self.sampler.epoch(epoch);
        let pictures = |batch: Vec<usize>| batch.into_iter().map(|i| self.parts.train[i]).collect();
        Ok(batches.into_iter().map(pictures).collect())
    }

    fn step(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Step> {
        let seed = mix(self.seed, epoch as u64, index as u64);
        let size = i64::from(self.backbone.input.size);
        let pictures = self.faces.batch(batch, self.backbone.device())?;
        let pictures = self.augment.apply(&pictures, size, seed)?;
        let embeddings = self.backbone.embed(&pictures, self.mode);
        let labels: Vec<i64> = batch.iter().map(|&i| self.parts.labels[i] as i64).collect();
        let labels = Tensor::from_slice(&labels).to_device(self.backbone.device());
        let distances = pairwise(&embeddings);
        let selection = self.miner.mine(&distances.detach(), &labels, self.loss.margin, seed);
        let output = self.loss.over(&selection, &distances, &labels);
        // Of all triplets of the batch, whatever the miner chose: comparable between miners.
        let counted = match selection {
            Selection::All => None,
            Selection::Triplets(_) => Some(self.loss.over_all(&distances.detach(), &labels)),
        };
        let all = counted.as_ref().unwrap_or(&output);
        let active = &all.active / all.tuples.clamp_min(1);
        let (positives, negatives) = (miners::positives(&labels), miners::negatives(&labels));
        Ok(Step {
            loss: output.loss,
            measures: vec![
                ("active", active),
                ("positive_distance", mean_distance(&distances, &positives)),
                ("negative_distance", mean_distance(&distances, &negatives)),
            ],
        })
    }

    fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores> {
        let values = self.blend.with(|| embed_values(self.backbone, self.faces))?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(Scores::diverged());
        }
        let dim = self.backbone.embedding_dim as usize;
        let labels = self.parts.labels.clone();
        let all = Labelled { embeddings: Embeddings::new(labels.len(), dim, values)?, labels };
        let (train, validation) =
            (all.subset(&self.parts.train), all.subset(&self.parts.validation));
        if log.is_on() {
            let pairs = validation.pairs();
            for (tag, kind) in [("distance/same", true), ("distance/different", false)] {
                let of_kind: Vec<f32> = pairs
                    .distance
                    .iter()
                    .zip(&pairs.same)
                    .filter(|(_, same)| **same == kind)
                    .map(|(distance, _)| *distance)
                    .collect();
                log.histogram(tag, epoch as u64, &of_kind);
            }
            let closeness: Vec<f32> = pairs.distance.iter().map(|to| 1.0 - to / 2.0).collect();
            log.pr_curve("verification", epoch as u64, &pairs.same, &closeness);
            if let Some(picture) = self.hardest_triplets(&train) {
                log.image("hardest_triplets", epoch as u64, &picture);
            }
        }
        Ok(score(&train, &validation))
    }

    fn save(&self, path: &Path, epoch: usize, scores: &Scores) -> Result<()> {
        let card = self.card.at(epoch, &scores.values);
        self.blend.with(|| recogniser::write(path, &card, self.backbone, None))
    }
}

/// The mean root distance over `mask`; 0 where the mask is empty. `[B, B]` squared to 0-d.
fn mean_distance(squared: &Tensor, mask: &Tensor) -> Tensor {
    let mask = mask.to_kind(Kind::Float);
    let sum = (squared.detach().sqrt() * &mask).sum(Kind::Float);
    sum / mask.sum(Kind::Float).clamp_min(1.0)
}

/// One seed from three numbers, well mixed (SplitMix64's finaliser).
fn mix(seed: u64, epoch: u64, step: u64) -> u64 {
    let mut z = seed
        .wrapping_add(epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(step.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An anchor with its farthest positive and nearest negative.
struct Hardest {
    anchor: usize,
    positive: usize,
    negative: usize,
    to_positive: f32,
    to_negative: f32,
}

/// The hardest triplet of every anchor that has one, hardest first; O(N²) time, O(N) memory.
fn hardest(part: &Labelled) -> Vec<Hardest> {
    let rows = part.labels.len();
    let mut found: Vec<_> = (0..rows)
        .filter_map(|anchor| {
            let mut farthest: Option<(f32, usize)> = None;
            let mut nearest: Option<(f32, usize)> = None;
            for other in (0..rows).filter(|&other| other != anchor) {
                let to =
                    distance::euclidean(part.embeddings.row(anchor), part.embeddings.row(other));
                if part.labels[other] == part.labels[anchor] {
                    if farthest.is_none_or(|(most, _)| to > most) {
                        farthest = Some((to, other));
                    }
                } else if nearest.is_none_or(|(least, _)| to < least) {
                    nearest = Some((to, other));
                }
            }
            let ((to_positive, positive), (to_negative, negative)) = (farthest?, nearest?);
            Some(Hardest { anchor, positive, negative, to_positive, to_negative })
        })
        .collect();
    let slack = |triplet: &Hardest| triplet.to_negative - triplet.to_positive;
    found.sort_by(|a, b| slack(a).total_cmp(&slack(b)).then(a.anchor.cmp(&b.anchor)));
    found
}
