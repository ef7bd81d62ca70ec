//! The exact sum over all O(B^3) triplets of a batch, and its gradient, without listing them.

use tch::{Device, Kind, Tensor, no_grad};

use super::chunked_sum::{ChunkLoss, chunked_sum, with_gradient};
use super::hinge::Hinge;
use super::reduction::{LossOutput, Reduction};
use crate::metric::chunks::{
    AnchorChunk, DistanceRows, anchor_chunks, chunk_size, distance_rows_with_graph,
};
use crate::metric::distance_kind::DistanceKind;
use crate::metric::groups::Groups;

/// The sum over all triplets of `hinge(d_ap - d_an + margin)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllTriplets<'a> {
    pub hinge: Hinge,
    pub margin: f64,
    /// Int64 `[B]`.
    pub labels: &'a Tensor,
    /// Number of distances per chunk; `None`: chosen for the device.
    pub chunk: Option<i64>,
    /// Only the first N pictures are anchors; `None`: all.
    pub anchors: Option<i64>,
}

/// The sum over all triplets, and how many there are.
pub(super) struct TripletSum {
    /// A float64 scalar with a graph.
    sum: Tensor,
    tuples: i64,
    active: Tensor,
}

impl AllTriplets<'_> {
    fn groups(&self, device: Device) -> Groups {
        let groups = Groups::new(self.labels, device);
        let all = groups.len();
        groups.with_anchors(self.anchors.unwrap_or(all))
    }

    /// From distances `[B, B]`, with the gradient with respect to them. O(B^2) memory.
    pub fn of_distances(&self, distances: &Tensor) -> TripletSum {
        let groups = self.groups(distances.device());
        let chunk = self.chunk.unwrap_or(chunk_size(distances.device()));
        let mut all = TripletSum::zero(&groups);
        let gradient = no_grad(|| {
            let mut gradients = vec![distances.narrow(0, 0, 0)];
            for (start, length) in anchor_chunks(&groups, chunk) {
                let rows = distances.narrow(0, start, length).copy();
                let part = self.hinge.sums(AnchorChunk::new(rows, &groups, start), self.margin);
                all.active += part.active.to_kind(Kind::Int64);
                all.sum += part.sum;
                gradients.push(part.gradient);
            }
            let anchors = groups.anchor_count();
            gradients.push(distances.narrow(0, anchors, groups.len() - anchors).zeros_like());
            Tensor::cat(&gradients, 0)
        });
        TripletSum { sum: with_gradient(distances, &gradient, &all.sum), ..all }
    }

    /// From embeddings `[B, D]`, with the gradient with respect to them. The memory is that of a chunk,
    /// whatever B.
    pub fn of_embeddings(&self, embeddings: &Tensor, distance: DistanceKind) -> TripletSum {
        let groups = self.groups(embeddings.device());
        let chunk = self.chunk.unwrap_or(chunk_size(embeddings.device()));
        let TripletSum { tuples, mut active, .. } = TripletSum::zero(&groups);
        let ready = DistanceRows::new(distance, embeddings);
        let sum = chunked_sum(embeddings, anchor_chunks(&groups, chunk), |leaf, span| {
            let (rows, graph) = if leaf.requires_grad() {
                let graph = distance_rows_with_graph(distance, leaf, span);
                (graph.detach().copy(), Some(graph))
            } else {
                (ready.rows(span), None)
            };
            let chunk = AnchorChunk::new(rows, &groups, span.0);
            let part = no_grad(|| self.hinge.sums(chunk, self.margin));
            active += part.active.to_kind(Kind::Int64);
            let graph = graph.map(|rows| (rows * part.gradient).sum(None));
            ChunkLoss { graph, value: part.sum }
        });
        TripletSum { sum, active, tuples }
    }
}

impl TripletSum {
    fn zero(groups: &Groups) -> Self {
        let zero = |kind| Tensor::zeros([], (kind, groups.device()));
        let tuples = groups.counts()[2];
        Self { sum: zero(Kind::Double), active: zero(Kind::Int64), tuples }
    }

    /// The loss, of `kind`.
    pub fn reduce(self, reduction: Reduction, kind: Kind) -> LossOutput {
        let output = reduction.divide(self.sum, self.tuples, self.active);
        LossOutput { loss: output.loss.to_kind(kind), ..output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::named::Named;
    use crate::metric::testing::{Batch, close, values};

    #[test]
    fn chunks_of_embeddings_agree_with_the_matrix_in_value_counts_and_gradient() {
        for seed in 0..30 {
            let batch = Batch::random(seed);
            for &distance in DistanceKind::ALL {
                for &hinge in Hinge::ALL {
                    let labels = &batch.labels;
                    let with =
                        |chunk| AllTriplets { hinge, margin: 0.37, labels, chunk, anchors: None };
                    let x = (batch.embeddings.to_kind(Kind::Double) + 0.1).set_requires_grad(true);
                    let run = |all: TripletSum| {
                        let output = all.reduce(Reduction::Active, Kind::Double);
                        crate::native::clear_gradients(&[&x]).unwrap();
                        output.loss.backward();
                        let numbers = [&output.loss, &output.tuples, &output.active];
                        let mut numbers = numbers.map(|n| n.double_value(&[])).to_vec();
                        numbers.extend(values(&x.grad()));
                        numbers
                    };
                    let wanted = run(with(None).of_distances(&distance.pairwise(&x)));
                    for chunk in [Some(1), Some(3 * labels.numel() as i64), None] {
                        let found = run(with(chunk).of_embeddings(&x, distance));
                        close(&found, &wanted, 1e-9);
                        let found = no_grad(|| {
                            let all = with(chunk).of_embeddings(&x, distance);
                            all.reduce(Reduction::Active, Kind::Double).loss
                        });
                        close(&values(&found), &wanted[..1], 1e-9);
                    }
                }
            }
        }
    }
}
