//! Where two pictures become a distance.

use tch::Tensor;

use super::embedder::to_tensor;
use super::pair_model;
use crate::Result;
use crate::eval::Embeddings;
use crate::eval::distance::euclidean;
use crate::models::PairNet;

/// How a model compares two pictures, given the row it made of each. Larger means farther.
#[derive(Debug, Clone, Copy)]
pub enum Comparison<'a> {
    /// The Euclidean distance of the rows; embeddings have length one, so theirs is from 0 to 2.
    Euclidean,
    /// The negated logit of a pair network's head, averaged over both orders.
    Logit(&'a PairNet),
}

impl<'a> Comparison<'a> {
    /// A pair network's.
    pub fn of(net: &'a PairNet) -> Self {
        if net.kind().gives_logit() { Self::Logit(net) } else { Self::Euclidean }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
            Self::Logit(_) => "negated logit",
        }
    }

    /// The distance of each pair of rows.
    ///
    /// # Errors
    /// An error from libtorch, where the distance is a network's.
    ///
    /// # Panics
    /// When a row is not there.
    pub fn distances(self, rows: &Embeddings, pairs: &[(usize, usize)]) -> Result<Vec<f32>> {
        match self {
            Self::Euclidean => {
                Ok(pairs.iter().map(|&(a, b)| euclidean(rows.row(a), rows.row(b))).collect())
            }
            Self::Logit(net) => {
                let all = to_tensor(rows)?.f_to_device(net.backbone.device())?;
                let take = |side: fn(&(usize, usize)) -> usize| {
                    let rows: Vec<i64> = pairs.iter().map(|pair| side(pair) as i64).collect();
                    all.f_index_select(0, &Tensor::from_slice(&rows).to_device(all.device()))
                };
                pair_model::distances(net, &take(|pair| pair.0)?, &take(|pair| pair.1)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_come_pair_by_pair() {
        let rows = Embeddings::new(3, 2, vec![0.0, 0.0, 3.0, 4.0, 0.0, 1.0]).unwrap();
        let distances = Comparison::Euclidean.distances(&rows, &[(1, 0), (0, 2), (1, 1)]).unwrap();
        assert_eq!(distances, [5.0, 1.0, 0.0]);
    }
}
