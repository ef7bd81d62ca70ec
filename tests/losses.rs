//! Losses, heads and schedules as a training loop meets them: with parameters in the book that
//! optimisers and files work on, and on the way down.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use clap::ValueEnum;
use tch::{Device, Kind, Tensor};
use visage::metric::losses::{
    ContrastiveLoss, Loss, LossKind, LossOptions, LossOutput, LossShape, MarginSoftmaxLoss,
    TripletMarginLoss, arcface, cosface,
};
use visage::metric::{DistanceKind, Named, PairLabels, Tuples};
use visage::models::params::Params;
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind};
use visage::train::schedule::{Schedule, ScheduleKind};

const PEOPLE: i64 = 4;
const PICTURES: i64 = 6;

/// Pictures `[24, 8]` of four people, crowded together, and who is on them.
fn pictures() -> (Tensor, Tensor) {
    let options = (Kind::Float, Device::Cpu);
    let people = Tensor::arange(PEOPLE, (Kind::Int64, Device::Cpu)).repeat([PICTURES]);
    let place = Tensor::arange(PEOPLE * PICTURES * 8, options);
    let noise = (place * 12.9898).sin().view([-1, 8]);
    let face = Tensor::arange(PEOPLE * 8, options).square().cos().view([PEOPLE, 8]);
    (face.index_select(0, &people) * 0.5 + noise * 0.4 + 1.0, people)
}

/// Trains a linear map of the pictures; `head` may register more. Returns the first and last loss.
fn train<H>(
    schedule: Schedule,
    kind: OptimizerKind,
    head: impl Fn(&visage::models::params::Scope) -> H,
    loss: impl Fn(&H, &Tensor, &Tensor) -> LossOutput,
) -> (f64, f64, H, Params) {
    let (x, people) = pictures();
    let start = Tensor::eye(8, (Kind::Float, Device::Cpu)).narrow(0, 0, 5);
    let ((map, head), params) = Params::collect(Device::Cpu, |root| {
        (root.parameter("map", start), head(&root.sub("head")))
    });
    let config = OptimizerConfig::new(kind);
    let mut optimizer = Optimizer::new(config, params.trainable()).unwrap();
    let mut losses = Vec::new();
    for step in 0..120 {
        optimizer.zero_grad().unwrap();
        let output = loss(&head, &x.matmul(&map.tr()), &people);
        output.loss.backward();
        losses.push(output.loss.double_value(&[]));
        optimizer.step_with(schedule.rates(step, 0.03), None).unwrap();
    }
    (losses[0], losses[119], head, params)
}

#[test]
fn the_centres_of_a_margin_head_are_trained_by_the_same_optimiser() {
    let (x, people) = pictures();
    let shape = LossShape { classes: PEOPLE, dim: 5, device: Device::Cpu };
    let heads: [fn(Tensor) -> MarginSoftmaxLoss; 2] = [arcface, cosface];
    for build in heads {
        tch::manual_seed(5);
        let (first, last, head, params) = train(
            ScheduleKind::OneCycle.over(12, 10),
            OptimizerKind::Adam,
            |scope| {
                let centres = MarginSoftmaxLoss::random_centres(&shape);
                let mut head = build(scope.parameter("weight", centres));
                head.scale = 16.0;
                head
            },
            |head, x, people| head.forward(x, people, &Tuples::All),
        );
        assert!(last < 0.2 * first, "{head:?}: {first} to {last}");
        let names: Vec<String> = params.trainable().into_iter().map(|entry| entry.0).collect();
        assert_eq!(names, ["map", "head.weight"]);
        let map = &params.iter().next().unwrap().tensor;
        let best = head.cosines(&x.matmul(&map.tr())).argmax(1, false);
        let right = best.eq_tensor(&people).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(right, PEOPLE * PICTURES, "{head:?}");
    }
}

#[test]
fn every_schedule_with_every_loss_goes_down() {
    for schedule in ScheduleKind::value_variants() {
        for kind in LossKind::ALL.iter() {
            let shape = LossShape { classes: PEOPLE, dim: 5, device: Device::Cpu };
            tch::manual_seed(5);
            let loss = (kind.build)(&LossOptions::default(), &shape);
            let (first, last, ..) = train(
                schedule.over(12, 10),
                OptimizerKind::Adam,
                |_| (),
                |(), x, people| loss.forward(x, people, &Tuples::All),
            );
            assert!(last < 0.8 * first, "{schedule:?}, {kind}: {first} to {last}");
        }
    }
}

#[test]
fn pairs_and_triplets_go_down_with_a_cycling_momentum() {
    let schedule = ScheduleKind::Triangular2.over(12, 10);
    let contrastive = ContrastiveLoss { margin: 2.0, ..Default::default() };
    let (first, last, ..) = train(
        schedule,
        OptimizerKind::Sgd,
        |_| (),
        |(), x, people| {
            // Each picture with the next of the same person and with one of somebody else.
            let [of_same, of_other] = [PEOPLE, 1]
                .map(|by| (x.roll(by, 0), PairLabels::of_identities(people, &people.roll(by, 0))));
            let same = contrastive.forward(x, &of_same.0, &of_same.1).loss;
            let mut output = contrastive.forward(x, &of_other.0, &of_other.1);
            output.loss += same;
            output
        },
    );
    assert!(last < 0.8 * first, "contrastive: {first} to {last}");
    for &distance in DistanceKind::ALL {
        let loss = TripletMarginLoss { distance, ..TripletMarginLoss::passport() };
        let (first, last, ..) = train(
            schedule,
            OptimizerKind::Sgd,
            |_| (),
            |(), x, people| loss.forward(x, people, &Tuples::All),
        );
        assert!(last < 0.8 * first, "{distance}: {first} to {last}");
    }
}
