//! What `visage bench` times: one closure a measure, ready to be run again and again.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::data::picture;
use crate::metric::distance::pairwise;
use crate::metric::losses::TripletObjective;
use crate::metric::miners::Miner;
use crate::models::{Architecture, Backbone, Compute, Mode};
use crate::train::optim::{Optimizer, OptimizerConfig, OptimizerKind};
use crate::weights::Source;
use crate::{Error, Result};

/// Pictures of each identity in a training batch.
pub const PICTURES_EACH: i64 = 6;
/// Embeddings that are mined together, four of each identity.
pub const MINED: i64 = 2048;
/// The default learning rate of `train-triplet`.
const LR: f64 = 6e-5;

/// What is common to all measures.
pub struct Setting {
    pub device: Device,
    pub compute: Compute,
    /// Pictures in a batch.
    pub batch: i64,
    /// Pictures to decode.
    pub pictures: Vec<PathBuf>,
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
    pub round: Box<dyn FnMut() -> Result<()> + 'a>,
}

impl Measure<'_> {
    /// The seconds of so many rounds.
    ///
    /// # Errors
    /// What the work raises.
    pub fn seconds(&mut self, rounds: usize) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..rounds {
            (self.round)()?;
        }
        Ok(start.elapsed().as_secs_f64())
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
}

/// All measures that the setting allows.
///
/// # Errors
/// The embedded weights cannot be loaded, or what libtorch raises.
pub fn all(setting: &Setting) -> Result<Vec<Measure<'_>>> {
    let mut measures = vec![forward(setting)?, step(setting)?, mine(setting)];
    if let Some(first) = setting.pictures.first() {
        measures.insert(0, load(setting));
        measures.push(cold(first)?);
    }
    Ok(measures)
}

fn trunk(setting: &Setting, compute: Compute) -> Result<Backbone> {
    let mut trunk = Backbone::new(Architecture::OpenFace, setting.device);
    Source::resolve(None, Architecture::OpenFace)?.load_into(&trunk)?;
    trunk.set_compute(compute)?;
    Ok(trunk)
}

fn random_pictures(setting: &Setting) -> Tensor {
    Tensor::rand([setting.batch, 3, 96, 96], (Kind::Float, setting.device))
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
    Measure { name: "load", about, unit: "pictures/s", count, round: Box::new(round) }
}

fn forward(setting: &Setting) -> Result<Measure<'_>> {
    let trunk = trunk(setting, Compute::fast(None))?;
    let pictures = random_pictures(setting);
    let round = move || {
        let _ = tch::no_grad(|| trunk.embed(&pictures, Mode::EVAL));
        finish(setting.device);
        Ok(())
    };
    let count = setting.batch as f64;
    let about = "embed a batch in float32";
    Ok(Measure { name: "forward", about, unit: "pictures/s", count, round: Box::new(round) })
}

fn step(setting: &Setting) -> Result<Measure<'_>> {
    let trunk = trunk(setting, setting.compute)?;
    let pictures = random_pictures(setting);
    let labels = Tensor::arange(setting.batch, (Kind::Int64, setting.device))
        .divide_scalar_mode(PICTURES_EACH, "floor")
        .to_kind(Kind::Int64);
    let config = OptimizerConfig { lr: LR, ..OptimizerConfig::new(OptimizerKind::Adam) };
    let mut optimizer = Optimizer::new(config, trunk.params.trainable())?;
    // As `train-triplet` does by itself: pretrained batch normalisation keeps its statistics.
    let mode = Mode { dropout: true, batch_statistics: false };
    let objective = TripletObjective::default();
    let round = move || {
        optimizer.zero_grad()?;
        let distances = pairwise(&trunk.embed(&pictures, mode));
        let selection = Miner::BatchHard.mine(&distances.detach(), &labels, objective.margin, 0);
        objective.over(&selection, &distances, &labels).loss.backward();
        optimizer.step(LR)?;
        finish(setting.device);
        Ok(())
    };
    let count = setting.batch as f64;
    let about = "a training step: forward, batch-hard triplets (one an anchor), backward, Adam";
    Ok(Measure { name: "step", about, unit: "triplets/s", count, round: Box::new(round) })
}

fn mine(setting: &Setting) -> Measure<'_> {
    let embeddings = Tensor::randn([MINED, 128], (Kind::Float, setting.device));
    let lengths = embeddings.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
    let embeddings = embeddings / lengths;
    let labels = Tensor::arange(MINED, (Kind::Int64, setting.device))
        .divide_scalar_mode(4, "floor")
        .to_kind(Kind::Int64);
    let objective = TripletObjective::default();
    let round = move || {
        tch::no_grad(|| {
            let distances = pairwise(&embeddings);
            let selection = Miner::BatchHard.mine(&distances, &labels, objective.margin, 0);
            objective.over(&selection, &distances, &labels)
        });
        finish(setting.device);
        Ok(())
    };
    let about = "distances of 2048 embeddings, their hardest triplets, the loss";
    let count = MINED as f64;
    Measure { name: "mine", about, unit: "embeddings/s", count, round: Box::new(round) }
}

/// This program from its start: one face to its embedding.
fn cold<'a>(face: &Path) -> Result<Measure<'a>> {
    let program = std::env::current_exe().map_err(|e| Error::io(Path::new("visage"), e))?;
    let folder = tempfile::tempdir().map_err(|e| Error::io(Path::new("a temporary folder"), e))?;
    let out = folder.path().join("embedding.npy");
    let face = face.to_owned();
    let round = move || {
        let mut command = Command::new(&program);
        command.args(["--quiet", "--device", "cpu", "embed"]).arg(&face);
        command.args(["--backbone", "openface", "--out"]).arg(&out);
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = &folder; // there as long as this
        match done {
            Ok(status) if status.success() => Ok(()),
            _ => Err(Error::Data(format!("{}: `visage embed` failed", face.display()))),
        }
    };
    let about = "from process start to the embedding of one face";
    Ok(Measure { name: "cold", about, unit: "s", count: 1.0, round: Box::new(round) })
}
