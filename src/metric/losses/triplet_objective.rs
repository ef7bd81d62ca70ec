//! The triplet loss in all its forms: a distance, a hinge, a margin, and where triplets come from.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::all_triplets::AllTriplets;
use super::pieces::{Piece, sum_in_pieces};
use super::{LossOutput, Reduction};
use crate::metric::Measure;
use crate::metric::distance::precise;
use crate::metric::miners::{Selection, Triplets};

/// Up to how many embeddings every triplet is summed from the matrix of their distances: 4 MB.
const SMALL: usize = 1024;

/// How many numbers of the anchors of listed triplets are in one graph: 64 MB in float32.
const TOGETHER: i64 = 1 << 24;

/// What becomes of `d_ap - d_an + margin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Hinge {
    /// Clamped at zero: triplets beyond the margin are left alone
    #[default]
    Hard,
    /// Its softplus, `log(1 + exp(.))`, which never stops pulling (Hermans et al. 2017, margin 0)
    Soft,
}

/// `hinge(d_ap - d_an + margin)` for each triplet, in any distance. With [`Measure::Squared`] and
/// [`Hinge::Hard`] it is [`TripletLoss`](super::TripletLoss).
///
/// pytorch-metric-learning's `TripletMarginLoss` is this with [`Reduction::Active`] (its default is
/// the mean over non-zero triplets), its `smooth_loss` is [`Hinge::Soft`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TripletObjective {
    /// The distance.
    pub measure: Measure,
    /// Hard or soft.
    pub hinge: Hinge,
    /// How much farther than the positive the negative must be, in that distance.
    pub margin: f64,
    /// What the sum over triplets is divided by.
    pub reduction: Reduction,
}

impl TripletObjective {
    /// `max(0, mean((a - p)^2) - mean((a - n)^2) + 0.3)`, means over the embedding's dimensions: the
    /// loss that systems comparing a passport picture with a selfie were published with.
    pub fn passport() -> Self {
        let (measure, hinge) = (Measure::MeanSquared, Hinge::Hard);
        Self { measure, hinge, margin: 0.3, reduction: Reduction::Mean }
    }

    /// The loss over explicit triplets: row `i` of the three tensors, `[T, D]` each, is one.
    pub fn over_rows(&self, anchor: &Tensor, positive: &Tensor, negative: &Tensor) -> LossOutput {
        let near = self.measure.rows(anchor, positive);
        let far = self.measure.rows(anchor, negative);
        self.reduction.reduce(&self.per_tuple(&near, &far))
    }

    /// The loss over what a miner selected in a batch. `distances [B, B]` are those of
    /// [`Measure::pairwise`] (the miner has seen the same), labels int64 `[B]`.
    pub fn over(&self, selection: &Selection, distances: &Tensor, labels: &Tensor) -> LossOutput {
        match selection {
            Selection::Triplets(listed) => {
                let far = distances.index(&[Some(&listed.anchor), Some(&listed.negative)]);
                let near = distances.index(&[Some(&listed.anchor), Some(&listed.positive)]);
                self.reduction.reduce(&self.per_tuple(&near, &far))
            }
            Selection::All => {
                let distances = precise(distances);
                AllTriplets::of_distances(self, &distances, labels, None)
                    .reduce(self.reduction, distances.kind())
            }
        }
    }

    /// The same loss straight from the embeddings `[B, D]` of the batch, without a matrix `[B, B]`:
    /// listed triplets by their own rows, all triplets in tiles of anchors that give their gradient
    /// at once. Value and gradient are those of [`TripletObjective::over`] (to about `1e-6` on the
    /// unit sphere: rows are subtracted before squaring).
    pub fn over_embeddings(
        &self,
        selection: &Selection,
        embeddings: &Tensor,
        labels: &Tensor,
    ) -> LossOutput {
        match selection {
            Selection::Triplets(listed) => self.over_listed(listed, embeddings, TOGETHER),
            // One tile is as good as the matrix, whose graph is then the quicker one.
            Selection::All if labels.numel() <= SMALL => {
                self.over(selection, &self.measure.pairwise(embeddings), labels)
            }
            Selection::All => AllTriplets::of_embeddings(self, embeddings, labels, None)
                .reduce(self.reduction, precise(embeddings).kind()),
        }
    }

    /// Listed triplets, so many numbers of their embeddings at a time.
    fn over_listed(&self, listed: &Triplets, embeddings: &Tensor, together: i64) -> LossOutput {
        let [count, dim] = [listed.len() as i64, embeddings.size()[1].max(1)];
        let rows = |x: &Tensor, (start, length): (i64, i64)| {
            let rows = [&listed.anchor, &listed.positive, &listed.negative];
            rows.map(|places| x.index_select(0, &places.narrow(0, start, length)))
        };
        if count * dim <= together {
            let [anchor, positive, negative] = rows(&precise(embeddings), (0, count));
            return self.over_rows(&anchor, &positive, &negative);
        }
        let mut active = Tensor::zeros([], (Kind::Int64, embeddings.device()));
        let step = (together / dim).max(1);
        let pieces = (0..count).step_by(step as usize).map(|at| (at, step.min(count - at)));
        let sum = sum_in_pieces(embeddings, pieces, |leaf, piece| {
            let [anchor, positive, negative] = rows(leaf, piece);
            let near = self.measure.rows(&anchor, &positive);
            let far = self.measure.rows(&anchor, &negative);
            let each = self.per_tuple(&near, &far);
            active += each.gt(0.0).sum(Kind::Int64);
            let value = each.detach().sum(Kind::Double);
            Piece { graph: Some(each.sum(None)), value }
        });
        let loss = match self.reduction {
            Reduction::Mean => sum / count,
            Reduction::Active => sum / active.clamp_min(1),
        };
        let loss = loss.to_kind(precise(embeddings).kind());
        LossOutput { loss, tuples: Tensor::from(count), active }
    }

    /// The loss of each triplet, `[T]`, from its distances `d_ap [T]` and `d_an [T]`.
    pub fn per_tuple(&self, near: &Tensor, far: &Tensor) -> Tensor {
        let reach = precise(near) + self.margin - precise(far);
        match self.hinge {
            Hinge::Hard => reach.relu(),
            Hinge::Soft => reach.softplus(),
        }
    }

    /// The distance beyond the positive's from which a negative gives no loss: a triplet is active
    /// where `d_an < d_ap + reach`. For a soft hinge where float32 cannot tell it from zero.
    pub fn reach(&self) -> f64 {
        match self.hinge {
            Hinge::Hard => self.margin,
            Hinge::Soft => self.margin - f64::from(f32::MIN_POSITIVE).ln(),
        }
    }
}

impl Default for TripletObjective {
    /// FaceNet's: squared distance, hard, margin 0.2, mean over all triplets.
    fn default() -> Self {
        let (measure, hinge) = (Measure::Squared, Hinge::Hard);
        Self { measure, hinge, margin: 0.2, reduction: Reduction::Mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Miner;
    use crate::metric::testing::{Batch, close, values};
    use tch::Device;

    #[test]
    fn the_soft_sum_over_tiles_agrees_with_a_list() {
        for seed in 0..60 {
            let batch = Batch::random(seed);
            let list = batch.every_triplet();
            let column = |k: usize| {
                Tensor::from_slice(&list.iter().map(|t| t[k] as i64).collect::<Vec<_>>())
            };
            let triplets = Triplets { anchor: column(0), positive: column(1), negative: column(2) };
            let objective = TripletObjective { hinge: Hinge::Soft, ..Default::default() };
            let run = |selection: &Selection| {
                let x = batch.embeddings.to_kind(Kind::Double).set_requires_grad(true);
                let distances = objective.measure.pairwise(&x);
                let output = objective.over(selection, &distances, &batch.labels);
                output.loss.backward();
                let numbers = [&output.loss, &output.tuples, &output.active];
                (numbers.map(|n| n.double_value(&[])), values(&x.grad()))
            };
            let (all, listed) = (run(&Selection::All), run(&Selection::Triplets(triplets)));
            close(&all.0, &listed.0, 1e-9);
            close(&all.1, &listed.1, 1e-9);
        }
    }

    #[test]
    fn embeddings_give_the_loss_and_the_gradient_of_their_matrix() {
        for seed in 0..40 {
            let batch = Batch::random(seed);
            for (measure, hinge, reduction) in [
                (Measure::Squared, Hinge::Hard, Reduction::Active),
                (Measure::Euclidean, Hinge::Soft, Reduction::Mean),
                (Measure::Cosine, Hinge::Hard, Reduction::Mean),
                (Measure::MeanSquared, Hinge::Soft, Reduction::Active),
            ] {
                let loss = TripletObjective { measure, hinge, margin: 0.37, reduction };
                let x = batch.on_the_sphere() * 1.5;
                // In float32 the root of equal embeddings' distances is noise to the matrix.
                let kind = if measure == Measure::Euclidean { Kind::Double } else { Kind::Float };
                let x = x.to_kind(kind).set_requires_grad(true);
                let selection =
                    Miner::SemiHard.mine_embeddings(&x, &batch.labels, measure, 0.9, seed);
                let Selection::Triplets(listed) = &selection else { unreachable!() };
                let run = |output: LossOutput| {
                    crate::native::clear_gradients(&[&x]).unwrap();
                    output.loss.backward();
                    let numbers = [output.loss, output.tuples, output.active];
                    let mut numbers = numbers.map(|n| n.double_value(&[])).to_vec();
                    numbers.extend(values(&x.grad()));
                    numbers
                };
                let wanted = run(loss.over(&selection, &measure.pairwise(&x), &batch.labels));
                let found = run(loss.over_embeddings(&selection, &x, &batch.labels));
                close(&found, &wanted, 1e-5);
                close(&run(loss.over_listed(listed, &x, 6)), &wanted, 1e-5);
            }
        }
    }

    #[test]
    fn the_passport_loss_starts_at_its_margin() {
        let x = Tensor::full([4, 8], 0.7, (Kind::Float, Device::Cpu));
        let output = TripletObjective::passport().over_rows(&x, &x, &x);
        close(&values(&output.loss), &[0.3], 1e-6);
        let apart = TripletObjective::passport().over_rows(&x, &(&x + 0.5), &(&x + 1.0));
        close(&values(&apart.loss), &[0.0], 1e-6);
        let wrong = TripletObjective::passport().over_rows(&x, &(&x + 1.0), &(&x + 0.5));
        close(&values(&wrong.loss), &[1.05], 1e-6);
    }

    #[test]
    fn names_are_the_command_lines() {
        for hinge in Hinge::value_variants() {
            let flag = hinge.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(hinge).unwrap(), flag.get_name());
        }
        for measure in Measure::value_variants() {
            let flag = measure.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(measure).unwrap(), flag.get_name());
        }
    }
}
