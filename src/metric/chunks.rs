//! Distances of a batch in chunks of anchors, so that large batches need no `[B, B]` matrix.

use tch::{Device, Kind, Tensor, no_grad};

use super::distance::{ROOT_EPSILON, Squares, normalise, precise};
use super::distance_kind::DistanceKind;
use super::groups::{Groups, Members};
use crate::native::without_autocast;

/// Number of distances per chunk: 4 MB in float32, which stay in a CPU's cache; 256 MB on a GPU, where
/// few large kernels are faster.
pub(super) fn chunk_size(device: Device) -> i64 {
    if device == Device::Cpu { 1 << 20 } else { 1 << 26 }
}

/// Splits the anchors of a batch of `size` into chunks of at most `chunk` distances, at least one
/// anchor each: start and length of every chunk.
pub(super) fn chunks(size: i64, chunk: i64) -> impl Iterator<Item = (i64, i64)> {
    let rows = (chunk / size.max(1)).max(1);
    (0..size).step_by(rows as usize).map(move |start| (start, rows.min(size - start)))
}

/// The same for the anchors of `groups` alone.
pub(super) fn anchor_chunks(
    groups: &Groups,
    chunk: i64,
) -> impl Iterator<Item = (i64, i64)> + use<> {
    let anchors = groups.anchor_count();
    let spans = chunks(groups.len(), chunk).take_while(move |(start, _)| *start < anchors);
    spans.map(move |(start, length)| (start, length.min(anchors - start)))
}

/// Computes rows of [`DistanceKind::pairwise`] without gradient.
#[derive(Debug)]
pub(super) struct DistanceRows {
    distance: DistanceKind,
    sides: Sides,
}

#[derive(Debug)]
enum Sides {
    Squares(Squares),
    Unit(Tensor),
}

impl DistanceRows {
    /// `embeddings` are `[B, D]`.
    pub fn new(distance: DistanceKind, x: &Tensor) -> Self {
        let sides = no_grad(|| match distance {
            DistanceKind::Cosine => Sides::Unit(normalise(&x.detach())),
            _ => Sides::Squares(Squares::new(x, x)),
        });
        Self { distance, sides }
    }

    /// The distances of `length` anchors, from `start`, to all: float32 `[length, B]`, equal to those
    /// rows of [`DistanceKind::pairwise`] up to rounding of the matrix product.
    pub fn rows(&self, (start, length): (i64, i64)) -> Tensor {
        let sides = match &self.sides {
            Sides::Squares(sides) => sides,
            Sides::Unit(x) => {
                return no_grad(|| {
                    without_autocast(|| 1.0 - x.narrow(0, start, length).matmul(&x.tr()))
                });
            }
        };
        no_grad(|| {
            let squared = sides.rows(start, length);
            if self.distance == DistanceKind::Euclidean {
                return (squared + ROOT_EPSILON).sqrt();
            }
            let _ = squared.narrow(1, start, length).diagonal(0, 0, 1).zero_();
            if self.distance == DistanceKind::MeanSquared {
                squared / sides.dimensions()
            } else {
                squared
            }
        })
    }
}

/// The distances of `length` anchors, from `start`, to all of `x [B, D]`: `[length, B]`,
/// differentiable; those rows of [`DistanceKind::pairwise`].
pub(super) fn distance_rows_with_graph(
    distance: DistanceKind,
    x: &Tensor,
    (start, length): (i64, i64),
) -> Tensor {
    let x = precise(x);
    let distances = distance.between(&x.narrow(0, start, length), &x);
    match distance {
        DistanceKind::Squared | DistanceKind::MeanSquared => {
            let itself = Tensor::ones([length, x.size()[0]], (Kind::Bool, x.device()));
            let itself = itself.tril(start).logical_and(&itself.triu(start));
            distances.masked_fill(&itself, 0.0)
        }
        DistanceKind::Euclidean | DistanceKind::Cosine => distances,
    }
}

/// The distances of a chunk of anchors to positives and negatives.
pub(super) struct AnchorChunk {
    /// The pictures of the anchors' identities.
    pub members: Members,
    /// The distances to them, `[T, K]`.
    pub near: Tensor,
    /// The distances to all, `[T, B]`, infinite for the anchor's identity.
    pub far: Tensor,
}

impl AnchorChunk {
    /// From the distances `[T, B]` of the anchors from `start`, which are overwritten.
    pub fn new(distances: Tensor, groups: &Groups, start: i64) -> Self {
        let members = groups.members(start, distances.size()[0]);
        Self::of(distances, members)
    }

    /// From other distances of the same anchors.
    pub fn of(distances: Tensor, members: Members) -> Self {
        let mut far = distances;
        let near = far.gather(1, &members.index, false);
        let _ = far.scatter_value_(1, &members.index, f64::INFINITY);
        Self { members, near, far }
    }

    /// The distances to the positives, `[T, K]`, with `other` for the anchor itself.
    pub fn positives(&self, other: f64) -> Tensor {
        self.near.masked_fill(&self.members.others.logical_not(), other)
    }

    /// The distances to the negatives, `[T, B]`, with `other` for the anchor's identity; overwrites
    /// `far`.
    pub fn negatives(mut self, other: f64) -> Tensor {
        self.far.scatter_value_(1, &self.members.index, other)
    }

    /// The nearest negative of each anchor farther than `near [T, 1]`: its distance, infinite if there
    /// is none, and its column, `[T, 1]` each.
    pub fn nearest_beyond(&self, near: &Tensor) -> (Tensor, Tensor) {
        let farther = self.far.gt_tensor(near);
        nearest(&self.far.where_scalarother(&farther, f64::INFINITY))
    }
}

/// Number of columns that [`nearest`] reduces together.
const BLOCK: i64 = 64;

/// The minimum of each row of `far [T, B]`, `[T, 1]`, and its first column, int64 `[T, 1]`. NaN counts
/// as the minimum.
///
/// A minimum without index is several times faster, so: the minima of blocks, then the first block with
/// the minimum, then the index within it.
pub(super) fn nearest(far: &Tensor) -> (Tensor, Tensor) {
    let (size, blocks) = (far.size()[1], far.size()[1] / BLOCK);
    if blocks < 4 {
        return far.min_dim(1, true);
    }
    let (whole, rest) = (blocks * BLOCK, size % BLOCK);
    let mut minima =
        vec![far.narrow(1, 0, whole).unflatten(1, [blocks, BLOCK]).amin([2i64].as_slice(), false)];
    if rest > 0 {
        minima.push(far.narrow(1, whole, rest).amin([1i64].as_slice(), true));
    }
    let (_, block) = Tensor::cat(&minima, 1).min_dim(1, true);
    let columns = block * BLOCK + Tensor::arange(BLOCK, (Kind::Int64, far.device()));
    // The last column may be repeated; the first of equals is taken.
    let columns = columns.clamp_max(size - 1);
    let (value, place) = far.gather(1, &columns, false).min_dim(1, true);
    (value, columns.gather(1, &place, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::named::Named;
    use crate::metric::testing::{Batch, close, values};

    #[test]
    fn chunks_cover_every_row_once() {
        for (size, chunk, wanted) in [
            (5, 10, vec![(0, 2), (2, 2), (4, 1)]),
            (3, 1, vec![(0, 1), (1, 1), (2, 1)]),
            (2, 100, vec![(0, 2)]),
            (0, 7, vec![]),
        ] {
            assert_eq!(chunks(size, chunk).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn rows_of_any_chunk_are_those_of_the_matrix() {
        for seed in 0..40 {
            let batch = Batch::random(seed);
            let x = batch.embeddings.to_kind(Kind::Double) + 0.1;
            for &distance in DistanceKind::ALL {
                let wanted = distance.pairwise(&x);
                let size = x.size()[0];
                let whole = DistanceRows::new(distance, &x).rows((0, size));
                assert_eq!(values(&whole), values(&wanted), "{distance}, seed {seed}");
                let joined = |rows: &dyn Fn((i64, i64)) -> Tensor| {
                    let parts: Vec<Tensor> = chunks(size, 2 * size).map(rows).collect();
                    values(&Tensor::cat(&parts, 0))
                };
                let ready = DistanceRows::new(distance, &x);
                close(&joined(&|span| ready.rows(span)), &values(&wanted), 1e-9);
                close(
                    &joined(&|span| distance_rows_with_graph(distance, &x, span)),
                    &values(&wanted),
                    1e-9,
                );
            }
        }
    }

    #[test]
    fn the_nearest_is_the_first_of_the_smallest() {
        for (size, seed) in [(5, 1), (256, 2), (300, 3), (1000, 4)] {
            tch::manual_seed(seed);
            // Few values, so that almost every row has ties.
            let far = Tensor::randint(size, [50, size], (Kind::Float, Device::Cpu));
            let far = (far / 4.0).floor();
            let rows: Vec<Vec<f64>> = Vec::try_from(far.to_kind(Kind::Double)).unwrap();
            let (value, column) = nearest(&far);
            for (index, row) in rows.iter().enumerate() {
                let least = row.iter().copied().fold(f64::INFINITY, f64::min);
                let first = row.iter().position(|&d| d == least).unwrap() as i64;
                assert_eq!(value.double_value(&[index as i64, 0]), least);
                assert_eq!(column.int64_value(&[index as i64, 0]), first, "{size}");
            }
            let _ = far.narrow(1, size - 1, 1).fill_(f64::NAN);
            assert_eq!(nearest(&far).1.min().int64_value(&[]), size - 1);
        }
    }
}
