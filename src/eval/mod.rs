//! Metrics: pure functions over embeddings.
//!
//! Plain slices in, plain numbers out: no tensors, no files, seeded randomness, and results that do not
//! depend on the number of threads. Distances are Euclidean (not squared); larger means farther.
//!
//! | module | metric |
//! |---|---|
//! | [`knn`] | 1-NN accuracy |
//! | [`retrieval`] | MAP@R and R-precision |
//! | [`centroid`] | nearest-centroid accuracy |
//! | [`verification`], [`roc`] | verification: balanced accuracy, ROC, AUC, EER |
//! | [`folds`], [`bootstrap`], [`pair_scores`] | k-fold accuracy, TAR@FAR with confidence intervals |
//! | [`calibration`] | temperature scaling, calibration error |
//! | [`unknown`] | P(known), the UNKNOWN threshold without strangers |
//! | [`open_set`] | strangers: FNIR at FPIR, OSCR |
//! | [`confusion`] | confusion matrix |
//! | [`tsne`] | t-SNE |

pub mod bootstrap;
pub mod calibration;
pub mod centroid;
pub mod confusion;
pub mod distance;
mod embeddings;
pub mod folds;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_pairs;
pub mod knn;
pub mod open_set;
pub mod pair_scores;
mod pca;
pub mod retrieval;
pub mod roc;
pub mod tsne;
pub mod unknown;
pub mod verification;

pub use embeddings::Embeddings;

/// The share of `right` in `all`, or `None` of nothing.
fn share(right: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| right as f64 / all as f64)
}

/// Rows of data and rows of labels belong together; a caller that mixes them up has a bug.
fn assert_labelled(embeddings: &Embeddings, labels: &[usize]) {
    assert_eq!(embeddings.rows(), labels.len(), "one label per embedding");
}

#[cfg(test)]
pub(crate) mod testing {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::Embeddings;

    /// Uniform values in [-1, 1).
    pub fn random(rows: usize, dim: usize, seed: u64) -> Embeddings {
        let mut rng = StdRng::seed_from_u64(seed);
        let values = (0..rows * dim).map(|_| rng.random_range(-1.0..1.0f32)).collect();
        Embeddings::new(rows, dim, values).unwrap()
    }
}
