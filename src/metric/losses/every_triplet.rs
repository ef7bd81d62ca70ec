//! Counting the active triplets of a batch without listing them.

use tch::{Kind, Tensor, no_grad};

use crate::metric::miners::{negatives, positives};
use crate::metric::rows::{count_below, count_up_to};

/// How often each distance of a batch appears in an active triplet.
pub(super) struct ActiveCounts {
    /// Int64 `[B, B]`: the active triplets of `(a, p)`, or minus those of `(a, n)`. It is the
    /// gradient of the sum over all triplets with respect to the distances.
    pub weights: Tensor,
    /// All valid triplets: an int64 scalar.
    pub tuples: Tensor,
    /// The active ones, `d_an < d_ap + margin`: an int64 scalar.
    pub active: Tensor,
}

/// Counts from the distances, float32 `[B, B]`, and the labels, int64 `[B]`. No gradient; memory of
/// order B^2, time of order B^2 log B.
pub(super) fn count_active(distances: &Tensor, labels: &Tensor, margin: f64) -> ActiveCounts {
    no_grad(|| {
        let labels = labels.to_device(distances.device());
        let (positives, negatives) = (positives(&labels), negatives(&labels));
        let reach = distances + margin;
        // Negatives of (a, p): those of row a nearer than its reach. Others are put out of reach.
        let far = sorted(distances, &negatives, f64::INFINITY);
        let of_pairs = count_below(&far, &reach) * &positives;
        // Positives of (a, n): those of row a whose reach goes beyond it. Others reach nothing.
        let near = sorted(&reach, &positives, f64::NEG_INFINITY);
        let of_negatives = (distances.size()[1] - count_up_to(&near, distances)) * &negatives;
        let per_row = |mask: &Tensor| mask.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64);
        ActiveCounts {
            active: of_pairs.sum(Kind::Int64),
            tuples: (per_row(&positives) * per_row(&negatives)).sum(Kind::Int64),
            weights: of_pairs - of_negatives,
        }
    })
}

/// The rows in ascending order, with everything outside the mask replaced by `other`.
fn sorted(rows: &Tensor, mask: &Tensor, other: f64) -> Tensor {
    rows.masked_fill(&mask.logical_not(), other).sort(1, false).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, values};

    #[test]
    fn counts_agree_with_loops() {
        for seed in 0..200 {
            let batch = Batch::random(seed);
            let rows: Vec<Vec<f32>> = Vec::try_from(batch.distances()).unwrap();
            let size = rows.len();
            let mut wanted = vec![0.0; size * size];
            for [a, p, n] in batch.every_triplet() {
                if rows[a][n] < rows[a][p] + 0.5 {
                    wanted[a * size + p] += 1.0;
                    wanted[a * size + n] -= 1.0;
                }
            }
            let counts = count_active(&batch.distances(), &batch.labels, 0.5);
            assert_eq!(values(&counts.weights), wanted, "seed {seed}");
            assert_eq!(counts.tuples.int64_value(&[]), batch.every_triplet().len() as i64);
            assert_eq!(counts.weights.sum(Kind::Int64).int64_value(&[]), 0);
        }
    }
}
