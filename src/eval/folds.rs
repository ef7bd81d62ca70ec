//! K-fold accuracy, the protocol of Labeled Faces in the Wild: each fold is evaluated with the
//! threshold that is most accurate on the others.
//!
//! Huang, Ramesh, Berg, Learned-Miller, "Labeled Faces in the Wild", 2007. As there, accuracy is the
//! fraction of correctly classified pairs; with equally many same and different pairs it equals the
//! balanced accuracy of [`verification`](super::verification).

use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

use super::share;
use super::verification::{Pairs, Threshold, best_cut, steps};

/// The results of the folds, in order; empty folds are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct FoldAccuracy {
    /// Accuracy of each fold.
    pub accuracies: Vec<f64>,
    /// Threshold used for each fold.
    pub thresholds: Vec<f64>,
}

impl FoldAccuracy {
    /// Mean over the folds.
    pub fn mean(&self) -> f64 {
        self.accuracies.iter().sum::<f64>() / self.accuracies.len() as f64
    }

    /// Standard deviation over the folds, with k - 1 in the denominator.
    pub fn std(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.accuracies.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (self.accuracies.len() as f64 - 1.0)).sqrt()
    }
}

/// Evaluates every fold with the threshold of the others. `fold` is the fold number of each pair.
///
/// `None` with fewer than two non-empty folds, or if the other folds of one have no same or no
/// different pairs. O(k n log n).
///
/// # Panics
/// When there is not one fold number per pair.
pub fn accuracy_by_folds(pairs: &Pairs, fold: &[usize]) -> Option<FoldAccuracy> {
    assert_eq!(pairs.len(), fold.len(), "one fold per pair");
    let mut numbers = fold.to_vec();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() < 2 {
        return None;
    }
    let mut found = FoldAccuracy { accuracies: Vec::new(), thresholds: Vec::new() };
    for number in numbers {
        let (inside, others): (Vec<usize>, Vec<usize>) =
            (0..fold.len()).partition(|&pair| fold[pair] == number);
        let threshold = most_accurate_threshold(&pairs.subset(&others))?.distance;
        found.accuracies.push(plain_accuracy_at(&pairs.subset(&inside), threshold)?);
        found.thresholds.push(threshold);
    }
    Some(found)
}

/// Stratified assignment of pairs to `folds` folds (fewer if there are fewer pairs of a kind). The same
/// seed gives the same folds.
///
/// A person may be in several folds; use a file with folds where that matters.
pub fn stratified_folds(same: &[bool], folds: usize, seed: u64) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(seed);
    let kinds = [true, false].map(|kind| {
        let mut of_kind: Vec<usize> = (0..same.len()).filter(|&i| same[i] == kind).collect();
        of_kind.shuffle(&mut rng);
        of_kind
    });
    let folds = folds.min(kinds[0].len()).min(kinds[1].len()).max(1);
    let mut fold = vec![0; same.len()];
    for of_kind in kinds {
        of_kind.into_iter().enumerate().for_each(|(at, pair)| fold[pair] = at % folds);
    }
    fold
}

/// The threshold with the highest accuracy: halfway between two neighbouring distances; among equals
/// the one in the widest gap, then the lowest. `None` unless there are pairs of both kinds.
pub fn most_accurate_threshold(pairs: &Pairs) -> Option<Threshold> {
    let distance = best_cut(&steps(pairs)?, (1, 1))?;
    Some(Threshold { distance, accuracy: plain_accuracy_at(pairs, distance)? })
}

/// Accuracy of calling pairs closer than `threshold` same; `None` without pairs.
pub fn plain_accuracy_at(pairs: &Pairs, threshold: f64) -> Option<f64> {
    let decided = pairs.distance.iter().zip(&pairs.same);
    let right =
        decided.filter(|&(&distance, &same)| (f64::from(distance) < threshold) == same).count();
    share(right, pairs.len())
}

/// F1 of calling pairs closer than `threshold` same, with "same" as the positive class: 2 TP / (2 TP +
/// FP + FN). `None` without true or predicted positives.
pub fn f1_at(pairs: &Pairs, threshold: f64) -> Option<f64> {
    let (mut hits, mut errors) = (0, 0);
    for (&distance, &same) in pairs.distance.iter().zip(&pairs.same) {
        let called = f64::from(distance) < threshold;
        hits += usize::from(called && same);
        errors += usize::from(called != same);
    }
    share(2 * hits, 2 * hits + errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(distance: &[f32], same: &[u8]) -> Pairs {
        Pairs::new(distance.to_vec(), same.iter().map(|&kind| kind == 1).collect()).unwrap()
    }

    #[test]
    fn each_fold_is_decided_by_the_others() {
        // Fold 0 alone would cut at 2.5 and fold 1 at 0.5: each pays for the other's threshold.
        let pairs = pairs(&[1.0, 2.0, 3.0, 4.0, 0.25, 0.75, 1.5], &[1, 1, 0, 0, 1, 0, 0]);
        let found = accuracy_by_folds(&pairs, &[4, 4, 4, 4, 9, 9, 9]).unwrap();
        assert_eq!(found.thresholds, [0.5, 2.5]);
        assert_eq!(found.accuracies, [0.5, 1.0 / 3.0]);
        assert!((found.mean() - 5.0 / 12.0).abs() < 1e-15);
        assert!((found.std() - (0.5 - 1.0 / 3.0) / 2f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn folds_that_leave_no_threshold_give_nothing() {
        let pairs = pairs(&[1.0, 2.0], &[1, 0]);
        assert_eq!(accuracy_by_folds(&pairs, &[0, 1]), None);
        assert_eq!(accuracy_by_folds(&pairs, &[3, 3]), None);
        assert_eq!(accuracy_by_folds(&Pairs::default(), &[]), None);
    }

    #[test]
    fn dealt_folds_hold_even_shares_and_follow_the_seed() {
        let same: Vec<bool> = (0..130).map(|i| i % 13 < 4).collect();
        let fold = stratified_folds(&same, 10, 3);
        for number in 0..10 {
            let count = |kind| (0..130).filter(|&i| fold[i] == number && same[i] == kind).count();
            assert_eq!((count(true), count(false)), (4, 9));
        }
        assert_eq!(fold, stratified_folds(&same, 10, 3));
        assert_ne!(fold, stratified_folds(&same, 10, 4));
        let few = stratified_folds(&[true, true, true, false, false, false, false], 10, 0);
        assert_eq!(few.iter().max(), Some(&2));
        assert_eq!(stratified_folds(&[true, true], 10, 0), [0, 0]);
    }

    #[test]
    fn plain_accuracy_counts_pairs_and_not_kinds() {
        // Nine different pairs and one same pair in their midst: refusing everybody is 90 %.
        let mut distance: Vec<f32> = (1..10).map(|i| i as f32).collect();
        distance.push(8.5);
        let pairs = pairs(&distance, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let best = most_accurate_threshold(&pairs).unwrap();
        assert_eq!((best.distance, best.accuracy), (0.5, 0.9));
        assert_eq!(f1_at(&pairs, best.distance), Some(0.0));
        assert_eq!(f1_at(&pairs, 100.0), Some(2.0 / 11.0));
        assert_eq!(plain_accuracy_at(&pairs, 100.0), Some(0.1));
    }

    #[test]
    fn tied_and_one_sided_pairs() {
        let tied = pairs(&[1.0; 4], &[1, 0, 1, 0]);
        assert_eq!(most_accurate_threshold(&tied).unwrap().accuracy, 0.5);
        // A distance equal to the threshold is not below it.
        assert_eq!(plain_accuracy_at(&tied, 1.0), Some(0.5));
        assert_eq!(most_accurate_threshold(&pairs(&[1.0], &[1])), None);
        assert_eq!(f1_at(&pairs(&[1.0], &[0]), 0.5), None);
        assert_eq!(plain_accuracy_at(&Pairs::default(), 1.0), None);
    }
}
