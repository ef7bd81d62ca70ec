//! Every loss against PyTorch and pytorch-metric-learning, in float64 and in float32.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::*;
use crate::metric::miners::Selection;
use crate::metric::testing::{close, values};
use crate::metric::{Measure, PairLabels};
use crate::verdict::Verdict;

struct Golden(Value);

impl Golden {
    fn read() -> Self {
        let text =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/metric_losses.json"));
        Self(serde_json::from_str(text).unwrap())
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn matrix(&self, name: &str, kind: Kind) -> Tensor {
        let matrix = Tensor::from_slice(&Self::numbers(&self.0[name])).view([-1, 5]);
        matrix.to_kind(kind).set_requires_grad(true)
    }

    fn labels(&self) -> Tensor {
        Tensor::from_slice(&Self::numbers(&self.0["labels"])).to_kind(Kind::Int64)
    }

    /// Value and gradients are the golden ones; `loss` gets embeddings and class centres.
    fn check(&self, name: &str, loss: &dyn Fn(&Tensor, &Tensor) -> LossOutput) {
        let case = &self.0[name];
        assert!(case.is_object(), "no golden case {name}");
        for (kind, tolerance) in [(Kind::Double, 1e-8), (Kind::Float, 1e-5)] {
            let x = self.matrix("embeddings", kind);
            let weight = self.matrix("weight", kind);
            let value = loss(&x, &weight).loss;
            assert_eq!(value.kind(), kind, "{name}");
            value.backward();
            let compare = |what: &str, found: &Tensor, wanted: Vec<f64>| {
                let found = values(found);
                // Relative to the largest: a scale of 64 makes large numbers.
                let size = wanted.iter().fold(1.0f64, |most, x| most.max(x.abs()));
                for (found, wanted) in found.iter().zip(&wanted) {
                    let error = (found - wanted).abs() / size;
                    assert!(error <= tolerance, "{name}, {what}, {kind:?}: {found}, {wanted}");
                }
                assert_eq!(found.len(), wanted.len());
            };
            compare("value", &value, vec![case["loss"].as_f64().unwrap()]);
            compare("gradient", &x.grad(), Self::numbers(&case["gradient"]));
            if case["weight_gradient"].is_array() {
                let wanted = Self::numbers(&case["weight_gradient"]);
                compare("centres", &weight.grad(), wanted);
            }
        }
    }
}

/// The rows of a, of p (or b), and of n.
fn thirds(x: &Tensor) -> [Tensor; 3] {
    [0, 1, 2].map(|third| x.narrow(0, third * 4, 4))
}

const MEASURES: [(&str, Measure); 4] = [
    ("squared", Measure::Squared),
    ("euclidean", Measure::Euclidean),
    ("cosine", Measure::Cosine),
    ("mean-squared", Measure::MeanSquared),
];
const HINGES: [(&str, Hinge); 2] = [("hard", Hinge::Hard), ("soft", Hinge::Soft)];
const REDUCTIONS: [(&str, Reduction); 2] =
    [("mean", Reduction::Mean), ("active", Reduction::Active)];

#[test]
fn pairs() {
    let golden = Golden::read();
    let numbers = Tensor::from_slice(&Golden::numbers(&golden.0["different"]));
    let labels = PairLabels::from_different_is_one(&numbers).unwrap();
    let loss = ContrastiveLoss { margin: 4.0, eps: 1e-7, ..Default::default() };
    golden.check("contrastive", &|x, _| {
        let [a, b, _] = thirds(x);
        loss.over(&a, &b, &labels)
    });
    for (name, high_means) in [("bce_same", Verdict::Same), ("bce_different", Verdict::Different)] {
        let loss = PairBceLoss { high_means, ..Default::default() };
        golden.check(name, &|x, _| {
            let [a, b, _] = thirds(x);
            loss.over(&(a * b).sum_dim_intlist([1i64].as_slice(), false, None), &labels)
        });
    }
}

#[test]
fn explicit_triplets() {
    let golden = Golden::read();
    let over = |loss: TripletObjective, x: &Tensor| {
        let [a, p, n] = thirds(x);
        loss.over_rows(&a, &p, &n)
    };
    golden.check("passport", &|x, _| over(TripletObjective::passport(), x));
    for (measure_name, measure) in MEASURES {
        for (hinge_name, hinge) in HINGES {
            let loss = TripletObjective { measure, hinge, margin: 0.4, ..Default::default() };
            golden.check(&format!("rows {measure_name} {hinge_name}"), &|x, _| over(loss, x));
        }
    }
}

#[test]
fn every_triplet_of_a_batch() {
    let golden = Golden::read();
    let labels = golden.labels();
    for (measure_name, measure) in &MEASURES[..3] {
        for (hinge_name, hinge) in HINGES {
            for (reduction_name, reduction) in REDUCTIONS {
                let loss = TripletObjective { measure: *measure, hinge, margin: 0.4, reduction };
                let name = format!("batch {measure_name} {hinge_name} {reduction_name}");
                golden.check(&name, &|x, _| {
                    loss.over(&Selection::All, &measure.pairwise(x), &labels)
                });
            }
        }
    }
}

#[test]
fn embeddings_and_labels() {
    let golden = Golden::read();
    let labels = golden.labels();
    for (name, mining) in [("mined", Some(0.1)), ("all", None)] {
        let loss = MultiSimilarityLoss { mining, ..Default::default() };
        let name = format!("multi-similarity {name}");
        golden.check(&name, &|x, _| loss.over(x, &labels));
    }
    for temperature in [0.07, 0.5] {
        let loss = NtXentLoss { temperature, ..Default::default() };
        golden.check(&format!("nt-xent {temperature}"), &|x, _| loss.over(x, &labels));
    }
    for temperature in [0.1, 0.5] {
        let loss = SupConLoss { temperature, reduction: Reduction::Active };
        golden.check(&format!("supcon {temperature}"), &|x, _| loss.over(x, &labels));
    }
}

#[test]
fn heads() {
    let golden = Golden::read();
    let labels = golden.labels();
    for (name, kind) in [("arcface", MarginKind::ArcFace), ("cosface", MarginKind::CosFace)] {
        for scale in [8.0, 64.0] {
            golden.check(&format!("{name} {scale}"), &|x, weight| {
                let mut head = MarginHead::new(kind, weight.shallow_clone());
                head.scale = scale;
                head.over(x, &labels)
            });
        }
    }
    close(&[MarginKind::ArcFace.default_margin()], &[28.6f64.to_radians()], 1e-3);
}
