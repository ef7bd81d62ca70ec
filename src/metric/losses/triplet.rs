//! The triplet margin loss: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face
//! Recognition and Clustering", 2015.

use tch::{Kind, Tensor};

use super::all_triplets::AllTriplets;
use super::chunked_sum::{ChunkLoss, chunked_sum};
use super::hinge::Hinge;
use super::loss::{Loss, LossKind, LossOption, LossOptions, Mining};
use super::reduction::{LossOutput, Reduction};
use crate::metric::distance::precise;
use crate::metric::distance_kind::DistanceKind;
use crate::metric::miners::tuples::{Triplets, Tuples};

/// Maximum number of embeddings for which all triplets are summed from a distance matrix: 4 MB.
const SMALL_BATCH: usize = 1024;

/// Number of embedding values of listed triplets in one graph: 64 MB in float32.
const NUMBERS_AT_ONCE: i64 = 1 << 24;

/// `--loss triplet`.
pub const TRIPLET: LossKind = LossKind {
    name: "triplet",
    help: "Triplets that --miner chooses (Schroff et al. 2015)",
    margin: Some((0.2, "")),
    options: &[LossOption::Miner, LossOption::Distance, LossOption::Hinge, LossOption::Memory],
    exact_gradient: true,
    build: |options, _| Box::new(TripletMarginLoss::new(options)),
};

/// `hinge(d_ap - d_an + margin)` for each triplet, in any distance.
///
/// pytorch-metric-learning's `TripletMarginLoss` is this with [`Reduction::Active`] (its default is the
/// mean over non-zero triplets); its `smooth_loss` is [`Hinge::Soft`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TripletMarginLoss {
    /// The distance.
    pub distance: DistanceKind,
    /// Hard or soft.
    pub hinge: Hinge,
    /// How much farther than the positive the negative must be (squared distances on the unit sphere
    /// are between 0 and 4).
    pub margin: f64,
    /// What the sum over triplets is divided by.
    pub reduction: Reduction,
}

impl Loss for TripletMarginLoss {
    /// The loss without a matrix `[B, B]`: listed triplets by their rows, all triplets in chunks of
    /// anchors.
    fn forward(&self, embeddings: &Tensor, labels: &Tensor, tuples: &Tuples) -> LossOutput {
        match tuples {
            Tuples::Triplets(listed) => self.forward_listed(listed, embeddings, NUMBERS_AT_ONCE),
            // If one chunk is enough, the graph of the matrix is faster.
            Tuples::All if labels.numel() <= SMALL_BATCH => {
                self.forward_distances(&self.distance.pairwise(embeddings), labels, tuples)
            }
            Tuples::All | Tuples::OfFirst(_) => self
                .all(labels, tuples)
                .of_embeddings(embeddings, self.distance)
                .reduce(self.reduction, precise(embeddings).kind()),
        }
    }

    fn mining(&self) -> Option<Mining> {
        let active_margin = self.hinge.active_margin(self.margin);
        Some(Mining { distance: self.distance, margin: self.margin, active_margin })
    }
}

impl TripletMarginLoss {
    /// The loss with these options; a margin of 0.2 where none is given.
    pub fn new(options: &LossOptions) -> Self {
        let LossOptions { distance, hinge, reduction, .. } = *options;
        Self { distance, hinge, margin: TRIPLET.margin(options), reduction }
    }

    /// `max(0, mean((a - p)^2) - mean((a - n)^2) + 0.3)`, means over the embedding's dimensions, as
    /// published for matching passport photos with selfies.
    pub fn passport() -> Self {
        Self { distance: DistanceKind::MeanSquared, margin: 0.3, ..Self::default() }
    }

    /// The loss over explicit triplets: row `i` of the three tensors, `[T, D]` each, is one.
    pub fn forward_rows(
        &self,
        anchor: &Tensor,
        positive: &Tensor,
        negative: &Tensor,
    ) -> LossOutput {
        self.reduction.reduce(&self.per_row(&[anchor, positive, negative]))
    }

    /// [`Loss::forward`] from the distances `[B, B]` of [`DistanceKind::pairwise`]. Value and gradient
    /// are the same to about `1e-6` on the unit sphere, where `forward` subtracts before squaring.
    pub fn forward_distances(
        &self,
        distances: &Tensor,
        labels: &Tensor,
        tuples: &Tuples,
    ) -> LossOutput {
        match tuples {
            Tuples::Triplets(listed) => {
                let far = distances.index(&[Some(&listed.anchor), Some(&listed.negative)]);
                let near = distances.index(&[Some(&listed.anchor), Some(&listed.positive)]);
                self.reduction.reduce(&self.per_triplet(&near, &far))
            }
            Tuples::All | Tuples::OfFirst(_) => {
                let distances = precise(distances);
                let sum = self.all(labels, tuples).of_distances(&distances);
                sum.reduce(self.reduction, distances.kind())
            }
        }
    }

    fn all<'a>(&self, labels: &'a Tensor, tuples: &Tuples) -> AllTriplets<'a> {
        let Self { hinge, margin, .. } = *self;
        let anchors = if let Tuples::OfFirst(anchors) = tuples { Some(*anchors) } else { None };
        AllTriplets { hinge, margin, labels, chunk: None, anchors }
    }

    /// Listed triplets, `at_once` embedding values per graph.
    fn forward_listed(&self, listed: &Triplets, embeddings: &Tensor, at_once: i64) -> LossOutput {
        let [count, dim] = [listed.len() as i64, embeddings.size()[1].max(1)];
        let per_triplet = |x: &Tensor, start: i64, length: i64| {
            let rows = [&listed.anchor, &listed.positive, &listed.negative]
                .map(|places| x.index_select(0, &places.narrow(0, start, length)));
            self.per_row(&rows.each_ref())
        };
        if count * dim <= at_once {
            return self.reduction.reduce(&per_triplet(&precise(embeddings), 0, count));
        }
        let mut active = Tensor::zeros([], (Kind::Int64, embeddings.device()));
        let step = (at_once / dim).max(1);
        let chunks = (0..count).step_by(step as usize).map(|at| (at, step.min(count - at)));
        let sum = chunked_sum(embeddings, chunks, |leaf, (start, length)| {
            let each = per_triplet(leaf, start, length);
            active += each.gt(0.0).sum(Kind::Int64);
            let value = each.detach().sum(Kind::Double);
            ChunkLoss { graph: Some(each.sum(None)), value }
        });
        let output = self.reduction.divide(sum, count, active);
        LossOutput { loss: output.loss.to_kind(precise(embeddings).kind()), ..output }
    }

    /// The loss of each row of anchors, positives and negatives, `[T, D]` to `[T]`.
    fn per_row(&self, [anchor, positive, negative]: &[&Tensor; 3]) -> Tensor {
        let near = self.distance.rowwise(anchor, positive);
        self.per_triplet(&near, &self.distance.rowwise(anchor, negative))
    }

    /// The loss of each triplet, `[T]`, from its distances `d_ap [T]` and `d_an [T]`.
    pub fn per_triplet(&self, near: &Tensor, far: &Tensor) -> Tensor {
        // In this order the rounding is that of the sum over all triplets.
        self.hinge.apply(&(precise(near) + self.margin - precise(far)))
    }
}

impl Default for TripletMarginLoss {
    /// FaceNet's: squared distance, hard, margin 0.2, mean over all triplets.
    fn default() -> Self {
        Self::new(&LossOptions::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::distance::{euclidean, pairwise};
    use crate::metric::miners::{BATCH_ALL, SEMI_HARD};
    use crate::metric::testing::{Batch, close, values};
    use serde_json::Value;
    use tch::Device;

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
                    let loss = TripletMarginLoss { margin, reduction, ..Default::default() };
                    let all =
                        run(|d| loss.forward_distances(d, &batch.labels, &Tuples::All), &distances);
                    let listed = Tuples::Triplets(triplets(&list));
                    let one_by_one =
                        run(|d| loss.forward_distances(d, &batch.labels, &listed), &distances);
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
        let tuples = BATCH_ALL.mine(&distances, &labels, 0.2, 0);
        let output = TripletMarginLoss::default().forward_distances(&distances, &labels, &tuples);
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
            let loss = TripletMarginLoss { margin, reduction, ..Default::default() };
            let listed = Tuples::Triplets(triplets(&list));
            check(name, &|x| loss.forward_distances(&pairwise(x), &labels, &listed).loss);
            check(&format!("all_{name}"), &|x| {
                loss.forward_distances(&pairwise(x), &labels, &Tuples::All).loss
            });
        }
        let loss = TripletMarginLoss { margin, ..Default::default() };
        check("euclidean_mean", &|x| {
            loss.forward_distances(&euclidean(x, x), &labels, &Tuples::Triplets(triplets(&list)))
                .loss
        });
    }

    #[test]
    fn distances_that_are_not_numbers_are_not_hidden() {
        let batch = Batch::random(7);
        let distances = batch.distances() * f64::NAN;
        let loss = TripletMarginLoss::default()
            .forward_distances(&distances, &batch.labels, &Tuples::All)
            .loss;
        assert!(loss.double_value(&[]).is_nan());
    }

    #[test]
    fn the_soft_sum_over_chunks_agrees_with_a_list() {
        for seed in 0..60 {
            let batch = Batch::random(seed);
            let list = batch.every_triplet();
            let triplets = triplets(&list);
            let loss = TripletMarginLoss { hinge: Hinge::Soft, ..Default::default() };
            let run = |tuples: &Tuples| {
                let x = batch.embeddings.to_kind(Kind::Double).set_requires_grad(true);
                let distances = loss.distance.pairwise(&x);
                let output = loss.forward_distances(&distances, &batch.labels, tuples);
                output.loss.backward();
                let numbers = [&output.loss, &output.tuples, &output.active];
                (numbers.map(|n| n.double_value(&[])), values(&x.grad()))
            };
            let (all, listed) = (run(&Tuples::All), run(&Tuples::Triplets(triplets)));
            close(&all.0, &listed.0, 1e-9);
            close(&all.1, &listed.1, 1e-9);
        }
    }

    #[test]
    fn embeddings_give_the_loss_and_the_gradient_of_their_matrix() {
        for seed in 0..40 {
            let batch = Batch::random(seed);
            for (distance, hinge, reduction) in [
                (DistanceKind::Squared, Hinge::Hard, Reduction::Active),
                (DistanceKind::Euclidean, Hinge::Soft, Reduction::Mean),
                (DistanceKind::Cosine, Hinge::Hard, Reduction::Mean),
                (DistanceKind::MeanSquared, Hinge::Soft, Reduction::Active),
            ] {
                let loss = TripletMarginLoss { distance, hinge, margin: 0.37, reduction };
                let x = batch.on_the_sphere() * 1.5;
                // In float32 the root of equal embeddings' distances is noise to the matrix.
                let kind =
                    if distance == DistanceKind::Euclidean { Kind::Double } else { Kind::Float };
                let x = x.to_kind(kind).set_requires_grad(true);
                let tuples =
                    SEMI_HARD.mine_embeddings(&x, &batch.labels, distance, 0.9, seed, None);
                let Tuples::Triplets(listed) = &tuples else { unreachable!() };
                let run = |output: LossOutput| {
                    crate::native::clear_gradients(&[&x]).unwrap();
                    output.loss.backward();
                    let numbers = [output.loss, output.tuples, output.active];
                    let mut numbers = numbers.map(|n| n.double_value(&[])).to_vec();
                    numbers.extend(values(&x.grad()));
                    numbers
                };
                let wanted =
                    run(loss.forward_distances(&distance.pairwise(&x), &batch.labels, &tuples));
                let found = run(loss.forward(&x, &batch.labels, &tuples));
                close(&found, &wanted, 1e-5);
                close(&run(loss.forward_listed(listed, &x, 6)), &wanted, 1e-5);
            }
        }
    }

    #[test]
    fn the_passport_loss_starts_at_its_margin() {
        let x = Tensor::full([4, 8], 0.7, (Kind::Float, Device::Cpu));
        let output = TripletMarginLoss::passport().forward_rows(&x, &x, &x);
        close(&values(&output.loss), &[0.3], 1e-6);
        let apart = TripletMarginLoss::passport().forward_rows(&x, &(&x + 0.5), &(&x + 1.0));
        close(&values(&apart.loss), &[0.0], 1e-6);
        let wrong = TripletMarginLoss::passport().forward_rows(&x, &(&x + 1.0), &(&x + 0.5));
        close(&values(&wrong.loss), &[1.05], 1e-6);
    }
}
