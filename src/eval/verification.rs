//! Verification: do two pictures show the same person?
//!
//! A pair is accepted as "same" if its distance is below a threshold. Accuracies are balanced: the mean
//! of the fraction of same pairs accepted and of different pairs rejected. Among all pairs of a set
//! most are different, so that plain accuracy would favour a model that rejects everything.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::distance::euclidean;
use super::{Embeddings, assert_labelled, share};
use crate::{Error, Result};

/// Distances of pairs of pictures, and whether each shows one identity.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairs {
    /// Euclidean distance of each pair.
    pub distance: Vec<f32>,
    /// Whether each pair shows the same identity.
    pub same: Vec<bool>,
}

/// A threshold and its accuracy.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Threshold {
    /// Pairs closer than this are accepted as "same".
    pub distance: f64,
    /// Balanced accuracy in [0, 1] on the pairs it was chosen on.
    pub accuracy: f64,
}

impl Pairs {
    /// Pairs with given distances.
    ///
    /// # Errors
    /// The lengths differ, or a distance is NaN or infinite; pairs are numbered from 1.
    pub fn new(distance: Vec<f32>, same: Vec<bool>) -> Result<Self> {
        if distance.len() != same.len() {
            let (distances, answers) = (distance.len(), same.len());
            return Err(Error::Data(format!("{distances} distances for {answers} pairs")));
        }
        if let Some(at) = distance.iter().position(|value| !value.is_finite()) {
            return Err(Error::Data(format!(
                "the distance of pair {} is {}: the model's weights are broken",
                at + 1,
                distance[at]
            )));
        }
        Ok(Self { distance, same })
    }

    /// The distances of the same or of the different pairs.
    pub fn of_kind(&self, same: bool) -> impl Iterator<Item = f32> {
        let all = self.distance.iter().zip(&self.same);
        all.filter(move |(_, kind)| **kind == same).map(|(distance, _)| *distance)
    }

    /// The pairs at `indices`, in that order.
    ///
    /// # Panics
    /// When an index is out of range.
    pub fn subset(&self, indices: &[usize]) -> Self {
        Self {
            distance: indices.iter().map(|&at| self.distance[at]).collect(),
            same: indices.iter().map(|&at| self.same[at]).collect(),
        }
    }

    /// All pairs of distinct rows, or a seeded sample if there are more than `max_pairs`.
    ///
    /// All pairs come in the order (0, 1), (0, 2), ... (1, 2), ... A sample has half same and half
    /// different pairs, as far as there are enough, without repetition. All metrics here are rates
    /// within one kind, so that sampling does not bias them.
    ///
    /// # Panics
    /// When there is not one label per embedding.
    pub fn of(embeddings: &Embeddings, labels: &[usize], max_pairs: usize, seed: u64) -> Self {
        assert_labelled(embeddings, labels);
        let rows = labels.len();
        let chosen: Vec<(usize, usize)> = if rows * rows.saturating_sub(1) / 2 <= max_pairs {
            (0..rows).flat_map(|i| (i + 1..rows).map(move |j| (i, j))).collect()
        } else {
            sample(labels, max_pairs, seed)
        };
        Self {
            distance: chosen
                .par_iter()
                .map(|&(i, j)| euclidean(embeddings.row(i), embeddings.row(j)))
                .collect(),
            same: chosen.iter().map(|&(i, j)| labels[i] == labels[j]).collect(),
        }
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.distance.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.distance.is_empty()
    }
}

/// The threshold with the highest balanced accuracy: halfway between two neighbouring distances.
///
/// Among equals the one in the widest gap wins, then the lowest. `None` unless there are pairs of both
/// kinds.
pub fn best_threshold(pairs: &Pairs) -> Option<Threshold> {
    let steps = steps(pairs)?;
    let last = steps.last()?;
    // Balanced accuracy as integers (times both counts), so that equal values compare as equal.
    let distance = best_cut(&steps, (last.different as u128, last.same as u128))?;
    Some(Threshold { distance, accuracy: accuracy_at(pairs, distance)? })
}

/// The midpoint of the best gap; `worth` weights accepted same pairs and rejected different pairs.
pub(super) fn best_cut(steps: &[Step], worth: (u128, u128)) -> Option<f64> {
    let last = *steps.last()?;
    let merit = |step: &Step| {
        step.same as u128 * worth.0 + (last.different - step.different) as u128 * worth.1
    };
    let gap = |at: usize| steps.get(at + 1).map_or(0.0, |next| next.distance - steps[at].distance);
    let at = (0..steps.len())
        .rev()
        .max_by(|&a, &b| merit(&steps[a]).cmp(&merit(&steps[b])).then(gap(a).total_cmp(&gap(b))))?;
    Some(steps.get(at + 1).map_or(steps[at].distance.next_up(), |next| steps[at].below(next)))
}

/// Balanced accuracy of accepting pairs closer than `threshold`; `None` unless there are pairs of both
/// kinds.
pub fn accuracy_at(pairs: &Pairs, threshold: f64) -> Option<f64> {
    let (mut all, mut right) = ([0; 2], [0; 2]);
    for (&distance, &same) in pairs.distance.iter().zip(&pairs.same) {
        let kind = usize::from(same);
        all[kind] += 1;
        right[kind] += usize::from((f64::from(distance) < threshold) == same);
    }
    Some((share(right[0], all[0])? + share(right[1], all[1])?) / 2.0)
}

/// Number of pairs of each kind with at most this distance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub distance: f64,
    pub same: usize,
    pub different: usize,
}

impl Step {
    /// The midpoint between this step's distance and the next, which exists in f64 for distinct f32.
    pub(super) fn below(&self, next: &Step) -> f64 {
        f64::midpoint(self.distance, next.distance)
    }
}

/// Cumulative counts at every distinct distance in ascending order, after a first step that accepts
/// nothing. `None` unless there are pairs of both kinds. O(n log n).
pub(super) fn steps(pairs: &Pairs) -> Option<Vec<Step>> {
    let mut sorted: Vec<(f32, bool)> =
        pairs.distance.iter().copied().zip(pairs.same.iter().copied()).collect();
    sorted.par_sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let nearest = f64::from(sorted.first()?.0);
    // No threshold up to 0 accepts a distance of 0, so that the start is just below it.
    let start = if nearest > 0.0 { 0.0 } else { nearest.next_down() };
    let mut steps = vec![Step { distance: start, same: 0, different: 0 }];
    let mut sum = steps[0];
    for group in sorted.chunk_by(|a, b| a.0 == b.0) {
        let same = group.iter().filter(|(_, same)| *same).count();
        sum.distance = f64::from(group[0].0);
        sum.same += same;
        sum.different += group.len() - same;
        steps.push(sum);
    }
    (sum.same > 0 && sum.different > 0).then_some(steps)
}

/// Index pairs `i < j`, sorted: up to `max_pairs`, half of each kind if there are enough.
fn sample(labels: &[usize], max_pairs: usize, seed: u64) -> Vec<(usize, usize)> {
    // With rows sorted by label, the partners of position p are p + 1 to the end of its identity (same)
    // and from there to the end (different).
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&row| labels[row]);
    let mut partners = Vec::with_capacity(order.len());
    for identity in order.chunk_by(|&a, &b| labels[a] == labels[b]) {
        let end = partners.len() + identity.len();
        partners.extend((partners.len()..end).map(|place| (place + 1..end, end..labels.len())));
    }
    let same = starts(partners.iter().map(|(same, _)| same.len()));
    let different = starts(partners.iter().map(|(_, different)| different.len()));
    let (all_same, all_different) = (same[order.len()], different[order.len()]);
    let want_different = all_different.min(max_pairs - all_same.min(max_pairs / 2));
    let want_same = all_same.min(max_pairs - want_different);

    let mut rng = StdRng::seed_from_u64(seed);
    let mut chosen = Vec::with_capacity(want_same + want_different);
    for number in spread(all_same, want_same, &mut rng) {
        let place = same.partition_point(|&start| start <= number) - 1;
        chosen.push((order[place], order[partners[place].0.start + number - same[place]]));
    }
    for number in spread(all_different, want_different, &mut rng) {
        let place = different.partition_point(|&start| start <= number) - 1;
        chosen.push((order[place], order[partners[place].1.start + number - different[place]]));
    }
    for pair in &mut chosen {
        *pair = (pair.0.min(pair.1), pair.0.max(pair.1));
    }
    chosen.sort_unstable();
    chosen
}

/// Cumulative sums with a leading 0.
fn starts(lengths: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut total = 0;
    let ends = lengths.map(|length| {
        total += length;
        total
    });
    std::iter::once(0).chain(ends).collect()
}

/// `want` distinct numbers below `all`, ascending: one from each of `want` equal stretches.
fn spread(all: usize, want: usize, rng: &mut StdRng) -> Vec<usize> {
    let edge = |at: usize| (all as u128 * at as u128 / want as u128) as usize;
    (0..want).map(|at| rng.random_range(edge(at)..edge(at + 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn measured_distances_must_be_finite_and_one_per_answer() {
        let error = Pairs::new(vec![0.5, f32::NAN], vec![true, false]).unwrap_err().to_string();
        assert!(error.contains("pair 2 is NaN"), "{error}");
        assert!(Pairs::new(vec![f32::INFINITY], vec![true]).is_err());
        assert!(Pairs::new(vec![0.5], vec![]).unwrap_err().to_string().contains("1 distances"));
        let pairs = Pairs::new(vec![0.5, 0.7, 0.9], vec![true, false, true]).unwrap();
        let some = Pairs::new(vec![0.9, 0.5], vec![true, true]).unwrap();
        assert_eq!(pairs.subset(&[2, 0]), some);
    }

    #[test]
    fn all_pairs_come_once_and_in_order() {
        let line = Embeddings::new(3, 1, vec![0.0, 1.0, 4.0]).unwrap();
        let pairs = Pairs::of(&line, &[5, 6, 5], 3, 0);
        assert_eq!(pairs.distance, [1.0, 4.0, 3.0]);
        assert_eq!(pairs.same, [false, true, false]);
        assert!(Pairs::of(&line.subset(&[]), &[], 10, 0).is_empty());
        assert!(Pairs::of(&line, &[5, 6, 5], 0, 0).is_empty());
    }

    #[test]
    fn a_sample_is_balanced_distinct_seeded_and_of_its_kind() {
        let labels: Vec<usize> = (0..60).map(|i| i * 7 % 13).collect();
        let chosen = sample(&labels, 100, 4);
        assert_eq!(chosen.len(), 100);
        assert!(chosen.is_sorted_by(|a, b| a < b) && chosen.iter().all(|(i, j)| i < j));
        let same = chosen.iter().filter(|&&(i, j)| labels[i] == labels[j]).count();
        assert_eq!(same, 50);
        assert_eq!(chosen, sample(&labels, 100, 4));
        assert_ne!(chosen, sample(&labels, 100, 5));
        // Fewer same pairs than half: all of them, and the rest are different ones.
        let lone: Vec<usize> = (0..60).map(|i| if i == 59 { 0 } else { i }).collect();
        let chosen = sample(&lone, 100, 1);
        assert_eq!(chosen.len(), 100);
        assert!(chosen.contains(&(0, 59)));
    }

    #[test]
    fn asking_for_everything_but_one_pair_leaves_out_one_pair() {
        let labels: Vec<usize> = (0..20).map(|i| i % 3).collect();
        let chosen = sample(&labels, 189, 2);
        assert_eq!(chosen.len(), 189);
        assert!(chosen.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn every_pair_of_a_kind_has_about_one_chance() {
        let labels = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2];
        let mut hits = [[0; 10]; 10];
        for seed in 0..3000 {
            for (i, j) in sample(&labels, 12, seed) {
                hits[i][j] += 1;
            }
        }
        for i in 0..10 {
            for j in i + 1..10 {
                // 12 same and 33 different pairs: 6 of each are drawn.
                let expected = if labels[i] == labels[j] { 1500.0 } else { 3000.0 * 6.0 / 33.0 };
                let off = (f64::from(hits[i][j]) - expected).abs() / expected;
                assert!(off < 0.25, "pair {i}, {j} drawn {} times", hits[i][j]);
            }
        }
    }

    #[test]
    fn the_best_threshold_beats_every_other() {
        for seed in 0..10 {
            let labels: Vec<usize> = (0..20).map(|i| i % 4).collect();
            let mut pairs = Pairs::of(&random(20, 2, seed), &labels, usize::MAX, 0);
            // Ties between the kinds.
            pairs.distance.iter_mut().for_each(|d| *d = (*d * 8.0).round() / 8.0);
            let best = best_threshold(&pairs).unwrap();
            assert_eq!(accuracy_at(&pairs, best.distance), Some(best.accuracy));
            let grid = (0..400).map(|i| accuracy_at(&pairs, f64::from(i) * 0.01).unwrap());
            assert_eq!(grid.fold(0.0, f64::max), best.accuracy);
        }
    }

    #[test]
    fn thresholds_of_separable_tied_and_one_sided_pairs() {
        let pairs = |distance: &[f32], same: &[bool]| Pairs {
            distance: distance.to_vec(),
            same: same.to_vec(),
        };
        let split = pairs(&[0.5, 0.0, 1.0, 2.0], &[true, true, false, false]);
        assert_eq!(best_threshold(&split), Some(Threshold { distance: 0.75, accuracy: 1.0 }));
        // Backwards: nothing beats accepting all or nobody.
        let inverted = pairs(&[0.0, 1.0], &[false, true]);
        let worst = best_threshold(&inverted).unwrap();
        assert_eq!(worst.accuracy, 0.5);
        assert_eq!(accuracy_at(&inverted, worst.distance), Some(0.5));
        let tied = pairs(&[1.0, 1.0], &[false, true]);
        assert_eq!(best_threshold(&tied).unwrap().accuracy, 0.5);
        assert_eq!(best_threshold(&pairs(&[1.0], &[true])), None);
        assert_eq!(accuracy_at(&pairs(&[1.0], &[true]), 1.0), None);
        assert_eq!(best_threshold(&Pairs::default()), None);
    }
}
