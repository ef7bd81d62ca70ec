//! The identities of a batch, on the host.

use crate::native::cuda::uploaded;
use tch::{Device, Kind, Tensor};

/// The pictures of a batch, sorted by label, in batch order within an identity. O(B) memory.
pub(super) struct Groups {
    /// Positions in the batch, one identity after the other.
    order: Vec<usize>,
    /// For each picture of the batch: the start of its identity in `order`, and its number of pictures.
    spans: Vec<(usize, usize)>,
    /// The first so many pictures are anchors; the others are positives and negatives only.
    anchors: usize,
    /// `order`, the two columns of `spans` and `0..B`: int64 `[4, B]` on the device.
    table: Tensor,
    /// Number of pictures of the largest identity.
    pub largest: i64,
}

/// The pictures of the identities of some anchors, in rows as wide as the largest identity.
pub(super) struct Members {
    /// Int64 `[T, K]`: positions, ascending, padded with the anchor itself.
    pub index: Tensor,
    /// Bool `[T, K]`: positives, without the anchor itself.
    pub others: Tensor,
}

impl Groups {
    /// From labels, int64 `[B]` on any device; synchronises.
    pub fn new(labels: &Tensor, device: Device) -> Self {
        let labels = labels.detach().to_device(Device::Cpu).to_kind(Kind::Int64).contiguous();
        let mut names = vec![0i64; labels.numel()];
        labels.copy_data(&mut names, labels.numel());
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by_key(|&place| (names[place], place));
        let mut spans = vec![(0, 0); names.len()];
        let (mut first, mut largest) = (0, 0);
        for group in order.chunk_by(|&a, &b| names[a] == names[b]) {
            for &place in group {
                spans[place] = (first, group.len());
            }
            first += group.len();
            largest = largest.max(group.len() as i64);
        }
        let columns = order.iter().copied().chain(spans.iter().map(|span| span.0));
        let columns = columns.chain(spans.iter().map(|span| span.1)).chain(0..names.len());
        let columns: Vec<i64> = columns.map(|number| number as i64).collect();
        let table = Tensor::from_slice(&columns).view([4, names.len() as i64]);
        let table = uploaded(&table, device);
        Self { order, anchors: spans.len(), spans, table, largest }
    }

    /// The same pictures, where only the first `anchors` are anchors.
    pub fn with_anchors(self, anchors: i64) -> Self {
        Self { anchors: self.spans.len().min(anchors.max(0) as usize), ..self }
    }

    /// Number of pictures in the batch.
    pub fn len(&self) -> i64 {
        self.order.len() as i64
    }

    /// The device.
    pub fn device(&self) -> Device {
        self.table.device()
    }

    /// The pictures of the anchor's identity, including the anchor, and the number of negatives.
    pub fn of(&self, anchor: usize) -> (&[usize], usize) {
        let (first, count) = self.spans[anchor];
        (&self.order[first..first + count], self.order.len() - count)
    }

    /// Number of anchors.
    pub fn anchor_count(&self) -> i64 {
        self.anchors as i64
    }

    /// The anchors with a positive and a negative, ascending.
    pub fn anchors(&self) -> impl Iterator<Item = usize> {
        (0..self.anchors).filter(|&anchor| {
            let (group, different) = self.of(anchor);
            group.len() > 1 && different > 0
        })
    }

    /// Number of (anchor, positive) pairs, (anchor, negative) pairs and triplets.
    pub fn counts(&self) -> [i64; 3] {
        self.spans[..self.anchors].iter().fold([0; 3], |[near, far, triplets], &(_, count)| {
            let (p, n) = (count as i64 - 1, self.len() - count as i64);
            [near + p, far + n, triplets + p * n]
        })
    }

    /// The pictures of the identities of `length` anchors, from `start`.
    pub fn members(&self, start: i64, length: i64) -> Members {
        let column = |of: i64| self.table.select(0, of).narrow(0, start, length).unsqueeze(1);
        let (first, count, itself) = (column(1), column(2), column(3));
        let each = self.table.select(0, 3).narrow(0, 0, self.largest).unsqueeze(0);
        let place = (first + &each).clamp_max(self.len() - 1);
        let index = self.table.select(0, 0).take(&place);
        let index = index.where_self(&each.lt_tensor(&count), &itself);
        Members { others: index.ne_tensor(&itself), index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::Batch;

    #[test]
    fn members_anchors_and_counts_agree_with_loops() {
        for seed in 0..100 {
            let batch = Batch::random(seed);
            let (names, triplets) = (batch.names(), batch.every_triplet());
            let groups = Groups::new(&batch.labels, Device::Cpu);
            let mut anchors: Vec<usize> = triplets.iter().map(|triplet| triplet[0]).collect();
            anchors.dedup();
            assert_eq!(groups.anchors().collect::<Vec<_>>(), anchors, "seed {seed}");
            let pairs = |same: bool| {
                let all = (0..names.len()).flat_map(|i| (0..names.len()).map(move |j| (i, j)));
                all.filter(|&(i, j)| i != j && (names[i] == names[j]) == same).count() as i64
            };
            assert_eq!(groups.counts(), [pairs(true), pairs(false), triplets.len() as i64]);
            for start in 0..names.len() {
                let members = groups.members(start as i64, (names.len() - start) as i64);
                let index: Vec<Vec<i64>> = Vec::try_from(&members.index).unwrap();
                let others: Vec<Vec<bool>> = Vec::try_from(&members.others).unwrap();
                for (row, anchor) in (start..names.len()).enumerate() {
                    let found = index[row].iter().zip(&others[row]).filter(|row| *row.1);
                    let found: Vec<usize> = found.map(|row| *row.0 as usize).collect();
                    let wanted = (0..names.len()).filter(|&i| i != anchor);
                    let wanted = wanted.filter(|&i| names[i] == names[anchor]);
                    assert_eq!(found, wanted.collect::<Vec<_>>(), "seed {seed}");
                }
            }
        }
    }
}
