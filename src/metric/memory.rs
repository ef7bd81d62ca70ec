//! A memory of past embeddings: Wang, Zhang, Huang and Scott, "Cross-Batch Memory for Embedding
//! Learning", 2020.

use tch::{Device, Kind, Tensor, no_grad};

/// The latest embeddings, detached, with their labels. They are appended to a batch as further
/// positives and negatives; only the batch has anchors.
#[derive(Debug)]
pub struct CrossBatchMemory {
    size: i64,
    /// Float32 `[size, D]`.
    embeddings: Tensor,
    /// Int64 `[size]`, on the host.
    labels: Tensor,
    /// Int64 `[3]`, on the host: batches to skip, embeddings held, the place of the next one.
    counts: Tensor,
}

impl CrossBatchMemory {
    /// An empty memory of `size` embeddings of length `dim`. It skips the first `skip` batches, whose
    /// embeddings change too fast.
    pub fn new(size: usize, skip: u64, dim: i64, device: Device) -> Self {
        let size = size as i64;
        Self {
            size,
            embeddings: Tensor::zeros([size, dim], (Kind::Float, device)),
            labels: Tensor::zeros([size], (Kind::Int64, Device::Cpu)),
            counts: Tensor::from_slice(&[skip.min(i64::MAX as u64) as i64, 0, 0]),
        }
    }

    /// Everything it holds, by name, for a checkpoint.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let all =
            [("embeddings", &self.embeddings), ("labels", &self.labels), ("counts", &self.counts)];
        all.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).into()
    }

    fn counts(&self) -> [i64; 3] {
        [0, 1, 2].map(|at| self.counts.int64_value(&[at]))
    }

    /// A batch `[B, D]` and its labels (int64 `[B]`, on the host), followed by the memory.
    pub fn append_to(&self, embeddings: &Tensor, labels: &Tensor) -> (Tensor, Tensor) {
        let [_, filled, _] = self.counts();
        if filled == 0 {
            return (embeddings.shallow_clone(), labels.shallow_clone());
        }
        let past = self.embeddings.narrow(0, 0, filled);
        let names = self.labels.narrow(0, 0, filled);
        (Tensor::cat(&[embeddings, &past], 0), Tensor::cat(&[labels, &names], 0))
    }

    /// Adds a batch, replacing the oldest embeddings.
    pub fn push(&mut self, embeddings: &Tensor, labels: &Tensor) {
        let [skip, filled, next] = self.counts();
        let count = |at: i64, value: i64| drop(self.counts.get(at).fill_(value));
        if skip > 0 {
            return count(0, skip - 1);
        }
        no_grad(|| {
            let rows = embeddings.size()[0];
            let kept = rows.min(self.size);
            // From the next place to the end, and the rest from the start.
            let at_end = kept.min(self.size - next);
            for (from, to, count) in
                [(rows - kept, next, at_end), (rows - kept + at_end, 0, kept - at_end)]
            {
                self.embeddings.narrow(0, to, count).copy_(&embeddings.narrow(0, from, count));
                self.labels.narrow(0, to, count).copy_(&labels.narrow(0, from, count));
            }
            count(1, self.size.min(filled + kept));
            count(2, (next + kept) % self.size.max(1));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::values;
    use std::collections::VecDeque;

    #[test]
    fn the_newest_are_remembered_as_a_queue_does() {
        for (size, rows, skip) in [(5, 2, 0), (6, 3, 1), (4, 7, 0), (5, 5, 2)] {
            let mut memory = CrossBatchMemory::new(size, skip, 1, Device::Cpu);
            let mut queue = VecDeque::new();
            for step in 0..9i64 {
                let names: Vec<i64> = (0..rows).map(|row| 100 * step + row).collect();
                let labels = Tensor::from_slice(&names);
                let batch = labels.to_kind(Kind::Float).unsqueeze(1).set_requires_grad(true);
                let (all, all_labels) = memory.append_to(&batch, &labels);
                let mut found = values(&all);
                assert_eq!(found, values(&all_labels));
                let mut past = found.split_off(rows as usize);
                past.sort_by(f64::total_cmp);
                assert_eq!(past, Vec::from_iter(queue.iter().copied()), "{size} {rows} {step}");
                memory.push(&batch, &labels);
                if step as u64 >= skip {
                    queue.extend(names.iter().map(|&name| name as f64));
                    while queue.len() > size {
                        queue.pop_front();
                    }
                }
            }
            let (batch, label) = (Tensor::from_slice2(&[[1f32]]), Tensor::from_slice(&[1i64]));
            assert!(!memory.append_to(&batch, &label).0.requires_grad(), "no graph is kept");
        }
    }
}
