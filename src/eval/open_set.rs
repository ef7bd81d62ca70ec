//! Open-set identification: known people are to be named, strangers are to be refused.
//!
//! A search accepts its best candidate if the score is at least a threshold; larger scores are more
//! similar. With ISO/IEC 19795-1's names:
//!
//! - FPIR, the false-positive identification rate: the share of strangers who are accepted;
//! - FNIR, the false-negative identification rate: the share of known faces that are refused or get a
//!   wrong name. 1 - FNIR is the detection and identification rate (DIR) at that false alarm rate;
//! - OSCR: the share of known faces with the right name (CCR) over the FPIR, and the area below that
//!   curve (Dhamija, Günther, Boult, "Reducing Network Agnostophobia", 2018).

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::bootstrap::{CONFIDENCE, quantile, resample_seed};

/// The answer to a known face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Known {
    /// The score of the best candidate.
    pub score: f64,
    /// The best candidate is the right one.
    pub is_right: bool,
}

/// The answers to known faces and to strangers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpenSet {
    /// One per face.
    pub known: Vec<Known>,
    /// For each stranger the scores of their faces.
    pub strangers: Vec<Vec<f64>>,
}

/// What happens to known faces at a false-positive identification rate.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct FnirAtFpir {
    /// Maximum FPIR.
    pub fpir: f64,
    /// Scores from this on are accepted.
    #[serde(skip)]
    pub threshold: Option<f64>,
    /// FNIR: refused + wrong; `None` where it cannot be measured.
    pub fnir: Option<f64>,
    /// Lower bound of the 95 % interval of the FNIR.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// The share of known faces that are refused.
    pub refused: Option<f64>,
    /// The share of known faces that get a wrong name.
    pub wrong: Option<f64>,
    /// The detection and identification rate, 1 - FNIR.
    pub dir: Option<f64>,
    /// Why it cannot be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// The lowest threshold at which at most the share `fpir` of `strangers` is accepted: the middle between
/// the last score that is refused and the next. `None` without scores.
pub fn threshold_at(fpir: f64, strangers: &[f64]) -> Option<f64> {
    let mut scores = strangers.to_vec();
    scores.sort_unstable_by(|a, b| b.total_cmp(a));
    threshold_of_sorted(fpir, &scores)
}

/// The distance within which at most the share `fpir` of `strangers` lies: [`threshold_at`] of distances,
/// which are smaller where faces are more similar.
pub fn distance_at(fpir: f64, strangers: &[f64]) -> Option<f64> {
    let closeness: Vec<f64> = strangers.iter().map(|distance| -distance).collect();
    threshold_at(fpir, &closeness).map(|limit| -limit)
}

/// [`threshold_at`] of scores in descending order.
fn threshold_of_sorted(fpir: f64, descending: &[f64]) -> Option<f64> {
    // Tolerates rounding: 1 % of 300 strangers are 3.
    let allowed = (fpir.clamp(0.0, 1.0) * descending.len() as f64 + 1e-9).floor() as usize;
    let Some(&refused) = descending.get(allowed) else { return descending.last().copied() };
    // Scores equal to the first one that must be refused go with it.
    let above = descending[..allowed].iter().rev().find(|score| **score > refused);
    let middle = above.map_or(refused, |above| f64::midpoint(refused, *above));
    Some(if middle > refused { middle } else { refused.next_up() })
}

/// Wilson's 95 % interval of a share: `hits` of `count` independent trials (Wilson 1927).
pub fn wilson(hits: usize, count: usize) -> Interval {
    const Z: f64 = 1.959_963_984_540_054;
    let n = count.max(1) as f64;
    let value = hits as f64 / n;
    let centre = value + Z * Z / (2.0 * n);
    let spread = Z * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
    let bound = |at: f64| (at / (1.0 + Z * Z / n)).clamp(0.0, 1.0);
    Interval { value, low: bound(centre - spread), high: bound(centre + spread) }
}

impl OpenSet {
    /// The FNIR at each of `fpirs`, with intervals from `resamples` seeded resamples of known faces and
    /// of strangers, each stranger with all their faces.
    ///
    /// A rate at which less than one face of a stranger would be accepted cannot be measured. `None`
    /// unless there are both known faces and strangers. O(resamples n log n).
    pub fn fnir_at_fpir(
        &self,
        fpirs: &[f64],
        resamples: usize,
        seed: u64,
    ) -> Option<Vec<FnirAtFpir>> {
        let faces = self.scores(0..self.strangers.len());
        if faces.is_empty() || self.known.is_empty() {
            return None;
        }
        let mut draws = self.resampled(resamples, seed, |known, strangers| {
            fpirs.iter().map(|&fpir| fnir(known, threshold_of_sorted(fpir, strangers))).collect()
        });
        let rates = fpirs.iter().enumerate().map(|(at, &fpir)| {
            if fpir * (faces.len() as f64) < 1.0 - 1e-9 {
                let least = (1.0 / fpir).ceil();
                let reason = format!(
                    "{} faces of strangers, and it takes {least} to measure it",
                    faces.len()
                );
                return FnirAtFpir { fpir, reason: Some(reason), ..FnirAtFpir::default() };
            }
            let threshold = threshold_of_sorted(fpir, &faces);
            let share = |keep: &dyn Fn(&Known) -> bool| {
                self.known.iter().filter(|known| keep(known)).count() as f64
                    / self.known.len() as f64
            };
            let is_accepted = |known: &Known| threshold.is_some_and(|least| known.score >= least);
            let fnir = fnir(&self.known, threshold);
            draws.sort_unstable_by(|a, b| a[at].total_cmp(&b[at]));
            FnirAtFpir {
                fpir,
                threshold,
                fnir: Some(fnir),
                low: quantile(&draws, at, (1.0 - CONFIDENCE) / 2.0),
                high: quantile(&draws, at, (1.0 + CONFIDENCE) / 2.0),
                refused: Some(share(&|known| !is_accepted(known))),
                wrong: Some(share(&|known| is_accepted(known) && !known.is_right)),
                dir: Some(1.0 - fnir),
                reason: None,
            }
        });
        Some(rates.collect())
    }

    /// The area below the OSCR curve, with its interval: the mean share of known faces with the right
    /// name at the thresholds that the strangers' faces set. 1 is perfect. `None` unless there are both.
    pub fn oscr(&self, resamples: usize, seed: u64) -> Option<Interval> {
        let faces = self.scores(0..self.strangers.len());
        if faces.is_empty() || self.known.is_empty() {
            return None;
        }
        let value = oscr(&self.known, &faces);
        let mut draws =
            self.resampled(resamples, seed, |known, strangers| vec![oscr(known, strangers)]);
        draws.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]));
        Some(Interval {
            value,
            low: quantile(&draws, 0, (1.0 - CONFIDENCE) / 2.0).unwrap_or(value),
            high: quantile(&draws, 0, (1.0 + CONFIDENCE) / 2.0).unwrap_or(value),
        })
    }

    /// The points of the trade-off from the strictest threshold on: (FPIR, FNIR).
    pub fn trade_off(&self) -> Vec<(f64, f64)> {
        let faces = self.scores(0..self.strangers.len());
        let mut points: Vec<(f64, f64)> = (0..=faces.len())
            .map(|accepted| {
                let fpir = accepted as f64 / faces.len().max(1) as f64;
                (fpir, fnir(&self.known, threshold_of_sorted(fpir, &faces)))
            })
            .collect();
        points.dedup_by(|a, b| a.1 == b.1 && a.0 != 1.0);
        points
    }

    /// The scores of the faces of those strangers, in descending order.
    fn scores(&self, strangers: impl Iterator<Item = usize>) -> Vec<f64> {
        let mut scores: Vec<f64> =
            strangers.flat_map(|stranger| self.strangers[stranger].iter().copied()).collect();
        scores.sort_unstable_by(|a, b| b.total_cmp(a));
        scores
    }

    /// The figures of each resample; the strangers' scores come in descending order.
    fn resampled(
        &self,
        resamples: usize,
        seed: u64,
        figures: impl Fn(&[Known], &[f64]) -> Vec<f64> + Sync,
    ) -> Vec<Vec<f64>> {
        let draw = |number: u64| {
            let mut rng = StdRng::seed_from_u64(resample_seed(seed, number));
            let (knowns, people) = (self.known.len(), self.strangers.len());
            let known: Vec<Known> =
                (0..knowns).map(|_| self.known[rng.random_range(0..knowns)]).collect();
            let strangers = self.scores((0..people).map(|_| rng.random_range(0..people)));
            figures(&known, &strangers)
        };
        (0..resamples as u64).into_par_iter().map(draw).collect()
    }
}

/// The share of known faces that are refused or get a wrong name.
fn fnir(known: &[Known], threshold: Option<f64>) -> f64 {
    let is_found = |known: &&Known| known.is_right && threshold.is_some_and(|t| known.score >= t);
    1.0 - known.iter().filter(is_found).count() as f64 / known.len().max(1) as f64
}

/// The area below the OSCR curve: the probability that a known face gets its right name with a score
/// above that of a stranger's face, ties counted half.
fn oscr(known: &[Known], descending: &[f64]) -> f64 {
    let strangers = descending.len();
    let below = |score: f64| {
        let at_least = descending.partition_point(|stranger| *stranger >= score);
        let more = descending.partition_point(|stranger| *stranger > score);
        (strangers - at_least) as f64 + (at_least - more) as f64 / 2.0
    };
    let sum: f64 = known.iter().filter(|known| known.is_right).map(|k| below(k.score)).sum();
    sum / (known.len().max(1) * strangers.max(1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(answers: &[(f64, bool)]) -> Vec<Known> {
        answers.iter().map(|&(score, is_right)| Known { score, is_right }).collect()
    }

    /// Known faces at 0.9, 0.8, 0.7 (wrong), 0.3; ten strangers with one face each.
    fn example() -> OpenSet {
        OpenSet {
            known: known(&[(0.9, true), (0.8, true), (0.7, false), (0.3, true)]),
            strangers: [0.85, 0.6, 0.5, 0.4, 0.35, 0.2, 0.15, 0.1, 0.05, 0.0]
                .map(|score| vec![score])
                .into(),
        }
    }

    #[test]
    fn thresholds_lie_between_scores_and_keep_the_promise() {
        let scores = [0.1, 0.5, 0.3, 0.2];
        assert_eq!(threshold_at(0.25, &scores), Some(0.4));
        assert_eq!(threshold_at(0.0, &scores), Some(0.5f64.next_up()));
        assert_eq!(threshold_at(1.0, &scores), Some(0.1));
        assert_eq!(threshold_at(0.5, &[]), None);
        // Of three equal scores only one might be accepted: none is.
        assert_eq!(threshold_at(0.4, &[0.5, 0.5, 0.5]), Some(0.5f64.next_up()));
    }

    #[test]
    fn rates_by_hand() {
        let rates = example().fnir_at_fpir(&[0.1, 0.01], 200, 1).unwrap();
        // One stranger is accepted, so the threshold lies between 0.6 and 0.85.
        let rate = &rates[0];
        assert_eq!(rate.threshold, Some(0.725));
        assert_eq!((rate.fnir, rate.refused, rate.wrong), (Some(0.5), Some(0.5), Some(0.0)));
        assert!(rate.low.unwrap() <= 0.5 && 0.5 <= rate.high.unwrap() && rate.low < rate.high);
        assert!(rates[1].fnir.is_none() && rates[1].reason.as_ref().unwrap().contains("100"));
        let at_half = &example().fnir_at_fpir(&[0.5], 1, 1).unwrap()[0];
        assert_eq!((at_half.refused, at_half.wrong), (Some(0.0), Some(0.25)));
        assert_eq!(at_half.dir, Some(0.75));
    }

    #[test]
    fn the_area_is_the_chance_of_a_right_name_above_a_stranger() {
        // 0.9 beats ten strangers, 0.8 nine, 0.3 five; the wrong name counts for nothing.
        let area = example().oscr(100, 3).unwrap();
        assert!((area.value - 24.0 / 40.0).abs() < 1e-12);
        assert!(area.low < area.value && area.value < area.high);
        let tied = OpenSet { known: known(&[(0.5, true)]), strangers: vec![vec![0.5]] };
        assert_eq!(tied.oscr(1, 0).unwrap().value, 0.5);
        assert_eq!(OpenSet::default().oscr(1, 0), None);
    }

    #[test]
    fn the_curve_falls_and_agrees_with_the_rates() {
        let set = example();
        let curve = set.trade_off();
        assert!(curve.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1));
        assert_eq!((curve[0], curve[curve.len() - 1].0), ((0.0, 0.75), 1.0));
        assert!(curve.contains(&(0.1, 0.5)));
    }

    #[test]
    fn wilson_by_hand() {
        // The closed form in Python, with z = 1.959963984540054.
        let found = wilson(3, 300);
        assert!(
            (found.low - 0.003_406_6).abs() < 1e-6 && (found.high - 0.028_983_5).abs() < 1e-6,
            "{found:?}"
        );
        let none = wilson(0, 100);
        assert!(none.low < 1e-12 && (none.high - 0.036_994).abs() < 1e-5);
    }
}
