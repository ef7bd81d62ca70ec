//! Every backbone against torchvision and facenet-pytorch (`tests/golden/models.py` made the
//! numbers, in float64; `tests/golden/iresnet.py` those of arcface_torch), and what each architecture must keep whatever it computes.
//!
//! Outputs are compared in float32, as Visage runs. Gradients are compared in float64: in float32 a
//! rounding here or there turns a ReLU, and PyTorch's own gradients differ by percents from one
//! processor to another.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};
use visage::models::layers::{Window, avg_pool, max_pool};
use visage::models::{Architecture, Backbone, BuildOptions, InputSizes, Logits, Mode};

#[derive(Deserialize)]
struct Golden {
    openface_multiply_adds: f64,
    pooling: Vec<Pooling>,
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Pooling {
    kernel: i64,
    stride: i64,
    padding: i64,
    ceil: bool,
    max: Vec<f32>,
    mean: Vec<f32>,
}

#[derive(Deserialize)]
struct Model {
    name: String,
    parameters: usize,
    trunk_parameters: usize,
    trunk_multiply_adds: f64,
    keys: usize,
    keys_sha256: String,
    initial: Vec<(String, f64)>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    batch: i64,
    size: i64,
    train: bool,
    logits: Summary,
    auxiliary: Option<Summary>,
    embedding: Summary,
    first_gradient: Option<Summary>,
    gradients: Option<f64>,
    statistics: Option<f64>,
}

/// The norm of a tensor and its first values.
#[derive(Deserialize)]
struct Summary {
    norm: f64,
    head: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/models.json")).unwrap()
}

/// The networks of arcface_torch: `tests/golden/iresnet.py` made the numbers.
fn arcface() -> Vec<Model> {
    serde_json::from_str(include_str!("golden/iresnet.json")).unwrap()
}

fn named(name: &str) -> Architecture {
    Architecture::try_from(name.to_owned()).unwrap()
}

/// The script's hash: whole numbers to [-1, 1).
fn noise(seed: usize, count: usize) -> Vec<f64> {
    const PERIOD: usize = 65537;
    let start = 7919 * (seed as u64 + 1);
    let hash = |k: u64| {
        let mixed = (0..2).fold(k + start, |x, _| ((x ^ (x >> 16)) * 0x45d9f3b) & 0xffff_ffff);
        (mixed ^ (mixed >> 16)) as f64 / 2f64.powi(31) - 1.0
    };
    (0..count.min(PERIOD) as u64).map(hash).collect()
}

/// The script's weights; a tensor longer than the period repeats it.
fn fill(backbone: &Backbone) {
    for (seed, param) in backbone.params.iter().enumerate() {
        let (mut tensor, shape) = (param.tensor.detach(), param.tensor.size());
        if tensor.kind() != Kind::Float {
            continue;
        }
        let count = tensor.numel();
        let fan_in = (count as i64 / shape[0].max(1)) as f64;
        let value = |u: f64| match &param.name {
            _ if shape.len() > 1 => u * (6.0 / fan_in).sqrt(),
            name if name.ends_with("running_var") => 1.0 + 0.5 * u.abs(),
            name if name.ends_with("weight") => 1.0 + 0.2 * u,
            _ => 0.1 * u,
        };
        let once: Vec<f32> = noise(seed, count).into_iter().map(|u| value(u) as f32).collect();
        let once = Tensor::from_slice(&once);
        let times = count.div_ceil(once.numel()) as i64;
        let values = once.repeat([times]).slice(0, 0, count as i64, 1);
        tensor.copy_(&values.view(shape.as_slice()));
    }
}

fn pictures(count: i64, size: i64) -> Tensor {
    common::waves(count, size).to_kind(Kind::Float)
}

fn norm(tensor: &Tensor) -> f64 {
    f64::try_from(tensor.to_kind(Kind::Double).norm()).unwrap()
}

/// How far apart they are, relative to the expected length: of the first values and of the norms.
fn off(found: &Tensor, expected: &Summary) -> f64 {
    let head = Tensor::from_slice(&expected.head);
    let first = found.detach().flatten(0, -1).slice(0, 0, expected.head.len() as i64, 1);
    let heads = norm(&(first - &head)) / norm(&head);
    heads.max((norm(found) / expected.norm - 1.0).abs())
}

/// The network's own output: its classifier's, or the vector that one without ends in.
fn output(backbone: &Backbone, xs: &Tensor, mode: Mode) -> Logits {
    match backbone.architecture.info().classifier {
        [] => Logits { classes: backbone.map_from(0, xs, mode), auxiliary: None },
        _ => backbone.logits(xs, mode).unwrap(),
    }
}

fn weighted(xs: &Tensor) -> Tensor {
    let weight = Tensor::arange(xs.numel() as i64, (Kind::Double, Device::Cpu)).cos();
    (xs * weight.to_kind(xs.kind()).view_as(xs)).sum(xs.kind())
}

/// Turns all weights and statistics to float64, as PyTorch's `model.double()`.
fn double(backbone: &Backbone) {
    for param in backbone.params.iter().filter(|param| param.tensor.kind() == Kind::Float) {
        let wide = param.tensor.detach().to_kind(Kind::Double);
        param.tensor.shallow_clone().set_data(&wide);
    }
}

/// The first values follow the law that PyTorch draws from: their deviation tells.
fn compare_initial(backbone: &Backbone, model: &Model) {
    for (key, expected) in &model.initial {
        let param = backbone.params.iter().find(|param| param.name == *key).unwrap();
        let found = f64::try_from(param.tensor.to_kind(Kind::Double).std(true)).unwrap();
        // 500 values and more: a deviation is known to 3 %, twice.
        assert!(
            (found - expected).abs() <= 0.12 * expected,
            "{}: {key} starts with a deviation of {found}, PyTorch's with {expected}",
            model.name
        );
    }
}

/// Holds a value of a case against the script's, relative to its length.
struct Judge<'a> {
    what: String,
    case: &'a Case,
}

impl Judge<'_> {
    fn near(&self, thing: &str, off: f64, bound: f64) {
        let what = &self.what;
        assert!(off < bound, "{what}: {thing} off by {off:e}, bound {bound:e}");
    }

    fn mode(&self) -> Mode {
        Mode { dropout: false, batch_statistics: self.case.train }
    }

    /// Float32, in eval mode: the outputs within 1e-5.
    fn outputs(&self, backbone: &Backbone) {
        let xs = pictures(self.case.batch, self.case.size);
        let embedding = backbone.embed(&xs, self.mode());
        assert_eq!(embedding.size(), [self.case.batch, backbone.embedding_dim], "{}", self.what);
        self.near("embedding", off(&embedding, &self.case.embedding), 1e-5);
        let logits = output(backbone, &xs, self.mode());
        self.near("logits", off(&logits.classes, &self.case.logits), 1e-5);
        assert!(logits.auxiliary.is_none(), "{}: an auxiliary head in eval mode", self.what);
    }

    /// Float64: outputs, gradients and running statistics within 1e-9.
    fn gradients(&self, backbone: &Backbone, first: &Summary, all: f64) {
        let xs = pictures(self.case.batch, self.case.size).to_kind(Kind::Double);
        let Logits { classes, auxiliary } = output(backbone, &xs, self.mode());
        self.near("logits", off(&classes, &self.case.logits), 1e-9);
        let mut loss = weighted(&classes);
        assert_eq!(auxiliary.is_some(), self.case.auxiliary.is_some(), "{}", self.what);
        if let Some((found, expected)) = auxiliary.as_ref().zip(self.case.auxiliary.as_ref()) {
            self.near("auxiliary logits", off(found, expected), 1e-9);
            loss += weighted(found) * 0.4;
        }
        for (_, tensor) in backbone.params.trainable() {
            let mut gradient = tensor.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
        loss.backward();
        let found: Vec<Tensor> = backbone
            .params
            .trainable()
            .into_iter()
            .map(|(_, tensor)| tensor.grad())
            .filter(Tensor::defined)
            .collect();
        self.near("first gradient", off(&found[0], first), 1e-9);
        let length = found.iter().map(|gradient| norm(gradient).powi(2)).sum::<f64>().sqrt();
        self.near("norm of all gradients", (length / all - 1.0).abs(), 1e-9);
        if let Some(expected) = self.case.statistics {
            let square = |name: &str, tensor: &Tensor| {
                let counts = name.ends_with("running_mean") || name.ends_with("running_var");
                if counts { norm(tensor).powi(2) } else { 0.0 }
            };
            let found: f64 = backbone.params.iter().map(|p| square(&p.name, &p.tensor)).sum();
            self.near("running statistics", (found.sqrt() / expected - 1.0).abs(), 1e-9);
        }
    }
}

/// One test walks all, one after the other: a VGG with its classifier takes half a gigabyte.
#[test]
fn every_architecture_computes_what_pytorch_computes() {
    let golden = golden();
    let models: Vec<Model> = golden.models.into_iter().chain(arcface()).collect();
    assert_eq!(
        models.len() + 2,
        Architecture::ALL.len(),
        "openface and dlib-resnet have their own tests"
    );
    for model in models {
        let architecture = named(&model.name);
        let info = architecture.info();
        let classes = (!info.classifier.is_empty()).then_some(1000);
        let options = BuildOptions { classes, ..BuildOptions::default() };
        tch::manual_seed(1);
        let backbone = Backbone::build(architecture, Device::Cpu, &options).unwrap();
        compare_initial(&backbone, &model);
        fill(&backbone);
        let keys: Vec<String> = backbone
            .params
            .iter()
            .map(|param| format!("{} {:?}\n", param.name, param.tensor.size()))
            .collect();
        assert_eq!(keys.len(), model.keys, "{}", model.name);
        let sum: String =
            Sha256::digest(keys.concat()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, model.keys_sha256, "{}: other keys, order or shapes", model.name);
        assert_eq!(backbone.params.parameter_count(), model.parameters, "{}", model.name);
        assert_eq!(info.parameters, model.trunk_parameters, "{}", model.name);
        let published = model.trunk_multiply_adds / 1e9;
        assert!((info.gflops - published).abs() <= 0.005, "{}: {published}", model.name);
        let judges = model.cases.iter().map(|case| {
            let Case { batch, size, train, .. } = case;
            let what = format!("{}, batch {batch}, {size} pixels, train {train}", model.name);
            Judge { what, case }
        });
        let judges: Vec<_> = judges.collect();
        tch::no_grad(|| {
            judges.iter().filter(|judge| !judge.case.train).for_each(|j| j.outputs(&backbone));
        });
        if model.cases.iter().all(|case| case.gradients.is_none()) {
            continue;
        }
        double(&backbone);
        for judge in &judges {
            let gradients = judge.case.first_gradient.as_ref().zip(judge.case.gradients);
            if let Some((first, all)) = gradients {
                judge.gradients(&backbone, first, all);
            }
        }
    }
    let found = Architecture::OpenFace.info().gflops;
    assert!((found - golden.openface_multiply_adds / 1e9).abs() <= 0.005, "openface: {found}");
}

#[test]
fn pooling_has_pytorchs_switches() {
    let values: Vec<f32> = noise(0, 36).into_iter().map(|u| u as f32).collect();
    let xs = Tensor::from_slice(&values).view([1, 1, 6, 6]);
    for case in golden().pooling {
        let mut window = Window::new(case.kernel, case.stride).padding(case.padding);
        if case.ceil {
            window = window.ceil();
        }
        let flat = |tensor: Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
        assert_eq!(flat(max_pool(&xs, window)), case.max, "{window:?}");
        let means = flat(avg_pool(&xs, window));
        assert_eq!(means.len(), case.mean.len(), "{window:?}");
        for (found, expected) in means.iter().zip(&case.mean) {
            assert!((found - expected).abs() < 1e-6, "{window:?}: {found}, not {expected}");
        }
    }
}

/// A small size that the architecture can take.
fn small(architecture: Architecture) -> i64 {
    match architecture.info().input_sizes {
        InputSizes::Only(side) | InputSizes::From(side) => i64::from(side),
    }
}

#[test]
fn every_architecture_keeps_the_promises_of_a_backbone() {
    // IResNet takes one size only, and iresnet18 has every layer of the deeper ones.
    let deep = [Architecture::IResNet34, Architecture::IResNet50, Architecture::IResNet100];
    for architecture in Architecture::ALL.into_iter().filter(|one| !deep.contains(one)) {
        let (name, side) = (architecture.name(), small(architecture));
        tch::manual_seed(5);
        let mut backbone = Backbone::new(architecture, Device::Cpu);
        assert_eq!(backbone.params.parameter_count(), architecture.info().parameters, "{name}");
        assert!(backbone.set_input_size(side as u32 - 1).is_err(), "{name}");
        backbone.set_input_size(side as u32).unwrap();

        let xs = pictures(3, side);
        let three = backbone.embed(&xs, Mode::EVAL);
        assert_eq!(three.size(), [3, backbone.embedding_dim], "{name}");
        let lengths = Vec::<f32>::try_from(three.square().sum_dim_intlist(1, false, None)).unwrap();
        assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-3), "{name}: {lengths:?}");
        // A picture's embedding does not depend on its company.
        let one = tch::no_grad(|| backbone.embed(&xs.slice(0, 1, 2, 1), Mode::EVAL));
        let apart = norm(&(one - three.slice(0, 1, 2, 1)));
        assert!(apart < 1e-5, "{name}: {apart:e} apart alone and in a batch");

        weighted(&three).backward();
        for (key, tensor) in backbone.params.trainable() {
            let gradient = tensor.grad();
            assert!(gradient.defined(), "{name}: {key} has no gradient");
            let length = norm(&gradient);
            assert!(length.is_finite() && length > 0.0, "{name}: {key} has gradient {length}");
        }

        // The stages are the whole trunk, in order; cut anywhere it computes the same.
        let blocks: Vec<_> =
            backbone.stages().iter().flat_map(|stage| stage.blocks.clone()).collect();
        assert_eq!(blocks, backbone.params.blocks(), "{name}");
        let half = backbone.stages().len() / 2;
        for stage in &backbone.stages()[..half] {
            backbone.params.freeze(&stage.blocks).unwrap();
        }
        assert_eq!(backbone.frozen_stages(), half, "{name}");
        let maps = backbone.maps(&xs, half, Mode::EVAL);
        let cut = backbone.embed_from(half, &maps, Mode::EVAL);
        assert!(!maps.requires_grad() && cut.equal(&three), "{name}: cut in two, another answer");
        // A frozen stage rests in training, another does not.
        let means = || -> Vec<f64> {
            let buffers = backbone.params.iter().filter(|p| p.name.ends_with("running_mean"));
            buffers.map(|buffer| norm(&buffer.tensor)).collect()
        };
        let before = means();
        let _ = backbone.embed(&pictures(4, side), Mode::TRAIN);
        let moved: Vec<_> = before.iter().zip(means()).map(|(a, b)| *a != b).collect();
        if let (Some(first), Some(last)) = (moved.first(), moved.last()) {
            assert!(!first && *last, "{name}: running means that moved: {moved:?}");
        }
    }
}

#[test]
fn grey_pictures_are_three_equal_channels() {
    let backbone = Backbone::new(named("densenet121"), Device::Cpu);
    let grey = pictures(2, 64).slice(1, 0, 1, 1);
    let rgb = grey.repeat([1, 3, 1, 1]);
    let (one, three) = (backbone.embed(&grey, Mode::EVAL), backbone.embed(&rgb, Mode::EVAL));
    assert!(one.equal(&three));
}

#[test]
fn an_embedding_layer_goes_on_top_of_any_trunk() {
    for name in ["openface", "vgg11", "inception-v3"] {
        let architecture = named(name);
        let options = BuildOptions { embedding_dim: Some(24), ..BuildOptions::default() };
        let backbone = Backbone::build(architecture, Device::Cpu, &options).unwrap();
        let embedding = backbone.embed(&pictures(2, small(architecture)), Mode::EVAL);
        assert_eq!((embedding.size(), backbone.embedding_dim), (vec![2, 24], 24), "{name}");
        let length = norm(&embedding.slice(0, 0, 1, 1));
        assert!((length - 1.0).abs() < 1e-5, "{name}: length {length}");
        let last: Vec<_> =
            backbone.params.iter().map(|p| (p.name.as_str(), p.tensor.size())).collect();
        let trunk = architecture.info().embedding_dim;
        assert_eq!(last[last.len() - 2], ("embedding.weight", vec![24, trunk]), "{name}");
        assert_eq!(last[last.len() - 1], ("embedding.bias", vec![24]), "{name}");
    }
}

#[test]
fn what_cannot_be_built_or_fed_is_said_in_words() {
    let build = |name: &str, classes, embedding_dim| {
        let options = BuildOptions { classes, embedding_dim };
        Backbone::build(named(name), Device::Cpu, &options)
    };
    for (error, parts) in [
        (build("openface", Some(10), None).unwrap_err(), ["openface", "no classifier"]),
        (build("vgg16", Some(0), None).unwrap_err(), ["classes of vgg16 is 0", "from 1"]),
        (build("vgg16", None, Some(-3)).unwrap_err(), ["--embedding-dim", "-3"]),
        (build("vgg16", None, Some(i64::MAX)).unwrap_err(), ["--embedding-dim", "1000000"]),
    ] {
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let backbone = build("vgg11", None, None).unwrap();
    let refused = |shape: &[i64]| {
        let xs = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        backbone.logits(&xs, Mode::EVAL).unwrap_err().to_string()
    };
    assert!(refused(&[1, 3, 64, 64]).contains("built without its classifier"));
    assert!(refused(&[1, 3, 64, 31]).contains("at least 32x32"));
    assert!(refused(&[1, 4, 64, 64]).contains("[1, 4, 64, 64]"));
}

#[test]
fn blocks_are_what_freeze_takes() {
    for (name, first, some) in [
        ("vgg16", "features.0", "features.28"),
        ("densenet121", "features.conv0", "features.transition2"),
        ("inception-v3", "Conv2d_1a_3x3", "Mixed_6e"),
        ("facenet", "conv2d_1a", "repeat_2"),
        ("iresnet18", "conv1", "features"),
        ("mobilefacenet", "layers.0", "features.layers"),
    ] {
        let backbone = Backbone::new(named(name), Device::Cpu);
        let blocks = backbone.params.blocks();
        assert_eq!(blocks[0], first, "{name}");
        assert!(blocks.contains(&some.to_owned()), "{name}: {blocks:?}");
        // Together the blocks are the whole trunk.
        backbone.params.freeze(&blocks).unwrap();
        assert!(backbone.params.trainable().is_empty(), "{name}");
    }
}
