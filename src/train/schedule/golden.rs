//! The schedules against PyTorch's.

use serde_json::Value;

use super::{Plateau, Schedule};

fn golden() -> Value {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/schedules.json"));
    serde_json::from_str(text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn factors_and_momenta_are_pytorchs() {
    let golden = golden();
    let cases = golden["schedules"].as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let schedule: Schedule = serde_json::from_value(case["settings"].clone()).unwrap();
        schedule.validate().unwrap();
        for (step, wanted) in numbers(&case["factors"]).into_iter().enumerate() {
            let found = schedule.factor(step as u64);
            assert!((found - wanted).abs() < 1e-9, "{schedule:?}, {step}: {found}, {wanted}");
            let rates = schedule.rates(step as u64, 0.5);
            assert_eq!((rates.lr, rates.momentum), (found * 0.5, schedule.momentum(step as u64)));
        }
        assert_eq!(schedule.momentum(0).is_some(), case["momenta"].is_array());
        if case["momenta"].is_array() {
            for (step, wanted) in numbers(&case["momenta"]).into_iter().enumerate() {
                let found = schedule.momentum(step as u64).unwrap();
                assert!((found - wanted).abs() < 1e-9, "{schedule:?}, {step}: {found}, {wanted}");
            }
            assert_eq!(schedule.beta2(), Some(0.99));
        }
    }
}

#[test]
fn plateaus_fall_when_pytorchs_do() {
    let golden = golden();
    let mut falls = 0;
    for case in golden["plateaus"].as_array().unwrap() {
        let config = serde_json::from_value(case["settings"].clone()).unwrap();
        let mut plateau = Plateau::new(config).unwrap();
        let (scores, factors) = (numbers(&case["scores"]), numbers(&case["factors"]));
        for (score, wanted) in scores.into_iter().zip(factors) {
            let before = plateau.factor();
            let found = plateau.observe(score);
            assert!((found - wanted).abs() < 1e-9, "{plateau:?}: {found}, wanted {wanted}");
            falls += u32::from(found < before);
        }
    }
    assert!(falls > 20, "the scores were too easy: {falls}");
}
