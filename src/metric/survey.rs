//! The figures of a batch for the log, added up while its distances pass by.

use tch::{Kind, Tensor};

use super::groups::Groups;
use super::rows::count_smaller;
use super::tiles::{DistanceRows, Tile};
use super::{Measure, Miner};

/// How far apart a batch's pictures are, and how many of all its triplets still have a loss
/// (comparable between miners, whatever they choose). Nothing waits for the device until somebody
/// reads a figure.
#[derive(Debug, Default)]
pub struct Survey {
    reach: Option<f64>,
    roots: Roots,
    counts: [i64; 3],
    /// Active triplets and the sums of the Euclidean distances to positives and to negatives, one
    /// float64 scalar a tile.
    active: Vec<Tensor>,
    near: Vec<Tensor>,
    far: Vec<Tensor>,
}

/// How a tile's distances become Euclidean ones.
#[derive(Debug, Default)]
enum Roots {
    /// They are.
    #[default]
    Themselves,
    /// The root of so many times them.
    OfTimes(f64),
    /// Not at all: those of the same embeddings are computed apart.
    Of(DistanceRows),
}

impl Survey {
    /// A triplet is active where `d_an < d_ap + reach`, in the distance that is mined by. `None`
    /// where there is nothing to say of triplets.
    pub fn new(reach: Option<f64>) -> Self {
        Self { reach, ..Self::default() }
    }

    /// The distances of embeddings `[B, D]` with labels, int64 `[B]`, without a miner.
    pub fn of(embeddings: &Tensor, labels: &Tensor) -> Self {
        let mut survey = Self::new(None);
        let _ = Miner::BatchAll.mine_and_survey(
            embeddings,
            labels,
            Measure::Squared,
            0.0,
            0,
            &mut survey,
        );
        survey
    }

    /// The share of active triplets among all of the batch: a scalar, 0 where there is none.
    pub fn active(&self) -> Tensor {
        sum(&self.active) / self.counts[2].max(1)
    }

    /// The mean Euclidean distance of two pictures of one identity: a scalar, 0 where there are none.
    pub fn positive_distance(&self) -> Tensor {
        sum(&self.near) / self.counts[0].max(1)
    }

    /// The mean Euclidean distance of pictures of two identities: a scalar, 0 where there are none.
    pub fn negative_distance(&self) -> Tensor {
        sum(&self.far) / self.counts[1].max(1)
    }

    /// Before the first tile of a batch.
    pub(super) fn begin(&mut self, groups: &Groups, measure: Measure, embeddings: &Tensor) {
        self.counts = groups.counts();
        self.roots = match measure {
            Measure::Squared => Roots::OfTimes(1.0),
            Measure::MeanSquared => Roots::OfTimes(embeddings.size()[1].max(1) as f64),
            Measure::Euclidean => Roots::Themselves,
            Measure::Cosine => Roots::Of(DistanceRows::new(Measure::Squared, embeddings)),
        };
    }

    /// Looks at a tile that begins and ends there, and uses it up.
    pub(super) fn see(&mut self, mut tile: Tile, span: (i64, i64)) {
        if let Some(reach) = self.reach {
            let reach = tile.positives(f64::NEG_INFINITY) + reach;
            self.active.push(count_smaller(&tile.far, &reach, None).sum(Kind::Double));
        }
        if let Roots::Of(squared) = &self.roots {
            tile = Tile::of(squared.rows(span), tile.members);
        }
        // In float32 along the rows only.
        let total = |distances: Tensor| {
            let distances = match self.roots {
                Roots::Themselves => distances,
                Roots::OfTimes(times) if times != 1.0 => (distances * times).sqrt_(),
                Roots::OfTimes(_) | Roots::Of(_) => { distances }.sqrt_(),
            };
            distances.sum_dim_intlist([1i64].as_slice(), false, None).sum(Kind::Double)
        };
        self.near.push(total(tile.positives(0.0)));
        self.far.push(total(tile.negatives(0.0)));
    }
}

/// The sum of scalars as float32; zero where there are none.
fn sum(parts: &[Tensor]) -> Tensor {
    match parts {
        [] => Tensor::from(0.0f32),
        _ => Tensor::stack(parts, 0).sum(Kind::Double).to_kind(Kind::Float),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, close, values};
    use clap::ValueEnum;

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
            for &measure in Measure::value_variants() {
                let distances = values(&measure.pairwise(&x.to_kind(Kind::Double)));
                // Off the multiples at which rounding decides.
                let reach = 0.0123;
                let active = |&&[a, p, n]: &&[usize; 3]| {
                    distances[a * size + n] < distances[a * size + p] + reach
                };
                let active = triplets.iter().filter(active).count() as f64;
                let mut survey = Survey::new(Some(reach));
                let x = x.to_kind(Kind::Double);
                Miner::Random.mine_and_survey(&x, &batch.labels, measure, 0.0, 1, &mut survey);
                let wanted = [active / triplets.len().max(1) as f64, mean(true), mean(false)];
                let found =
                    [survey.active(), survey.positive_distance(), survey.negative_distance()];
                close(&found.map(|figure| figure.double_value(&[])), &wanted, 2e-6);
            }
            let apart = Survey::of(&x, &batch.labels);
            close(&[apart.negative_distance().double_value(&[])], &[mean(false)], 2e-3);
        }
    }

    #[test]
    fn an_empty_batch_has_zeros() {
        let none = Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu));
        let survey = Survey::of(&none, &none.select(1, 0).to_kind(Kind::Int64));
        assert_eq!(survey.positive_distance().double_value(&[]), 0.0);
    }
}
