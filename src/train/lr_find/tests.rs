//! The range test on quadratic bowls, against torch with fastai's formulas and against theory.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::*;
use crate::train::fit_result::Scores;
use crate::train::log::RunLog;
use crate::train::optim::{OptimizerConfig, OptimizerKind};
use crate::train::step::Forward;

/// `0.5 sum(curvature w^2)`, plus what the step number adds.
struct Bowl {
    weight: Tensor,
    curvature: Tensor,
    extra: fn(usize) -> f64,
    per_epoch: usize,
    /// (epoch, index in it, batch) of every step.
    seen: Vec<(usize, usize, usize)>,
    /// The step in which a signal comes.
    stop: Option<(usize, Interrupt)>,
}

impl Bowl {
    fn new(curvature: &[f64], start: &[f64], extra: fn(usize) -> f64) -> Self {
        let row = |numbers: &[f64]| Tensor::from_slice(numbers).to_kind(Kind::Float);
        let weight = row(start).set_requires_grad(true);
        Self {
            weight,
            curvature: row(curvature),
            extra,
            per_epoch: 7,
            seen: Vec::new(),
            stop: None,
        }
    }

    fn optimizer(&self, kind: OptimizerKind, momentum: f64) -> Optimizer {
        let params = vec![("weight".to_owned(), self.weight.shallow_clone())];
        Optimizer::new(OptimizerConfig { momentum, ..OptimizerConfig::new(kind) }, params).unwrap()
    }

    fn find(mut self, kind: OptimizerKind, momentum: f64, test: &RangeTest) -> Sweep {
        let mut optimizer = self.optimizer(kind, momentum);
        lr_find(&mut self, &mut optimizer, test, None, &Reporter::hidden()).unwrap()
    }
}

impl Task for Bowl {
    fn batches(&mut self, epoch: usize) -> Result<Vec<Vec<usize>>> {
        Ok((0..self.per_epoch).map(|index| vec![100 * epoch + index]).collect())
    }

    fn forward(&mut self, epoch: usize, index: usize, batch: &[usize]) -> Result<Forward<'_>> {
        let loss = (&self.curvature * self.weight.square()).sum(Kind::Float) * 0.5;
        let loss = loss + (self.extra)(self.seen.len());
        if let Some((_, interrupt)) = self.stop.as_ref().filter(|(at, _)| *at == self.seen.len()) {
            interrupt.send(15);
        }
        self.seen.push((epoch, index, batch[0]));
        Ok(loss.into())
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        vec![("weight".into(), self.weight.shallow_clone())]
    }

    fn validate(&mut self, _: usize, _: &mut RunLog) -> Result<Scores> {
        Ok(Scores::default())
    }

    fn write(&self, _: &std::path::Path, _: usize, _: &[(&'static str, f64)]) -> Result<()> {
        Ok(())
    }
}

fn range(from: f64, to: f64, steps: usize) -> RangeTest {
    RangeTest { from, to, steps, clip: None, scale_loss: false }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn curves_and_suggestions_are_those_of_torch_and_fastai() {
    let golden: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/lr_find.json"
    )))
    .unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let number = |name: &str| case[name].as_f64().unwrap();
        let kind: OptimizerKind = serde_json::from_value(case["optimizer"].clone()).unwrap();
        let wobbles = number("wobble") > 0.0;
        assert!(!wobbles || number("wobble") == 0.02);
        let extra = if wobbles { |step| 0.02 * (step % 3) as f64 } else { |_| 0.0 };
        let bowl = Bowl::new(&numbers(&case["curvature"]), &numbers(&case["start"]), extra);
        let test = range(number("from"), number("to"), number("steps") as usize);
        let sweep = bowl.find(kind, 0.9, &test);

        let exploded = case["exploded"].as_bool().unwrap();
        assert_eq!(sweep.end, if exploded { End::Exploded } else { End::Whole });
        for (name, value) in [
            ("lr", (|point| point.lr) as fn(&Point) -> f64),
            ("loss", |point| point.loss),
            ("smoothed", |point| point.smoothed),
        ] {
            let expected = numbers(&case[name]);
            assert_eq!(sweep.points.len(), expected.len(), "{kind:?} {name}");
            for (point, expected) in sweep.points.iter().zip(expected) {
                let (found, scale) = (value(point), expected.abs().max(1e-6));
                assert!((found - expected).abs() < 2e-5 * scale, "{name}: {found}, {expected}");
            }
        }
        let suggestion = sweep.suggest().unwrap();
        for (found, name) in [(suggestion.steepest, "steepest"), (suggestion.lowest, "lowest")] {
            assert!((found / number(name) - 1.0).abs() < 1e-9, "{kind:?} {name}: {found}");
        }
        assert!(!sweep.falls_to_the_end());
    }
}

#[test]
fn gradient_descent_turns_where_theory_says() {
    // In a bowl of curvature a it converges below a rate of 2 / a and diverges above.
    let bowl = Bowl::new(&[5.0], &[1.0], |_| 0.0);
    let sweep = bowl.find(OptimizerKind::Sgd, 0.0, &range(1e-3, 100.0, 300));
    assert_eq!(sweep.end, End::Exploded);
    let mut turns = 0;
    for pair in sweep.points.windows(2).filter(|pair| pair[0].loss > 1e-30) {
        let margin = (pair[0].lr / (2.0 / 5.0)).ln();
        if margin.abs() > 0.02 {
            assert_eq!(pair[1].loss > pair[0].loss, margin > 0.0, "at {}", pair[0].lr);
            turns += usize::from(margin > 0.0);
        }
    }
    assert!(turns > 3);
    let Suggestion { steepest, lowest } = sweep.suggest().unwrap();
    assert!(steepest < 0.4 && (0.3..0.6).contains(&lowest), "{steepest}, {lowest}");
}

#[test]
fn the_steepest_descent_is_where_theory_says_in_spite_of_noise() {
    // With a rate that grows by e^d a step, the loss after it is exp(-2 a lr / d) of the first: over
    // ln(lr) it is steepest at lr = d / (2 a).
    let noise = |step: usize| 0.2 * ((step as u64 * 2_654_435_761) % 1000) as f64 / 1000.0;
    let silence: fn(usize) -> f64 = |_| 0.0;
    for (curvature, from, to, steps) in
        [(1.0, 1e-7, 10.0, 100), (1.0, 1e-4, 10.0, 100), (10.0, 1e-5, 1.0, 200)]
    {
        for extra in [silence, noise] {
            let bowl = Bowl::new(&[curvature], &[2.0], extra);
            let sweep = bowl.find(OptimizerKind::Sgd, 0.0, &range(from, to, steps));
            let theory = (to / from).ln() / (steps as f64 - 1.0) / (2.0 * curvature);
            let found = sweep.suggest().unwrap().steepest;
            assert!((0.7..1.4).contains(&(found / theory)), "{curvature}: {found}, {theory}");
        }
    }
}

#[test]
fn no_descent_is_said_and_not_guessed() {
    // The bowl's floor: nothing but noise.
    let noise = |step: usize| 1.0 + 0.1 * ((step as u64 * 2_654_435_761) % 1000) as f64 / 1000.0;
    for steps in [20, 50, 100, 200, 400] {
        let sweep = Bowl::new(&[0.0], &[0.0], noise).find(
            OptimizerKind::Adam,
            0.0,
            &range(1e-7, 1.0, steps),
        );
        assert_eq!(sweep.end, End::Whole);
        assert_eq!(sweep.suggest(), Err(NoSuggestion::NoDescent), "{steps} steps");
    }
    // A loss that only grows.
    let rises = |step: usize| 1.0 + step as f64 / 50.0;
    let sweep =
        Bowl::new(&[0.0], &[0.0], rises).find(OptimizerKind::Sgd, 0.0, &range(1e-7, 1.0, 50));
    assert_eq!(sweep.suggest(), Err(NoSuggestion::NoDescent));
    // A range that ends within the descent.
    let sweep =
        Bowl::new(&[1.0], &[2.0], |_| 0.0).find(OptimizerKind::Sgd, 0.0, &range(1e-4, 0.01, 100));
    assert!(sweep.falls_to_the_end());
    // A real descent below the same noise is found.
    let sweep =
        Bowl::new(&[1.0], &[2.0], noise).find(OptimizerKind::Sgd, 0.0, &range(1e-4, 1.0, 100));
    assert!(sweep.suggest().is_ok());
}

#[test]
fn losses_that_are_zero_or_not_numbers_end_well() {
    let test = range(1e-7, 1.0, 40);
    let none = Bowl::new(&[0.0], &[0.0], |_| 0.0).find(OptimizerKind::Sgd, 0.0, &test);
    assert_eq!((none.end, none.points.len()), (End::Whole, 40));
    assert_eq!(none.suggest(), Err(NoSuggestion::NoDescent));

    let at_once: fn(usize) -> f64 = |_| f64::NAN;
    let soon: fn(usize) -> f64 = |step| if step == 5 { f64::INFINITY } else { 1.0 };
    for (points, breaks) in [(0, at_once), (5, soon)] {
        let sweep = Bowl::new(&[0.0], &[0.0], breaks).find(OptimizerKind::Sgd, 0.0, &test);
        assert_eq!((sweep.end, sweep.points.len()), (End::NotFinite, points));
        assert_eq!(sweep.suggest(), Err(NoSuggestion::TooShort));
    }
}

#[test]
fn a_collapse_ends_the_test_and_recommends_nothing_from_itself() {
    // It learns for 30 steps, then every loss is the margin.
    let margin = |step: usize| {
        let batch = 0.01 * (step % 2) as f64;
        if step < 30 { 0.9 - 0.02 * step as f64 + batch } else { 0.2 }
    };
    let test = range(1e-5, 1.0, 60);
    let sweep = Bowl::new(&[0.0], &[0.0], margin).find(OptimizerKind::Sgd, 0.0, &test);
    assert_eq!((sweep.end, sweep.points.len()), (End::Collapsed, 36));
    let Suggestion { steepest, lowest } = sweep.suggest().unwrap();
    assert!(steepest < lowest && (lowest / test.rate(29) - 1.0).abs() < 1e-9, "{lowest}");
}

#[test]
fn steps_run_on_over_the_epochs_and_gradients_are_clipped() {
    let mut bowl = Bowl::new(&[1.0], &[10.0], |_| 0.0);
    let mut optimizer = bowl.optimizer(OptimizerKind::Sgd, 0.0);
    let test = RangeTest { clip: Some(0.5), ..range(1e-3, 1e-1, 16) };
    let sweep = lr_find(&mut bowl, &mut optimizer, &test, None, &Reporter::hidden()).unwrap();
    let steps: Vec<_> =
        (0..16).map(|step| (1 + step / 7, step % 7, 100 * (1 + step / 7) + step % 7)).collect();
    assert_eq!(bowl.seen, steps);
    // Every gradient is longer than 0.5, so each step is 0.5 lr long.
    let moved = 10.0 - sweep.points.iter().map(|point| 0.5 * point.lr).sum::<f64>();
    assert!((bowl.weight.double_value(&[0]) - moved).abs() < 1e-4);

    bowl.per_epoch = 0;
    let error = lr_find(&mut bowl, &mut optimizer, &test, None, &Reporter::hidden()).unwrap_err();
    assert!(error.to_string().contains("no batch"), "{error}");
}

#[test]
fn rates_rise_by_one_factor_and_impossible_ranges_are_named() {
    let test = range(1e-6, 1.0, 13);
    for (step, rate) in [(0, 1e-6), (2, 1e-5), (6, 1e-3), (12, 1.0)] {
        assert!((test.rate(step) / rate - 1.0).abs() < 1e-12, "{step}");
    }
    test.check().unwrap();
    for (test, flag) in [
        (range(0.0, 1.0, 100), "--from 0"),
        (range(f64::NAN, 1.0, 100), "--from NaN"),
        (range(1.0, 0.5, 100), "--to 0.5"),
        (range(1.0, f64::INFINITY, 100), "--to inf"),
        (range(1e-7, 1.0, 9), "--steps 9"),
    ] {
        let error = test.check().unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    }
}

#[test]
fn a_test_that_was_stopped_ends_as_if_it_had_not_been() {
    let test = range(1e-3, 10.0, 40);
    let bowl = || Bowl::new(&[1.0, 3.0], &[10.0, -4.0], |_| 0.0);
    let whole = bowl().find(OptimizerKind::Sgd, 0.9, &test);
    assert!(whole.points.len() > 20);
    let folder = tempfile::tempdir().unwrap();
    for at in [0, 1, 6, 7, 13, whole.points.len() - 1] {
        let path = folder.path().join(at.to_string());
        let settings = toml::Table::new();
        let go_on = |run: &RunFolder, data: &str, stop: Option<usize>| {
            let mut bowl = bowl();
            let mut optimizer = bowl.optimizer(OptimizerKind::Sgd, 0.9);
            let interrupt = Interrupt::default();
            bowl.stop = stop.map(|stop| (stop, interrupt.clone()));
            let keep = Keep { run, every: Interval::Steps(3), interrupt, data };
            lr_find(&mut bowl, &mut optimizer, &test, Some(keep), &Reporter::hidden())
        };
        let run = RunFolder::create(&path, "lr-find", &settings).unwrap();
        let stopped = go_on(&run, "data", Some(at));
        drop(run);
        if at == whole.points.len() - 1 {
            // The last step ends the test whatever comes.
            assert_eq!(stopped.unwrap(), whole);
            continue;
        }
        assert!(matches!(stopped, Err(Error::Interrupted { signal: 15, .. })), "{at}");
        let run = RunFolder::resume(&path, "lr-find", false).unwrap();
        let error = go_on(&run, "other", None).unwrap_err().to_string();
        assert!(error.contains("have changed"), "{error}");
        assert_eq!(go_on(&run, "data", None).unwrap(), whole, "{at}");
    }
}
