//! The triplet loss in all its forms: a distance, a hinge, a margin, and where triplets come from.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::every_soft_triplet::{TILE, sum_soft};
use super::{LossOutput, Reduction, TripletLoss};
use crate::metric::Measure;
use crate::metric::distance::precise;
use crate::metric::miners::Selection;

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
/// [`Hinge::Hard`] it is [`TripletLoss`].
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
        match (selection, self.hinge) {
            (Selection::Triplets(listed), _) => {
                let far = distances.index(&[Some(&listed.anchor), Some(&listed.negative)]);
                let near = distances.index(&[Some(&listed.anchor), Some(&listed.positive)]);
                self.reduction.reduce(&self.per_tuple(&near, &far))
            }
            (Selection::All, Hinge::Hard) => {
                let loss = TripletLoss { margin: self.margin, reduction: self.reduction };
                loss.over_all(distances, labels)
            }
            (Selection::All, Hinge::Soft) => self.over_all_soft(distances, labels),
        }
    }

    /// The loss of each triplet, `[T]`, from its distances `d_ap [T]` and `d_an [T]`.
    pub fn per_tuple(&self, near: &Tensor, far: &Tensor) -> Tensor {
        let reach = precise(near) + self.margin - precise(far);
        match self.hinge {
            Hinge::Hard => reach.relu(),
            Hinge::Soft => reach.softplus(),
        }
    }

    /// Exact value and gradient over all triplets without holding them: the gradient is known, so
    /// the graph is that of the linear function with that gradient, moved to the right value.
    fn over_all_soft(&self, distances: &Tensor, labels: &Tensor) -> LossOutput {
        let distances = precise(distances);
        let total = sum_soft(&distances, labels, self.margin, TILE);
        let linear = (&distances * total.weights).sum(Kind::Double);
        let sum = &linear - linear.detach() + total.sum;
        let divisor = match self.reduction {
            Reduction::Mean => &total.tuples,
            Reduction::Active => &total.active,
        };
        LossOutput {
            loss: (sum / divisor.clamp_min(1)).to_kind(distances.kind()),
            tuples: total.tuples,
            active: total.active,
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
    use crate::metric::Triplets;
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
