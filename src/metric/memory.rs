//! A memory of past embeddings: Wang, Zhang, Huang and Scott, "Cross-Batch Memory for Embedding
//! Learning", 2020.

use tch::{Device, Tensor, no_grad};

/// The latest embeddings, detached, with their labels. They are appended to a batch as further
/// positives and negatives; only the batch has anchors.
#[derive(Debug)]
pub struct CrossBatchMemory {
    size: i64,
    /// Number of batches to skip at the start.
    skip: u64,
    /// `[size, D]`, allocated with the first batch.
    embeddings: Option<Tensor>,
    /// Int64 `[size]`, on the host.
    labels: Tensor,
    filled: i64,
    next: i64,
}

impl CrossBatchMemory {
    /// An empty memory of `size` embeddings. It skips the first `skip` batches, whose embeddings change
    /// too fast.
    pub fn new(size: usize, skip: u64) -> Self {
        let labels = Tensor::zeros([size as i64], (tch::Kind::Int64, Device::Cpu));
        Self { size: size as i64, skip, embeddings: None, labels, filled: 0, next: 0 }
    }

    /// A batch `[B, D]` and its labels (int64 `[B]`, on the host), followed by the memory.
    pub fn append_to(&self, embeddings: &Tensor, labels: &Tensor) -> (Tensor, Tensor) {
        match &self.embeddings {
            None => (embeddings.shallow_clone(), labels.shallow_clone()),
            Some(past) => {
                let past = past.narrow(0, 0, self.filled);
                let names = self.labels.narrow(0, 0, self.filled);
                (Tensor::cat(&[embeddings, &past], 0), Tensor::cat(&[labels, &names], 0))
            }
        }
    }

    /// Adds a batch, replacing the oldest embeddings.
    pub fn push(&mut self, embeddings: &Tensor, labels: &Tensor) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        no_grad(|| {
            let (rows, dim) = (embeddings.size()[0], embeddings.size()[1]);
            let kept = rows.min(self.size);
            let past = self.embeddings.get_or_insert_with(|| {
                Tensor::zeros([self.size, dim], (embeddings.kind(), embeddings.device()))
            });
            // From the next place to the end, and the rest from the start.
            let at_end = kept.min(self.size - self.next);
            for (from, to, count) in
                [(rows - kept, self.next, at_end), (rows - kept + at_end, 0, kept - at_end)]
            {
                past.narrow(0, to, count).copy_(&embeddings.narrow(0, from, count));
                self.labels.narrow(0, to, count).copy_(&labels.narrow(0, from, count));
            }
            self.next = (self.next + kept) % self.size.max(1);
            self.filled = self.size.min(self.filled + kept);
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
            let mut memory = CrossBatchMemory::new(size, skip);
            let mut queue = VecDeque::new();
            for step in 0..9i64 {
                let names: Vec<i64> = (0..rows).map(|row| 100 * step + row).collect();
                let labels = Tensor::from_slice(&names);
                let batch = labels.to_kind(tch::Kind::Float).unsqueeze(1).set_requires_grad(true);
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
