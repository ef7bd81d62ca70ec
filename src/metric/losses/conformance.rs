//! What every loss must do, whatever it computes: one row of [`every_loss`] each.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::metric::miners::Selection;
use crate::metric::testing::values;
use crate::metric::{Measure, Miner, PairLabels};
use crate::native::with_cpu_autocast;

type Loss = Box<dyn Fn(&Tensor, &Tensor) -> LossOutput>;

/// A loss as a function of embeddings `[B, 3]` and labels below 3, and whether one picture alone is
/// something to learn from.
struct Row {
    name: String,
    loss: Loss,
    alone: bool,
}

fn every_loss() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: String, alone: bool, loss: Loss| rows.push(Row { name, loss, alone });
    for reduction in [Reduction::Mean, Reduction::Active] {
        for miner in [Miner::Random, Miner::BatchHard, Miner::SemiHard, Miner::BatchAll] {
            for measure in Measure::value_variants() {
                for hinge in Hinge::value_variants() {
                    let (measure, hinge) = (*measure, *hinge);
                    let loss = TripletObjective { measure, hinge, margin: 0.9, reduction };
                    add(
                        format!("{loss:?} {miner:?}"),
                        false,
                        Box::new(move |x, labels| {
                            let distances = measure.pairwise(x);
                            let selection = miner.mine(&distances, labels, loss.margin, 3);
                            loss.over(&selection, &distances, labels)
                        }),
                    );
                    add(
                        format!("{loss:?} rows"),
                        false,
                        Box::new(move |x, labels| {
                            let Selection::Triplets(t) =
                                Miner::Random.mine(&measure.pairwise(x), labels, 0.9, 3)
                            else {
                                unreachable!()
                            };
                            let [a, p, n] = [&t.anchor, &t.positive, &t.negative]
                                .map(|rows| x.index_select(0, rows));
                            loss.over_rows(&a, &p, &n)
                        }),
                    );
                }
            }
        }
        let contrastive = ContrastiveLoss { margin: 2.0, reduction, ..Default::default() };
        add(
            format!("{contrastive:?}"),
            false,
            Box::new(move |x, labels| {
                let (a, b, labels) = neighbours(x, labels);
                contrastive.over(&a, &b, &labels)
            }),
        );
        let bce = PairBceLoss { reduction, ..Default::default() };
        add(
            format!("{bce:?}"),
            false,
            Box::new(move |x, labels| {
                let (a, b, labels) = neighbours(x, labels);
                bce.over(&(a * b).sum_dim_intlist([1i64].as_slice(), false, None), &labels)
            }),
        );
        for mining in [Some(0.1), None] {
            let loss = MultiSimilarityLoss { mining, reduction, ..Default::default() };
            add(format!("{loss:?}"), false, Box::new(move |x, labels| loss.over(x, labels)));
        }
        for loss in BatchLoss::value_variants() {
            let name = format!("{loss:?} {reduction:?}");
            add(name, false, Box::new(move |x, labels| loss.over(x, labels, reduction)));
        }
        for kind in MarginKind::value_variants() {
            add(
                format!("{kind:?} {reduction:?}"),
                true,
                Box::new(move |x, labels| {
                    let centres = [[1.0f32, 0.5, 0.0], [-0.3, 1.0, 0.2], [0.1, -0.2, 1.0]];
                    let centres = Tensor::from_slice2(&centres).to_kind(x.kind());
                    let mut head = MarginHead::new(*kind, centres);
                    (head.scale, head.reduction) = (8.0, reduction);
                    head.over(x, labels)
                }),
            );
        }
    }
    rows
}

/// Each picture and the next one.
fn neighbours(x: &Tensor, labels: &Tensor) -> (Tensor, Tensor, PairLabels) {
    let pairs = (x.size()[0] - 1).max(0);
    let from = x.size()[0] - pairs;
    let identities =
        PairLabels::of_identities(&labels.narrow(0, 0, pairs), &labels.narrow(0, from, pairs));
    (x.narrow(0, 0, pairs), x.narrow(0, from, pairs), identities)
}

/// Value and gradient.
fn run(loss: &Loss, x: &Tensor, labels: &[i64]) -> (f64, Vec<f64>) {
    let x = x.copy().set_requires_grad(true);
    let output = loss(&x, &Tensor::from_slice(labels));
    assert_eq!((output.loss.dim(), output.loss.kind()), (0, x.kind()));
    assert!(output.active.int64_value(&[]) <= output.tuples.int64_value(&[]));
    output.loss.backward();
    (output.loss.double_value(&[]), values(&x.grad()))
}

/// Six pictures in general position: two of identity 0, three of 1, one of 2.
fn six(kind: Kind) -> (Tensor, [i64; 6]) {
    let x = [
        [0.31, -0.22, 0.73],
        [-0.41, 0.52, 0.11],
        [0.12, 0.63, -0.35],
        [0.91, 0.14, 0.28],
        [-0.17, -0.84, 0.46],
        [0.55, 0.37, -0.66],
    ];
    (Tensor::from_slice2(&x).to_kind(kind), [0, 1, 0, 1, 2, 1])
}

#[test]
fn a_gradient_reaches_the_embeddings_and_a_second_call_repeats_it() {
    let (x, labels) = six(Kind::Float);
    for Row { name, loss, .. } in every_loss() {
        let (value, gradient) = run(&loss, &x, &labels);
        assert!(value.is_finite() && value > 0.0, "{name}: {value}");
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        assert!(gradient.iter().any(|&g| g != 0.0), "{name}");
        assert_eq!(run(&loss, &x, &labels), (value, gradient), "{name}");
    }
}

#[test]
fn batches_of_none_one_and_three_and_of_one_identity_are_finite() {
    for Row { name, loss, alone } in every_loss() {
        for (labels, empty) in [
            (&[][..], true),
            (&[2], !alone),
            (&[1, 1, 0], false),
            (&[0, 0, 0], false),
            (&[0, 1, 2], false),
        ] {
            let x = six(Kind::Float).0.narrow(0, 0, labels.len() as i64);
            let (value, gradient) = run(&loss, &x, labels);
            assert!(value.is_finite() && value >= 0.0, "{name}, {labels:?}: {value}");
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}, {labels:?}");
            if empty {
                assert_eq!(value, 0.0, "{name}, {labels:?}");
                assert!(gradient.iter().all(|&g| g == 0.0), "{name}, {labels:?}");
            }
        }
    }
}

#[test]
fn equal_embeddings_and_zeros_have_finite_gradients() {
    for value in [0.0, 0.4] {
        let x = Tensor::full([6, 3], value, (Kind::Float, Device::Cpu));
        for Row { name, loss, .. } in every_loss() {
            let (value, gradient) = run(&loss, &x, &six(Kind::Float).1);
            assert!(value.is_finite(), "{name}: {value}");
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}: {gradient:?}");
        }
    }
}

#[test]
fn sixteen_bit_embeddings_give_a_float32_loss() {
    let (x, labels) = six(Kind::BFloat16);
    for Row { name, loss, .. } in every_loss() {
        let output = loss(&x, &Tensor::from_slice(&labels));
        assert_eq!(output.loss.kind(), Kind::Float, "{name}");
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (x, labels) = six(Kind::Double);
    let step = 1e-6;
    for Row { name, loss, .. } in every_loss() {
        let (_, gradient) = run(&loss, &x, &labels);
        for (place, found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let x = x.copy();
                let _ = x.view([-1]).get(place as i64).g_add_scalar_(by);
                run(&loss, &x, &labels).0
            };
            let wanted = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((found - wanted).abs() < 1e-6, "{name}, {place}: {found}, {wanted}");
        }
    }
}

#[test]
fn autocast_changes_nothing() {
    let (x, labels) = six(Kind::Float);
    let labels = Tensor::from_slice(&labels);
    for Row { name, loss, .. } in every_loss() {
        let plain = loss(&x, &labels).loss.double_value(&[]);
        let within = with_cpu_autocast(|| loss(&x, &labels));
        assert_eq!(within.loss.kind(), Kind::Float, "{name}");
        assert_eq!(within.loss.double_value(&[]), plain, "{name}");
    }
}

#[test]
fn large_batches_need_memory_for_pairs_and_not_for_triplets() {
    // 2048^3 numbers would be 34 GB.
    let size = 2048;
    let x = Tensor::arange(size, (Kind::Float, Device::Cpu)).view([size, 1]) * 0.001;
    let x = Tensor::cat(&[x.sin(), x.cos()], 1);
    let labels = Tensor::arange(size, (Kind::Int64, Device::Cpu)).remainder(2);
    for loss in BatchLoss::value_variants() {
        let x = x.copy().set_requires_grad(true);
        loss.over(&x, &labels, Reduction::Mean).loss.backward();
        assert!(values(&x.grad()).iter().all(|g| g.is_finite()), "{loss:?}");
    }
}
