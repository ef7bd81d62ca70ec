//! Equal-width buckets for TensorBoard's histograms.

/// How many buckets a histogram has: TensorBoard's own default.
pub const BUCKETS: usize = 30;

/// The buckets of a list of values and the moments TensorBoard keeps beside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Smallest finite value.
    pub min: f64,
    /// Largest finite value.
    pub max: f64,
    /// Sum of the finite values.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_squares: f64,
    /// Right edge of each bucket; bucket `i` is `[limits[i-1], limits[i])` and the first starts at
    /// `min`; the last one holds `max` too.
    pub limits: Vec<f64>,
    /// How many values are in each bucket.
    pub counts: Vec<f64>,
}

impl Histogram {
    /// Sorts `values` into [`BUCKETS`] buckets of equal width between their minimum and maximum,
    /// as `numpy.histogram(values, 30)` does.
    ///
    /// NaN and infinite values are left out: one of them would leave no finite edge. `None` when
    /// nothing finite is left. Equal values share one bucket of width zero.
    pub fn of(values: &[f32]) -> Option<Self> {
        let finite = || values.iter().filter(|value| value.is_finite()).map(|&value| value.into());
        let min = finite().reduce(f64::min)?;
        let max = finite().reduce(f64::max)?;
        let sum = finite().sum();
        let sum_squares = finite().map(|value| value * value).sum();
        if min == max {
            let counts = vec![finite().count() as f64];
            return Some(Self { min, max, sum, sum_squares, limits: vec![max], counts });
        }
        let edge = |index: usize| match index {
            BUCKETS => max,
            _ => min + (max - min) * index as f64 / BUCKETS as f64,
        };
        let mut counts = vec![0.0; BUCKETS];
        for value in finite() {
            let guess = ((value - min) / (max - min) * BUCKETS as f64) as usize;
            let mut bucket = guess.min(BUCKETS - 1);
            // The division rounds; the edges decide.
            if value < edge(bucket) {
                bucket -= 1;
            } else if bucket + 1 < BUCKETS && value >= edge(bucket + 1) {
                bucket += 1;
            }
            counts[bucket] += 1.0;
        }
        let limits = (1..=BUCKETS).map(edge).collect();
        Some(Self { min, max, sum, sum_squares, limits, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tests/golden/histogram.py makes the expected numbers with `numpy.histogram`.
    #[test]
    fn agrees_with_numpy() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/golden/histogram.json")).unwrap();
        let numbers = |key: &str| -> Vec<f64> {
            golden[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let values: Vec<f32> = numbers("values").into_iter().map(|value| value as f32).collect();
        let histogram = Histogram::of(&values).unwrap();
        assert_eq!(histogram.counts, numbers("counts"));
        for (ours, numpy) in histogram.limits.iter().zip(&numbers("edges")[1..]) {
            assert!((ours - numpy).abs() < 1e-12, "{ours} {numpy}");
        }
        assert!((histogram.sum - golden["sum"].as_f64().unwrap()).abs() < 1e-9);
        assert!((histogram.sum_squares - golden["sum_squares"].as_f64().unwrap()).abs() < 1e-9);
    }

    #[test]
    fn every_value_lies_inside_the_edges_of_its_bucket() {
        // Values that are exactly edges, where a rounded division is most easily wrong.
        let values: Vec<f32> = (0..=300).map(|index| index as f32 * 0.1 - 7.0).collect();
        let histogram = Histogram::of(&values).unwrap();
        let mut left = histogram.min;
        for (bucket, &right) in histogram.limits.iter().enumerate() {
            let last = bucket + 1 == BUCKETS;
            let inside = values
                .iter()
                .map(|&value| f64::from(value))
                .filter(|&value| value >= left && (value < right || last && value <= right))
                .count();
            assert_eq!(histogram.counts[bucket], inside as f64, "bucket {bucket}");
            left = right;
        }
    }

    #[test]
    fn survives_what_a_diverged_run_produces() {
        assert_eq!(Histogram::of(&[]), None);
        assert_eq!(Histogram::of(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]), None);
        let one = Histogram::of(&[f32::NAN, 2.0, 2.0]).unwrap();
        assert_eq!((one.min, one.max, one.counts), (2.0, 2.0, vec![2.0]));
        let wide = Histogram::of(&[f32::MIN, 0.0, f32::MAX]).unwrap();
        assert_eq!(wide.counts.iter().sum::<f64>(), 3.0);
        assert!(wide.limits.iter().all(|limit| limit.is_finite()));
    }
}
