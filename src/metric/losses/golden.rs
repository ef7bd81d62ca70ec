//! Every loss against PyTorch and pytorch-metric-learning, in float64 and in float32.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::*;
use crate::metric::distance_kind::DistanceKind;
use crate::metric::miners::Tuples;
use crate::metric::named::Named;
use crate::metric::pair::PairLabels;
use crate::metric::testing::values;
use crate::verdict::Verdict;

/// Embeddings, labels and cases: `tests/golden/NAME.json`, made by the script of the same name.
pub(super) struct Golden(Value);

impl Golden {
    pub fn read(name: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    }

    fn matrix(&self, name: &str, kind: Kind) -> Tensor {
        let matrix = Tensor::from_slice(&Self::numbers(&self.0[name])).view([-1, 5]);
        matrix.to_kind(kind).set_requires_grad(true)
    }

    pub fn labels(&self) -> Tensor {
        Tensor::from_slice(&Self::numbers(&self.0["labels"])).to_kind(Kind::Int64)
    }

    /// Value and gradients are the golden ones; `loss` gets embeddings and class centres.
    pub fn check(&self, name: &str, loss: &dyn Fn(&Tensor, &Tensor) -> LossOutput) {
        let case = &self.0[name];
        assert!(case.is_object(), "no golden case {name}");
        for (kind, tolerance) in [(Kind::Double, 1e-8), (Kind::Float, 1e-5)] {
            let x = self.matrix("embeddings", kind);
            let weight = if self.0["weight"].is_array() { "weight" } else { "embeddings" };
            let weight = self.matrix(weight, kind);
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

#[test]
fn pairs() {
    let golden = Golden::read("metric_losses");
    let verdict = |&one: &f64| if one == 1.0 { Verdict::Different } else { Verdict::Same };
    let verdicts: Vec<Verdict> =
        Golden::numbers(&golden.0["different"]).iter().map(verdict).collect();
    let labels = PairLabels::new(&verdicts);
    let loss = ContrastiveLoss { margin: 4.0, eps: 1e-7, ..Default::default() };
    golden.check("contrastive", &|x, _| {
        let [a, b, _] = thirds(x);
        loss.forward(&a, &b, &labels)
    });
    for (name, high_means) in [("bce_same", Verdict::Same), ("bce_different", Verdict::Different)] {
        let loss = PairBceLoss { high_means, ..Default::default() };
        golden.check(name, &|x, _| {
            let [a, b, _] = thirds(x);
            loss.forward(&(a * b).sum_dim_intlist([1i64].as_slice(), false, None), &labels)
        });
    }
}

#[test]
fn explicit_triplets() {
    let golden = Golden::read("metric_losses");
    let over = |loss: TripletMarginLoss, x: &Tensor| {
        let [a, p, n] = thirds(x);
        loss.forward_rows(&a, &p, &n)
    };
    golden.check("passport", &|x, _| over(TripletMarginLoss::passport(), x));
    for &distance in DistanceKind::ALL {
        for &hinge in Hinge::ALL {
            let loss = TripletMarginLoss { distance, hinge, margin: 0.4, ..Default::default() };
            golden.check(&format!("rows {distance} {hinge}"), &|x, _| over(loss, x));
        }
    }
}

#[test]
fn every_triplet_of_a_batch() {
    let golden = Golden::read("metric_losses");
    let labels = golden.labels();
    for &distance in &DistanceKind::ALL[..3] {
        for &hinge in Hinge::ALL {
            for &reduction in Reduction::ALL {
                let loss = TripletMarginLoss { distance, hinge, margin: 0.4, reduction };
                let name = format!("batch {distance} {hinge} {reduction}");
                golden.check(&name, &|x, _| {
                    loss.forward_distances(&distance.pairwise(x), &labels, &Tuples::All)
                });
            }
        }
    }
}

#[test]
fn embeddings_and_labels() {
    let golden = Golden::read("metric_losses");
    let labels = golden.labels();
    for (name, epsilon) in [("mined", Some(0.1)), ("all", None)] {
        let loss = MultiSimilarityLoss { epsilon, ..Default::default() };
        let name = format!("multi-similarity {name}");
        golden.check(&name, &|x, _| loss.forward(x, &labels, &Tuples::All));
    }
    for temperature in [0.07, 0.5] {
        let loss = NtXentLoss { temperature, ..Default::default() };
        golden.check(&format!("nt-xent {temperature}"), &|x, _| {
            loss.forward(x, &labels, &Tuples::All)
        });
    }
    for temperature in [0.1, 0.5] {
        let loss = SupConLoss { temperature, reduction: Reduction::Active };
        golden.check(&format!("supcon {temperature}"), &|x, _| {
            loss.forward(x, &labels, &Tuples::All)
        });
    }
}

#[test]
fn heads() {
    let golden = Golden::read("metric_losses");
    let labels = golden.labels();
    let heads = [arcface, cosface] as [fn(Tensor) -> MarginSoftmaxLoss; 2];
    for (name, build) in ["arcface", "cosface"].into_iter().zip(heads) {
        for scale in [8.0, 64.0] {
            golden.check(&format!("{name} {scale}"), &|x, weight| {
                let mut head = build(weight.shallow_clone());
                head.scale = scale;
                head.forward(x, &labels, &Tuples::All)
            });
        }
    }
}
