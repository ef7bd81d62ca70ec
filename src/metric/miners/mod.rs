//! Miners: which triplets of a batch the loss looks at.
//!
//! A miner sees the distances without gradient and answers with indices. All of them look at some
//! anchors' distances at a time, so that they can mine embeddings whose `[B, B]` matrix would not
//! fit. A new miner is a file here, a `mod` line, a variant of [`Miner`] and its arm in
//! `Miner::search`. [`PairMiner`] does the same for pairs, from all distances.

mod batch_hard;
mod pairs;
mod random;
mod semi_hard;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::groups::Groups;
use super::tiles::{DistanceRows, Tile, spans, tile_of};
use super::{Measure, Survey};

pub use pairs::{PairMiner, Pairs};

/// How triplets are chosen among the pictures of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Miner {
    /// One random positive and one random negative for each anchor
    Random,
    /// The farthest positive and the nearest negative for each anchor (Hermans et al. 2017)
    #[default]
    BatchHard,
    /// For each anchor and positive the nearest negative that is farther than the positive, but by
    /// less than the margin (FaceNet, Schroff et al. 2015)
    SemiHard,
    /// Every triplet of the batch
    BatchAll,
}

/// What a miner chose.
#[derive(Debug)]
pub enum Selection {
    /// These triplets.
    Triplets(Triplets),
    /// Every valid triplet. There are of the order of B^3, so they are never listed:
    /// [`TripletLoss::over_all`](crate::metric::TripletLoss::over_all) sums over them without.
    All,
}

/// A list of triplets: three int64 tensors `[T]` of positions in the batch, on the device of the
/// distances. `T` may be zero.
#[derive(Debug)]
pub struct Triplets {
    /// The picture that the two distances start from.
    pub anchor: Tensor,
    /// Another picture of the anchor's identity.
    pub positive: Tensor,
    /// A picture of another identity.
    pub negative: Tensor,
}

impl Triplets {
    /// From plain positions.
    fn listed(triplets: &[[usize; 3]], device: Device) -> Self {
        let column = |place: usize| {
            let numbers: Vec<i64> = triplets.iter().map(|t| t[place] as i64).collect();
            Tensor::from_slice(&numbers).to_device(device)
        };
        Self { anchor: column(0), positive: column(1), negative: column(2) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.anchor.numel()
    }

    /// Whether the batch had no triplet to offer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Miner {
    /// Chooses triplets by the squared distances `[B, B]` of a batch and its labels, int64 `[B]`
    /// (on any device). `margin` is the loss's; only semi-hard looks at it. `seed` decides
    /// everything random: the same seed gives the same triplets on every device.
    ///
    /// Waits for the device to read the labels; semi-hard once more, to learn how long its list is.
    ///
    /// # Panics
    /// When the shapes of distances and labels do not fit each other.
    pub fn mine(&self, distances: &Tensor, labels: &Tensor, margin: f64, seed: u64) -> Selection {
        let size = labels.numel() as i64;
        assert_eq!(distances.size(), [size, size], "distances of a batch of {size} labels");
        no_grad(|| {
            let groups = Groups::new(labels, distances.device());
            let rows = |(start, length)| distances.narrow(0, start, length).copy();
            let tile = tile_of(distances.device());
            self.search(&groups, &rows, tile, Search { margin, seed, seen: None })
        })
    }

    /// The same choice straight from the embeddings `[B, D]` of a batch, by `measure`: the distances
    /// of some anchors are computed, mined and forgotten, so that no more than a few tiles of them are
    /// ever in memory (4 MB each; on a GPU 256 MB).
    ///
    /// The triplets are those of [`Miner::mine`] with [`Measure::pairwise`]: the formula and its
    /// order are the same, and only where the matrix product rounds a tile otherwise than the whole
    /// (about `1e-6` on the unit sphere) two negatives that are equally far may change places.
    ///
    /// # Panics
    /// When the number of embeddings is not that of the labels.
    pub fn mine_embeddings(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        measure: Measure,
        margin: f64,
        seed: u64,
    ) -> Selection {
        let tile = tile_of(embeddings.device());
        self.mine_tiles(embeddings, labels, measure, tile, Search { margin, seed, seen: None })
    }

    /// [`Miner::mine_embeddings`], and on the way the figures of the batch: `survey` is told of all
    /// distances.
    ///
    /// # Panics
    /// When the number of embeddings is not that of the labels.
    pub fn mine_and_survey(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        measure: Measure,
        margin: f64,
        seed: u64,
        survey: &mut Survey,
    ) -> Selection {
        let tile = tile_of(embeddings.device());
        let seen = Some(survey);
        self.mine_tiles(embeddings, labels, measure, tile, Search { margin, seed, seen })
    }

    fn mine_tiles(
        self,
        embeddings: &Tensor,
        labels: &Tensor,
        measure: Measure,
        tile: i64,
        search: Search,
    ) -> Selection {
        let size = labels.numel() as i64;
        assert_eq!(embeddings.size()[0], size, "embeddings of a batch of {size} labels");
        no_grad(|| {
            let groups = Groups::new(labels, embeddings.device());
            let ready = DistanceRows::new(measure, embeddings);
            let mut search = search;
            if let Some(survey) = &mut search.seen {
                survey.begin(&groups, measure, embeddings);
            }
            self.search(&groups, &|span| ready.rows(span), tile, search)
        })
    }

    /// Mines tile by tile; `rows` gives the distances of some anchors, to be written to.
    fn search(
        self,
        groups: &Groups,
        rows: &dyn Fn((i64, i64)) -> Tensor,
        tile: i64,
        mut search: Search,
    ) -> Selection {
        let mut found = Vec::new();
        let is_by_distance = matches!(self, Self::BatchHard | Self::SemiHard);
        if is_by_distance || search.seen.is_some() {
            for span in spans(groups.len(), tile) {
                let tile = Tile::new(rows(span), groups, span.0);
                match self {
                    Self::BatchHard => found.push(batch_hard::mine(&tile).into()),
                    Self::SemiHard => {
                        let negative = semi_hard::mine(&tile, search.margin);
                        // What was not found takes no memory until the last tile.
                        let places = negative.ge(0).nonzero();
                        let chosen = [Some(places.select(1, 0)), Some(places.select(1, 1))];
                        let positive = tile.members.index.index(&chosen);
                        found.push(vec![
                            positive,
                            negative.index(&chosen),
                            places.select(1, 0) + span.0,
                        ]);
                    }
                    Self::Random | Self::BatchAll => {}
                }
                if let Some(survey) = &mut search.seen {
                    survey.see(tile, span);
                }
            }
        }
        let joined = |side: usize| {
            let parts: Vec<&Tensor> = found.iter().map(|part: &Vec<Tensor>| &part[side]).collect();
            Tensor::cat(&parts, 0)
        };
        Selection::Triplets(match self {
            Self::BatchAll => return Selection::All,
            _ if groups.len() == 0 => Triplets::listed(&[], groups.device()),
            Self::Random => Triplets::listed(&random::mine(groups, search.seed), groups.device()),
            Self::BatchHard => {
                let anchors: Vec<i64> = groups.anchors().map(|anchor| anchor as i64).collect();
                let anchor = Tensor::from_slice(&anchors).to_device(groups.device());
                let of_anchors = |side: usize| joined(side).index_select(0, &anchor);
                Triplets { positive: of_anchors(0), negative: of_anchors(1), anchor }
            }
            Self::SemiHard => {
                Triplets { positive: joined(0), negative: joined(1), anchor: joined(2) }
            }
        })
    }
}

/// What a search for triplets goes by, and who looks over its shoulder.
struct Search<'a> {
    margin: f64,
    seed: u64,
    seen: Option<&'a mut Survey>,
}

/// Which pairs are (anchor, positive): the same label, and not the picture itself. Bool `[B, B]`.
pub fn positives(labels: &Tensor) -> Tensor {
    let itself = Tensor::eye(labels.numel() as i64, (Kind::Bool, labels.device()));
    labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1)).logical_and(&itself.logical_not())
}

/// Which pairs are (anchor, negative): different labels. Bool `[B, B]`.
pub fn negatives(labels: &Tensor) -> Tensor {
    labels.unsqueeze(0).ne_tensor(&labels.unsqueeze(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{Batch, values};
    use crate::metric::{Reduction, TripletLoss, pairwise};

    /// The triplets as plain positions.
    pub(super) fn listed(selection: Selection) -> Vec<[usize; 3]> {
        let Selection::Triplets(triplets) = selection else { panic!("not a list") };
        let column = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        let (a, p, n) =
            (column(&triplets.anchor), column(&triplets.positive), column(&triplets.negative));
        assert_eq!(triplets.is_empty(), a.is_empty());
        (0..triplets.len()).map(|i| [a[i] as usize, p[i] as usize, n[i] as usize]).collect()
    }

    #[test]
    fn the_masks_follow_the_definition() {
        let labels = Tensor::from_slice(&[4i64, 4, 9]);
        assert_eq!(values(&positives(&labels)), [0., 1., 0., 1., 0., 0., 0., 0., 0.]);
        assert_eq!(values(&negatives(&labels)), [0., 0., 1., 0., 0., 1., 1., 1., 0.]);
    }

    #[test]
    fn every_miner_gives_a_finite_loss_with_a_gradient_and_repeats_itself() {
        for miner in Miner::value_variants() {
            for (labels, has_triplets) in [
                (vec![], false),
                (vec![5], false),
                (vec![5, 5], false),
                (vec![5, 6], false),
                (vec![5, 5, 6], true),
            ] {
                let x = [[0.6f32, 0.8], [0.8, 0.6], [0.9, 0.5]];
                let x = Tensor::from_slice2(&x).narrow(0, 0, labels.len() as i64);
                let x = x.set_requires_grad(true);
                let labels = Tensor::from_slice::<i64>(&labels);
                for reduction in [Reduction::Mean, Reduction::Active] {
                    let loss = TripletLoss { margin: 0.2, reduction };
                    let run = || {
                        let distances = pairwise(&x);
                        let selection = miner.mine(&distances, &labels, 0.2, 17);
                        loss.over(&selection, &distances, &labels)
                    };
                    let output = run();
                    assert_eq!(output.loss.kind(), Kind::Float, "{miner:?}");
                    assert_eq!(output.loss.dim(), 0, "{miner:?}");
                    let value = output.loss.double_value(&[]);
                    assert!(value.is_finite() && (value > 0.0) == has_triplets, "{miner:?}");
                    assert_eq!(output.tuples.int64_value(&[]) > 0, has_triplets, "{miner:?}");
                    assert_eq!(value, run().loss.double_value(&[]), "{miner:?}");
                    output.loss.backward();
                    let gradient = values(&x.grad());
                    assert!(gradient.iter().all(|g| g.is_finite()), "{miner:?}");
                    assert_eq!(gradient.iter().any(|&g| g != 0.0), has_triplets, "{miner:?}");
                    crate::native::clear_gradients(&[&x]).unwrap();
                }
            }
        }
    }

    #[test]
    fn listed_triplets_are_valid_and_need_no_order_of_labels() {
        for miner in [Miner::Random, Miner::BatchHard, Miner::SemiHard] {
            for seed in 0..100 {
                let batch = Batch::random(seed);
                let valid = batch.every_triplet();
                let found = listed(miner.mine(&batch.distances(), &batch.labels, 0.7, seed));
                assert!(found.iter().all(|t| valid.contains(t)), "{miner:?}, seed {seed}");
            }
        }
    }

    #[test]
    fn embeddings_are_mined_as_their_distances_are_by_tiles_of_any_size() {
        let mut triplets = 0;
        for seed in 0..200 {
            let batch = Batch::random(seed);
            // Mirrored about the origin, the centre is exact and so are all squared distances: ties
            // are ties to both. The others are in general position, with no tie at all.
            let mirrored = Tensor::cat(&[&batch.embeddings, &-&batch.embeddings], 0);
            let labels = Tensor::cat(&[&batch.labels, &batch.labels], 0);
            tch::manual_seed(seed as i64);
            let scattered = Tensor::randn_like(&mirrored.to_kind(Kind::Double));
            for &measure in Measure::value_variants() {
                let is_exact = matches!(measure, Measure::Squared);
                let x = if is_exact { &mirrored } else { &scattered };
                for x in [x, &scattered] {
                    for miner in [Miner::Random, Miner::BatchHard, Miner::SemiHard] {
                        let wanted = listed(miner.mine(&measure.pairwise(x), &labels, 0.5, seed));
                        for tile in [1, 3 * labels.numel() as i64, 1 << 20] {
                            let search = Search { margin: 0.5, seed, seen: None };
                            let found = miner.mine_tiles(x, &labels, measure, tile, search);
                            assert_eq!(listed(found), wanted, "{miner:?} {measure:?} {seed}");
                        }
                        let found = miner.mine_embeddings(x, &labels, measure, 0.5, seed);
                        assert_eq!(listed(found), wanted, "{miner:?} {measure:?} {seed}");
                        triplets += wanted.len();
                    }
                }
            }
        }
        assert!(triplets > 10_000, "the batches were too easy: {triplets}");
    }

    #[test]
    fn large_identities_take_the_other_way_to_the_same_triplets() {
        // Sixty pictures of each of three: the semi-hard miner sorts.
        let labels = Tensor::arange(180, (Kind::Int64, Device::Cpu)).remainder(3);
        tch::manual_seed(1);
        let x = Tensor::randn([180, 4], (Kind::Double, Device::Cpu));
        let rows: Vec<Vec<f64>> = Vec::try_from(pairwise(&x)).unwrap();
        let mut wanted = Vec::new();
        for (a, row) in rows.iter().enumerate() {
            for p in (0..180).filter(|&p| p != a && p % 3 == a % 3) {
                let near = row[p];
                let farther = (0..180).filter(|&n| n % 3 != a % 3 && row[n] > near);
                let nearest = farther.min_by(|&i, &j| row[i].total_cmp(&row[j]));
                wanted.extend(nearest.filter(|&n| row[n] < near + 0.3).map(|n| [a, p, n]));
            }
        }
        let found = Miner::SemiHard.mine_embeddings(&x, &labels, Measure::Squared, 0.3, 0);
        assert_eq!(listed(found), wanted);
        assert!(wanted.len() > 5000);
    }

    #[test]
    fn names_are_the_command_lines() {
        let names: Vec<String> =
            Miner::value_variants().iter().map(|m| serde_json::to_string(m).unwrap()).collect();
        let flags: Vec<String> = Miner::value_variants()
            .iter()
            .map(|m| format!("\"{}\"", m.to_possible_value().unwrap().get_name()))
            .collect();
        assert_eq!(names, flags);
        assert_eq!(flags[1], "\"batch-hard\"");
    }
}
