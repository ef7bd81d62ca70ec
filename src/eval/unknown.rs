//! P(known | score), and the UNKNOWN threshold that known faces alone give; strangers give a better one
//! ([`super::open_set`]). A face is named if its score is at least the threshold.

/// The highest threshold below which at most the share `max_rejected` of the known faces falls. `None`
/// without known faces.
pub fn threshold_of_known(known: &[f64], max_rejected: f64) -> Option<f64> {
    // Tolerates rounding: 10 % of 30 pictures are 3.
    let allowed = (max_rejected.clamp(0.0, 1.0) * known.len() as f64 + 1e-9).floor() as usize;
    let mut known = known.to_vec();
    known.sort_unstable_by(f64::total_cmp);
    known.get(allowed).or(known.last()).copied()
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
    use super::*;

    #[test]
    fn the_threshold_is_a_quantile_of_the_known() {
        let known = [0.9, 0.5, 0.7, 0.6, 0.8, 1.0, 0.4, 0.95, 0.85, 0.75];
        for (share, threshold) in [(0.0, 0.4), (0.1, 0.5), (0.29, 0.6), (0.3, 0.7), (1.0, 1.0)] {
            assert_eq!(threshold_of_known(&known, share), Some(threshold));
        }
        assert_eq!(threshold_of_known(&[], 0.1), None);
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
