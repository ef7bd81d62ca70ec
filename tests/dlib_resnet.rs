//! dlib's network against PyTorch and dlib: `tests/golden/dlib_resnet.py` made the numbers.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use visage::models::{Architecture, Backbone, Compute, Mode};
use visage::native::Half;
use visage::weights::Source;

#[derive(Deserialize)]
struct Golden {
    parameters: usize,
    multiply_adds: f64,
    cases: Vec<Case>,
    /// dlib's own descriptors of the first case's pictures.
    dlib: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Case {
    count: i64,
    size: i64,
    descriptors: Vec<Vec<f64>>,
    embeddings: Vec<Vec<f64>>,
    gradients: BTreeMap<String, f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/dlib_resnet.json")).unwrap()
}

fn pretrained() -> Backbone {
    let backbone = Backbone::new(Architecture::DlibResnet, Device::Cpu);
    let source = Source::resolve(None, Architecture::DlibResnet).unwrap();
    assert_eq!(source, Source::Named("dlib-resnet".into()));
    source.load_into(&backbone).unwrap();
    backbone
}

/// The script's pixels, divided by 255.
fn pictures(count: i64, size: i64, kind: Kind) -> Tensor {
    ((common::waves(count, size) * 255.0).round() / 255.0).to_kind(kind)
}

/// The largest difference.
fn apart(found: &Tensor, expected: &[Vec<f64>]) -> f64 {
    let expected = Tensor::from_slice(&expected.concat()).view_as(found);
    (found.to_kind(Kind::Double) - expected).abs().max().double_value(&[])
}

#[test]
fn descriptors_are_pytorchs_and_dlibs() {
    let (golden, backbone) = (golden(), pretrained());
    let info = Architecture::DlibResnet.info();
    assert_eq!(backbone.params.parameter_count(), golden.parameters);
    assert!((info.gflops - golden.multiply_adds / 1e9).abs() < 0.005, "{}", info.gflops);
    for case in &golden.cases {
        let xs = pictures(case.count, case.size, Kind::Float);
        let run = || {
            let map = backbone.map_from(0, &xs, Mode::EVAL);
            (backbone.features(&map, Mode::EVAL), backbone.embed(&xs, Mode::EVAL))
        };
        // With a graph layer by layer, without one in fused passes.
        for (features, embeddings) in [run(), tch::no_grad(run)] {
            assert!(apart(&features, &case.descriptors) < 2e-6, "{} pixels", case.size);
            assert!(apart(&embeddings, &case.embeddings) < 2e-6, "{} pixels", case.size);
            if case.size == 150 {
                // The weights here are float16, dlib's are float32.
                let away = apart(&features, &golden.dlib);
                assert!(away < 2e-4, "{away:e} from dlib's own descriptors");
            }
        }
    }
}

#[test]
fn gradients_are_pytorchs() {
    let (golden, backbone) = (golden(), pretrained());
    for param in backbone.params.iter() {
        param.tensor.shallow_clone().set_data(&param.tensor.detach().to_kind(Kind::Double));
    }
    for case in &golden.cases {
        let xs = pictures(case.count, case.size, Kind::Double);
        let map = backbone.map_from(0, &xs, Mode::TRAIN);
        let weights = Tensor::arange(128 * case.count, (Kind::Double, Device::Cpu)).cos();
        // The embedding is float32; its float64 formula is normalize's.
        let unit = visage::models::layers::normalize(&map);
        (unit * weights.view([case.count, 128])).sum(Kind::Double).backward();
        for (key, tensor) in backbone.params.trainable() {
            let found = tensor.grad().norm().double_value(&[]);
            let wanted = case.gradients[&key];
            assert!((found / wanted - 1.0).abs() < 1e-7, "{key}: {found}, PyTorch {wanted}");
            let _ = tensor.grad().zero_();
        }
    }
}

#[test]
fn bfloat16_stays_near() {
    let (golden, mut backbone) = (golden(), pretrained());
    backbone.set_compute(Compute::everywhere(Some(Half::BFloat16))).unwrap();
    let case = &golden.cases[0];
    let xs = pictures(case.count, case.size, Kind::Float);
    let away = apart(&tch::no_grad(|| backbone.embed(&xs, Mode::EVAL)), &case.embeddings);
    assert!(away > 0.0 && away < 0.02, "{away}");
}
