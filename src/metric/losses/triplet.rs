//! The triplet loss on squared Euclidean distances: Schroff, Kalenichenko and Philbin, "FaceNet: A
//! Unified Embedding for Face Recognition and Clustering", 2015.

use tch::Tensor;

use super::all_triplets::AllTriplets;
use super::{LossOutput, Reduction, TripletObjective};
use crate::metric::distance::precise;
use crate::metric::miners::{Selection, Triplets};

/// `relu(d_ap - d_an + margin)` for each triplet, where `d` is the squared Euclidean distance of
/// the anchor to the positive and to the negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TripletLoss {
    /// How much farther than the positive the negative must be, in squared distance (on the unit
    /// sphere distances go from 0 to 4).
    pub margin: f64,
    /// What the sum over triplets is divided by.
    pub reduction: Reduction,
}

impl Default for TripletLoss {
    /// FaceNet's margin of 0.2, mean over all triplets.
    fn default() -> Self {
        Self { margin: 0.2, reduction: Reduction::Mean }
    }
}

impl TripletLoss {
    /// The loss over what a miner selected in a batch with these squared distances `[B, B]` and
    /// labels, int64 `[B]`.
    pub fn over(&self, selection: &Selection, distances: &Tensor, labels: &Tensor) -> LossOutput {
        match selection {
            Selection::Triplets(triplets) => {
                self.reduction.reduce(&self.per_tuple(distances, triplets))
            }
            Selection::All => self.over_all(distances, labels),
        }
    }

    /// The loss of each listed triplet, float32 `[T]`, from distances `[B, B]`.
    pub fn per_tuple(&self, distances: &Tensor, triplets: &Triplets) -> Tensor {
        let Triplets { anchor, positive, negative } = triplets;
        let distances = precise(distances);
        let near = distances.index(&[Some(anchor), Some(positive)]);
        let far = distances.index(&[Some(anchor), Some(negative)]);
        // In this order a triplet is active exactly when `over_all` counts it, to the last bit.
        (near + self.margin - far).relu()
    }

    /// The loss over every valid triplet of the batch, its exact value and gradient, in memory of
    /// order B^2 although there are of the order of B^3 triplets: the gradient of the sum with
    /// respect to a distance is a count.
    pub fn over_all(&self, distances: &Tensor, labels: &Tensor) -> LossOutput {
        let (distances, Self { margin, reduction }) = (precise(distances), *self);
        let loss = TripletObjective { margin, reduction, ..Default::default() };
        AllTriplets::of_distances(&loss, &distances, labels, None)
            .reduce(reduction, distances.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, close, values};
    use crate::metric::{Miner, euclidean, pairwise};
    use serde_json::Value;
    use tch::{Device, Kind};

    /// Triplets from plain positions.
    fn triplets(list: &[[usize; 3]]) -> Triplets {
        let column = |place: usize| {
            Tensor::from_slice(&list.iter().map(|t| t[place] as i64).collect::<Vec<_>>())
        };
        Triplets { anchor: column(0), positive: column(1), negative: column(2) }
    }

    /// Value, tuples, active, and the gradient with respect to the distances.
    fn run(output: impl Fn(&Tensor) -> LossOutput, distances: &Tensor) -> (Vec<f64>, Vec<f64>) {
        let distances = distances.detach().copy().set_requires_grad(true);
        let LossOutput { loss, tuples, active } = output(&distances);
        loss.backward();
        let numbers =
            [loss, tuples, active].iter().map(|tensor| tensor.double_value(&[])).collect();
        (numbers, values(&distances.grad()))
    }

    #[test]
    fn all_triplets_agree_with_loops_in_value_counts_and_gradient() {
        let mut seen_active = 0.0;
        for seed in 0..300 {
            let batch = Batch::random(seed);
            let (distances, list) = (batch.distances(), batch.every_triplet());
            let rows: Vec<Vec<f64>> = Vec::try_from(distances.to_kind(Kind::Double)).unwrap();
            // Distances are multiples of 0.25: a margin of 0.5 puts triplets exactly on the hinge.
            for margin in [0.2, 0.5] {
                for reduction in [Reduction::Mean, Reduction::Active] {
                    let hinge = |[a, p, n]: [usize; 3]| rows[a][p] - rows[a][n] + margin;
                    let active = list.iter().filter(|&&t| hinge(t) > 0.0).count() as f64;
                    let sum: f64 = list.iter().map(|&t| hinge(t).max(0.0)).sum();
                    let divisor = match reduction {
                        Reduction::Mean => list.len() as f64,
                        Reduction::Active => active,
                    };
                    let wanted = [sum / divisor.max(1.0), list.len() as f64, active];
                    let loss = TripletLoss { margin, reduction };
                    let all = run(|d| loss.over_all(d, &batch.labels), &distances);
                    let listed = Selection::Triplets(triplets(&list));
                    let one_by_one = run(|d| loss.over(&listed, d, &batch.labels), &distances);
                    close(&all.0, &wanted, 1e-6);
                    close(&one_by_one.0, &wanted, 1e-6);
                    close(&all.1, &one_by_one.1, 1e-6);
                    seen_active += active;
                }
            }
        }
        assert!(seen_active > 5000.0, "the batches were too easy: {seen_active}");
    }

    #[test]
    fn a_large_batch_of_two_identities_fits_in_memory() {
        // 2048^3 / 4 triplets: listed, their indices alone would take 48 GB.
        let size = 2048;
        let x = Tensor::arange(size, (Kind::Float, Device::Cpu)).view([size, 1]) * 0.001;
        let x = Tensor::cat(&[x.sin(), x.cos()], 1).set_requires_grad(true);
        let labels = Tensor::arange(size, (Kind::Int64, Device::Cpu)).remainder(2);
        let distances = pairwise(&x);
        let selection = Miner::BatchAll.mine(&distances, &labels, 0.2, 0);
        let output = TripletLoss::default().over(&selection, &distances, &labels);
        assert_eq!(output.tuples.int64_value(&[]), size * (size / 2 - 1) * (size / 2));
        output.loss.backward();
        let gradient = values(&x.grad());
        assert!(gradient.iter().all(|g| g.is_finite()) && gradient.iter().any(|&g| g != 0.0));
    }

    #[test]
    fn agrees_with_pytorch() {
        let golden: Value = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/losses.json"
        )))
        .unwrap();
        let numbers = |value: &Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let labels: Vec<i64> = numbers(&golden["labels"]).iter().map(|&x| x as i64).collect();
        let (size, labels) = (labels.len() as i64, Tensor::from_slice(&labels));
        let embeddings = Tensor::from_slice(&numbers(&golden["embeddings"])).view([size, -1]);
        let positions: Vec<usize> =
            numbers(&golden["triplets"]).iter().map(|&x| x as usize).collect();
        let list: Vec<[usize; 3]> = positions.chunks(3).map(|t| [t[0], t[1], t[2]]).collect();
        let margin = golden["margin"].as_f64().unwrap();
        let check = |name: &str, loss: &dyn Fn(&Tensor) -> Tensor| {
            let x = embeddings.to_kind(Kind::Float).set_requires_grad(true);
            let value = loss(&x);
            value.backward();
            let golden = &golden[name];
            close(&values(&value), &[golden["loss"].as_f64().unwrap()], 1e-6);
            close(&values(&x.grad()), &numbers(&golden["gradient"]), 5e-6);
        };
        for (name, reduction) in [("mean", Reduction::Mean), ("active", Reduction::Active)] {
            let loss = TripletLoss { margin, reduction };
            let listed = Selection::Triplets(triplets(&list));
            check(name, &|x| loss.over(&listed, &pairwise(x), &labels).loss);
            check(&format!("all_{name}"), &|x| loss.over_all(&pairwise(x), &labels).loss);
        }
        let loss = TripletLoss { margin, reduction: Reduction::Mean };
        check("euclidean_mean", &|x| {
            loss.per_tuple(&euclidean(x, x), &triplets(&list)).mean(Kind::Float)
        });
    }

    #[test]
    fn distances_that_are_not_numbers_are_not_hidden() {
        let batch = Batch::random(7);
        let distances = batch.distances() * f64::NAN;
        let loss = TripletLoss::default().over_all(&distances, &batch.labels).loss;
        assert!(loss.double_value(&[]).is_nan());
    }
}
