//! Open-set recognition: the UNKNOWN threshold, and P(known | score).
//!
//! A face is named if its score is at least the threshold. Larger scores are more similar: a
//! probability, or a negative distance.

/// The threshold on a probability in [0, 1] that separates known from unknown people best.
///
/// Maximises the mean of (fraction of known pictures named) and (fraction of unknown pictures rejected)
/// while rejecting at most `max_rejected` of the known. It is the midpoint between the highest rejected
/// and the lowest named score (or 0 and 1 at the ends); among equals the widest gap wins, then the
/// lowest.
///
/// Without unknown scores it is the `max_rejected` quantile of the known. `None` without known scores.
pub fn unknown_threshold(known: &[f64], strangers: &[f64], max_rejected: f64) -> Option<f64> {
    if known.is_empty() {
        return None;
    }
    // Tolerates rounding: 10 % of 30 pictures are 3.
    let allowed = (max_rejected.clamp(0.0, 1.0) * known.len() as f64 + 1e-9).floor() as usize;
    if strangers.is_empty() {
        let mut known = known.to_vec();
        known.sort_unstable_by(f64::total_cmp);
        return Some(known[allowed.min(known.len() - 1)]);
    }
    let mut scores: Vec<(f64, bool)> = known.iter().map(|&score| (score, true)).collect();
    scores.extend(strangers.iter().map(|&score| (score, false)));
    scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));

    let (mut lost, mut rejected) = (0, 0);
    let mut below = 0f64;
    let mut best: Option<(i128, f64, f64)> = None;
    let mut groups = scores.chunk_by(|a, b| a.0 == b.0).peekable();
    loop {
        // Everything up to `below` is rejected.
        let above = groups.peek().map_or(1.0, |group| group[0].0);
        // The sum of both rates as integers, so that equal values compare as equal.
        let merit = rejected as i128 * known.len() as i128 - lost as i128 * strangers.len() as i128;
        let gap = above - below;
        if best.is_none_or(|(m, g, _)| merit > m || (merit == m && gap > g)) {
            let threshold = if gap > 0.0 { f64::midpoint(below, above) } else { above };
            // The midpoint of adjacent floats is the lower one, which would name `below`.
            let threshold =
                if threshold <= below && rejected + lost > 0 { below.next_up() } else { threshold };
            best = Some((merit, gap, threshold));
        }
        let Some(group) = groups.next() else { break };
        let knowns = group.iter().filter(|(_, known)| *known).count();
        lost += knowns;
        rejected += group.len() - knowns;
        below = group[0].0;
        if lost > allowed {
            break;
        }
    }
    best.map(|(_, _, threshold)| threshold)
}

/// Logistic regression on one score: `P(known | score) = 1 / (1 + exp(-(weight score + bias)))`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Logistic {
    /// Slope: change of the log-odds per unit of score.
    pub weight: f64,
    /// Log-odds at score 0.
    pub bias: f64,
}

/// L2 penalty on the slope (of the standardised score), which keeps it finite for separable data.
const RIDGE: f64 = 1e-3;

impl Logistic {
    /// Fits P(known | score), with equal total weight of both classes.
    ///
    /// Minimises the class-balanced mean log loss plus `1e-3 / 2 w^2`, where `w` is the slope on the
    /// standardised score, by Newton's method with step halving. `None` unless there are both classes
    /// and all scores are finite.
    ///
    /// # Panics
    /// When there is not one `known` per score.
    pub fn fit(scores: &[f64], known: &[bool]) -> Option<Self> {
        assert_eq!(scores.len(), known.len(), "one answer per score");
        let count = known.len() as f64;
        let knowns = known.iter().filter(|known| **known).count() as f64;
        if knowns == 0.0 || knowns == count || !scores.iter().all(|score| score.is_finite()) {
            return None;
        }
        let mean = scores.iter().sum::<f64>() / count;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count;
        let deviation = variance.sqrt();
        if deviation <= f64::EPSILON * mean.abs() {
            // All scores equal: no information.
            return Some(Self { weight: 0.0, bias: 0.0 });
        }
        let points: Vec<(f64, f64, f64)> = scores
            .iter()
            .zip(known)
            .map(|(score, &known)| {
                let (sign, kind) = if known { (1.0, knowns) } else { (-1.0, count - knowns) };
                ((score - mean) / deviation, sign, 0.5 / kind)
            })
            .collect();
        let (slope, offset) = newton(&points);
        let weight = slope / deviation;
        Some(Self { weight, bias: offset - weight * mean })
    }

    /// P(known | score).
    pub fn probability(&self, score: f64) -> f64 {
        sigmoid(self.weight * score + self.bias)
    }
}

/// Minimises the sum of weight * ln(1 + exp(-sign (slope x + offset))) + RIDGE / 2 slope^2 over points
/// (x, sign, weight).
fn newton(points: &[(f64, f64, f64)]) -> (f64, f64) {
    let loss = |slope: f64, offset: f64| {
        let logs = points.iter().map(|(x, sign, share)| {
            let margin = sign * (slope * x + offset);
            share * ((-margin.abs()).exp().ln_1p() + (-margin).max(0.0))
        });
        logs.sum::<f64>() + RIDGE / 2.0 * slope * slope
    };
    let (mut slope, mut offset) = (0.0, 0.0);
    let mut current = loss(slope, offset);
    for _ in 0..100 {
        let (mut g0, mut g1) = (RIDGE * slope, 0.0);
        // The small diagonal keeps the system solvable if all probabilities saturate.
        let (mut h00, mut h01, mut h11) = (RIDGE, 0.0, 1e-12);
        for (x, sign, share) in points {
            let p = sigmoid(-sign * (slope * x + offset));
            let (gradient, curvature) = (-sign * share * p, share * p * (1.0 - p));
            g0 += gradient * x;
            g1 += gradient;
            h00 += curvature * x * x;
            h01 += curvature * x;
            h11 += curvature;
        }
        let determinant = h00 * h11 - h01 * h01;
        let step = ((h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant);
        let mut size = 1.0;
        let improved = loop {
            let next = loss(slope - size * step.0, offset - size * step.1);
            if next < current {
                break Some(next);
            }
            size /= 2.0;
            if size < 1e-10 {
                break None;
            }
        };
        let Some(next) = improved else { break };
        slope -= size * step.0;
        offset -= size * step.1;
        current = next;
    }
    (slope, offset)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn merit(known: &[f64], strangers: &[f64], threshold: f64) -> f64 {
        let share = |scores: &[f64], named: bool| {
            let hits = scores.iter().filter(|score| (**score >= threshold) == named).count();
            hits as f64 / scores.len() as f64
        };
        share(known, true) + share(strangers, false)
    }

    #[test]
    fn no_threshold_on_a_grid_does_better() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            // Multiples of 1/40 so that ties are common; thresholds to try lie between them.
            let mut draw = |low: u32, high: u32, n: usize| -> Vec<f64> {
                (0..n).map(|_| f64::from(rng.random_range(low..=high)) / 40.0).collect()
            };
            let (known, strangers) = (draw(15, 40, 30), draw(0, 32, 50));
            let allowed = [0.0, 0.1, 0.5][seed as usize % 3];
            let threshold = unknown_threshold(&known, &strangers, allowed).unwrap();
            let lost = |t: f64| known.iter().filter(|score| **score < t).count() as f64 / 30.0;
            assert!(lost(threshold) <= allowed + 1e-9);
            let best = (0..=42)
                .map(|i| f64::from(i) / 40.0 - 0.01)
                .filter(|&t| lost(t) <= allowed + 1e-9)
                .map(|t| merit(&known, &strangers, t))
                .fold(0.0, f64::max);
            assert!((merit(&known, &strangers, threshold) - best).abs() < 1e-12, "seed {seed}");
        }
    }

    #[test]
    fn the_middle_of_the_gap_and_the_limit_on_the_rejected() {
        assert_eq!(unknown_threshold(&[0.75, 1.0], &[0.25, 0.5], 0.1), Some(0.625));
        // Rejecting 0.2 of the known would pay, but is not allowed.
        let (known, strangers) = ([0.25, 1.0, 1.0, 1.0], [0.5, 0.5]);
        assert_eq!(unknown_threshold(&known, &strangers, 0.1), Some(0.125));
        assert_eq!(unknown_threshold(&known, &strangers, 0.25), Some(0.75));
        // Strangers above all of the known: nobody is rejected rather than everybody.
        assert_eq!(unknown_threshold(&[0.5], &[1.0], 1.0), Some(0.25));
        // Not even between two neighbouring floats does the threshold name the stranger.
        let low = 0.5f64;
        let threshold = unknown_threshold(&[low.next_up()], &[low], 0.0).unwrap();
        assert!(low < threshold && threshold <= low.next_up());
    }

    #[test]
    fn without_strangers_it_is_a_quantile() {
        let known = [0.9, 0.5, 0.7, 0.6, 0.8, 1.0, 0.4, 0.95, 0.85, 0.75];
        assert_eq!(unknown_threshold(&known, &[], 0.0), Some(0.4));
        assert_eq!(unknown_threshold(&known, &[], 0.1), Some(0.5));
        assert_eq!(unknown_threshold(&known, &[], 0.29), Some(0.6));
        assert_eq!(unknown_threshold(&known, &[], 0.3), Some(0.7));
        assert_eq!(unknown_threshold(&known, &[], 1.0), Some(1.0));
        assert_eq!(unknown_threshold(&[], &[0.5], 0.1), None);
    }

    #[test]
    fn logistic_is_fair_in_the_middle_and_finite_when_separable() {
        let fit = Logistic::fit(&[0.0, 1.0, 3.0, 4.0], &[false, false, true, true]).unwrap();
        assert!((fit.probability(2.0) - 0.5).abs() < 1e-6);
        assert!(fit.probability(4.0) > 0.99 && fit.probability(0.0) < 0.01);
        assert!(fit.weight.is_finite());
        // Twice the strangers do not move the balance.
        let scores = [0.0, 1.0, 3.0, 4.0, 0.0, 1.0];
        let heavy = Logistic::fit(&scores, &[false, false, true, true, false, false]).unwrap();
        assert!((heavy.probability(2.0) - 0.5).abs() < 1e-2);
    }

    #[test]
    fn logistic_of_nothing_to_learn_from() {
        assert_eq!(Logistic::fit(&[1.0], &[true]), None);
        assert_eq!(Logistic::fit(&[], &[]), None);
        assert_eq!(Logistic::fit(&[1.0, f64::NAN], &[true, false]), None);
        let flat = Logistic::fit(&[0.3; 4], &[true, false, true, true]).unwrap();
        assert_eq!(flat.probability(0.3), 0.5);
    }
}
