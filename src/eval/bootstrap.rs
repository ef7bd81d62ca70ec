//! True accept rates at given false accept rates, with bootstrap confidence intervals.
//!
//! Percentile intervals: same and different pairs are resampled with replacement, each kind separately,
//! and the rate is computed again. Pairs are treated as independent; if people occur in many pairs, the
//! true interval is wider.
//!
//! Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rayon::prelude::*;

use super::roc::Roc;
use super::verification::Pairs;

/// Coverage of the interval.
pub const CONFIDENCE: f64 = 0.95;

/// The true accept rate at a false accept rate of at most `far`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TarAtFar {
    /// Maximum false accept rate.
    pub far: f64,
    /// The highest true accept rate of the thresholds within it; `None` where it cannot be measured.
    pub tar: Option<f64>,
    /// Lower bound of the 95 % interval.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// Why it cannot be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The true accept rate at each of `fars`, with an interval from `resamples` seeded resamples.
///
/// Rates below one over the number of different pairs cannot be measured. `None` unless there are pairs
/// of both kinds. The result does not depend on the number of threads. O(n log n + resamples n).
pub fn tar_at_far(
    pairs: &Pairs,
    fars: &[f64],
    resamples: usize,
    seed: u64,
) -> Option<Vec<TarAtFar>> {
    let roc = Roc::of(pairs)?;
    let groups = Groups::of(pairs);
    let different = groups.different.len();
    let mut draws: Vec<Vec<f64>> = (0..resamples as u64)
        .into_par_iter()
        .map_init(
            || vec![(0, 0); groups.count],
            |counts, number| groups.resampled(fars, counts, seed, number),
        )
        .collect();
    let rates = fars.iter().enumerate().map(|(at, &far)| {
        if far * (different as f64) < 1.0 - 1e-9 {
            let least = (1.0 / far).ceil();
            let reason = format!("{different} different pairs, and it takes {least} to measure it");
            return TarAtFar { far, tar: None, low: None, high: None, reason: Some(reason) };
        }
        draws.sort_unstable_by(|a, b| a[at].total_cmp(&b[at]));
        let quantile = |part: f64| quantile(&draws, at, part);
        TarAtFar {
            far,
            tar: Some(roc.tar_at_far(far)),
            low: quantile((1.0 - CONFIDENCE) / 2.0),
            high: quantile((1.0 + CONFIDENCE) / 2.0),
            reason: None,
        }
    });
    Some(rates.collect())
}

/// Each pair by the rank of its distance among the distinct ones.
struct Groups {
    count: usize,
    same: Vec<usize>,
    different: Vec<usize>,
}

impl Groups {
    fn of(pairs: &Pairs) -> Self {
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.sort_unstable_by(|&a, &b| pairs.distance[a].total_cmp(&pairs.distance[b]));
        let mut groups = Self { count: 0, same: Vec::new(), different: Vec::new() };
        for group in order.chunk_by(|&a, &b| pairs.distance[a] == pairs.distance[b]) {
            for &pair in group {
                let kind = if pairs.same[pair] { &mut groups.same } else { &mut groups.different };
                kind.push(groups.count);
            }
            groups.count += 1;
        }
        groups
    }

    /// The true accept rates of resample `number`; `counts` is scratch space.
    fn resampled(
        &self,
        fars: &[f64],
        counts: &mut [(u32, u32)],
        seed: u64,
        number: u64,
    ) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(resample_seed(seed, number));
        counts.fill((0, 0));
        for _ in 0..self.same.len() {
            counts[self.same[rng.random_range(0..self.same.len())]].0 += 1;
        }
        for _ in 0..self.different.len() {
            counts[self.different[rng.random_range(0..self.different.len())]].1 += 1;
        }
        let mut rates = vec![0.0; fars.len()];
        let (mut accepted, mut wrongly) = (0, 0);
        for (same, different) in counts {
            accepted += *same as usize;
            wrongly += *different as usize;
            let (tar, far) = (
                accepted as f64 / self.same.len() as f64,
                wrongly as f64 / self.different.len() as f64,
            );
            for (rate, _) in rates.iter_mut().zip(fars).filter(|(_, allowed)| far <= **allowed) {
                *rate = tar;
            }
        }
        rates
    }
}

/// The seed of resample `number`, so that the result does not depend on the number of threads.
pub(super) fn resample_seed(seed: u64, number: u64) -> u64 {
    seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Linear interpolation between order statistics, as NumPy's `percentile`.
pub(super) fn quantile(sorted: &[Vec<f64>], column: usize, part: f64) -> Option<f64> {
    let place = part * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted.get(place.floor() as usize)?, sorted.get(place.ceil() as usize)?);
    Some(below[column] + place.fract() * (above[column] - below[column]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `same` pairs at 1, 3, 5, ... and `different` ones at 4, 6, 8, ...
    fn interleaved(same: usize, different: usize) -> Pairs {
        let near = (0..same).map(|i| 2 * i + 1);
        let far = (0..different).map(|i| 2 * i + 4);
        Pairs::new(
            near.chain(far).map(|distance| distance as f32).collect(),
            (0..same + different).map(|i| i < same).collect(),
        )
        .unwrap()
    }

    #[test]
    fn the_rate_is_the_curves_and_lies_in_its_interval() {
        let rates = tar_at_far(&interleaved(50, 100), &[0.1, 0.01], 500, 7).unwrap();
        // Ten different pairs, up to 22, may be accepted: the same pairs below 24 are twelve.
        assert_eq!(rates[0].tar, Some(12.0 / 50.0));
        assert_eq!(rates[1].tar, Some(3.0 / 50.0));
        for rate in &rates {
            let (low, tar, high) = (rate.low.unwrap(), rate.tar.unwrap(), rate.high.unwrap());
            assert!(low < tar && tar < high, "{rate:?}");
        }
    }

    #[test]
    fn a_rate_finer_than_the_pairs_is_not_measured() {
        let rates = tar_at_far(&interleaved(9, 100), &[1e-2, 1e-3], 20, 0).unwrap();
        assert!(rates[0].tar.is_some() && rates[0].reason.is_none());
        assert_eq!((rates[1].tar, rates[1].low, rates[1].high), (None, None, None));
        assert!(rates[1].reason.as_ref().unwrap().contains("it takes 1000"));
    }

    #[test]
    fn it_follows_the_seed_and_not_the_threads() {
        let pairs = interleaved(40, 60);
        let rates = |seed| tar_at_far(&pairs, &[0.1], 200, seed);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(one.install(|| rates(5)), three.install(|| rates(5)));
        assert_ne!(rates(5), rates(6));
    }

    #[test]
    fn certain_tied_and_one_sided_pairs() {
        let apart = Pairs::new(vec![0.1, 0.2, 0.9, 1.0], vec![true, true, false, false]).unwrap();
        let rate = tar_at_far(&apart, &[0.5], 50, 0).unwrap().remove(0);
        assert_eq!((rate.tar, rate.low, rate.high), (Some(1.0), Some(1.0), Some(1.0)));
        // All alike: nobody can be accepted without everybody.
        let tied = Pairs::new(vec![1.0; 4], vec![true, false, true, false]).unwrap();
        let rate = tar_at_far(&tied, &[0.5], 50, 0).unwrap().remove(0);
        assert_eq!((rate.tar, rate.high), (Some(0.0), Some(0.0)));
        assert_eq!(tar_at_far(&Pairs::new(vec![1.0], vec![true]).unwrap(), &[0.5], 9, 0), None);
    }
}
