//! Temperature scaling and calibration error.
//!
//! Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

/// Range of temperatures in [`fit_temperature`].
pub const TEMPERATURES: (f64, f64) = (0.05, 20.0);

/// `softmax(logits / temperature)` in f64, stable for large logits.
///
/// # Panics
/// Never; with a `temperature` that is not positive the result is meaningless.
pub fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let mut scaled: Vec<f64> = logits.iter().map(|&x| f64::from(x) / temperature).collect();
    let max = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scaled.iter_mut().for_each(|value| *value = (*value - max).exp());
    let sum: f64 = scaled.iter().sum();
    scaled.iter_mut().for_each(|value| *value /= sum);
    scaled
}

/// The softmax temperature T that minimises the negative log-likelihood of the labels.
///
/// `logits` is `[labels, classes]`, row-major. The loss is convex in 1/T; golden-section search over ln
/// T within [`TEMPERATURES`].
///
/// Label smoothing of `smoothing` in [0, 1) moves that fraction of each target to the other classes.
/// Without smoothing a set without errors has its optimum at T = 0, probability 1. For small validation
/// parts use [`laplace_smoothing`].
///
/// Returns 1 without labels, or if T makes no difference.
///
/// # Panics
/// When `logits` is not `labels.len() * classes` long or a label is not below `classes`.
pub fn fit_temperature(logits: &[f32], classes: usize, labels: &[usize], smoothing: f64) -> f64 {
    assert_eq!(logits.len(), labels.len() * classes, "one row of logits per label");
    if labels.is_empty() || classes < 2 {
        return 1.0;
    }
    let loss = |t: f64| negative_log_likelihood(logits, labels, t, smoothing);
    let (low, high) = TEMPERATURES;
    let valley = golden_section(low.ln(), high.ln(), |log_t| loss(log_t.exp())).exp();
    // Golden-section search only approaches the bounds. The first of equals wins, 1 before all.
    let candidates = [1.0, low, high, valley].map(|t| (t, loss(t)));
    candidates.into_iter().fold((1.0, f64::INFINITY), |a, b| if b.1 < a.1 { b } else { a }).0
}

/// Laplace's rule of succession: the probability of an error after `pictures` correct predictions, 1 /
/// (pictures + 2).
pub fn laplace_smoothing(pictures: usize) -> f64 {
    1.0 / (pictures as f64 + 2.0)
}

/// Mean cross-entropy of softmax(logits / temperature) with (smoothed) labels, in nats; 0 without
/// labels. Arguments as in [`fit_temperature`].
///
/// # Panics
/// When a label is not below the number of classes.
pub fn negative_log_likelihood(
    logits: &[f32],
    labels: &[usize],
    temperature: f64,
    smoothing: f64,
) -> f64 {
    if labels.is_empty() {
        return 0.0;
    }
    let classes = logits.len() / labels.len();
    let mut scaled = Vec::with_capacity(classes);
    let mut total = 0.0;
    for (&label, row) in labels.iter().zip(logits.chunks_exact(classes)) {
        // Relative to the label's own logit, for numerical accuracy.
        scaled.clear();
        let own = f64::from(row[label]);
        scaled.extend(row.iter().map(|&x| (f64::from(x) - own) / temperature));
        total += log_sum_exp(&scaled);
        if smoothing > 0.0 {
            total -= smoothing * scaled.iter().sum::<f64>() / (classes as f64 - 1.0);
        }
    }
    total / labels.len() as f64
}

/// Expected calibration error: the mean of |accuracy - mean confidence| over `bins` equal bins of
/// confidence (upper edges included), weighted by their number of pictures.
///
/// 15 bins are usual. `None` without predictions or bins.
///
/// # Panics
/// When there is not one `correct` per confidence.
pub fn expected_calibration_error(
    confidences: &[f64],
    correct: &[bool],
    bins: usize,
) -> Option<f64> {
    assert_eq!(confidences.len(), correct.len(), "one answer per confidence");
    if confidences.is_empty() || bins == 0 {
        return None;
    }
    // Sum of (correct - confidence) per bin: gap times count.
    let mut gaps = vec![0.0; bins];
    for (&confidence, &correct) in confidences.iter().zip(correct) {
        // NaN, which no `clamp` moves, counts in the first bin and makes the result NaN.
        let bin = (confidence * bins as f64).ceil().clamp(1.0, bins as f64) as usize;
        let bin = bin.saturating_sub(1);
        gaps[bin] += f64::from(u8::from(correct)) - confidence;
    }
    Some(gaps.iter().map(|gap| gap.abs()).sum::<f64>() / confidences.len() as f64)
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + values.iter().map(|value| (value - max).exp()).sum::<f64>().ln()
}

/// Minimum of a unimodal function, to about 1e-9 of the interval.
fn golden_section(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let ratio = 2.0 / (1.0 + 5f64.sqrt());
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (f(left), f(right));
    for _ in 0..45 {
        if at_left <= at_right {
            high = right;
            (right, at_right) = (left, at_left);
            left = high - ratio * (high - low);
            at_left = f(left);
        } else {
            low = left;
            (left, at_left) = (right, at_right);
            right = low + ratio * (high - low);
            at_right = f(right);
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_sums_to_one_and_survives_large_logits() {
        let flat = softmax(&[1.0, 1.0], 3.0);
        assert_eq!(flat, [0.5, 0.5]);
        let sharp = softmax(&[3e38, 0.0, -3e38], 0.05);
        assert_eq!(sharp, [1.0, 0.0, 0.0]);
        // e^1 / (e^1 + 1) after halving the logits.
        let half = softmax(&[2.0, 0.0], 2.0);
        assert!((half[0] - 1f64.exp() / (1f64.exp() + 1.0)).abs() < 1e-15);
        assert!(softmax(&[], 1.0).is_empty());
    }

    #[test]
    fn the_temperature_undoes_a_known_one() {
        // Answers that are right with exactly the probability that logits of 1 or 2 announce,
        // and then four times overconfident.
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for (logit, right) in [(1.0, 731_059), (2.0, 880_797)] {
            for i in 0..1000 {
                logits.extend([logit * 4.0, 0.0f32]);
                labels.push(usize::from(i * 1000 >= right));
            }
        }
        let t = fit_temperature(&logits, 2, &labels, 0.0);
        assert!((t - 4.0).abs() < 0.02, "{t}");
    }

    #[test]
    fn without_a_mistake_only_smoothing_keeps_doubt() {
        let logits = [4.0, 0.0, 0.0, 5.0, 3.0, 0.0f32];
        let labels = [0, 1, 0];
        assert_eq!(fit_temperature(&logits, 2, &labels, 0.0), TEMPERATURES.0);
        let t = fit_temperature(&logits, 2, &labels, laplace_smoothing(3));
        let mean = (softmax(&logits[..2], t)[0] + softmax(&logits[2..4], t)[1]) / 2.0;
        assert!((0.75..0.95).contains(&mean), "T {t}: mean confidence {mean}");
        // All wrong: as flat as it goes.
        assert_eq!(fit_temperature(&logits, 2, &[1, 0, 1], 0.0), TEMPERATURES.1);
    }

    #[test]
    fn where_the_temperature_makes_no_difference_it_is_one() {
        assert_eq!(fit_temperature(&[], 3, &[], 0.0), 1.0);
        assert_eq!(fit_temperature(&[7.0, 7.0], 2, &[1], 0.0), 1.0);
        assert_eq!(fit_temperature(&[7.0, 8.0], 1, &[0, 0], 0.0), 1.0);
    }

    #[test]
    fn calibration_error_by_hand() {
        // Bin (0.8, 1.0]: two of four right at 0.9: |0.5 - 0.9| * 4; bin (0.4, 0.6]: 0.5 at 0.5.
        let confidences = [0.9, 0.9, 0.9, 0.9, 0.5, 0.5];
        let correct = [true, true, false, false, true, false];
        let error = expected_calibration_error(&confidences, &correct, 5).unwrap();
        assert!((error - 0.4 * 4.0 / 6.0).abs() < 1e-12);
        assert_eq!(expected_calibration_error(&[0.0, 1.0], &[false, true], 15), Some(0.0));
        assert_eq!(expected_calibration_error(&[], &[], 15), None);
        assert_eq!(expected_calibration_error(&[0.5], &[true], 0), None);
        let nan = expected_calibration_error(&[f64::NAN, 0.5], &[true, true], 15);
        assert!(nan.unwrap().is_nan());
    }
}
