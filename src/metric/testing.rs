//! Random batches with edge cases, and naive loops for comparison in tests.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tch::{Device, Kind, Tensor};

/// A small batch: few identities, some with one picture, coordinates on a coarse grid so that equal
/// embeddings and equal distances are common.
pub(super) struct Batch {
    /// `[B, 3]`, float32, multiples of one half, so that distances are exact in float32.
    pub embeddings: Tensor,
    /// `[B]`, int64.
    pub labels: Tensor,
}

impl Batch {
    /// Batches of 1 to 12 pictures; seeds 0 to 3 are the smallest ones and a single identity.
    pub fn random(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let size = if seed < 2 { seed as usize + 1 } else { random.random_range(1..=12) };
        let identities = if seed == 2 { 1 } else { random.random_range(1..=size as i64) };
        let labels: Vec<i64> =
            (0..size).map(|_| random.random_range(0..identities) * 7 - 3).collect();
        let grid: Vec<f32> =
            (0..size * 3).map(|_| random.random_range(-2..=2) as f32 / 2.0).collect();
        Self {
            embeddings: Tensor::from_slice(&grid).view([size as i64, 3]),
            labels: Tensor::from_slice(&labels),
        }
    }

    /// Exact squared distances of the embeddings, float32 `[B, B]`.
    pub fn distances(&self) -> Tensor {
        let size = self.embeddings.size()[0];
        let flat = Self::naive_distances(&self.embeddings);
        Tensor::from_slice(&flat).view([size, size]).to_kind(Kind::Float)
    }

    /// The embeddings shifted and normalised.
    pub fn on_the_sphere(&self) -> Tensor {
        let moved = &self.embeddings + 0.1;
        let norm = moved.square().sum_dim_intlist([1i64].as_slice(), true, Kind::Float).sqrt();
        moved / norm
    }

    /// The labels as a vector.
    pub fn names(&self) -> Vec<i64> {
        Vec::try_from(&self.labels).unwrap()
    }

    /// Squared distances by loops in float64, row-major.
    pub fn naive_distances(x: &Tensor) -> Vec<f64> {
        let rows: Vec<Vec<f64>> =
            Vec::try_from(x.to_kind(Kind::Double).to_device(Device::Cpu)).unwrap();
        let squared = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
        rows.iter().flat_map(|a| rows.iter().map(|b| squared(a, b)).collect::<Vec<_>>()).collect()
    }

    /// Every valid triplet `(anchor, positive, negative)`, by loops, in order.
    pub fn every_triplet(&self) -> Vec<[usize; 3]> {
        let names = self.names();
        let all = 0..names.len();
        let mut triplets = Vec::new();
        for anchor in all.clone() {
            for positive in all.clone().filter(|&p| p != anchor && names[p] == names[anchor]) {
                for negative in all.clone().filter(|&n| names[n] != names[anchor]) {
                    triplets.push([anchor, positive, negative]);
                }
            }
        }
        triplets
    }
}

/// All values of a tensor, row-major.
pub(super) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// Panics unless both lists are equal within `tolerance`.
pub(super) fn close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{found:?} {wanted:?}");
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert!((found - wanted).abs() <= tolerance, "at {index}: {found}, wanted {wanted}");
    }
}
