//! The type of miners, and their common search of a batch.

use tch::{Tensor, no_grad};

use super::tuples::{Triplets, Tuples};
use crate::metric::batch_stats::BatchStats;
use crate::metric::chunks::{AnchorChunk, DistanceRows, anchor_chunks, chunk_size};
use crate::metric::distance_kind::DistanceKind;
use crate::metric::groups::Groups;
use crate::native::cuda::uploaded;

/// An entry of the registry: a value of `--miner`, and its search.
#[derive(Debug, Clone, Copy)]
pub struct Miner {
    /// The value of `--miner`.
    pub name: &'static str,
    /// One line of help.
    pub help: &'static str,
    pub(super) search: Search,
}

/// How a miner chooses triplets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Search {
    /// Every triplet.
    All,
    /// From labels only: `(groups, seed)` to triplets.
    Labels(fn(&Groups, u64) -> Vec<[usize; 3]>),
    /// One triplet per anchor: the positive and the negative of each anchor of a chunk, int64 `[T]`
    /// each. Anchors without a positive or without a negative may get any; they are dropped.
    PerAnchor(fn(&AnchorChunk) -> [Tensor; 2]),
    /// Any number of triplets of the anchors of a chunk, given the margin. Anchors are positions in
    /// the chunk.
    PerChunk(fn(&AnchorChunk, f64) -> Triplets),
}

impl Miner {
    /// Chooses triplets by the distances `[B, B]` of a batch and its labels, int64 `[B]` (on any
    /// device). `margin` is the loss's; only semi-hard uses it. The same `seed` gives the same
    /// triplets on every device.
    ///
    /// Synchronises with the device to read the labels; miners that drop anchors by distance do so
    /// once more, for the number of triplets.
    ///
    /// # Panics
    /// When the shapes of distances and labels do not match.
    pub fn mine(&self, distances: &Tensor, labels: &Tensor, margin: f64, seed: u64) -> Tuples {
        let size = labels.numel() as i64;
        assert_eq!(distances.size(), [size, size], "distances of a batch of {size} labels");
        no_grad(|| {
            let groups = Groups::new(labels, distances.device());
            let rows = |(start, length)| distances.narrow(0, start, length).copy();
            self.search(&groups, &rows, chunk_size(distances.device()), margin, seed, None)
        })
    }

    /// [`mine`](Self::mine) from the embeddings `[B, D]` of a batch: distances are computed and mined in
    /// chunks of anchors, so that only a few chunks are in memory (4 MB each; on a GPU 256 MB). `stats`,
    /// if any, is updated from the same distances.
    ///
    /// The triplets are those of [`mine`](Self::mine) with [`DistanceKind::pairwise`], except that
    /// rounding (about `1e-6` on the unit sphere) may swap two negatives at equal distance.
    ///
    /// # Panics
    /// When the number of embeddings is not that of the labels.
    pub fn mine_embeddings(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        distance: DistanceKind,
        margin: f64,
        seed: u64,
        stats: Option<&mut BatchStats>,
    ) -> Tuples {
        let anchors = labels.numel() as i64;
        self.mine_first(anchors, embeddings, labels, distance, margin, seed, stats)
    }

    /// [`mine_embeddings`](Self::mine_embeddings) with only the first `anchors` embeddings as anchors,
    /// such as a batch followed by a memory of past ones.
    ///
    /// # Panics
    /// As [`mine_embeddings`](Self::mine_embeddings).
    #[allow(clippy::too_many_arguments)] // those of `mine_embeddings`, and the number of anchors
    pub fn mine_first(
        &self,
        anchors: i64,
        embeddings: &Tensor,
        labels: &Tensor,
        distance: DistanceKind,
        margin: f64,
        seed: u64,
        stats: Option<&mut BatchStats>,
    ) -> Tuples {
        let chunk = chunk_size(embeddings.device());
        self.mine_chunks(anchors, embeddings, labels, distance, chunk, margin, seed, stats)
    }

    #[allow(clippy::too_many_arguments)] // those of `mine_first`, and the size of a chunk
    pub(super) fn mine_chunks(
        &self,
        anchors: i64,
        embeddings: &Tensor,
        labels: &Tensor,
        distance: DistanceKind,
        chunk: i64,
        margin: f64,
        seed: u64,
        mut stats: Option<&mut BatchStats>,
    ) -> Tuples {
        let size = labels.numel() as i64;
        assert_eq!(embeddings.size()[0], size, "embeddings of a batch of {size} labels");
        no_grad(|| {
            let groups = Groups::new(labels, embeddings.device()).with_anchors(anchors);
            let ready = DistanceRows::new(distance, embeddings);
            if let Some(stats) = &mut stats {
                stats.begin(&groups, distance, embeddings);
            }
            self.search(&groups, &|span| ready.rows(span), chunk, margin, seed, stats)
        })
    }

    /// Mines chunk by chunk; `rows` computes the distances of a chunk of anchors, to be written to.
    fn search(
        &self,
        groups: &Groups,
        rows: &dyn Fn((i64, i64)) -> Tensor,
        chunk: i64,
        margin: f64,
        seed: u64,
        mut stats: Option<&mut BatchStats>,
    ) -> Tuples {
        // The anchors (of `PerChunk`), positives and negatives of each chunk.
        let mut found: [Vec<Tensor>; 3] = Default::default();
        let is_by_distance = matches!(self.search, Search::PerAnchor(_) | Search::PerChunk(_));
        if is_by_distance || stats.is_some() {
            for span in anchor_chunks(groups, chunk) {
                let chunk = AnchorChunk::new(rows(span), groups, span.0);
                let [anchors, positives, negatives] = &mut found;
                match self.search {
                    Search::PerAnchor(choose) => {
                        let [positive, negative] = choose(&chunk);
                        positives.push(positive);
                        negatives.push(negative);
                    }
                    Search::PerChunk(choose) => {
                        let Triplets { anchor, positive, negative } = choose(&chunk, margin);
                        anchors.push(anchor + span.0);
                        positives.push(positive);
                        negatives.push(negative);
                    }
                    Search::All | Search::Labels(_) => {}
                }
                if let Some(stats) = &mut stats {
                    stats.add(chunk, span);
                }
            }
        }
        let [anchors, positives, negatives] = found;
        let joined = |parts: &[Tensor]| Tensor::cat(parts, 0);
        Tuples::Triplets(match self.search {
            Search::All if groups.anchor_count() == groups.len() => return Tuples::All,
            Search::All => return Tuples::OfFirst(groups.anchor_count()),
            _ if groups.len() == 0 => Triplets::listed(&[], groups.device()),
            Search::Labels(choose) => Triplets::listed(&choose(groups, seed), groups.device()),
            Search::PerAnchor(_) => {
                let anchor: Vec<i64> = groups.anchors().map(|anchor| anchor as i64).collect();
                let anchor = uploaded(&Tensor::from_slice(&anchor), groups.device());
                let positive = joined(&positives).index_select(0, &anchor);
                let negative = joined(&negatives).index_select(0, &anchor);
                Triplets { anchor, positive, negative }
            }
            Search::PerChunk(_) => Triplets {
                anchor: joined(&anchors),
                positive: joined(&positives),
                negative: joined(&negatives),
            },
        })
    }
}
