//! The output of a miner: indices of a batch.

use crate::native::cuda::uploaded;
use tch::{Device, Kind, Tensor, no_grad};

/// The tuples of a batch that a loss is computed on.
#[derive(Debug)]
pub enum Tuples {
    /// Every valid one. There are of the order of B^3 triplets, so they are never listed.
    All,
    /// Every valid one whose anchor is among the first N of the batch. The rest, such as a
    /// memory of past embeddings, are positives and negatives only.
    OfFirst(i64),
    /// These triplets.
    Triplets(Triplets),
}

/// A list of triplets: three int64 tensors `[T]` of positions in the batch, on the device of the
/// embeddings. `T` may be zero.
#[derive(Debug)]
pub struct Triplets {
    /// The anchors.
    pub anchor: Tensor,
    /// Other pictures of the anchor's identity.
    pub positive: Tensor,
    /// Pictures of other identities.
    pub negative: Tensor,
}

impl Tuples {
    /// The embeddings of the anchors, `[A, D]` of `[B, D]`: the rows of [`pairs`](Self::pairs).
    pub fn anchors(&self, embeddings: &Tensor) -> Tensor {
        match self {
            Self::OfFirst(anchors) => embeddings.narrow(0, 0, *anchors),
            Self::All | Self::Triplets(_) => embeddings.shallow_clone(),
        }
    }

    /// The pairs (anchor, positive) and (anchor, negative) of the tuples: two masks, bool `[A, B]`.
    /// Labels are int64 `[B]` on the device of the embeddings.
    pub fn pairs(&self, labels: &Tensor) -> (Tensor, Tensor) {
        match self {
            Self::All | Self::OfFirst(_) => {
                let anchors = self.anchors(labels);
                let size = (anchors.numel() as i64, labels.numel() as i64);
                let itself = Tensor::eye_m(size.0, size.1, (Kind::Bool, labels.device()));
                let same = anchors.unsqueeze(1).eq_tensor(&labels.unsqueeze(0));
                (same.logical_and(&itself.logical_not()), same.logical_not())
            }
            Self::Triplets(Triplets { anchor, positive, negative }) => no_grad(|| {
                let size = labels.numel() as i64;
                let mask = |other: &Tensor| {
                    let mask = Tensor::zeros([size * size], (Kind::Bool, labels.device()));
                    mask.index_fill(0, &(anchor * size + other), 1).view([size, size])
                };
                (mask(positive), mask(negative))
            }),
        }
    }
}

impl Triplets {
    /// From plain positions.
    pub(super) fn listed(triplets: &[[usize; 3]], device: Device) -> Self {
        let column = |place: usize| {
            let numbers: Vec<i64> = triplets.iter().map(|t| t[place] as i64).collect();
            uploaded(&Tensor::from_slice(&numbers), device)
        };
        Self { anchor: column(0), positive: column(1), negative: column(2) }
    }

    /// Number of triplets.
    pub fn len(&self) -> usize {
        self.anchor.numel()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::values;

    #[test]
    fn the_masks_follow_the_definition() {
        let labels = Tensor::from_slice(&[4i64, 4, 9]);
        let (positives, negatives) = Tuples::All.pairs(&labels);
        assert_eq!(values(&positives), [0., 1., 0., 1., 0., 0., 0., 0., 0.]);
        assert_eq!(values(&negatives), [0., 0., 1., 0., 0., 1., 1., 1., 0.]);
        let (positives, negatives) = Tuples::OfFirst(1).pairs(&labels);
        assert_eq!(values(&positives), [0., 1., 0.]);
        assert_eq!(values(&negatives), [0., 0., 1.]);
        let listed = Tuples::Triplets(Triplets::listed(&[[1, 0, 2]], Device::Cpu));
        let (positives, negatives) = listed.pairs(&labels);
        assert_eq!(values(&positives), [0., 0., 0., 1., 0., 0., 0., 0., 0.]);
        assert_eq!(values(&negatives), [0., 0., 0., 0., 0., 1., 0., 0., 0.]);
    }
}
