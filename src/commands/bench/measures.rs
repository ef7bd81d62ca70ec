//! What `visage bench` times: one closure a measure, ready to be run again and again.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::cold::Cold;
use crate::commands::inputs;
use crate::data::picture;
use crate::eval::Embeddings;
use crate::eval::unknown::Logistic;
use crate::metric::losses::{Loss, TripletMarginLoss};
use crate::metric::{BatchStats, miners::BATCH_HARD, normalise};
use crate::models::{Architecture, Backbone, Compute, Mode};
use crate::progress::Reporter;
use crate::recognise::embedder::embed_batches;
use crate::recognise::{ModelCard, ModelKind, Viewer};
use crate::train::calibrate::OpenSetCalibration;
use crate::train::classifier::{ClassifierTask, Features};
use crate::train::optim::{Optimizer, OptimizerConfig, OptimizerKind, StepRates};
use crate::train::scoring::Labelled;
use crate::train::step::Stepper;
use crate::train::task::Task;
use crate::weights::Source;
use crate::{Error, Result};

/// Pictures of each identity in a training batch.
pub const PICTURES_EACH: i64 = 6;
/// Batches that a classifier is trained on, and for how many epochs.
pub const TAUGHT: i64 = 4;
/// See [`TAUGHT`].
pub const EPOCHS: usize = 30;
/// The default learning rate of `train-triplet`.
const LR: f64 = 6e-5;

/// What is common to all measures.
pub struct Setting {
    pub architecture: Architecture,
    pub device: Device,
    pub compute: Compute,
    /// Pictures in a batch.
    pub batch: i64,
    /// Embeddings that are mined together, four of each identity.
    pub mined: i64,
    /// Pictures to decode.
    pub pictures: Vec<PathBuf>,
}

/// Who else does the same work.
pub const PYTORCH: &str = "pytorch";
/// On the exported network; where that Python has it.
pub const OTHERS: [&str; 2] = ["onnxruntime", "openvino"];

/// Who is meant by the name of a row.
pub fn peer_of(row: &str) -> &'static str {
    OTHERS.into_iter().find(|other| row.ends_with(other)).unwrap_or(PYTORCH)
}

/// One thing that is timed.
pub struct Measure<'a> {
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What is counted, such as `pictures/s`; seconds where nothing is.
    pub unit: &'static str,
    /// How many of them a round has.
    pub count: f64,
    pub work: Work<'a>,
}

/// What a round is.
pub enum Work<'a> {
    /// Something in this process.
    Here(Box<dyn FnMut() -> Result<()> + 'a>),
    /// A program, from its start to its end.
    Program(Cold),
}

impl<'a> Measure<'a> {
    /// Work in this process, of which a round does `count`.
    fn here(
        name: &'static str,
        about: &'static str,
        unit: &'static str,
        count: f64,
        round: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self { name, about, unit, count, work: Work::Here(Box::new(round)) }
    }

    /// The seconds of so many rounds.
    ///
    /// # Errors
    /// An error from the work.
    pub fn seconds(&mut self, rounds: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..rounds {
            match &mut self.work {
                Work::Here(round) => round()?,
                Work::Program(program) => program.run()?,
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// The most memory that a program took, in MiB.
    pub fn memory(&self) -> Option<f64> {
        match &self.work {
            Work::Here(_) => None,
            Work::Program(program) => program.memory(),
        }
    }

    /// Seconds of some rounds in the measure's unit; what is counted goes faster the larger it is.
    pub fn rate(&self, seconds: f64, rounds: usize) -> f64 {
        let round = seconds / rounds as f64;
        if self.is_time() { round } else { self.count / round }
    }

    /// Whether the unit is a time, of which less is better.
    pub fn is_time(&self) -> bool {
        self.unit == "s"
    }

    /// What the peers call the same work: name and suffix of the row. The first is PyTorch as its
    /// users would tune it.
    pub fn peers(&self, is_openface: bool, others: &[String]) -> Vec<String> {
        let name = self.name;
        let is_inference = name.starts_with("forward") || name.starts_with("embed");
        let mut suffixes = vec![String::new()];
        suffixes.extend(match (is_openface, name) {
            (true, "step") => vec!["-plain".into(), "-original".into()],
            (true, _) if is_inference => vec!["-plain".into()],
            (true, _) => Vec::new(),
            (false, _) => vec!["-compiled".into()],
        });
        if is_inference {
            // ONNX Runtime has no 16 bits for these networks on a processor.
            let able = |other: &&String| !name.ends_with("-16") || *other != OTHERS[0];
            suffixes.extend(others.iter().filter(able).map(|other| format!("-{other}")));
        }
        suffixes.into_iter().map(|suffix| format!("{name}{suffix}")).collect()
    }
}

/// The names of all measures, in the order in which they are taken.
pub const NAMES: [&str; 9] =
    ["load", "forward", "forward-16", "embed", "embed-16", "step", "mine", "classifier", "cold"];

/// Those of every architecture; the others are of OpenFace's pictures of 96x96.
pub const OF_ANY: [&str; 3] = ["forward", "forward-16", "step"];

/// Makes a measure ready; none where the setting does not allow it.
///
/// # Errors
/// The embedded weights cannot be loaded, or an error from libtorch.
pub fn build<'a>(setting: &'a Setting, name: &str) -> Result<Option<Measure<'a>>> {
    let has_pictures = !setting.pictures.is_empty();
    let plain = Compute::fast(None);
    let half = setting.compute.half();
    let in_half = Compute::everywhere(half);
    Ok(Some(match name {
        "load" if has_pictures => load(setting),
        "forward" => forward(setting, "forward", "embed a batch in float32", plain)?,
        "forward-16" if half.is_some() => {
            forward(setting, "forward-16", "the same in 16 bits", in_half)?
        }
        "embed" if has_pictures => {
            embed(setting, "embed", "picture files to embeddings in float32", plain)?
        }
        "embed-16" if has_pictures && half.is_some() => {
            embed(setting, "embed-16", "the same in 16 bits", in_half)?
        }
        "step" => step(setting)?,
        "mine" => mine(setting),
        "classifier" => classifier(setting)?,
        "cold" => match setting.pictures.first() {
            Some(face) => cold(face)?,
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn cold<'a>(face: &Path) -> Result<Measure<'a>> {
    let about = "`classify` one face, from process start to its name";
    let work = Work::Program(Cold::new(face)?);
    Ok(Measure { name: "cold", about, unit: "s", count: 1.0, work })
}

fn trunk(setting: &Setting, compute: Compute) -> Result<Backbone> {
    let mut trunk = Backbone::new(setting.architecture, setting.device);
    Source::resolve(None, setting.architecture)?.load_into(&trunk)?;
    trunk.set_compute(compute)?;
    Ok(trunk)
}

fn random_pictures(setting: &Setting) -> Tensor {
    let side = i64::from(setting.architecture.info().input.size);
    Tensor::rand([setting.batch, 3, side, side], (Kind::Float, setting.device))
}

/// Labels of so many pictures, `each` of one identity; on the host, as training has them.
fn labels(count: i64, each: i64) -> Tensor {
    Tensor::arange(count, (Kind::Int64, Device::Cpu)).divide_scalar_mode(each, "floor")
}

/// Waits for what a GPU still does; the CPU has done it already.
fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

fn load(setting: &Setting) -> Measure<'_> {
    let round = || {
        let decoded: Result<Vec<_>> = setting
            .pictures
            .par_iter()
            .map(|path| Ok(picture::fit(&picture::decode(path)?, 96)))
            .collect();
        std::hint::black_box(decoded?);
        Ok(())
    };
    let count = setting.pictures.len() as f64;
    let about = "decode pictures and resize them to 96x96";
    Measure::here("load", about, "pictures/s", count, round)
}

fn forward<'a>(
    setting: &'a Setting,
    name: &'static str,
    about: &'static str,
    compute: Compute,
) -> Result<Measure<'a>> {
    let trunk = trunk(setting, compute)?;
    let pictures = random_pictures(setting);
    let round = move || {
        let _ = tch::no_grad(|| trunk.embed(&pictures, Mode::EVAL));
        finish(setting.device);
        Ok(())
    };
    let count = setting.batch as f64;
    Ok(Measure::here(name, about, "pictures/s", count, round))
}

fn step(setting: &Setting) -> Result<Measure<'_>> {
    let trunk = trunk(setting, setting.compute)?;
    let pictures = random_pictures(setting);
    let labels = labels(setting.batch, PICTURES_EACH);
    let config = OptimizerConfig { lr: LR, ..OptimizerConfig::new(OptimizerKind::Adam) };
    let mut optimizer = Optimizer::new(config, trunk.params.trainable())?;
    // As `train-triplet` does by itself: pretrained batch normalisation keeps its statistics.
    let mode = Mode { dropout: true, batch_statistics: false };
    let loss = TripletMarginLoss::default();
    let round = move || {
        Stepper::new(&mut optimizer).step(StepRates::lr(LR), || {
            let embeddings = trunk.embed(&pictures, mode);
            // As train-triplet does it: the log's figures come from the same distances.
            let mut stats = BatchStats::new(Some(loss.margin));
            let (of, margin, seen) = (loss.distance, loss.margin, Some(&mut stats));
            let triplets = BATCH_HARD.mine_embeddings(&embeddings, &labels, of, margin, 0, seen);
            let output = loss.forward(&embeddings, &labels, &triplets);
            let _ = [stats.active(), stats.positive_distance(), stats.negative_distance()];
            Ok(output.loss.into())
        })?;
        finish(setting.device);
        Ok(())
    };
    let count = setting.batch as f64;
    let about = "a training step: forward, batch-hard triplets (one an anchor), backward, Adam";
    Ok(Measure::here("step", about, "triplets/s", count, round))
}

fn mine(setting: &Setting) -> Measure<'_> {
    let embeddings = normalise(&Tensor::randn([setting.mined, 128], (Kind::Float, setting.device)));
    let labels = labels(setting.mined, 4);
    let loss = TripletMarginLoss::default();
    let TripletMarginLoss { distance, margin, .. } = loss;
    let round = move || {
        tch::no_grad(|| {
            let triplets =
                BATCH_HARD.mine_embeddings(&embeddings, &labels, distance, margin, 0, None);
            loss.forward(&embeddings, &labels, &triplets)
        });
        finish(setting.device);
        Ok(())
    };
    let about =
        "distances, hardest triplets and loss of many embeddings (--mined), without logging";
    let count = setting.mined as f64;
    Measure::here("mine", about, "embeddings/s", count, round)
}

/// Files to embeddings, as `visage embed` does it.
fn embed<'a>(
    setting: &'a Setting,
    name: &'static str,
    about: &'static str,
    compute: Compute,
) -> Result<Measure<'a>> {
    let trunk = trunk(setting, compute)?;
    let round = move || {
        let say = Reporter::hidden();
        let viewer = Viewer::whole(trunk.input.size, None);
        let embedded = inputs::embed(&trunk, &viewer, &setting.pictures, &say, |_, seen| {
            std::hint::black_box(seen?);
            Ok(())
        });
        embedded.map_err(|error| Error::Data(format!("{error:#}")))
    };
    let count = setting.pictures.len() as f64;
    Ok(Measure::here(name, about, "pictures/s", count, round))
}

/// A linear classifier on the frozen trunk, from pictures in memory to trained weights.
fn classifier(setting: &Setting) -> Result<Measure<'_>> {
    let trunk = trunk(setting, Compute::fast(None))?;
    let batch = setting.batch as usize;
    let count = TAUGHT as usize * batch;
    let pictures: Vec<Tensor> = (0..TAUGHT).map(|_| random_pictures(setting)).collect();
    let labels: Vec<usize> = (0..count).map(|picture| picture % 5).collect();
    let card = ModelCard {
        classes: (0..5).map(|number| format!("person {number}")).collect(),
        ..ModelCard::new(ModelKind::Classifier, &trunk, String::new())
    };
    let round = move || {
        let batches = pictures.iter().map(|pictures| Ok((0, pictures.shallow_clone())));
        let embeddings = embed_batches(&trunk, batches)?;
        let dim = embeddings.dim();
        let train = Labelled { embeddings, labels: labels.clone() };
        let validation =
            Labelled { embeddings: Embeddings::new(0, dim, Vec::new())?, labels: Vec::new() };
        let known = OpenSetCalibration {
            curve: Logistic { weight: 0.0, bias: 0.0 },
            threshold: 0.0,
            fpir: None,
        };
        let from = Features {
            trunk: &trunk,
            train: &train,
            mirrored: None,
            validation: &validation,
            faces: &[],
            known: &known,
        };
        let mut task = ClassifierTask::new(from, &card, None, batch);
        let config = OptimizerConfig { lr: 0.02, ..OptimizerConfig::new(OptimizerKind::Adam) };
        let mut optimizer = Optimizer::new(config, task.params.trainable())?;
        let mut stepper = Stepper::new(&mut optimizer);
        for epoch in 1..=EPOCHS {
            for (index, batch) in task.batches(epoch)?.iter().enumerate() {
                stepper.step(StepRates::lr(0.02), || task.forward(epoch, index, batch))?;
            }
        }
        Ok(())
    };
    let about =
        "30 epochs of a linear classifier on the frozen trunk, which sees each picture once";
    Ok(Measure::here("classifier", about, "s", 1.0, round))
}
