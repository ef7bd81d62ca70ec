//! All metrics of `visage evaluate --pairs`, from distances.

use super::bootstrap::{TarAtFar, tar_at_far};
use super::folds::{
    FoldAccuracy, accuracy_by_folds, f1_at, most_accurate_threshold, stratified_folds,
};
use super::roc::Roc;
use super::unknown::Logistic;
use super::verification::Pairs;

/// False accept rates at which true accept rates are reported.
pub const FARS: [f64; 4] = [1e-1, 1e-2, 1e-3, 1e-4];
/// Bootstrap resamples.
pub const RESAMPLES: usize = 1000;
/// Number of folds if the pairs have none.
pub const FOLDS: usize = 10;

/// Verification metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct PairScores {
    /// K-fold accuracy; `None` with too few pairs.
    pub folds: Option<FoldAccuracy>,
    /// ROC curve.
    pub roc: Roc,
    /// Area under the ROC curve.
    pub auc: f64,
    /// Equal error rate, linearly interpolated.
    pub eer: f64,
    /// True accept rates at [`FARS`].
    pub tar_at_far: Vec<TarAtFar>,
    /// The most accurate threshold on all pairs.
    pub threshold: f64,
    /// F1 at that threshold, with "same" as the positive class.
    pub f1: f64,
    /// P(same | distance) for equally likely same and different pairs, fitted on all pairs.
    pub probability: Option<Logistic>,
}

impl PairScores {
    /// Computes the metrics of `pairs`, with the given folds or [`FOLDS`] seeded ones.
    ///
    /// `None` unless there are pairs of both kinds.
    ///
    /// # Panics
    /// When there are folds, and not one per pair.
    pub fn of(pairs: &Pairs, folds: Option<&[usize]>, seed: u64) -> Option<Self> {
        let roc = Roc::of(pairs)?;
        let threshold = most_accurate_threshold(pairs)?.distance;
        let drawn = folds.is_none().then(|| stratified_folds(&pairs.same, FOLDS, seed));
        let folds = folds.or(drawn.as_deref()).unwrap_or_default();
        let distances: Vec<f64> = pairs.distance.iter().map(|&value| f64::from(value)).collect();
        Some(Self {
            folds: accuracy_by_folds(pairs, folds),
            auc: roc.auc(),
            eer: roc.eer(),
            roc,
            tar_at_far: tar_at_far(pairs, &FARS, RESAMPLES, seed)?,
            threshold,
            f1: f1_at(pairs, threshold)?,
            probability: Logistic::fit(&distances, &pairs.same),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_are_scored_as_far_as_two_pairs_go() {
        let pairs = Pairs::new(vec![0.5, 1.5], vec![true, false]).unwrap();
        let scores = PairScores::of(&pairs, None, 0).unwrap();
        assert_eq!((scores.auc, scores.eer, scores.f1, scores.threshold), (1.0, 0.0, 1.0, 1.0));
        assert_eq!(scores.folds, None);
        assert!(scores.tar_at_far.iter().all(|rate| rate.tar.is_none() && rate.reason.is_some()));
        assert!((scores.probability.unwrap().probability(1.0) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn one_kind_or_no_pair_at_all_is_no_score() {
        for (distance, same) in
            [(vec![], vec![]), (vec![1.0], vec![true]), (vec![1.0], vec![false])]
        {
            assert_eq!(PairScores::of(&Pairs::new(distance, same).unwrap(), None, 0), None);
        }
    }

    #[test]
    fn folds_are_the_files_or_ten_drawn_ones() {
        let same: Vec<bool> = (0..60).map(|i| i % 2 == 0).collect();
        let distance = (0..60).map(|i| (i % 7) as f32 + f32::from(i % 2 == 1)).collect();
        let pairs = Pairs::new(distance, same).unwrap();
        let drawn = PairScores::of(&pairs, None, 0).unwrap().folds.unwrap();
        assert_eq!(drawn.accuracies.len(), 10);
        let three: Vec<usize> = (0..60).map(|i| i / 20).collect();
        let given = PairScores::of(&pairs, Some(&three), 0).unwrap().folds.unwrap();
        assert_eq!(given.accuracies.len(), 3);
    }
}
