//! Calibrates a head's logits to probabilities, and chooses the threshold below which a face is
//! called UNKNOWN.
//!
//! A softmax has no class for strangers: its probabilities of the identities sum to 1. So the answer's
//! probability is P(known | d) · softmax(logits / T), where d is the distance to the nearest
//! training face. T is fitted on the validation part (Guo et al. 2017); P(known | d) is a logistic
//! curve between the distances of validation faces and those of strangers. Strangers come from a
//! folder, or, without one, from the data itself: each identity in turn plays the stranger to a
//! gallery from which it is left out.

use std::collections::BTreeSet;

use super::scoring::Labelled;
use crate::Result;
use crate::eval::calibration::{fit_temperature, laplace_smoothing};
use crate::eval::unknown::{Logistic, unknown_threshold};
use crate::eval::{Embeddings, knn};
use crate::recognise::{Calibration, Head, Unknown};

/// The share of known faces that the chosen threshold may call UNKNOWN on validation: on other
/// faces the share varies by a few points, and nine in ten should still be named.
pub const MOST_REJECTED: f64 = 0.08;

/// What the distances to the gallery say about known faces and strangers. The trunk is frozen, so
/// this is worked out once, before the head is trained.
#[derive(Debug, Clone)]
pub struct OpenSetCalibration {
    /// P(known | distance to the nearest training face).
    pub curve: Logistic,
    /// The P(known) below which a face is UNKNOWN.
    pub threshold: f64,
}

impl OpenSetCalibration {
    /// Fits the curve and chooses the threshold.
    ///
    /// With `strangers` the threshold separates them best from the validation faces. The stand-ins
    /// are easier than strangers, because the trunk has learnt to keep them apart; without
    /// strangers the threshold is therefore as high as [`MOST_REJECTED`] allows. Without
    /// validation pictures the training faces stand in, each measured to its nearest other one.
    /// `lone` are faces of identities without a training picture: strangers in any case.
    pub fn fit(
        train: &Labelled,
        validation: &Labelled,
        strangers: Option<&Embeddings>,
        lone: &Embeddings,
    ) -> Self {
        let nearest = |gallery: &Embeddings, query: &Embeddings| -> Vec<f64> {
            let near = knn::nearest(gallery, query);
            near.into_iter().map(|(_, distance)| f64::from(distance)).collect()
        };
        let known: Vec<f64> = if validation.labels.is_empty() {
            let others = knn::neighbours(&train.embeddings, 1);
            others.iter().filter_map(|near| Some(f64::from(near.first()?.1))).collect()
        } else {
            nearest(&train.embeddings, &validation.embeddings)
        };
        let mut unknown = match strangers {
            Some(strangers) => nearest(&train.embeddings, strangers),
            None => each_left_out(train, validation),
        };
        unknown.extend(nearest(&train.embeddings, lone));
        let distances: Vec<f64> = known.iter().chain(&unknown).copied().collect();
        let is_known: Vec<bool> = (0..distances.len()).map(|i| i < known.len()).collect();
        // Without any stand-in nothing can be said about strangers: everybody is known.
        let everybody = Logistic { weight: 0.0, bias: 20.0 };
        let curve = Logistic::fit(&distances, &is_known).unwrap_or(everybody);
        let scores = |distances: &[f64]| -> Vec<f64> {
            distances.iter().map(|&distance| curve.probability(distance)).collect()
        };
        let strangers = strangers.map_or_else(Vec::new, |_| scores(&unknown));
        let threshold = unknown_threshold(&scores(&known), &strangers, MOST_REJECTED);
        Self { curve, threshold: threshold.unwrap_or(0.5) }
    }
}

/// For every picture its distance to the nearest training face of any other identity.
fn each_left_out(train: &Labelled, validation: &Labelled) -> Vec<f64> {
    let of = |part: &Labelled, identity: usize, wanted: bool| -> Embeddings {
        let rows = (0..part.labels.len()).filter(|&i| (part.labels[i] == identity) == wanted);
        part.embeddings.subset(&rows.collect::<Vec<_>>())
    };
    // Validation pictures where there are any: the trunk has not learnt them by heart.
    let actors = if validation.labels.is_empty() { train } else { validation };
    let identities: BTreeSet<_> = actors.labels.iter().copied().collect();
    let distances = identities.into_iter().flat_map(|identity| {
        knn::nearest(&of(train, identity, false), &of(actors, identity, true))
    });
    distances.map(|(_, distance)| f64::from(distance)).collect()
}

/// The calibration of a head: its temperature, fitted on the validation part, beside `known`.
///
/// # Errors
/// The features are not of the head's length.
pub fn calibrate(
    head: &Head,
    validation: &Labelled,
    known: &OpenSetCalibration,
) -> Result<Calibration> {
    let logits = head.logits(&validation.embeddings)?;
    let classes = logits.first().map_or(0, Vec::len);
    let smoothing = laplace_smoothing(validation.labels.len());
    let temperature = fit_temperature(&logits.concat(), classes, &validation.labels, smoothing);
    let unknown = Unknown::KnownBelow(known.threshold);
    Ok(Calibration { temperature, known: known.curve, unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on a line; identities 10 apart.
    fn on_a_line(points: &[(f32, usize)]) -> Labelled {
        Labelled {
            embeddings: Embeddings::new(points.len(), 1, points.iter().map(|p| p.0).collect())
                .unwrap(),
            labels: points.iter().map(|p| p.1).collect(),
        }
    }

    fn nobody() -> Labelled {
        on_a_line(&[])
    }

    #[test]
    fn near_faces_are_known_and_far_ones_are_not() {
        let train = on_a_line(&[(0.0, 0), (1.0, 0), (10.0, 1), (11.0, 1)]);
        let validation = on_a_line(&[(0.4, 0), (1.3, 0), (10.5, 1), (11.2, 1)]);
        let known = OpenSetCalibration::fit(&train, &validation, None, &nobody().embeddings);
        assert!(known.curve.probability(0.3) > 0.9 && known.curve.probability(9.0) < 0.1);
        // All four validation faces are named: 8 % of four is none.
        assert!(known.curve.probability(0.5) >= known.threshold);
        assert!(known.curve.probability(0.6) < known.threshold);
    }

    #[test]
    fn real_strangers_move_the_threshold_to_the_gap_before_them() {
        let train = on_a_line(&[(0.0, 0), (10.0, 1)]);
        let validation = on_a_line(&[(0.5, 0), (10.5, 1)]);
        let strangers = on_a_line(&[(2.5, 0), (7.5, 0)]).embeddings;
        let known =
            OpenSetCalibration::fit(&train, &validation, Some(&strangers), &nobody().embeddings);
        assert!(known.curve.probability(1.0) >= known.threshold);
        assert!(known.curve.probability(2.4) < known.threshold);
    }

    #[test]
    fn without_validation_the_training_faces_stand_in() {
        let train = on_a_line(&[(0.0, 0), (1.0, 0), (10.0, 1), (11.0, 1)]);
        let known = OpenSetCalibration::fit(&train, &nobody(), None, &nobody().embeddings);
        assert!(known.curve.probability(0.5) > 0.5 && known.curve.probability(9.0) < 0.5);
    }
}
