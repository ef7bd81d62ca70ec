//! The trunk against PyTorch: `tests/golden/openface.py` made the numbers.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use visage::models::{Architecture, Backbone, Compute, Mode};
use visage::native::Half;
use visage::weights::Source;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    batch: i64,
    train: bool,
    embedding: Vec<f32>,
    layer1_grad_norm: f64,
    layer1_grad_head: Vec<f32>,
    bn_mean_after: Vec<f32>,
}

fn pictures(count: i64) -> Tensor {
    common::waves(count, 96).to_kind(Kind::Float)
}

fn pretrained() -> Backbone {
    let backbone = Backbone::new(Architecture::OpenFace, Device::Cpu);
    let source = Source::resolve(None, Architecture::OpenFace).unwrap();
    source.load_into(&backbone).unwrap();
    backbone
}

fn tensor<'a>(backbone: &'a Backbone, name: &str) -> &'a Tensor {
    &backbone.params.iter().find(|param| param.name == name).unwrap().tensor
}

fn relative(found: &Tensor, expected: &[f32]) -> f64 {
    let expected = Tensor::from_slice(expected).view_as(found);
    let distance = f64::try_from((found - &expected).norm()).unwrap();
    distance / f64::try_from(expected.norm()).unwrap()
}

#[test]
fn forward_gradient_and_statistics_agree_with_pytorch() {
    let golden: Golden =
        serde_json::from_str(include_str!("golden/openface.json")).expect("golden file");
    for case in golden.cases {
        let what = format!("batch {}, train {}", case.batch, case.train);
        let backbone = pretrained();
        let mode = if case.train { Mode::TRAIN } else { Mode::EVAL };
        let embedding = backbone.embed(&pictures(case.batch), mode);
        assert_eq!(embedding.size(), [case.batch, 128], "{what}");
        let off = relative(&embedding, &case.embedding);
        assert!(off < 1e-5, "{what}: embedding off by {off:e}");

        let mean = tensor(&backbone, "layer2.running_mean").slice(0, 0, 8, 1);
        let off = relative(&mean, &case.bn_mean_after);
        assert!(off < 1e-5, "{what}: running mean off by {off:e}");

        // Gradients are compared in float64: in float32 the order of a sum, which depends on the
        // processor and the number of threads, decides whether a ReLU near zero lets its gradient
        // through, here and in PyTorch.
        let backbone = pretrained();
        for param in backbone.params.iter() {
            let double = param.tensor.detach().to_kind(Kind::Double);
            param.tensor.shallow_clone().set_data(&double);
        }
        let embedding = backbone.embed(&pictures(case.batch).to_kind(Kind::Double), mode);
        let weight = Tensor::arange(128, (Kind::Double, Device::Cpu)).cos();
        (&embedding * weight).sum(Kind::Double).backward();
        let gradient = tensor(&backbone, "layer1.weight").grad();
        assert_eq!(gradient.kind(), Kind::Double, "{what}");
        let norm = f64::try_from(gradient.norm()).unwrap();
        let off = (norm / case.layer1_grad_norm - 1.0).abs();
        assert!(off < 1e-5, "{what}: gradient norm off by {off:e}");
        let off = relative(&gradient.flatten(0, -1).slice(0, 0, 24, 1), &case.layer1_grad_head);
        assert!(off < 1e-5, "{what}: gradient off by {off:e}");
    }
}

#[test]
fn the_published_parameter_count() {
    let backbone = Backbone::new(Architecture::OpenFace, Device::Cpu);
    assert_eq!(backbone.params.parameter_count(), 3_733_968);
}

#[test]
fn black_pictures_have_finite_gradients() {
    // Behind a ReLU whole L2-pooling windows are zero: the root must not make NaN there.
    let backbone = pretrained();
    let black = Tensor::zeros([2, 3, 96, 96], (Kind::Float, Device::Cpu));
    backbone.embed(&black, Mode::EVAL).square().sum(Kind::Float).backward();
    for (name, tensor) in backbone.params.trainable() {
        let finite = tensor.grad().isfinite().all();
        assert!(bool::try_from(finite).unwrap(), "{name}: gradient is not finite");
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let backbone = pretrained();
    let weight = Tensor::arange(128, (Kind::Float, Device::Cpu)).cos();
    (backbone.embed(&pictures(3), Mode::EVAL) * weight).sum(Kind::Float).backward();
    for (name, tensor) in backbone.params.trainable() {
        let norm = f64::try_from(tensor.grad().norm()).unwrap();
        assert!(norm.is_finite() && norm > 0.0, "{name}: gradient norm {norm}");
    }
}

/// Weights stay float32 and get float32 gradients that point where float32's do.
#[test]
fn sixteen_bits_give_nearly_the_same_gradients() {
    // Fine-tuning with running statistics.
    let mode = Mode { dropout: true, batch_statistics: false };
    let gradients = |compute: Option<Compute>| {
        let mut backbone = pretrained();
        if let Some(compute) = compute {
            backbone.set_compute(compute).unwrap();
        }
        backbone.embed(&pictures(2), mode).select(1, 0).sum(Kind::Float).backward();
        let grads = backbone.params.trainable().into_iter().map(|(_, param)| param.grad());
        grads.collect::<Vec<_>>()
    };
    let plain = gradients(None);
    for (half, bound) in
        [(None, 0.99999), (Some(Half::BFloat16), 0.98), (Some(Half::Float16), 0.98)]
    {
        let found = gradients(Some(Compute::fast(half)));
        for at in [0, plain.len() - 2] {
            let (plain, found) = (&plain[at], &found[at]);
            assert_eq!((found.kind(), found.size()), (Kind::Float, plain.size()));
            let product = (plain * found).sum(Kind::Float) / (plain.norm() * found.norm());
            let cosine = product.double_value(&[]);
            assert!(cosine > bound, "{half:?}, parameter {at}: {cosine}");
        }
    }
}
