//! This module against tests/golden/eval_metrics.py (NumPy and torch).

use serde::Deserialize;

use super::{Embeddings, calibration, centroid, roc::Roc, unknown::Logistic, verification};
use crate::eval::retrieval::Retrieval;

#[derive(Deserialize)]
struct Golden {
    embeddings: Labelled,
    knn_leave_one_out: f64,
    centroid_leave_one_out: f64,
    roc_auc: f64,
    balanced_accuracy: f64,
    #[serde(rename = "tar_at_far_0.1")]
    tar_at_far: f64,
    eer: f64,
    logits: Logits,
    temperature: Temperature,
    temperature_smoothed: Temperature,
    ece_15: f64,
    logistic: Scores,
}

#[derive(Deserialize)]
struct Labelled {
    rows: usize,
    dim: usize,
    values: Vec<f32>,
    labels: Vec<usize>,
}

#[derive(Deserialize)]
struct Logits {
    classes: usize,
    values: Vec<f32>,
    labels: Vec<usize>,
}

#[derive(Deserialize)]
struct Temperature {
    smoothing: f64,
    t: f64,
    nll: f64,
}

#[derive(Deserialize)]
struct Scores {
    scores: Vec<f64>,
    known: Vec<bool>,
    weight: f64,
    bias: f64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/eval_metrics.json")).unwrap()
}

fn assert_close(ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance, "ours {ours}, theirs {theirs}");
}

#[test]
fn neighbours_centroids_and_verification() {
    let golden = golden();
    let Labelled { rows, dim, values, labels } = golden.embeddings;
    let embeddings = Embeddings::new(rows, dim, values).unwrap();
    let retrieval = Retrieval::within(&embeddings, &labels).unwrap();
    assert_eq!(retrieval.precision_at_1, golden.knn_leave_one_out);
    assert_eq!(centroid::leave_one_out(&embeddings, &labels), Some(golden.centroid_leave_one_out));

    let pairs = verification::Pairs::of(&embeddings, &labels, usize::MAX, 0);
    let roc = Roc::of(&pairs).unwrap();
    assert_close(roc.auc(), golden.roc_auc, 1e-12);
    // The script walks the curve in steps of about 1e-4 of a segment.
    assert_close(roc.eer(), golden.eer, 1e-5);
    assert_close(roc.tar_at_far(0.1), golden.tar_at_far, 1e-12);
    let best = verification::best_threshold(&pairs).unwrap();
    assert_close(best.accuracy, golden.balanced_accuracy, 1e-12);
}

#[test]
fn temperature_calibration_error_and_logistic_regression() {
    let golden = golden();
    let Logits { classes, values, labels } = golden.logits;
    for theirs in [golden.temperature, golden.temperature_smoothed] {
        let t = calibration::fit_temperature(&values, classes, &labels, theirs.smoothing);
        assert_close(t, theirs.t, 1e-5);
        let nll = calibration::negative_log_likelihood(&values, &labels, t, theirs.smoothing);
        assert_close(nll, theirs.nll, 1e-9);
    }
    let (mut confidences, mut correct) = (Vec::new(), Vec::new());
    for (row, &label) in values.chunks(classes).zip(&labels) {
        let probabilities = calibration::softmax(row, 1.0);
        let best = (0..classes).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        confidences.push(probabilities[best.unwrap()]);
        correct.push(best == Some(label));
    }
    let ece = calibration::expected_calibration_error(&confidences, &correct, 15).unwrap();
    assert_close(ece, golden.ece_15, 1e-9);

    let Scores { scores, known, weight, bias } = golden.logistic;
    let fit = Logistic::fit(&scores, &known).unwrap();
    assert_close(fit.weight, weight, 1e-4);
    assert_close(fit.bias, bias, 1e-4);
}
