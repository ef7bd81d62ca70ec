//! Optimisers whose momentum changes from step to step, against PyTorch's.

use serde_json::Value;
use tch::{Kind, Tensor};

use super::{Optimizer, OptimizerConfig, OptimizerKind, StepRates};
use crate::train::schedule::Schedule;

fn row(value: &Value) -> Tensor {
    let numbers: Vec<f64> = value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    Tensor::from_slice(&numbers).to_kind(Kind::Float)
}

#[test]
fn twelve_steps_end_where_pytorchs_do() {
    let golden: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/schedules.json"
    )))
    .unwrap();
    for case in golden["training"].as_array().unwrap() {
        let kind: OptimizerKind = serde_json::from_value(case["optimizer"].clone()).unwrap();
        let schedule: Schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        let param = row(&case["start"]).set_requires_grad(true);
        let params = vec![("param".to_owned(), param.shallow_clone())];
        let mut optimizer = Optimizer::new(OptimizerConfig::new(kind), params).unwrap();
        for (step, gradient) in case["gradients"].as_array().unwrap().iter().enumerate() {
            optimizer.zero_grad().unwrap();
            (&param * row(gradient)).sum(Kind::Float).backward();
            let rates = schedule.rates(step as u64, case["lr"].as_f64().unwrap());
            optimizer.step_with(rates, None).unwrap();
        }
        let error = (param.detach() - row(&case["end"])).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{kind:?}: {error}");
        // The settings themselves are as before.
        assert_eq!(optimizer.config(), &OptimizerConfig::new(kind));
    }
}

#[test]
fn sgd_without_a_momentum_refuses_one() {
    let config = OptimizerConfig { momentum: 0.0, ..OptimizerConfig::new(OptimizerKind::Sgd) };
    let mut optimizer = Optimizer::new(config, Vec::new()).unwrap();
    let rates = StepRates { momentum: Some(0.9), ..StepRates::lr(0.1) };
    let error = optimizer.step_with(rates, None).unwrap_err().to_string();
    assert!(error.contains("momentum of 0"), "{error}");
    optimizer.step_with(StepRates { momentum: Some(0.0), ..rates }, None).unwrap();
}
