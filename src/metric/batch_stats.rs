//! Statistics of a batch for the log, accumulated while its distances are mined.

use tch::{Kind, Tensor};

use super::chunks::{AnchorChunk, DistanceRows};
use super::counting::count_smaller;
use super::distance_kind::DistanceKind;
use super::groups::Groups;

/// Mean distances of a batch, and the fraction of all its triplets with a loss (comparable between
/// miners). Nothing is synchronised until a value is read.
#[derive(Debug, Default)]
pub struct BatchStats {
    active_margin: Option<f64>,
    to_euclidean: ToEuclidean,
    /// Number of (anchor, positive) pairs, (anchor, negative) pairs and triplets.
    counts: [i64; 3],
    /// Active triplets, and sums of the Euclidean distances to positives and to negatives: one float64
    /// scalar per chunk.
    active: Vec<Tensor>,
    near: Vec<Tensor>,
    far: Vec<Tensor>,
}

/// Conversion of a chunk's distances to Euclidean ones.
#[derive(Debug, Default)]
enum ToEuclidean {
    /// They are Euclidean.
    #[default]
    Unchanged,
    /// The root of this factor times the distance.
    RootOfTimes(f64),
    /// They are computed from the embeddings.
    From(DistanceRows),
}

impl BatchStats {
    /// A triplet is active if `d_an < d_ap + active_margin`, in the distance used for mining; `None`
    /// counts no triplets.
    pub fn new(active_margin: Option<f64>) -> Self {
        Self { active_margin, ..Self::default() }
    }

    /// Fraction of active triplets among all triplets of the batch: a scalar, 0 without triplets.
    pub fn active(&self) -> Tensor {
        sum(&self.active) / self.counts[2].max(1)
    }

    /// Mean Euclidean distance of pictures of one identity: a scalar, 0 without such pairs.
    pub fn positive_distance(&self) -> Tensor {
        sum(&self.near) / self.counts[0].max(1)
    }

    /// Mean Euclidean distance of pictures of different identities: a scalar, 0 without such pairs.
    pub fn negative_distance(&self) -> Tensor {
        sum(&self.far) / self.counts[1].max(1)
    }

    /// Resets the statistics.
    pub(super) fn begin(&mut self, groups: &Groups, distance: DistanceKind, embeddings: &Tensor) {
        self.counts = groups.counts();
        self.to_euclidean = match distance {
            DistanceKind::Squared => ToEuclidean::RootOfTimes(1.0),
            DistanceKind::MeanSquared => {
                ToEuclidean::RootOfTimes(embeddings.size()[1].max(1) as f64)
            }
            DistanceKind::Euclidean => ToEuclidean::Unchanged,
            DistanceKind::Cosine => {
                ToEuclidean::From(DistanceRows::new(DistanceKind::Squared, embeddings))
            }
        };
    }

    /// Adds a chunk; `span` is its first anchor and length.
    pub(super) fn add(&mut self, mut chunk: AnchorChunk, span: (i64, i64)) {
        if let Some(margin) = self.active_margin {
            let limits = chunk.positives(f64::NEG_INFINITY) + margin;
            self.active.push(count_smaller(&chunk.far, &limits, None).sum(Kind::Double));
        }
        if let ToEuclidean::From(squared) = &self.to_euclidean {
            chunk = AnchorChunk::of(squared.rows(span), chunk.members);
        }
        // Only the rows are summed in float32.
        let total = |distances: Tensor| {
            let distances = match self.to_euclidean {
                ToEuclidean::Unchanged => distances,
                ToEuclidean::RootOfTimes(factor) if factor != 1.0 => (distances * factor).sqrt_(),
                ToEuclidean::RootOfTimes(_) | ToEuclidean::From(_) => { distances }.sqrt_(),
            };
            distances.sum_dim_intlist([1i64].as_slice(), false, None).sum(Kind::Double)
        };
        self.near.push(total(chunk.positives(0.0)));
        self.far.push(total(chunk.negatives(0.0)));
    }
}

/// The sum of scalars as float32; 0 without scalars.
fn sum(parts: &[Tensor]) -> Tensor {
    match parts {
        [] => Tensor::from(0.0f32),
        _ => Tensor::stack(parts, 0).sum(Kind::Double).to_kind(Kind::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::miners::{BATCH_ALL, RANDOM};
    use crate::metric::named::Named;
    use crate::metric::testing::{Batch, close, values};

    /// As losses without a miner have it.
    fn without_triplets(x: &Tensor, labels: &Tensor) -> BatchStats {
        let mut stats = BatchStats::new(None);
        BATCH_ALL.mine_embeddings(x, labels, DistanceKind::Squared, 0.0, 0, Some(&mut stats));
        stats
    }

    #[test]
    fn figures_agree_with_loops() {
        for seed in 0..60 {
            let batch = Batch::random(seed);
            let x = batch.on_the_sphere();
            let (names, triplets) = (batch.names(), batch.every_triplet());
            let squared = Batch::naive_distances(&x);
            let size = names.len();
            let mean = |same: bool| {
                let all = (0..size * size).map(|place| (place / size, place % size));
                let chosen = all.filter(|&(i, j)| i != j && (names[i] == names[j]) == same);
                let roots: Vec<f64> = chosen.map(|(i, j)| squared[i * size + j].sqrt()).collect();
                roots.iter().sum::<f64>() / roots.len().max(1) as f64
            };
            for &distance in DistanceKind::ALL {
                let distances = values(&distance.pairwise(&x.to_kind(Kind::Double)));
                // Off the multiples at which rounding decides.
                let margin = 0.0123;
                let active = |&&[a, p, n]: &&[usize; 3]| {
                    distances[a * size + n] < distances[a * size + p] + margin
                };
                let active = triplets.iter().filter(active).count() as f64;
                let mut stats = BatchStats::new(Some(margin));
                let x = x.to_kind(Kind::Double);
                RANDOM.mine_embeddings(&x, &batch.labels, distance, 0.0, 1, Some(&mut stats));
                let wanted = [active / triplets.len().max(1) as f64, mean(true), mean(false)];
                let found = [stats.active(), stats.positive_distance(), stats.negative_distance()];
                close(&found.map(|figure| figure.double_value(&[])), &wanted, 2e-6);
            }
            let apart = without_triplets(&x, &batch.labels);
            close(&[apart.negative_distance().double_value(&[])], &[mean(false)], 2e-3);
        }
    }

    #[test]
    fn an_empty_batch_has_zeros() {
        let none = Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu));
        let stats = without_triplets(&none, &none.select(1, 0).to_kind(Kind::Int64));
        assert_eq!(stats.positive_distance().double_value(&[]), 0.0);
    }
}
