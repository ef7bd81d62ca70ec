//! Fine-tuning a trunk with triplet loss: P identities x K pictures per batch, one forward pass,
//! triplets mined among the embeddings.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::fit_result::Scores;
use super::frozen_prefix::{FrozenPrefix, pieces};
#[cfg(feature = "cli")]
use super::hardest;
use super::log::RunLog;
use super::named::prefixed;
use super::objective::Objective;
use super::projection::Projection;
use super::scoring::{Labelled, log_distances, score};
use super::settings::{BnMode, TripletSettings};
use super::step::Forward;
use super::task::Task;
use super::weight_interpolation::WeightInterpolation;
use super::world::World;
use crate::data::augment::Draws;
use crate::data::folder::FaceFolder;
use crate::data::sampler::{PkSampler, some_people};
use crate::data::split::{Part, Split};
use crate::eval::Embeddings;
use crate::models::layers::layer_by_layer;
use crate::models::{Backbone, Mode};
use crate::recognise::embedder::{BATCH, embed_values};
use crate::recognise::{DataCard, ModelCard, recogniser};
use crate::weights::Source;
use crate::{Error, Result};

/// Labels of all pictures, and the indices used for training and validation.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Every picture's identity.
    pub labels: Vec<usize>,
    /// Indices of the training pictures.
    pub train: Vec<usize>,
    /// Indices of the validation pictures.
    pub validation: Vec<usize>,
}

impl Parts {
    /// The parts of a split folder.
    pub fn new(folder: &FaceFolder, split: &Split) -> Self {
        Self {
            labels: folder.labels(),
            train: split.indices(Part::Train),
            validation: split.indices(Part::Validation),
        }
    }

    /// Of the pictures `all`, those to score: all where no part has more than `limit` (0: no limit);
    /// or else about as many of each part, those of whole people. The people are the same in both
    /// parts, as far as they go.
    fn scored(&self, all: Vec<usize>, limit: usize, seed: u64) -> Vec<usize> {
        let parts = [&self.train, &self.validation];
        if limit == 0 || parts.iter().all(|part| part.len() <= limit) {
            return all;
        }
        let of_people = |part: &Vec<usize>| some_people(part, &self.labels, limit, seed);
        let mut scored: Vec<usize> = parts.into_iter().flat_map(of_people).collect();
        scored.sort_unstable();
        scored
    }

    /// The entry about the data in model files; `path` is the folder as the user names it.
    pub fn card(&self, path: &Path, folder: &FaceFolder) -> DataCard {
        DataCard {
            path: path.to_string_lossy().into_owned(),
            fingerprint: folder.fingerprint(),
            train: self.train.len(),
            validation: self.validation.len(),
        }
    }
}

/// Whether a training can be shared between these processes; of settings that are resolved.
///
/// # Errors
/// A batch has fewer pictures than there are processes, or batch statistics are to be trained on GPUs: their
/// sums would have to be in the same order in every process, which is not ensured there.
pub fn fits(settings: &TripletSettings, world: &World, device: Device) -> Result<()> {
    let processes = world.size();
    let pictures = settings.identities_per_batch.saturating_mul(settings.pictures_per_identity);
    let trains_statistics = settings.tuning.bn == Some(BnMode::Train);
    let text = if pictures < processes {
        format!(
            "a batch of {pictures} pictures (-p times -k) is too small for {processes} processes"
        )
    } else if processes > 1 && trains_statistics && device.is_cuda() {
        "--bn train: batch statistics are shared between processes on CPUs only; give --bn eval"
            .into()
    } else {
        return Ok(());
    };
    Err(Error::Config(text))
}

/// The triplet training of one trunk.
pub struct TripletTask<'a> {
    backbone: &'a Backbone,
    folder: &'a FaceFolder,
    parts: &'a Parts,
    card: &'a ModelCard,
    sampler: PkSampler,
    objective: &'a Objective,
    prefix: FrozenPrefix<'a>,
    mode: Mode,
    blend: WeightInterpolation,
    /// Number of pictures per pass through the trunk (micro-batch).
    piece: usize,
    seed: u64,
    /// Pictures that are scored after an epoch.
    scored: Vec<usize>,
    /// Pictures that can no longer be read.
    gone: BTreeSet<usize>,
    notes: Vec<String>,
    /// The embeddings of the last validation, for the projector.
    validated: Option<Labelled>,
    projection: Option<Projection>,
    world: Rc<World>,
}

impl<'a> TripletTask<'a> {
    /// Prepares the task: `card` is what model files say about the run. The parameters that train now
    /// are those that train in the end; with `unfreeze_every` most of them are frozen here, until
    /// their epoch comes. Make the optimiser before.
    ///
    /// # Errors
    /// Fewer than two identities have two training pictures.
    pub fn new(
        backbone: &'a Backbone,
        folder: &'a FaceFolder,
        parts: &'a Parts,
        card: &'a ModelCard,
        objective: &'a Objective,
        settings: &TripletSettings,
    ) -> Result<Self> {
        let labels: Vec<_> = parts.train.iter().map(|&i| parts.labels[i]).collect();
        let sampler = PkSampler::new(
            &labels,
            settings.identities_per_batch,
            settings.pictures_per_identity,
            settings.data.seed,
        )?;
        let piece = if settings.micro_batch == 0 { usize::MAX } else { settings.micro_batch };
        let (share, decay) = (settings.blend.unwrap_or(1.0), settings.tuning.model_ema);
        let blend = WeightInterpolation::new(backbone.params.iter(), share, decay);
        let mut task = Self {
            backbone,
            folder,
            parts,
            card,
            sampler,
            objective,
            prefix: FrozenPrefix::new(
                backbone,
                &folder.fitted,
                &settings.tuning,
                piece,
                &settings.out,
            ),
            mode: Mode {
                dropout: true,
                batch_statistics: settings.tuning.bn == Some(BnMode::Train),
            },
            blend,
            piece,
            seed: settings.data.seed,
            scored: parts.scored(folder.fitted.all(), settings.val_limit, settings.data.seed),
            gone: BTreeSet::new(),
            notes: Vec::new(),
            validated: None,
            projection: None,
            world: Rc::default(),
        };
        task.notes.extend(task.sampler.notes.iter().cloned());
        Ok(task)
    }

    /// Trains together with other processes, for which [`fits`] holds.
    pub fn among(self, world: &Rc<World>) -> Self {
        Self { world: world.clone(), ..self }
    }

    /// The embeddings of `pictures`, row by row, by the weights to keep or, `as_it_is`, by those that the
    /// network holds; not finite if the training has diverged. Those of pictures that can no longer be
    /// read are zero.
    fn embed(&mut self, pictures: &[usize], as_it_is: bool) -> Result<Vec<f32>> {
        let Self { backbone, prefix, blend, gone, world, .. } = self;
        let mut all = pictures.to_vec();
        all.retain(|picture| !gone.contains(picture));
        let own = &all[world.share(all.len())];
        let batches = own.chunks(BATCH).map(|batch| prefix.plain(batch));
        let embed = || embed_values(*backbone, batches);
        let values = if as_it_is { embed()? } else { blend.with(embed)? };
        let values = match world.size() {
            1 => values,
            _ => {
                let rows = Tensor::f_from_slice(&values)?;
                let rows = rows.f_view([own.len() as i64, backbone.embedding_dim])?;
                Vec::try_from(world.gather(&rows, all.len())?.f_view([-1])?)?
            }
        };
        if gone.is_empty() {
            return Ok(values);
        }
        let dim = backbone.embedding_dim as usize;
        let mut rows = vec![0.0; pictures.len() * dim];
        let read = pictures.iter().enumerate().filter(|(_, picture)| !gone.contains(picture));
        for ((place, _), row) in read.zip(values.chunks_exact(dim)) {
            rows[place * dim..][..dim].copy_from_slice(row);
        }
        Ok(rows)
    }

    /// As [`embed`](Self::embed), with labels; none if the training has diverged.
    fn labelled(&mut self, pictures: &[usize], as_it_is: bool) -> Result<Option<Labelled>> {
        let values = self.embed(pictures, as_it_is)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let dim = self.backbone.embedding_dim as usize;
        let labels = pictures.iter().map(|&picture| self.parts.labels[picture]).collect();
        Ok(Some(Labelled { embeddings: Embeddings::new(pictures.len(), dim, values)?, labels }))
    }

    /// The rows of the training and of the validation pictures that can be read.
    fn rows(&self, pictures: &[usize]) -> [Vec<usize>; 2] {
        [&self.parts.train, &self.parts.validation].map(|part| {
            let part: HashSet<_> = part.iter().collect();
            let is_row = |picture| part.contains(picture) && !self.gone.contains(picture);
            (0..pictures.len()).filter(|&row| is_row(&pictures[row])).collect()
        })
    }
}

impl Task for TripletTask<'_> {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        self.notes.extend(self.prefix.begin(epoch)?);
        let batches = self.sampler.epoch(epoch);
        let pictures = |batch: Vec<usize>| batch.into_iter().map(|i| self.parts.train[i]).collect();
        Ok(batches.into_iter().map(pictures).collect())
    }

    fn prefetch(&mut self, batches: &[Vec<usize>]) {
        let own = |batch: &Vec<usize>| batch[self.world.share(batch.len())].to_vec();
        self.prefix.prefetch(&batches.iter().map(own).collect::<Vec<_>>());
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.backbone.params.tensors();
        tensors.extend(prefixed("objective", self.objective.tensors()));
        tensors.extend(prefixed("kept", self.blend.tensors()));
        tensors
    }

    fn unreadable(&self) -> Vec<(usize, Error)> {
        self.folder.fitted.unreadable()
    }

    fn exclude(&mut self, pictures: &BTreeSet<usize>) -> Result<()> {
        let train = &self.parts.train;
        self.sampler = self.sampler.without(|place| pictures.contains(&train[place]))?;
        self.gone = pictures.clone();
        Ok(())
    }

    fn whole(&self) -> BTreeSet<String> {
        self.objective.parameters().into_iter().map(|(name, _)| name).collect()
    }

    fn take_wait(&mut self) -> Option<Duration> {
        Some(self.prefix.take_wait())
    }

    fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// A batch in one piece is embedded once. Of a batch in several, all pieces are embedded without
    /// a graph, the loss gives each embedding its gradient, and each piece is embedded again to take
    /// that gradient down: the same gradient for the memory of one piece (Gao et al., "Scaling deep
    /// contrastive learning batch size under memory limited setup", 2021).
    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>> {
        let seed = mix(self.seed, epoch as u64, index as u64);
        tch::manual_seed(seed as i64); // of dropout
        let own = self.world.share(batch.len());
        if own.is_empty() {
            let (pictures, processes) = (batch.len(), self.world.size());
            return Err(Error::Config(format!(
                "a batch of {pictures} pictures is too small for {processes} processes"
            )));
        }
        let draws = Draws { seed, first: own.start };
        let (first, maps) = self.prefix.views(&batch[own.clone()], draws)?;
        let labels: Vec<i64> = batch.iter().map(|&i| self.parts.labels[i] as i64).collect();
        // On the host, where they are needed first: nothing waits for the device to learn them.
        let labels = Tensor::from_slice(&labels);
        if own.len() <= self.piece {
            let embed = || self.backbone.embed_from(first, &maps, self.mode);
            let embeddings = self.world.share_statistics(embed)?;
            let embeddings = self.world.gather(&embeddings, batch.len())?;
            let (output, measures) = self.objective.loss(&embeddings, &labels, seed);
            return Ok(Forward { measures, ..Forward::from(output.loss) });
        }
        let (backbone, mode, spans) = (self.backbone, self.mode, pieces(own.len(), self.piece));
        let embed = move |(start, length): (i64, i64)| {
            // Both passes of a piece drop the same units.
            tch::manual_seed(mix(seed, start as u64, 1) as i64);
            backbone.embed_from(first, &maps.narrow(0, start, length), mode)
        };
        let without_graph = || spans.clone().map(&embed).collect();
        let parts: Vec<_> = layer_by_layer(|| tch::no_grad(without_graph));
        let embeddings = Tensor::f_cat(&parts, 0)?.set_requires_grad(true);
        let all = self.world.gather(&embeddings, batch.len())?;
        let (output, measures) = self.objective.loss(&all, &labels, seed);
        let after = move || {
            let gradient = embeddings.grad();
            for (start, length) in spans {
                let down = embed((start, length)) * gradient.narrow(0, start, length);
                down.sum(Kind::Float).f_backward()?;
            }
            Ok(())
        };
        Ok(Forward { loss: output.loss, measures, after: Some(Box::new(after)) })
    }

    fn stepped(&mut self) {
        self.blend.update();
    }

    fn validate(&mut self, epoch: usize, log: &mut RunLog) -> Result<Scores> {
        self.notes.extend(self.prefix.begin(epoch.max(1))?);
        let scored = self.scored.clone();
        let Some(all) = self.labelled(&scored, false)? else {
            return Ok(Scores::diverged());
        };
        let [training, validation] = self.rows(&scored);
        let (train, validation) = (all.subset(&training), all.subset(&validation));
        if log.is_on() {
            let pairs = validation.pairs();
            log_distances(log, epoch, &pairs);
            let closeness: Vec<f32> = pairs.distance.iter().map(|to| 1.0 - to / 2.0).collect();
            log.pr_curve("verification", epoch as u64, &pairs.same, &closeness);
            #[cfg(feature = "cli")]
            let training: Vec<_> = training.iter().map(|&row| scored[row]).collect();
            #[cfg(feature = "cli")]
            if let Some(picture) = hardest::picture(&train, &training, self.folder) {
                log.image("hardest_triplets", epoch as u64, &picture);
            }
        }
        self.validated = log.is_on().then_some(all);
        Ok(score(&train, &validation))
    }

    fn score_all(&mut self, best: &Path, epoch: usize, last: usize) -> Result<Option<Scores>> {
        let all = self.folder.fitted.all();
        if self.scored.len() == all.len() {
            return Ok(None);
        }
        // As after the last epoch, also where a resumed training has nothing left but this.
        self.notes.extend(self.prefix.begin(last.max(1))?);
        let (backbone, world) = (self.backbone, self.world.clone());
        let trained = backbone.params.tensors();
        let trained: Vec<_> = trained.iter().map(|(_, tensor)| tensor.detach().copy()).collect();
        if world.is_first() {
            Source::File(best.to_owned()).load_into(backbone)?;
        }
        let scored = world.level(&backbone.params.tensors()).and_then(|()| {
            let found = self.labelled(&all, true)?;
            let [training, validation] = self.rows(&all);
            let scores = found.map_or_else(Scores::diverged, |found| {
                score(&found.subset(&training), &found.subset(&validation))
            });
            world.agree(|| self.write(best, epoch, &scores.values))?;
            Ok(scores)
        });
        tch::no_grad(|| {
            for ((_, tensor), value) in backbone.params.tensors().iter().zip(&trained) {
                tensor.shallow_clone().copy_(value);
            }
        });
        scored.map(Some)
    }

    fn show_best(&mut self, log: &mut RunLog) {
        let (Some(all), folder) = (&self.validated, self.folder) else { return };
        let projection = self.projection.get_or_insert_with(|| {
            let validation: HashSet<_> = self.parts.validation.iter().copied().collect();
            Projection::new(folder, &self.scored, |picture| validation.contains(&picture))
        });
        projection.show(all, folder, log);
    }

    fn average(&self) -> Option<&WeightInterpolation> {
        Some(&self.blend)
    }

    fn write(&self, path: &Path, epoch: usize, figures: &[(&'static str, f64)]) -> Result<()> {
        recogniser::write(path, &self.card.at(epoch, figures), self.backbone, None)
    }
}

/// One seed from three numbers, well mixed (SplitMix64's finaliser).
pub(super) fn mix(seed: u64, epoch: u64, step: u64) -> u64 {
    let mut z = seed
        .wrapping_add(epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(step.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
