//! Calibrates a head's logits to probabilities, and chooses the threshold below which a face is
//! called UNKNOWN.
//!
//! A softmax has no class for strangers: its probabilities of the identities sum to 1. So the answer's
//! probability is P(known | d) · softmax(logits / T), where d is the mean distance to the five nearest
//! training faces of the nearest identity. T is fitted on the validation part (Guo et al. 2017); P(known | d) is a logistic
//! curve between the distances of validation faces and those of strangers.
//!
//! The threshold is chosen on [`Strangers`], so that no more than a given share of them gets a name: the
//! false-positive identification rate (FPIR). Each is compared to all training faces, as a user's
//! photo will be; more names therefore mean a stricter threshold. Without strangers each identity in
//! turn plays one to a gallery from which it is left out, and nothing can be promised.

use std::collections::BTreeSet;

use super::scoring::Labelled;
use super::strangers::Strangers;
use crate::eval::Embeddings;
use crate::eval::calibration::{fit_temperature, laplace_smoothing};
use crate::eval::knn::{self, Near};
use crate::eval::open_set::{distance_at, threshold_at};
use crate::eval::unknown::{Logistic, threshold_of_known};
use crate::recognise::{Calibration, Head, MeasuredFpir, Unknown};
use crate::{Error, Result};

/// Training faces of an identity that its distance is the mean of. One alone may be a bad picture: over
/// five splits of the Avengers set 8.2 % of the known faces were refused at an FPIR of 1 % with one,
/// 5.4 % with three, 4.6 % with five or eight.
pub const NEIGHBOURS: usize = 5;
/// The share of known faces that a threshold which nobody asked for may call UNKNOWN on validation: on
/// other faces the share varies by a few points, and nine in ten should still be named.
pub const MAX_REJECTED: f64 = 0.08;
/// The share of strangers who may get a name, where no `--fpir` is given and [`MAX_REJECTED`] allows it.
const DEFAULT_FPIR: f64 = 0.03;

/// What the distances to the gallery say about known faces and strangers. The trunk is frozen, so
/// this is worked out once, before the head is trained.
#[derive(Debug, Clone)]
pub struct OpenSetCalibration {
    /// P(known | distance to the nearest identity).
    pub curve: Logistic,
    /// The P(known) below which a face is UNKNOWN.
    pub threshold: f64,
    /// The share of strangers who get a name, where there were strangers.
    pub fpir: Option<MeasuredFpir>,
}

impl OpenSetCalibration {
    /// Fits the curve and chooses the threshold.
    ///
    /// With `strangers` at most the share `fpir` of them gets a name. Where it is not given, it is 3 %, or as
    /// much more as it takes not to refuse more than [`MAX_REJECTED`] of the known faces. Without strangers the
    /// threshold is as high as [`MAX_REJECTED`] allows.
    ///
    /// Without validation pictures the training faces stand in for them, each measured to its nearest
    /// other one. `lone` are faces of identities without a training picture: strangers to the curve
    /// in any case.
    ///
    /// # Errors
    /// `fpir` is less than the strangers can show, or there are none.
    pub fn fit(
        train: &Labelled,
        validation: &Labelled,
        lone: &Embeddings,
        strangers: Option<&Strangers>,
        fpir: Option<f64>,
    ) -> Result<Self> {
        let known: Vec<f64> = if validation.labels.is_empty() {
            let (faces, labels) = (&train.embeddings, &train.labels);
            distances(knn::nearest_identity_of_others(faces, labels, NEIGHBOURS))
        } else {
            nearest(train, &validation.embeddings)
        };
        let limit = match (strangers, fpir) {
            (Some(strangers), asked) => Some((strangers, strangers.rate(asked, DEFAULT_FPIR)?)),
            (None, None) => None,
            (None, Some(_)) => {
                let text = "--fpir: there are no strangers to measure it on; give a folder of faces of \
                            other people with --strangers";
                return Err(Error::Config(text.into()));
            }
        };
        let far = match limit {
            Some((strangers, fpir)) => nearest_view(train, strangers, fpir),
            None => each_left_out(train, validation),
        };
        let lone = nearest(train, lone);
        let distances: Vec<f64> = known.iter().chain(&far).chain(&lone).copied().collect();
        let is_known: Vec<bool> = (0..distances.len()).map(|i| i < known.len()).collect();
        // Without any stand-in nothing can be said about strangers: everybody is known.
        let everybody = Logistic { weight: 0.0, bias: 20.0 };
        let curve = Logistic::fit(&distances, &is_known).unwrap_or(everybody);
        let scores = |distances: &[f64]| -> Vec<f64> {
            distances.iter().map(|&distance| curve.probability(distance)).collect()
        };
        let lenient = threshold_of_known(&scores(&known), MAX_REJECTED);
        let Some((strangers, limit)) = limit else {
            return Ok(Self { curve, threshold: lenient.unwrap_or(0.5), fpir: None });
        };
        let far = scores(&far);
        let strict = threshold_at(limit, &far).unwrap_or(0.5);
        let threshold = match fpir {
            Some(_) => strict,
            None => lenient.map_or(strict, |lenient| strict.min(lenient)),
        };
        let named = far.iter().filter(|score| **score >= threshold).count() as f64;
        let value = named / far.len() as f64;
        let measured = strangers.measured(fpir, value);
        Ok(Self { curve, threshold, fpir: Some(measured) })
    }
}

/// The distance of each row of `query` to the nearest identity of `gallery`.
fn nearest(gallery: &Labelled, query: &Embeddings) -> Vec<f64> {
    distances(knn::nearest_identity(&gallery.embeddings, &gallery.labels, query, NEIGHBOURS))
}

fn distances(near: Vec<Near>) -> Vec<f64> {
    near.into_iter().map(|near| f64::from(near.identity)).collect()
}

/// The strangers' distances to the gallery in the framing that comes nearest to it: the one with the
/// smallest distance at which the share `fpir` of them lies nearer.
fn nearest_view(gallery: &Labelled, strangers: &Strangers, fpir: f64) -> Vec<f64> {
    let views = strangers.views.iter().map(|view| nearest(gallery, view));
    let limit = |distances: &Vec<f64>| distance_at(fpir, distances).unwrap_or(f64::INFINITY);
    views.max_by(|a, b| limit(b).total_cmp(&limit(a))).unwrap_or_default()
}

/// For every picture its distance to the nearest other identity.
fn each_left_out(train: &Labelled, validation: &Labelled) -> Vec<f64> {
    let of = |part: &Labelled, identity: usize, wanted: bool| -> Labelled {
        let rows = (0..part.labels.len()).filter(|&i| (part.labels[i] == identity) == wanted);
        part.subset(&rows.collect::<Vec<_>>())
    };
    // Validation pictures where there are any: the trunk has not learnt them by heart.
    let actors = if validation.labels.is_empty() { train } else { validation };
    let identities: BTreeSet<_> = actors.labels.iter().copied().collect();
    let apart =
        |identity| nearest(&of(train, identity, false), &of(actors, identity, true).embeddings);
    identities.into_iter().flat_map(apart).collect()
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
    let (known, fpir) = (known.curve, known.fpir.clone());
    Ok(Calibration { temperature, known, neighbours: NEIGHBOURS, unknown, fpir })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognise::StrangerSource;

    /// Points on a line; identities 10 apart.
    fn on_a_line(points: &[(f32, usize)]) -> Labelled {
        Labelled {
            embeddings: Embeddings::new(points.len(), 1, points.iter().map(|p| p.0).collect())
                .unwrap(),
            labels: points.iter().map(|p| p.1).collect(),
        }
    }

    fn none() -> Embeddings {
        on_a_line(&[]).embeddings
    }

    fn people(points: Vec<Vec<f32>>) -> Strangers {
        let views =
            points.into_iter().map(|points| Embeddings::new(points.len(), 1, points).unwrap());
        let views: Vec<_> = views.collect();
        Strangers { people: views[0].rows(), views, source: StrangerSource::Embedded }
    }

    #[test]
    fn near_faces_are_known_and_far_ones_are_not() {
        let train = on_a_line(&[(0.0, 0), (1.0, 0), (10.0, 1), (11.0, 1)]);
        let validation = on_a_line(&[(0.4, 0), (1.3, 0), (10.5, 1), (11.2, 1)]);
        let known = OpenSetCalibration::fit(&train, &validation, &none(), None, None).unwrap();
        assert!(known.curve.probability(0.3) > 0.9 && known.curve.probability(9.0) < 0.1);
        // All four validation faces are named: 8 % of four is none.
        assert!(known.curve.probability(0.79) >= known.threshold);
        assert!(known.curve.probability(0.81) < known.threshold);
        let error = OpenSetCalibration::fit(&train, &validation, &none(), None, Some(0.1));
        assert!(error.unwrap_err().to_string().contains("--strangers"));
    }

    #[test]
    fn the_rate_that_is_asked_for_is_kept() {
        let train = on_a_line(&[(0.0, 0), (100.0, 1)]);
        let validation = on_a_line(&[(0.5, 0), (0.6, 0), (99.0, 1), (100.3, 1)]);
        // A hundred strangers at 1, 1.1, 1.2, ... from the first face; in the other framing farther.
        let line = |from: f32| (0..100).map(|i| from + 0.1 * i as f32).collect::<Vec<f32>>();
        let strangers = people(vec![line(5.0), line(1.0)]);
        let fit =
            |fpir| OpenSetCalibration::fit(&train, &validation, &none(), Some(&strangers), fpir);
        let known = fit(Some(0.05)).unwrap();
        let fpir = known.fpir.unwrap();
        assert_eq!((fpir.value, fpir.people, fpir.asked), (0.05, 100, Some(0.05)));
        assert!(fpir.low < 0.03 && fpir.high > 0.1);
        // Five lie nearer than 1.45; it does not matter that the known face at distance 1 is named.
        assert!(known.curve.probability(1.44) >= known.threshold);
        assert!(known.curve.probability(1.46) < known.threshold);
        // By default 3 % (three in a hundred), and all of the known stay named.
        let known = fit(None).unwrap();
        assert_eq!(known.fpir.unwrap().value, 0.03);
        assert!(known.curve.probability(1.0) >= known.threshold);
        let error = fit(Some(0.02)).unwrap_err().to_string();
        assert!(error.contains("--fpir 2%") && error.contains("3.00%"), "{error}");
    }

    #[test]
    fn without_validation_the_training_faces_stand_in() {
        let train = on_a_line(&[(0.0, 0), (1.0, 0), (10.0, 1), (11.0, 1)]);
        let nobody = on_a_line(&[]);
        let known = OpenSetCalibration::fit(&train, &nobody, &none(), None, None).unwrap();
        assert!(known.curve.probability(0.5) > 0.5 && known.curve.probability(9.0) < 0.5);
    }
}
