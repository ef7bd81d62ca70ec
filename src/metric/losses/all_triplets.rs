//! The sum over every triplet of a batch, its exact value and gradient, without listing them: there
//! are of the order of B^3.

use tch::{Kind, Tensor, no_grad};

use super::pieces::{Piece, sum_in_pieces, with_gradient};
use super::{Hinge, LossOutput, Reduction, TripletObjective, every_soft_triplet, every_triplet};
use crate::metric::groups::Groups;
use crate::metric::tiles::{DistanceRows, Tile, graph_rows, spans, tile_of};

/// The sum over the triplets of some anchors.
pub(super) struct AnchorSums {
    /// A float64 scalar.
    pub sum: Tensor,
    /// The gradient of the sum with respect to the anchors' distances: `[T, B]`, in their kind.
    pub weights: Tensor,
    /// The triplets whose value is above zero: a scalar of any kind.
    pub active: Tensor,
}

/// The sum over all triplets, and how many there are.
pub(super) struct AllTriplets {
    /// A float64 scalar with a graph.
    sum: Tensor,
    tuples: i64,
    active: Tensor,
}

impl AllTriplets {
    /// Of distances `[B, B]` and labels, int64 `[B]`; the gradient is that with respect to the
    /// distances. Memory of order B^2.
    pub fn of_distances(
        loss: &TripletObjective,
        distances: &Tensor,
        labels: &Tensor,
        tile: Option<i64>,
    ) -> Self {
        let groups = Groups::new(labels, distances.device());
        let tile = tile.unwrap_or(tile_of(distances.device()));
        let mut all = Self::nothing(&groups);
        let weights = no_grad(|| {
            let mut weights = vec![distances.narrow(0, 0, 0)];
            for (start, length) in spans(groups.len(), tile) {
                let rows = distances.narrow(0, start, length).copy();
                let part = sums(loss, Tile::new(rows, &groups, start));
                all.active += part.active.to_kind(Kind::Int64);
                all.sum += part.sum;
                weights.push(part.weights);
            }
            Tensor::cat(&weights, 0)
        });
        Self { sum: with_gradient(distances, &weights, &all.sum), ..all }
    }

    /// Of embeddings `[B, D]` and labels, int64 `[B]`; the gradient is that with respect to the
    /// embeddings. Memory of the order of a tile, whatever B.
    pub fn of_embeddings(
        loss: &TripletObjective,
        embeddings: &Tensor,
        labels: &Tensor,
        tile: Option<i64>,
    ) -> Self {
        let groups = Groups::new(labels, embeddings.device());
        let tile = tile.unwrap_or(tile_of(embeddings.device()));
        let all = Self::nothing(&groups);
        let mut active = all.active;
        let ready = DistanceRows::new(loss.measure, embeddings);
        let sum = sum_in_pieces(embeddings, spans(groups.len(), tile), |leaf, span| {
            let (rows, graph) = if leaf.requires_grad() {
                let graph = graph_rows(loss.measure, leaf, span);
                (graph.detach().copy(), Some(graph))
            } else {
                (ready.rows(span), None)
            };
            let part = no_grad(|| sums(loss, Tile::new(rows, &groups, span.0)));
            active += part.active.to_kind(Kind::Int64);
            let graph = graph.map(|rows| (rows * part.weights).sum(None));
            Piece { graph, value: part.sum }
        });
        Self { sum, active, tuples: all.tuples }
    }

    fn nothing(groups: &Groups) -> Self {
        let zero = |kind| Tensor::zeros([], (kind, groups.device()));
        let tuples = groups.counts()[2];
        Self { sum: zero(Kind::Double), active: zero(Kind::Int64), tuples }
    }

    /// The loss, of `kind`.
    pub fn reduce(self, reduction: Reduction, kind: Kind) -> LossOutput {
        let loss = match reduction {
            Reduction::Mean => self.sum / self.tuples.max(1),
            Reduction::Active => self.sum / self.active.clamp_min(1),
        };
        let tuples = Tensor::from(self.tuples);
        LossOutput { loss: loss.to_kind(kind), tuples, active: self.active }
    }
}

fn sums(loss: &TripletObjective, tile: Tile) -> AnchorSums {
    match loss.hinge {
        Hinge::Hard => every_triplet::sums(tile, loss.margin),
        Hinge::Soft => every_soft_triplet::sums(tile, loss.margin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Measure;
    use crate::metric::testing::{Batch, close, values};
    use clap::ValueEnum;

    #[test]
    fn tiles_of_embeddings_agree_with_the_matrix_in_value_counts_and_gradient() {
        for seed in 0..30 {
            let batch = Batch::random(seed);
            for &measure in Measure::value_variants() {
                for &hinge in Hinge::value_variants() {
                    let loss =
                        TripletObjective { measure, hinge, margin: 0.37, ..Default::default() };
                    let x = (batch.embeddings.to_kind(Kind::Double) + 0.1).set_requires_grad(true);
                    let run = |all: AllTriplets| {
                        let output = all.reduce(Reduction::Active, Kind::Double);
                        crate::native::clear_gradients(&[&x]).unwrap();
                        output.loss.backward();
                        let numbers = [&output.loss, &output.tuples, &output.active];
                        let mut numbers = numbers.map(|n| n.double_value(&[])).to_vec();
                        numbers.extend(values(&x.grad()));
                        numbers
                    };
                    let labels = &batch.labels;
                    let wanted =
                        run(AllTriplets::of_distances(&loss, &measure.pairwise(&x), labels, None));
                    for tile in [Some(1), Some(3 * labels.numel() as i64), None] {
                        let found = run(AllTriplets::of_embeddings(&loss, &x, labels, tile));
                        close(&found, &wanted, 1e-9);
                        let found = no_grad(|| {
                            let all = AllTriplets::of_embeddings(&loss, &x, labels, tile);
                            all.reduce(Reduction::Active, Kind::Double).loss
                        });
                        close(&values(&found), &wanted[..1], 1e-9);
                    }
                }
            }
        }
    }
}
