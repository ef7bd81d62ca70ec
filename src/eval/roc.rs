//! ROC curve of verification.

use super::verification::{Pairs, steps};

/// The error rates of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RocPoint {
    /// Pairs closer than this are accepted as "same".
    pub threshold: f64,
    /// False accept rate: the fraction of different pairs accepted.
    pub far: f64,
    /// True accept rate: the fraction of same pairs accepted.
    pub tar: f64,
}

/// The curve from (0, 0) to (1, 1); both rates rise with the threshold.
///
/// Points within straight segments are left out, which changes neither the area nor any rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Roc {
    points: Vec<RocPoint>,
}

impl Roc {
    /// The curve of `pairs`; `None` unless there are pairs of both kinds. O(n log n).
    pub fn of(pairs: &Pairs) -> Option<Self> {
        let steps = steps(pairs)?;
        let last = *steps.last()?;
        let mut points: Vec<RocPoint> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let point = RocPoint {
                threshold: steps.get(at + 1).map_or(step.distance.next_up(), |n| step.below(n)),
                far: step.different as f64 / last.different as f64,
                tar: step.same as f64 / last.same as f64,
            };
            if let [.., before, middle] = points[..] {
                let straight_up = before.far == point.far;
                let straight_on = before.tar == point.tar;
                if straight_up || (straight_on && middle.tar == point.tar) {
                    points.pop();
                }
            }
            points.push(point);
        }
        Some(Self { points })
    }

    /// The points of the curve, ascending.
    pub fn points(&self) -> &[RocPoint] {
        &self.points
    }

    /// Area under the curve: the probability that a same pair is closer than a different pair, ties
    /// counting half (the Mann-Whitney statistic).
    pub fn auc(&self) -> f64 {
        self.points.windows(2).map(|p| (p[1].far - p[0].far) * (p[1].tar + p[0].tar) / 2.0).sum()
    }

    /// Equal error rate: false accept rate = false reject rate, linearly interpolated.
    pub fn eer(&self) -> f64 {
        for pair in self.points.windows(2) {
            let (from, to) = (pair[0].far + pair[0].tar, pair[1].far + pair[1].tar);
            if to >= 1.0 {
                let part = (1.0 - from) / (to - from);
                return pair[0].far + part * (pair[1].far - pair[0].far);
            }
        }
        // Unreachable: the last point is (1, 1).
        1.0
    }

    /// The highest true accept rate at a false accept rate of at most `far`.
    pub fn tar_at_far(&self, far: f64) -> f64 {
        self.points.iter().rev().find(|point| point.far <= far).map_or(0.0, |point| point.tar)
    }
}

/// Area under the ROC curve, ties counting half; `None` unless there are pairs of both kinds.
pub fn roc_auc(pairs: &Pairs) -> Option<f64> {
    Roc::of(pairs).map(|roc| roc.auc())
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::super::verification::Pairs;
    use super::*;

    fn tied_pairs(seed: u64) -> Pairs {
        let labels: Vec<usize> = (0..30).map(|i| i % 6).collect();
        let mut pairs = Pairs::of(&random(30, 2, seed), &labels, usize::MAX, 0);
        pairs.distance.iter_mut().for_each(|d| *d = (*d * 10.0).round() / 10.0);
        pairs
    }

    fn rates(pairs: &Pairs, threshold: f64) -> (f64, f64) {
        let rate = |kind: bool| {
            let of_kind = pairs.distance.iter().zip(&pairs.same).filter(|(_, same)| **same == kind);
            let accepted = of_kind.clone().filter(|(d, _)| f64::from(**d) < threshold).count();
            accepted as f64 / of_kind.count() as f64
        };
        (rate(false), rate(true))
    }

    #[test]
    fn the_area_counts_pairs_of_pairs_and_ties_half() {
        for seed in 0..5 {
            let pairs = tied_pairs(seed);
            let (mut wins, mut all) = (0.0, 0.0);
            for (near, _) in pairs.distance.iter().zip(&pairs.same).filter(|(_, same)| **same) {
                for (far, _) in pairs.distance.iter().zip(&pairs.same).filter(|(_, same)| !**same) {
                    all += 1.0;
                    wins += if near < far { 1.0 } else { f64::from(near == far) / 2.0 };
                }
            }
            assert!((roc_auc(&pairs).unwrap() - wins / all).abs() < 1e-12);
        }
    }

    #[test]
    fn every_point_is_what_its_threshold_does() {
        let pairs = tied_pairs(9);
        let roc = Roc::of(&pairs).unwrap();
        for point in roc.points() {
            assert_eq!(rates(&pairs, point.threshold), (point.far, point.tar));
        }
        let first = roc.points()[0];
        assert_eq!((first.far, first.tar), (0.0, 0.0));
        let last = roc.points()[roc.points().len() - 1];
        assert_eq!((last.far, last.tar), (1.0, 1.0));
        assert!(roc.points().is_sorted_by(|a, b| a.far <= b.far && a.tar <= b.tar));
    }

    #[test]
    fn rates_read_from_the_curve_agree_with_all_thresholds() {
        let pairs = tied_pairs(3);
        let roc = Roc::of(&pairs).unwrap();
        for wanted in [0.0, 0.01, 0.1, 0.3, 0.5, 1.0] {
            let best = (0..400)
                .map(|i| rates(&pairs, f64::from(i) * 0.01 + 0.005))
                .filter(|(far, _)| *far <= wanted)
                .fold(0.0, |best: f64, (_, tar)| best.max(tar));
            assert_eq!(roc.tar_at_far(wanted), best, "FAR {wanted}");
        }
    }

    #[test]
    fn perfect_hopeless_and_tied_curves() {
        let pairs = |distance: &[f32], same: &[bool]| Pairs {
            distance: distance.to_vec(),
            same: same.to_vec(),
        };
        let perfect =
            Roc::of(&pairs(&[0.0, 0.1, 0.2, 1.0, 2.0], &[true, true, true, false, false])).unwrap();
        assert_eq!((perfect.auc(), perfect.eer(), perfect.tar_at_far(0.0)), (1.0, 0.0, 1.0));
        assert_eq!(perfect.points().len(), 3);
        let hopeless = Roc::of(&pairs(&[0.0, 1.0], &[false, true])).unwrap();
        assert_eq!((hopeless.auc(), hopeless.eer(), hopeless.tar_at_far(0.5)), (0.0, 1.0, 0.0));
        let tied = Roc::of(&pairs(&[1.0; 4], &[false, true, false, true])).unwrap();
        assert_eq!((tied.auc(), tied.eer()), (0.5, 0.5));
        assert_eq!(roc_auc(&pairs(&[1.0, 2.0], &[true, true])), None);
    }
}
