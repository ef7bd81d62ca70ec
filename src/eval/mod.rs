//! Pure functions over embeddings: who is nearest, is this the same person, how sure is sure.
//!
//! Everything here takes plain slices and gives plain numbers: no tensors, no files, no
//! randomness that is not seeded, and the same answer on one thread as on many. A distance is
//! always Euclidean (not squared), and larger always means farther.
//!
//! | file | the question |
//! |---|---|
//! | [`knn`] | whose face is the nearest one? |
//! | [`retrieval`] | how many of the nearest pictures show the same person? |
//! | [`centroid`] | whose average face is the nearest one? |
//! | [`verification`], [`roc`] | do two pictures show one person? |
//! | [`folds`], [`bootstrap`], [`pair_scores`] | how sure is the answer to that? |
//! | [`calibration`] | does 90 % mean 90 %? |
//! | [`unknown`] | when is the answer UNKNOWN? |
//! | [`confusion`] | who is taken for whom? |
//! | [`tsne`] | what does it all look like in two dimensions? |

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
mod testing {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::Embeddings;

    /// Uniform values in [-1, 1).
    pub fn random(rows: usize, dim: usize, seed: u64) -> Embeddings {
        let mut rng = StdRng::seed_from_u64(seed);
        let values = (0..rows * dim).map(|_| rng.random_range(-1.0..1.0f32)).collect();
        Embeddings::new(rows, dim, values).unwrap()
    }
}
