//! The library on a device, against the CPU in float64: what `make gpu-kit` carries to a machine with a
//! GPU.
//!
//! `VISAGE_TEST_DEVICE` names the device (cpu where it is not set, so that the checks themselves are
//! tested everywhere); with `VISAGE_TEST_ALL` every architecture is checked and speed is measured, else
//! one of each family. Each figure is appended to the file `VISAGE_TEST_REPORT`, a JSON object a line;
//! files for the PyTorch peer go to the folder `VISAGE_TEST_OUT`.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use tch::{Device, Kind, Tensor};
use visage::data::store::{PictureStore, scaled};
use visage::data::{FaceFolder, feed::Feed};
use visage::device::DeviceChoice;
use visage::metric::losses::{Hinge, LossKind, LossOptions, LossShape, Reduction};
use visage::metric::miners::{Miner, Triplets, Tuples};
use visage::metric::{DistanceKind, Named};
use visage::models::{Architecture, Backbone, Compute, Mode};
use visage::native::Half;
use visage::native::cuda::{self, Upload};
use visage::recognise::{ModelCard, ModelKind};
use visage::train::map_cache::{CacheLimits, MapCache};
use visage::train::objective::Objective;
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind, StepRates};
use visage::train::settings::TripletSettings;
use visage::train::step::{Forward, Stepper};
use visage::train::task::Task;
use visage::train::triplet::{Parts, TripletTask};
use visage::weights::Source;

/// Batch statistics, and nothing random.
const BATCH_STATISTICS: Mode = Mode { dropout: false, batch_statistics: true };
/// Fine-tuning as it is by default.
const TUNING: Mode = Mode { dropout: true, batch_statistics: false };

/// One architecture of each family.
const FAMILIES: [&str; 5] = ["openface", "vgg11", "densenet121", "inception-v3", "facenet"];

fn device() -> Device {
    let choice = std::env::var("VISAGE_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    choice.parse::<DeviceChoice>().unwrap().resolve().unwrap()
}

fn checks_all() -> bool {
    std::env::var_os("VISAGE_TEST_ALL").is_some()
}

fn report(line: &serde_json::Value) {
    let Some(path) = std::env::var_os("VISAGE_TEST_REPORT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Notes a figure that must not exceed its bound.
fn check(name: &str, figure: f64, bound: f64) -> bool {
    let ok = figure <= bound;
    report(&json!({"check": name, "figure": figure, "bound": bound, "ok": ok}));
    ok
}

/// Notes a figure without a bound.
fn measured(name: &str, figure: f64, unit: &str) {
    report(&json!({"check": name, "figure": figure, "unit": unit, "ok": true}));
}

fn assert_all(outcomes: &[(String, bool)]) {
    let failed: Vec<_> = outcomes.iter().filter(|(_, ok)| !ok).map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "out of bounds: {failed:#?}");
}

fn named(name: &str) -> Architecture {
    Architecture::ALL.into_iter().find(|architecture| architecture.name() == name).unwrap()
}

/// A small size that the architecture can take.
fn small(architecture: Architecture) -> i64 {
    let sizes = architecture.info().input_sizes;
    (32..=299).find(|&side| sizes.check("", side, side).is_ok()).unwrap()
}

fn architectures() -> Vec<Architecture> {
    let all = Architecture::ALL.into_iter();
    all.filter(|one| checks_all() || FAMILIES.contains(&one.name())).collect()
}

fn pictures(count: i64, side: i64) -> Tensor {
    let pixels = Tensor::arange(count * 3 * side * side, (Kind::Double, Device::Cpu));
    let waves = (pixels * 0.37).sin().view([count, 3, side, side]);
    let slow = Tensor::arange(side, (Kind::Double, Device::Cpu)) * 0.11;
    let each = Tensor::arange(count, (Kind::Double, Device::Cpu)).view([count, 1, 1, 1]) + 1.0;
    (waves * 0.25 + (slow.view([1, 1, 1, side]) * each).cos() * 0.25 + 0.5).to_kind(Kind::Float)
}

/// A copy of a trunk's tensors, in `kind`, on a device.
fn copy_of(trunk: &Backbone, device: Device, kind: Kind) -> Backbone {
    let copy = Backbone::new(trunk.architecture, device);
    for (from, to) in trunk.params.iter().zip(copy.params.iter()) {
        let value = from.tensor.detach().to_device(device);
        let value = if value.kind() == Kind::Float { value.to_kind(kind) } else { value };
        to.tensor.shallow_clone().set_data(&value.copy());
    }
    copy
}

fn weighted(rows: &Tensor) -> Tensor {
    let weights = Tensor::arange(rows.numel() as i64, (Kind::Double, Device::Cpu)).cos();
    let weights = weights.to_kind(rows.kind()).view_as(rows).to_device(rows.device());
    (rows * weights).sum(rows.kind())
}

/// The embeddings and all gradients of [`weighted`] of them, float64 on the CPU.
fn embed_and_gradient(trunk: &Backbone, xs: &Tensor, mode: Mode) -> (Tensor, Vec<Tensor>) {
    let embeddings = trunk.embed(&xs.to_device(trunk.device()), mode);
    weighted(&embeddings).backward();
    let home = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    let gradients = trunk.params.trainable().into_iter().map(|(_, tensor)| home(&tensor.grad()));
    (home(&embeddings), gradients.collect())
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    let home = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    (home(a) - home(b)).abs().max().double_value(&[])
}

/// How far apart two lists of gradients are, all taken together, relative to the second's length.
fn relative(a: &[Tensor], b: &[Tensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |tensor: &Tensor| tensor.square().sum(Kind::Double).double_value(&[]);
    let apart: f64 = a.iter().zip(b).map(|(a, b)| square(&(a - b))).sum();
    (apart / b.iter().map(square).sum::<f64>()).sqrt()
}

/// The place in two lists of gradients that is farthest apart, and its share of the squared difference.
fn farthest(a: &[Tensor], b: &[Tensor]) -> (f64, usize) {
    let square = |(a, b): (&Tensor, &Tensor)| (a - b).square().sum(Kind::Double).double_value(&[]);
    let apart: Vec<f64> = a.iter().zip(b).map(square).collect();
    let (place, most) = apart.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
    (most / apart.iter().sum::<f64>(), place)
}

/// Forward passes within 1e-4 of the CPU's float64; reduced precision within bounds that its 8 to 11 bits
/// allow. Gradients, of one architecture of each family, within 1e-3 in float64; in float32 a last bit
/// turns ReLUs that sit at zero, whatever the device, and a gradient moves by percents.
#[test]
fn every_backbone_computes_what_the_cpu_does_in_float64() {
    let device = device();
    let mut outcomes = Vec::new();
    for architecture in architectures() {
        let (name, side) = (architecture.name(), small(architecture));
        let mut note = |what: &str, figure: f64, bound: f64| {
            let name = format!("{name}: {what}");
            let ok = check(&name, figure, bound);
            outcomes.push((format!("{name}: {figure:e} > {bound:e}"), ok));
        };
        tch::manual_seed(5);
        let start = Backbone::new(architecture, Device::Cpu);
        let xs = pictures(3, side);
        let passes = [
            (Mode::EVAL, Kind::Float, "float32, evaluation mode", 5e-2),
            (Mode::EVAL, Kind::Double, "float64, evaluation mode", 1e-3),
            (BATCH_STATISTICS, Kind::Double, "float64, batch statistics", 1e-3),
        ];
        for (mode, kind, what, slope) in passes {
            if !FAMILIES.contains(&name) {
                break;
            }
            let exact = copy_of(&start, Device::Cpu, Kind::Double);
            let (wanted, gradient) = embed_and_gradient(&exact, &xs.to_kind(Kind::Double), mode);
            let mut there = copy_of(&start, device, kind);
            there.set_compute(Compute::fast(None)).unwrap();
            let (found, own) = embed_and_gradient(&there, &xs.to_kind(kind), mode);
            note(&format!("{what}, forward"), largest(&found, &wanted), 1e-4);
            let apart = relative(&own, &gradient);
            note(&format!("{what}, gradient"), apart, slope);
            if apart > slope {
                let (share, place) = farthest(&own, &gradient);
                let parameter = &there.params.trainable()[place].0;
                let what = format!("{name}: {what}, {parameter} has of the squared difference");
                measured(&what, share, "");
            }
        }
        // Random weights come without statistics, and what is not normalised leaves float16's range.
        (0..30).for_each(|_| drop(tch::no_grad(|| start.embed(&xs, BATCH_STATISTICS))));
        let exact = copy_of(&start, Device::Cpu, Kind::Double);
        let wanted = tch::no_grad(|| exact.embed(&xs.to_kind(Kind::Double), Mode::EVAL));
        let (mut there, xs) = (copy_of(&start, device, Kind::Float), xs.to_device(device));
        let mut embed = |compute| {
            there.set_compute(compute).unwrap();
            tch::no_grad(|| there.embed(&xs, Mode::EVAL))
        };
        let found = embed(Compute::fast(None));
        note("float32 with statistics, forward", largest(&found, &wanted), 1e-4);
        for (half, what, bound) in
            [(Half::BFloat16, "bfloat16", 0.1), (Half::Float16, "float16", 0.02)]
        {
            let found = embed(Compute::everywhere(Some(half)));
            note(&format!("{what}, forward"), largest(&found, &wanted), bound);
        }
        if device.is_cuda() {
            cuda::allow_tf32(true).unwrap();
            let found = embed(Compute::fast(None));
            cuda::allow_tf32(false).unwrap();
            note("TensorFloat-32, forward", largest(&found, &wanted), 0.02);
        }
    }
    assert_all(&outcomes);
}

/// The embedded weights give the embeddings that tests/golden/openface.py wrote with PyTorch.
#[test]
fn the_embedded_trunk_gives_the_golden_embeddings() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("golden/openface.json")).unwrap();
    let mut trunk = Backbone::new(Architecture::OpenFace, device());
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&trunk).unwrap();
    trunk.set_compute(Compute::fast(None)).unwrap();
    let axis = |count: i64, shape: [i64; 4]| {
        Tensor::arange(count, (Kind::Double, Device::Cpu)).view(shape)
    };
    let mut outcomes = Vec::new();
    for case in golden["cases"].as_array().unwrap() {
        if case["train"].as_bool().unwrap() {
            continue;
        }
        let count = case["batch"].as_i64().unwrap();
        let n = axis(count, [count, 1, 1, 1]);
        let rows = axis(96, [1, 1, 96, 1]) * 0.1 * (&n + 1.0);
        let wave = rows + axis(96, [1, 1, 1, 96]) * 0.07 + axis(3, [1, 3, 1, 1]) + n * 2.0;
        let xs = (wave.sin() * 0.5 + 0.5).to_kind(Kind::Float).to_device(device());
        let found = tch::no_grad(|| trunk.embed(&xs, Mode::EVAL));
        let wanted: Vec<f64> = serde_json::from_value(case["embedding"].clone()).unwrap();
        let wanted = Tensor::from_slice(&wanted).view([count, 128]);
        let name = format!("openface: golden embeddings of {count}");
        outcomes.push((name.clone(), check(&name, largest(&found, &wanted), 1e-4)));
    }
    assert_eq!(outcomes.len(), 2);
    assert_all(&outcomes);
}

/// Every miner chooses the same triplets, and every loss has the value and the gradient, that the CPU
/// computes.
#[test]
fn losses_and_miners_agree_with_the_cpu() {
    let device = device();
    let raw = (Tensor::arange(24 * 16, (Kind::Float, Device::Cpu)) * 1.7).sin().view([24, 16]);
    let start = &raw / raw.square().sum_dim_intlist([1i64].as_slice(), true, None).sqrt();
    // On the host, as training has them.
    let labels = Tensor::arange(24, (Kind::Int64, Device::Cpu)).remainder(5);
    let mut outcomes = Vec::new();
    for miner in Miner::ALL {
        let mine = |device| {
            let x = start.to_device(device);
            miner.mine_embeddings(&x, &labels, DistanceKind::Squared, 0.2, 7, None)
        };
        let places = |tuples: Tuples| match tuples {
            Tuples::All | Tuples::OfFirst(_) => Vec::new(),
            Tuples::Triplets(Triplets { anchor, positive, negative }) => {
                let column = |x: &Tensor| Vec::<i64>::try_from(&x.to_device(Device::Cpu)).unwrap();
                [&anchor, &positive, &negative].map(column).concat()
            }
        };
        let (found, wanted) = (places(mine(device)), places(mine(Device::Cpu)));
        let wrong = found.iter().zip(&wanted).filter(|(a, b)| a != b).count()
            + found.len().abs_diff(wanted.len());
        let name = format!("miner {miner}: other triplets of {}", wanted.len() / 3);
        outcomes.push((name.clone(), check(&name, wrong as f64, 0.0)));
        for kind in LossKind::ALL {
            let one = |device| {
                tch::manual_seed(4);
                // `start` itself stays out of the graph: on the CPU `to_device` returns it as it is.
                let x = start.to_device(device).detach().set_requires_grad(true);
                let options = LossOptions {
                    margin: None,
                    distance: DistanceKind::Squared,
                    hinge: Hinge::Hard,
                    reduction: Reduction::Mean,
                    class_sample: None,
                };
                let loss = (kind.build)(&options, &LossShape { classes: 5, dim: 16, device });
                let tuples = mine(device);
                let output = loss.forward(&x, &labels, &tuples);
                output.loss.backward();
                (output.loss.double_value(&[]), x.grad().to_device(Device::Cpu))
            };
            let ((value, slope), (wanted, exact)) = (one(device), one(Device::Cpu));
            let name = format!("loss {kind} with {miner}");
            let apart = ((value - wanted).abs() / wanted.abs().max(1.0))
                .max(largest(&slope, &exact) / exact.abs().max().double_value(&[]).max(1e-3));
            outcomes.push((name.clone(), check(&name, apart, 1e-3)));
        }
    }
    assert_all(&outcomes);
}

/// Moments go from one device to the other, and training goes on as if nothing had happened.
#[test]
fn optimisers_agree_and_take_their_state_from_device_to_device() {
    let device = device();
    let mut outcomes = Vec::new();
    for kind in [OptimizerKind::Adam, OptimizerKind::AdamW, OptimizerKind::Sgd] {
        let config = OptimizerConfig { momentum: 0.9, ..OptimizerConfig::new(kind) };
        let params = |device| -> Vec<(String, Tensor)> {
            let value = |n: i64| (Tensor::arange(n * 7, (Kind::Float, device)) * 0.3).sin();
            let param = |n: i64| (format!("p{n}"), value(n).view([n, 7]).set_requires_grad(true));
            [5, 33, 1].map(param).into()
        };
        let step = |optimizer: &mut Optimizer, params: &[(String, Tensor)], number: f64| {
            Stepper::with(optimizer, Some(1.0), false)
                .step(StepRates::lr(0.01), || {
                    let terms = params.iter().map(|(_, p)| (p * p.sin() + number * p).sum(None));
                    Ok(Forward::from(terms.reduce(|a, b| a + b).unwrap()))
                })
                .unwrap();
        };
        let share = |params: &[(String, Tensor)]| -> Vec<(String, Tensor)> {
            params.iter().map(|(name, param)| (name.clone(), param.shallow_clone())).collect()
        };
        let (home, there) = (params(Device::Cpu), params(device));
        let mut at_home = Optimizer::new(config, share(&home)).unwrap();
        let mut away = Optimizer::new(config, share(&there)).unwrap();
        for number in 0..5 {
            step(&mut at_home, &home, f64::from(number));
            step(&mut away, &there, f64::from(number));
        }
        // Home again: weights and state of the device, on the CPU.
        let back = params(Device::Cpu);
        tch::no_grad(|| {
            for ((_, to), (_, from)) in back.iter().zip(&there) {
                to.shallow_clone().copy_(&from.to_device(Device::Cpu));
            }
        });
        let mut returned = Optimizer::new(config, share(&back)).unwrap();
        returned.load_state(&away.state()).unwrap();
        for number in 5..8 {
            step(&mut at_home, &home, f64::from(number));
            step(&mut returned, &back, f64::from(number));
        }
        let apart =
            home.iter().zip(&back).map(|((_, a), (_, b))| largest(a, b)).fold(0.0, f64::max);
        let name = format!("{kind:?}: 5 steps on the device, 3 on the CPU");
        outcomes.push((name.clone(), check(&name, apart, 1e-5)));
    }
    assert_all(&outcomes);
}

/// Gradients that overflow in float16 leave the weights as they are, and the scale falls.
#[test]
fn the_loss_scaler_skips_what_overflows() {
    let device = device();
    let param = Tensor::ones([64, 64], (Kind::Float, device)).set_requires_grad(true);
    let named = vec![("p".to_owned(), param.shallow_clone())];
    let mut optimizer = Optimizer::new(OptimizerConfig::new(OptimizerKind::Adam), named).unwrap();
    let mut stepper = Stepper::with(&mut optimizer, None, true);
    let half = |factor: f64| {
        let product = (&param.to_kind(Kind::Half) * factor).matmul(&param.to_kind(Kind::Half));
        Ok(Forward::from(product.to_kind(Kind::Float).mean(Kind::Float)))
    };
    let before = param.detach().copy();
    // 65,504 is the largest float16.
    stepper.step(StepRates::lr(0.01), || half(2000.0)).unwrap();
    assert!(param.equal(&before));
    assert_eq!((stepper.scaler.skipped(), stepper.scaler.scale()), (1, Some(32_768.0)));
    stepper.step(StepRates::lr(0.01), || half(1.0)).unwrap();
    assert!(!param.equal(&before));
    assert_eq!(stepper.scaler.skipped(), 1);
    check("float16 overflow: steps skipped", stepper.scaler.skipped() as f64, 1.0);
}

fn faces(root: &Path, side: u32) -> FaceFolder {
    common::write_faces(root);
    FaceFolder::open(root, true, side, &|_, _| {}).unwrap()
}

/// Batches arrive whole, in order, however much the device has to do meanwhile.
#[test]
fn uploads_bring_every_byte() {
    let (device, root) = (device(), tempfile::tempdir().unwrap());
    let store: PictureStore = faces(root.path(), 32).fitted;
    let batches: Vec<Vec<usize>> =
        (0..60).map(|n| (n..n + 7).map(|at| at % 32).collect()).collect();
    let mut feed = Feed::start(&store, batches.clone(), device).unwrap();
    let busy = Tensor::rand([512, 512], (Kind::Float, device));
    let mut wrong = 0;
    for batch in &batches {
        let work = busy.matmul(&busy);
        let arrived = scaled(feed.next(batch).unwrap().unwrap()).unwrap();
        let wanted = scaled(Upload::start(bytes(&store, batch), Device::Cpu).unwrap()).unwrap();
        wrong += usize::from(arrived.device() != device || largest(&arrived, &wanted) > 1e-6);
        drop(work);
    }
    assert!(check("uploads: wrong batches of 60", wrong as f64, 0.0));
}

fn bytes(store: &PictureStore, batch: &[usize]) -> Tensor {
    let side = i64::from(store.side());
    let bytes = Tensor::from_slice(&store.bytes(batch).unwrap());
    bytes.view([batch.len() as i64, side, side, 3])
}

/// The output of frozen stages is the same from the device's memory, the host's file, and computed.
#[test]
fn frozen_maps_are_cached() {
    let (device, root) = (device(), tempfile::tempdir().unwrap());
    let store = faces(root.path(), 32).fitted;
    tch::manual_seed(3);
    let trunk = Backbone::new(named("vgg11"), device);
    trunk.params.freeze(&["features.0".into(), "features.3".into()]).unwrap();
    let mut outcomes = Vec::new();
    for (memory, disk, what) in [(64 << 20, 0, "in memory"), (0, 64 << 20, "on disk")] {
        let limits = CacheLimits { memory, disk, folder: root.path().to_owned() };
        let mut cache = MapCache::new(&trunk, &store, false, limits);
        let note = cache.refresh().unwrap().unwrap();
        assert!(note.contains(if device.is_cuda() && memory > 0 { "GPU's memory" } else { what }));
        let views: Vec<_> = (0..8).map(|picture| (picture, false)).collect();
        let wanted =
            trunk.maps(&store.batch(&[0, 1, 2, 3, 4, 5, 6, 7], device).unwrap(), 2, Mode::EVAL);
        for round in ["computed", "kept"] {
            let found = cache.maps(&views).unwrap();
            assert_eq!(found.device(), device);
            let name = format!("frozen maps {what}, {round}");
            outcomes.push((name.clone(), check(&name, largest(&found, &wanted), 1e-4)));
        }
    }
    assert_all(&outcomes);
}

/// A training step with everything that `train-triplet` does in it: decoded ahead, uploaded, augmented,
/// embedded, mined, back-propagated, clipped, stepped. The host must never wait for the device.
#[test]
fn the_host_does_not_wait_in_a_training_step() {
    let (device, root) = (device(), tempfile::tempdir().unwrap());
    let folder = faces(root.path(), 96);
    let parts =
        Parts { labels: folder.labels(), train: folder.fitted.all(), validation: Vec::new() };
    // A CPU never waits, and takes a minute for an epoch in float16.
    let most = if device.is_cuda() { usize::MAX } else { 1 };
    let mut outcomes = Vec::new();
    for (name, half, text) in [
        ("float32", None, ""),
        ("bfloat16", Some(Half::BFloat16), "loss = 'arcface'"),
        ("bfloat16, frozen stages cached", Some(Half::BFloat16), "crop = false\njitter = false"),
        ("float16", Some(Half::Float16), ""),
    ] {
        tch::manual_seed(1);
        let settings = TripletSettings {
            identities_per_batch: 4,
            pictures_per_identity: 4,
            out: root.path().to_owned(),
            ..toml::from_str(text).unwrap()
        };
        let mut trunk = Backbone::new(Architecture::OpenFace, device);
        trunk.set_compute(Compute::fast(half)).unwrap();
        if name.contains("frozen") {
            trunk.params.freeze(&["layer1".into(), "layer2".into()]).unwrap();
        }
        let card = ModelCard::new(ModelKind::Trunk, &trunk, String::new());
        let config = OptimizerConfig::new(OptimizerKind::Adam);
        let mut optimizer = Optimizer::new(config, trunk.params.trainable()).unwrap();
        let objective = Objective::new(&settings, 4, trunk.embedding_dim, device);
        let mut task =
            TripletTask::new(&trunk, &folder, &parts, &card, &objective, &settings).unwrap();
        let mut stepper = Stepper::with(&mut optimizer, Some(1.0), half == Some(Half::Float16));
        let mut steps = 0u32;
        let mut waits = 0;
        // The first epoch fills caches, measures kernels and brings up libraries.
        for epoch in 1..=3 {
            for (index, batch) in task.batches(epoch).unwrap().iter().enumerate().take(most) {
                let mut step = || {
                    stepper.step(StepRates::lr(1e-4), || task.forward(epoch, index, batch))?;
                    Ok(())
                };
                if epoch == 1 {
                    step().unwrap();
                } else {
                    waits += cuda::count_waits(device, step).unwrap();
                    steps += 1;
                }
            }
        }
        let name = format!("{name}: waits in {steps} training steps");
        outcomes.push((name.clone(), check(&name, waits as f64, 0.0)));
    }
    assert_all(&outcomes);
}

/// Weights, pictures and our answers for peer.py, which computes the same in PyTorch.
#[test]
fn answers_for_pytorch_to_check() {
    let Some(out) = std::env::var_os("VISAGE_TEST_OUT").map(PathBuf::from) else { return };
    let device = device();
    for name in ["openface", "vgg16", "densenet121"] {
        tch::manual_seed(9);
        let mut trunk = Backbone::new(named(name), device);
        trunk.set_compute(Compute::fast(None)).unwrap();
        let xs = pictures(4, 96);
        let (embeddings, gradients) = embed_and_gradient(&trunk, &xs, Mode::EVAL);
        let named =
            trunk.params.trainable().into_iter().map(|(name, _)| format!("gradient:{name}"));
        let mut tensors = trunk.params.snapshot();
        tensors.extend(named.zip(gradients.iter().map(|g| g.to_kind(Kind::Float))));
        tensors.push(("input".into(), xs));
        tensors.push(("output".into(), embeddings.to_kind(Kind::Float)));
        tensors.iter_mut().for_each(|(_, tensor)| *tensor = tensor.contiguous());
        let path = out.join(format!("peer-{name}.safetensors"));
        Tensor::write_safetensors(&tensors, path).unwrap();
    }
}

/// Triplets per second of a whole training step, bfloat16 and channels last, and pictures per second
/// embedded; peer.py measures the same in PyTorch.
#[test]
fn speed() {
    if !checks_all() {
        return;
    }
    let device = device();
    for (name, side, batch) in visage_speeds(device) {
        tch::manual_seed(2);
        let mut trunk = Backbone::new(named(name), device);
        trunk.set_compute(Compute::everywhere(Some(Half::BFloat16))).unwrap();
        cuda::benchmark_cudnn(device.is_cuda()).unwrap();
        let raw = (pictures(batch, side) * 255.0).to_kind(Kind::Uint8).permute([0, 2, 3, 1]);
        let raw = raw.contiguous();
        let labels =
            Tensor::arange(batch, (Kind::Int64, Device::Cpu)).divide_scalar_mode(6, "floor");
        let settings = TripletSettings::default();
        let objective = Objective::new(&settings, 5, trunk.embedding_dim, device);
        let config = OptimizerConfig::new(OptimizerKind::Adam);
        let mut optimizer = Optimizer::new(config, trunk.params.trainable()).unwrap();
        let mut stepper = Stepper::new(&mut optimizer);
        let arrive = || scaled(Upload::start(raw.shallow_clone(), device)?);
        let step = || {
            stepper.step(StepRates::lr(6e-5), || {
                let (output, measures) =
                    objective.loss(&trunk.embed(&arrive()?, TUNING), &labels, 0);
                Ok(Forward { measures, ..Forward::from(output.loss) })
            })?;
            Ok(())
        };
        let rate = per_second(device, batch, step);
        measured(&format!("{name}: training step"), rate, "triplets/s");
        let embed = || {
            let pictures = arrive()?;
            drop(tch::no_grad(|| trunk.embed(&pictures, Mode::EVAL)));
            Ok(())
        };
        let rate = per_second(device, batch, embed);
        measured(&format!("{name}: embedding"), rate, "pictures/s");
    }
}

/// Name, side and batch of each network that is timed; peer.py has the same.
fn visage_speeds(device: Device) -> [(&'static str, i64, i64); 3] {
    match device.is_cuda() {
        true => [("openface", 96, 240), ("vgg16", 224, 60), ("densenet121", 224, 60)],
        false => [("openface", 96, 12), ("vgg16", 64, 6), ("densenet121", 64, 6)],
    }
}

/// The median of five rounds of about a second (on the CPU two of a moment).
fn per_second(device: Device, batch: i64, mut work: impl FnMut() -> visage::Result<()>) -> f64 {
    let finish = || {
        if let Device::Cuda(index) = device {
            tch::Cuda::synchronize(index as i64);
        }
    };
    let (warm, rounds, seconds) = if device.is_cuda() { (10, 5, 1.0) } else { (1, 2, 0.05) };
    (0..warm).for_each(|_| work().unwrap());
    finish();
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed().as_secs_f64() < seconds {
            (0..5).for_each(|_| work().unwrap());
            done += 5;
            finish();
        }
        rates.push(done as f64 * batch as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
