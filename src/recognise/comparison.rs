//! Where two pictures become a distance.

use crate::Result;
use crate::eval::Embeddings;
use crate::eval::distance::euclidean;

/// How a model compares two pictures, given what its trunk made of each. Larger means farther.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The Euclidean distance of the embeddings: of length one, so from 0 to 2.
    Euclidean,
}

impl Comparison {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Euclidean => "euclidean",
        }
    }

    /// The distance of each pair of rows.
    ///
    /// # Errors
    /// What libtorch raises, where the distance is a network's.
    ///
    /// # Panics
    /// When a row is not there.
    pub fn distances(self, rows: &Embeddings, pairs: &[(usize, usize)]) -> Result<Vec<f32>> {
        match self {
            Self::Euclidean => {
                Ok(pairs.iter().map(|&(a, b)| euclidean(rows.row(a), rows.row(b))).collect())
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
