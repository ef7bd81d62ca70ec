//! Fine-tuning a trunk with triplet loss: P identities x K pictures a batch, one forward pass,
//! triplets mined among the embeddings.

use std::path::Path;

use tch::{Kind, Tensor};

use super::blend::Blend;
use super::fit::{Scores, Step, Task};
use super::hardest;
use super::log::RunLog;
use super::map_cache::{Limits, MapCache};
use super::scoring::{Labelled, score};
use super::settings::{BnMode, TripletSettings};
use super::stages::Thaw;
use crate::Result;
use crate::data::augment::Augment;
use crate::data::cache::FaceCache;
use crate::data::folder::FaceFolder;
use crate::data::sampler::PkSampler;
use crate::eval::Embeddings;
use crate::metric::distance::pairwise;
use crate::metric::losses::{LossOutput, TripletLoss};
use crate::metric::miners::{self, Miner, Selection};
use crate::models::{Backbone, Mode};
use crate::recognise::{ModelCard, recogniser};

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
    thaw: Thaw,
    maps: MapCache<'a>,
    /// Pictures in one pass through the trunk.
    piece: usize,
    seed: u64,
    notes: Vec<String>,
}

impl<'a> TripletTask<'a> {
    /// Prepares the task: `faces` holds the pictures of `folder`, `card` is what model files say
    /// about the run. The parameters that train now are those that train in the end; with
    /// `unfreeze_every` most of them are frozen here, until their epoch comes. Make the optimiser
    /// before.
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
        let augment = settings.augment();
        let limits = Limits {
            memory: settings.cache_memory << 20,
            disk: settings.cache_disk << 20,
            folder: settings.out.clone(),
        };
        let mirrors = augment.flip && augment.mirrored(0, 0).is_some();
        let piece = if settings.micro_batch == 0 { usize::MAX } else { settings.micro_batch };
        let blend = Blend::new(&backbone.params, settings.blend.unwrap_or(1.0));
        let mut task = Self {
            backbone,
            faces,
            folder,
            parts,
            card,
            sampler,
            loss: TripletLoss { margin: settings.margin, reduction: settings.reduction },
            miner: settings.miner,
            augment,
            mode: Mode { dropout: true, batch_statistics: settings.bn == Some(BnMode::Train) },
            blend,
            thaw: Thaw::new(backbone, settings.unfreeze_every),
            maps: MapCache::new(backbone, faces, mirrors, limits),
            piece,
            seed: settings.data.seed,
            notes: Vec::new(),
        };
        task.notes.extend(task.sampler.notes.iter().cloned());
        task.notes.extend(task.thaw.at(1));
        Ok(task)
    }

    /// What the trainable stages get of a batch: the number of stages below it, and the maps in
    /// front of the next one (0 and the augmented pictures where nothing is frozen).
    fn frozen_part(&mut self, batch: &[usize], seed: u64) -> Result<(usize, Tensor)> {
        let device = self.backbone.device();
        let end = self.maps.end();
        if end > 0
            && let Some(mirrored) = self.augment.mirrored(batch.len(), seed)
        {
            let views: Vec<_> = batch.iter().copied().zip(mirrored).collect();
            let parts = views.chunks(self.piece).map(|views| self.maps.maps(views));
            return Ok((end, Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?));
        }
        let size = i64::from(self.backbone.input.size);
        let pictures = self.augment.apply(&self.faces.batch(batch, device)?, size, seed)?;
        let end = self.backbone.frozen_stages();
        let rows = batch.len();
        let parts: Vec<_> = pieces(rows, self.piece)
            .map(|(start, length)| self.backbone.maps(&pictures.narrow(0, start, length), end))
            .collect();
        Ok((end, Tensor::f_cat(&parts, 0)?))
    }

    /// The loss over all pairs of a batch's embeddings `[B, D]`, and the figures of the log.
    fn loss(&self, embeddings: &Tensor, labels: &Tensor, seed: u64) -> (LossOutput, Vec<Measure>) {
        let distances = pairwise(embeddings);
        let selection = self.miner.mine(&distances.detach(), labels, self.loss.margin, seed);
        let output = self.loss.over(&selection, &distances, labels);
        // Of all triplets of the batch, whatever the miner chose: comparable between miners.
        let counted = match selection {
            Selection::All => None,
            Selection::Triplets(_) => Some(self.loss.over_all(&distances.detach(), labels)),
        };
        let all = counted.as_ref().unwrap_or(&output);
        let active = &all.active / all.tuples.clamp_min(1);
        let (positives, negatives) = (miners::positives(labels), miners::negatives(labels));
        let measures = vec![
            ("active", active),
            ("positive_distance", mean_distance(&distances, &positives)),
            ("negative_distance", mean_distance(&distances, &negatives)),
        ];
        (output, measures)
    }

    /// Every picture's embedding, row by row.
    fn embeddings(&mut self) -> Result<Vec<f32>> {
        let Self { backbone, faces, maps, blend, .. } = self;
        let all: Vec<usize> = (0..faces.len()).collect();
        blend.with(|| {
            let mut values = Vec::new();
            for batch in all.chunks(recogniser::BATCH) {
                if maps.end() == 0 {
                    let pictures = faces.batch(batch, backbone.device())?;
                    values.extend(recogniser::embed_unit(backbone, &pictures)?);
                } else {
                    let views: Vec<_> = batch.iter().map(|&picture| (picture, false)).collect();
                    let maps_of = maps.maps(&views)?;
                    values.extend(recogniser::embed_maps(backbone, maps.end(), &maps_of)?);
                }
            }
            Ok(values)
        })
    }
}

/// Embeddings of every cached picture, in evaluation mode.
///
/// # Errors
/// What libtorch raises.
pub fn embed_cached(backbone: &Backbone, faces: &FaceCache) -> Result<Embeddings> {
    let mut values = Vec::new();
    let all: Vec<usize> = (0..faces.len()).collect();
    for batch in all.chunks(recogniser::BATCH) {
        values.extend(recogniser::embed_unit(backbone, &faces.batch(batch, backbone.device())?)?);
    }
    Embeddings::new(faces.len(), backbone.embedding_dim as usize, values)
}

/// A figure for the log.
type Measure = (&'static str, Tensor);

/// The (first row, number of rows) of the pieces of a batch.
fn pieces(rows: usize, piece: usize) -> impl Iterator<Item = (i64, i64)> {
    let piece = piece.clamp(1, rows.max(1));
    (0..rows).step_by(piece).map(move |start| (start as i64, piece.min(rows - start) as i64))
}

impl Task for TripletTask<'_> {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        self.notes.extend(self.thaw.at(epoch));
        self.notes.extend(self.maps.refresh()?);
        let batches = self.sampler.epoch(epoch);
        let pictures = |batch: Vec<usize>| batch.into_iter().map(|i| self.parts.train[i]).collect();
        Ok(batches.into_iter().map(pictures).collect())
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// A batch in one piece is embedded once. Of a batch in several, all pieces are embedded without
    /// a graph, the loss gives each embedding its gradient, and each piece is embedded again to take
    /// that gradient down: the same gradient for the memory of one piece (Gao et al., "Scaling deep
    /// contrastive learning batch size under memory limited setup", 2021).
    fn step(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Step> {
        let seed = mix(self.seed, epoch as u64, index as u64);
        let (first, maps) = self.frozen_part(batch, seed)?;
        let labels: Vec<i64> = batch.iter().map(|&i| self.parts.labels[i] as i64).collect();
        let labels = Tensor::from_slice(&labels).to_device(self.backbone.device());
        if batch.len() <= self.piece {
            let embeddings = self.backbone.embed_from(first, &maps, self.mode);
            let (output, measures) = self.loss(&embeddings, &labels, seed);
            output.loss.backward();
            return Ok(Step { loss: output.loss, measures });
        }
        let embed = |(start, length): (i64, i64)| {
            // Both passes of a piece drop the same units.
            tch::manual_seed(mix(seed, start as u64, 1) as i64);
            self.backbone.embed_from(first, &maps.narrow(0, start, length), self.mode)
        };
        let parts: Vec<_> = tch::no_grad(|| pieces(batch.len(), self.piece).map(embed).collect());
        let embeddings = Tensor::f_cat(&parts, 0)?.set_requires_grad(true);
        let (output, measures) = self.loss(&embeddings, &labels, seed);
        output.loss.backward();
        let gradient = embeddings.grad();
        for (start, length) in pieces(batch.len(), self.piece) {
            let down = embed((start, length)) * gradient.narrow(0, start, length);
            down.sum(Kind::Float).backward();
        }
        Ok(Step { loss: output.loss, measures })
    }

    fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores> {
        self.notes.extend(self.maps.refresh()?);
        let values = self.embeddings()?;
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
            if let Some(picture) = hardest::picture(&train, &self.parts.train, self.folder) {
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
