//! How good embeddings are: the figures shown after each epoch and by `visage evaluate`.

use super::fit_result::Scores;
use super::log::RunLog;
use crate::eval::retrieval::Retrieval;
use crate::eval::roc::roc_auc;
use crate::eval::unknown::Logistic;
use crate::eval::verification::{Pairs, accuracy_at, best_threshold};
use crate::eval::{Embeddings, centroid, knn};

/// More pairs than this are sampled: enough for three digits, and quick.
const MAX_PAIRS: usize = 200_000;

/// Embeddings of a part of the data with their labels.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// One row per picture.
    pub embeddings: Embeddings,
    /// Its identity.
    pub labels: Vec<usize>,
}

impl Labelled {
    /// The rows at `indices`.
    pub fn subset(&self, indices: &[usize]) -> Self {
        Self {
            embeddings: self.embeddings.subset(indices),
            labels: indices.iter().filter_map(|&i| self.labels.get(i).copied()).collect(),
        }
    }

    /// All pairs of the part, or a seeded sample of them.
    pub fn pairs(&self) -> Pairs {
        Pairs::of(&self.embeddings, &self.labels, MAX_PAIRS, 0)
    }
}

/// The distances of both kinds of pairs as histograms, where the log is on.
pub fn log_distances(log: &mut RunLog, epoch: usize, pairs: &Pairs) {
    if log.is_on() {
        for (tag, kind) in [("distance/same", true), ("distance/different", false)] {
            let distances: Vec<f32> = pairs.of_kind(kind).collect();
            log.histogram(tag, epoch as u64, &distances);
        }
    }
}

/// The figures that hold the curve of [`same_curve`].
pub const SAME_WEIGHT: &str = "same_weight";
/// The bias of that curve.
pub const SAME_BIAS: &str = "same_bias";

/// Whether a figure is for `visage verify` and not for readers: it is in model files only.
pub fn is_internal(figure: &str) -> bool {
    [SAME_WEIGHT, SAME_BIAS].contains(&figure)
}

/// P(same | distance), where same and different pairs are as likely: a logistic curve fitted to
/// both kinds of pairs, each weighing the same.
pub fn same_curve(pairs: &Pairs) -> Option<Logistic> {
    let distances: Vec<f64> = pairs.distance.iter().map(|&value| f64::from(value)).collect();
    Logistic::fit(&distances, &pairs.same)
}

/// Scores validation embeddings against the training ones.
///
/// | figure | what it is |
/// |---|---|
/// | `knn` | leave-one-out 1-NN accuracy within the validation part |
/// | `knn_gallery` | 1-NN accuracy of validation pictures against the training pictures |
/// | `centroid` | nearest-centroid accuracy, leave-one-out, within the validation part |
/// | `verification` | balanced accuracy on validation pairs at the best threshold of training pairs |
/// | `auc` | area under the ROC curve of the validation pairs |
/// | `threshold` | that threshold, which `visage verify` uses |
/// | `map_at_r`, `r_precision` | [`Retrieval`] within the validation part |
/// | `same_weight`, `same_bias` | the logistic curve P(same \| distance) of the validation pairs |
///
/// A figure that the data does not define (no pair of one identity, say) is left out. The rank is
/// the mean of `knn`, `knn_gallery` and `verification`; `auc` decides between equals.
pub fn score(train: &Labelled, validation: &Labelled) -> Scores {
    let pairs = validation.pairs();
    let threshold = best_threshold(&train.pairs());
    let retrieval = Retrieval::within(&validation.embeddings, &validation.labels);
    let knn = retrieval.map(|found| found.precision_at_1);
    let gallery = knn::against_gallery(
        &train.embeddings,
        &train.labels,
        &validation.embeddings,
        &validation.labels,
    );
    let centroid = centroid::leave_one_out(&validation.embeddings, &validation.labels);
    let verification = threshold.and_then(|found| accuracy_at(&pairs, found.distance));
    let auc = roc_auc(&pairs);
    let same = same_curve(&pairs);
    let named = [
        ("knn", knn),
        ("knn_gallery", gallery),
        ("centroid", centroid),
        ("verification", verification),
        ("auc", auc),
        ("threshold", threshold.map(|found| found.distance)),
        ("map_at_r", retrieval.map(|found| found.map_at_r)),
        ("r_precision", retrieval.map(|found| found.r_precision)),
        (SAME_WEIGHT, same.map(|curve| curve.weight)),
        (SAME_BIAS, same.map(|curve| curve.bias)),
    ];
    let main: Vec<f64> = [knn, gallery, verification].into_iter().flatten().collect();
    let mean = main.iter().sum::<f64>() / main.len().max(1) as f64;
    let percent = |figure: Option<f64>| match figure {
        Some(value) => format!("{:.1} %", 100.0 * value),
        None => "-".into(),
    };
    Scores {
        values: named
            .iter()
            .filter_map(|(name, value)| value.map(|value| (*name, value)))
            .collect(),
        rank: if main.is_empty() { Vec::new() } else { vec![mean, auc.unwrap_or(0.0)] },
        criterion: "mean accuracy",
        headline: format!(
            "validation 1-NN {}, against training {}, centroid {}, verification {}",
            percent(knn),
            percent(gallery),
            percent(centroid),
            percent(verification)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(rows: &[[f32; 2]], labels: &[usize]) -> Labelled {
        let values = rows.iter().flatten().copied().collect();
        Labelled {
            embeddings: Embeddings::new(rows.len(), 2, values).unwrap(),
            labels: labels.into(),
        }
    }

    #[test]
    fn a_perfect_and_a_hopeless_embedding() {
        let apart = labelled(&[[0., 0.], [0.1, 0.], [5., 0.], [5.1, 0.]], &[0, 0, 1, 1]);
        let good = score(&apart, &apart);
        assert_eq!(good.rank, [1.0, 1.0]);
        let mixed = labelled(&[[0., 0.], [5., 0.], [0.1, 0.], [5.1, 0.]], &[0, 0, 1, 1]);
        let bad = score(&apart, &mixed);
        assert!(bad.rank < good.rank, "{bad:?}");
        assert_eq!(bad.values.iter().find(|(name, _)| *name == "knn"), Some(&("knn", 0.0)));
    }

    #[test]
    fn undefined_figures_are_left_out() {
        let lone = labelled(&[[0., 0.], [1., 0.]], &[0, 1]);
        let names: Vec<_> = score(&lone, &lone).values.iter().map(|(name, _)| *name).collect();
        assert!(!names.contains(&"knn") && !names.contains(&"auc"), "{names:?}");
    }
}
