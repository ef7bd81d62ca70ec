//! The pair scores against tests/golden/eval_pairs.py (scikit-learn and NumPy).

use serde::Deserialize;

use super::folds::{accuracy_by_folds, f1_at, most_accurate_threshold};
use super::pair_scores::{PairScores, RESAMPLES};
use super::verification::Pairs;

#[derive(Deserialize)]
struct Golden {
    distance: Vec<f32>,
    same: Vec<bool>,
    fold: Vec<usize>,
    auc: f64,
    eer: f64,
    /// FAR, TAR, and the ends of its interval.
    tar_at_far: Vec<[f64; 4]>,
    accuracies: Vec<f64>,
    thresholds: Vec<f64>,
    accuracy: f64,
    accuracy_std: f64,
    threshold: f64,
    f1: f64,
    weight: f64,
    bias: f64,
}

fn golden() -> (Golden, Pairs) {
    let golden: Golden =
        serde_json::from_str(include_str!("../../tests/golden/eval_pairs.json")).unwrap();
    let pairs = Pairs::new(golden.distance.clone(), golden.same.clone()).unwrap();
    (golden, pairs)
}

fn assert_close(ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance, "ours {ours}, theirs {theirs}");
}

#[test]
fn folds_thresholds_and_f1() {
    let (golden, pairs) = golden();
    let found = accuracy_by_folds(&pairs, &golden.fold).unwrap();
    for (ours, theirs) in found.accuracies.iter().zip(&golden.accuracies) {
        assert_close(*ours, *theirs, 1e-12);
    }
    for (ours, theirs) in found.thresholds.iter().zip(&golden.thresholds) {
        assert_close(*ours, *theirs, 1e-12);
    }
    assert_eq!(found.accuracies.len(), golden.accuracies.len());
    assert_close(found.mean(), golden.accuracy, 1e-12);
    assert_close(found.std(), golden.accuracy_std, 1e-12);
    let threshold = most_accurate_threshold(&pairs).unwrap().distance;
    assert_close(threshold, golden.threshold, 1e-12);
    assert_close(f1_at(&pairs, threshold).unwrap(), golden.f1, 1e-12);
}

#[test]
fn curve_rates_and_probability() {
    let (golden, pairs) = golden();
    let scores = PairScores::of(&pairs, Some(&golden.fold), 1).unwrap();
    assert_close(scores.auc, golden.auc, 1e-12);
    assert_close(scores.eer, golden.eer, 1e-12);
    let curve = scores.probability.unwrap();
    assert_close(curve.weight, golden.weight, 1e-4);
    assert_close(curve.bias, golden.bias, 1e-4);
    for (rate, [far, tar, low, high]) in scores.tar_at_far.iter().zip(golden.tar_at_far) {
        assert_eq!(rate.far, far);
        assert_close(rate.tar.unwrap(), tar, 1e-12);
        // Two draws of chance: their ends differ by a pair or a few.
        assert_close(rate.low.unwrap(), low, 0.03);
        assert_close(rate.high.unwrap(), high, 0.03);
    }
    // 270 different pairs measure 1 in 100 and not 1 in 1000.
    assert_eq!(scores.tar_at_far.iter().filter(|rate| rate.tar.is_some()).count(), 2);
    assert_eq!(RESAMPLES, 1000);
}
