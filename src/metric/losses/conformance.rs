//! Tests for every loss of the registry with every miner, and for the losses on pairs.

use tch::{Device, Kind, Tensor};

use super::*;
use crate::metric::distance_kind::DistanceKind;
use crate::metric::miners::{Miner, RANDOM, Tuples};
use crate::metric::named::Named;
use crate::metric::pair::PairLabels;
use crate::metric::testing::{close, values};
use crate::native::with_cpu_autocast;

type Forward = Box<dyn Fn(&Tensor, &Tensor) -> LossOutput>;

/// A loss as a function of embeddings `[B, 3]` and labels below 3.
struct Case {
    name: String,
    forward: Forward,
    /// Whether the loss has parameters, so that one embedding alone has a loss.
    has_centres: bool,
    exact_gradient: bool,
}

/// Every loss of the registry, with every miner and with every option it takes.
fn registered(miners: &[Miner]) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in LossKind::ALL {
        let takes = |option| kind.takes(option);
        let distances = &DistanceKind::ALL[..if takes(LossOption::Distance) { 4 } else { 1 }];
        let hinges = &Hinge::ALL[..if takes(LossOption::Hinge) { 2 } else { 1 }];
        for &reduction in Reduction::ALL {
            for (&distance, &hinge) in
                distances.iter().flat_map(|distance| hinges.iter().map(move |h| (distance, h)))
            {
                let margin = takes(LossOption::Miner).then_some(0.9);
                let options =
                    LossOptions { margin, distance, hinge, reduction, class_sample: None };
                for &miner in miners {
                    tch::manual_seed(4);
                    let loss = (kind.build)(&options, &shape(3));
                    assert_eq!(loss.mining().is_some(), takes(LossOption::Miner), "{kind}");
                    cases.push(Case {
                        name: format!("{kind} {miner} {options:?}"),
                        has_centres: !loss.parameters().is_empty(),
                        exact_gradient: kind.exact_gradient,
                        forward: Box::new(move |x, labels| {
                            let tuples = miner.mine(&distance.pairwise(x), labels, 0.9, 3);
                            loss.forward(x, labels, &tuples)
                        }),
                    });
                }
            }
        }
    }
    cases
}

/// Those of the registry, and the losses on explicit triplets and pairs.
fn every_loss() -> Vec<Case> {
    let mut cases = registered(Miner::ALL);
    let mut add = |name: String, forward: Forward| {
        cases.push(Case { name, forward, has_centres: false, exact_gradient: true });
    };
    for &reduction in Reduction::ALL {
        for &distance in DistanceKind::ALL {
            let loss = TripletMarginLoss { distance, margin: 0.9, reduction, ..Default::default() };
            add(
                format!("{loss:?} rows"),
                Box::new(move |x, labels| {
                    let mined = RANDOM.mine(&distance.pairwise(x), labels, 0.9, 3);
                    let Tuples::Triplets(t) = mined else { unreachable!() };
                    let [a, p, n] =
                        [&t.anchor, &t.positive, &t.negative].map(|rows| x.index_select(0, rows));
                    loss.forward_rows(&a, &p, &n)
                }),
            );
            add(
                format!("{loss:?} distances"),
                Box::new(move |x, labels| {
                    loss.forward_distances(&distance.pairwise(x), labels, &Tuples::All)
                }),
            );
        }
        let contrastive = ContrastiveLoss { margin: 2.0, reduction, ..Default::default() };
        add(
            format!("{contrastive:?}"),
            Box::new(move |x, labels| {
                let (a, b, labels) = neighbours(x, labels);
                contrastive.forward(&a, &b, &labels)
            }),
        );
        let bce = PairBceLoss { reduction, ..Default::default() };
        add(
            format!("{bce:?}"),
            Box::new(move |x, labels| {
                let (a, b, labels) = neighbours(x, labels);
                bce.forward(&(a * b).sum_dim_intlist([1i64].as_slice(), false, None), &labels)
            }),
        );
        let all_pairs = MultiSimilarityLoss { epsilon: None, reduction, ..Default::default() };
        add(
            format!("{all_pairs:?}"),
            Box::new(move |x, labels| all_pairs.forward(x, labels, &Tuples::All)),
        );
    }
    cases
}

fn shape(dim: i64) -> LossShape {
    LossShape { classes: 3, dim, device: Device::Cpu }
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
fn run(loss: &Forward, x: &Tensor, labels: &[i64]) -> (f64, Vec<f64>) {
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
    for Case { name, forward, .. } in every_loss() {
        let (value, gradient) = run(&forward, &x, &labels);
        assert!(value.is_finite() && value > 0.0, "{name}: {value}");
        assert!(gradient.iter().all(|g| g.is_finite()), "{name}");
        assert!(gradient.iter().any(|&g| g != 0.0), "{name}");
        assert_eq!(run(&forward, &x, &labels), (value, gradient), "{name}");
    }
}

#[test]
fn batches_of_none_one_and_three_and_of_one_identity_are_finite() {
    for Case { name, forward, has_centres, .. } in every_loss() {
        for (labels, empty) in [
            (&[][..], true),
            (&[2], !has_centres),
            (&[1, 1, 0], false),
            (&[0, 0, 0], false),
            (&[0, 1, 2], false),
        ] {
            let x = six(Kind::Float).0.narrow(0, 0, labels.len() as i64);
            let (value, gradient) = run(&forward, &x, labels);
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
        for Case { name, forward, .. } in every_loss() {
            let (value, gradient) = run(&forward, &x, &six(Kind::Float).1);
            assert!(value.is_finite(), "{name}: {value}");
            assert!(gradient.iter().all(|g| g.is_finite()), "{name}: {gradient:?}");
        }
    }
}

#[test]
fn sixteen_bit_embeddings_give_a_float32_loss() {
    let (x, labels) = six(Kind::BFloat16);
    for Case { name, forward, .. } in every_loss() {
        let output = forward(&x, &Tensor::from_slice(&labels));
        assert_eq!(output.loss.kind(), Kind::Float, "{name}");
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let (x, labels) = six(Kind::Double);
    let step = 1e-6;
    for Case { name, forward, .. } in every_loss().into_iter().filter(|case| case.exact_gradient) {
        let (_, gradient) = run(&forward, &x, &labels);
        for (place, found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let x = x.copy();
                let _ = x.view([-1]).get(place as i64).g_add_scalar_(by);
                run(&forward, &x, &labels).0
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
    for Case { name, forward, .. } in every_loss() {
        let plain = forward(&x, &labels).loss.double_value(&[]);
        let within = with_cpu_autocast(|| forward(&x, &labels));
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
    for kind in LossKind::ALL {
        let x = x.copy().set_requires_grad(true);
        let loss = (kind.build)(&LossOptions::default(), &shape(2));
        loss.forward(&x, &labels, &Tuples::All).loss.backward();
        assert!(values(&x.grad()).iter().all(|g| g.is_finite()), "{kind}");
    }
}

#[test]
fn tuples_of_the_first_and_of_the_other_anchors_add_up_to_all() {
    let (x, labels) = six(Kind::Double);
    let labels = Tensor::from_slice(&labels);
    for kind in LossKind::ALL.iter().filter(|kind| kind.takes(LossOption::Memory)) {
        for &reduction in Reduction::ALL {
            let options = LossOptions { margin: Some(0.9), reduction, ..LossOptions::default() };
            let loss = (kind.build)(&options, &shape(3));
            // The sum over tuples, and its gradient.
            let sum = |from: i64, anchors: Option<i64>| {
                let x = x.copy().set_requires_grad(true);
                // The anchors come first.
                let rolled = |of: &Tensor| of.roll([-from], [0]);
                let tuples = anchors.map_or(Tuples::All, Tuples::OfFirst);
                let found = loss.forward(&rolled(&x), &rolled(&labels), &tuples);
                let count = if reduction == Reduction::Mean { found.tuples } else { found.active };
                let sum = found.loss * count;
                sum.backward();
                Tensor::cat(&[sum.detach().view([1]), x.grad().view([-1])], 0)
            };
            for first in 1..6 {
                let parts = sum(0, Some(first)) + sum(first, Some(6 - first));
                close(&values(&parts), &values(&sum(0, None)), 1e-6);
            }
        }
    }
    let takers = LossKind::takers(LossOption::Memory);
    assert_eq!(takers, "triplet, multi-similarity, nt-xent, supcon, circle");
}

#[test]
fn every_parameter_has_a_name_and_a_gradient_and_follows_the_seed() {
    let (x, labels) = six(Kind::Float);
    for kind in LossKind::ALL {
        let build = |seed| {
            tch::manual_seed(seed);
            (kind.build)(&LossOptions::default(), &shape(3))
        };
        let loss = build(1);
        loss.forward(&x.copy().set_requires_grad(true), &Tensor::from_slice(&labels), &Tuples::All)
            .loss
            .backward();
        for (index, (name, parameter)) in loss.parameters().into_iter().enumerate() {
            assert!(name.contains('.') && parameter.requires_grad(), "{kind}: {name}");
            assert!(values(&parameter.grad()).iter().any(|&g| g != 0.0), "{kind}: {name}");
            assert_eq!(parameter, build(1).parameters()[index].1, "{kind}: {name}");
            assert_ne!(parameter, build(2).parameters()[index].1, "{kind}: {name}");
        }
    }
}

#[test]
fn every_loss_is_found_by_its_name_and_explained() {
    for kind in LossKind::ALL {
        assert_eq!(LossKind::by_name(kind.name), Some(*kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name);
        assert_eq!(serde_json::from_value::<LossKind>(kind.name.into()).unwrap(), *kind);
        assert!(kind.help.len() > 20, "{kind}");
        assert_eq!(kind.takes(LossOption::Margin), kind.margin.is_some(), "{kind}");
    }
    assert_eq!(LossKind::takers(LossOption::Margin), "triplet, circle, arcface, cosface");
    assert!(LossKind::default_margins().contains("0.5 radians with arcface"));
}
