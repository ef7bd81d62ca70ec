//! The loss of `train-triplet`, with its miner and the figures for the log.

use std::cell::RefCell;

use tch::{Device, Tensor};

use super::settings::TripletSettings;
use super::step::Figure;
use crate::metric::losses::{Loss, LossOptions, LossOutput, LossShape, Mining};
use crate::metric::miners::{BATCH_ALL, Miner};
use crate::metric::{BatchStats, CrossBatchMemory};

/// A loss, and the miner that chooses its tuples.
#[derive(Debug)]
pub struct Objective {
    loss: Box<dyn Loss>,
    miner: Miner,
    /// Past embeddings that serve as further positives and negatives of each batch.
    memory: Option<RefCell<CrossBatchMemory>>,
}

impl Objective {
    /// The loss of the settings, over embeddings of length `dim` of `classes` identities. Class
    /// centres follow `tch::manual_seed`.
    pub fn new(settings: &TripletSettings, classes: usize, dim: i64, device: Device) -> Self {
        let TripletSettings { margin, distance, hinge, reduction, class_sample, .. } = *settings;
        let options = LossOptions { margin, distance, hinge, reduction, class_sample };
        let shape = LossShape { classes: classes as i64, dim, device };
        let loss = (settings.loss.build)(&options, &shape);
        let miner = if loss.mining().is_some() { settings.miner } else { BATCH_ALL };
        let TripletSettings { xbm, xbm_start, .. } = *settings;
        let memory = (xbm > 0).then(|| CrossBatchMemory::new(xbm, xbm_start, dim, device).into());
        Self { loss, miner, memory }
    }

    /// The loss's own trainable parameters, by name.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.loss.parameters()
    }

    /// All that training changes, by name: parameters, and the memory.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let memory = self.memory.iter().flat_map(|memory| memory.borrow().tensors());
        let memory = memory.map(|(name, tensor)| (format!("memory.{name}"), tensor));
        self.parameters().into_iter().chain(memory).collect()
    }

    /// The loss of embeddings `[B, D]` with labels, int64 `[B]` (fastest on the host; with a memory they
    /// must be there), and for the log the fraction of active tuples and the mean distances. Adds the batch
    /// to the memory, if any.
    pub fn loss(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        seed: u64,
    ) -> (LossOutput, Vec<Figure>) {
        let anchors = labels.numel() as i64;
        let (all, all_labels) = match &self.memory {
            Some(memory) => memory.borrow().append_to(embeddings, labels),
            None => (embeddings.shallow_clone(), labels.shallow_clone()),
        };
        let mining = self.loss.mining();
        let mut stats = BatchStats::new(mining.map(|mining| mining.active_margin));
        let (distance, margin) = mining
            .map_or_else(Default::default, |Mining { distance, margin, .. }| (distance, margin));
        let tuples = self.miner.mine_first(
            anchors,
            &all,
            &all_labels,
            distance,
            margin,
            seed,
            Some(&mut stats),
        );
        let output = self.loss.forward(&all, &all_labels, &tuples);
        if let Some(memory) = &self.memory {
            memory.borrow_mut().push(embeddings, labels);
        }
        // Over all triplets of the batch, not only the mined ones: comparable between miners.
        let active = match mining {
            Some(_) => stats.active(),
            None => &output.active / output.tuples.clamp_min(1),
        };
        let figures = vec![
            ("active", active),
            ("positive_distance", stats.positive_distance()),
            ("negative_distance", stats.negative_distance()),
        ];
        (output, figures)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tch::Kind;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: TripletSettings,
    }

    fn objective(flags: &[&str]) -> Objective {
        let settings = Flags::parse_from([&["train"], flags].concat()).settings;
        settings.check().unwrap();
        Objective::new(&settings, 3, 2, Device::Cpu)
    }

    /// Every (anchor, positive, negative) by squared distances: anchors from the batch, the others from
    /// the batch and the memory.
    fn triplets(batch: &[(Vec<f64>, i64)], past: &[(Vec<f64>, i64)]) -> Vec<(usize, f64, f64)> {
        let all: Vec<_> = batch.iter().chain(past).collect();
        let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
        let mut found = Vec::new();
        for (a, (anchor, name)) in batch.iter().enumerate() {
            for (p, (positive, same)) in all.iter().enumerate() {
                for (negative, other) in &all {
                    if p != a && same == name && other != name {
                        found.push((a, apart(anchor, positive), apart(anchor, negative)));
                    }
                }
            }
        }
        found
    }

    #[test]
    fn a_memory_gives_the_loss_and_the_triplets_of_a_plain_loop() {
        let hard = |triplets: &[(usize, f64, f64)]| -> Vec<f64> {
            let of = |anchor| triplets.iter().filter(move |triplet| triplet.0 == anchor);
            let hardest = (0..4).filter(|&anchor| of(anchor).next().is_some()).map(|anchor| {
                let near = of(anchor).map(|triplet| triplet.1).fold(f64::MIN, f64::max);
                let far = of(anchor).map(|triplet| triplet.2).fold(f64::MAX, f64::min);
                (near - far + 0.2).max(0.0)
            });
            hardest.collect()
        };
        let every = |triplets: &[(usize, f64, f64)]| -> Vec<f64> {
            triplets.iter().map(|(_, near, far)| (near - far + 0.2).max(0.0)).collect()
        };
        type PerTuple<'a> = &'a dyn Fn(&[(usize, f64, f64)]) -> Vec<f64>;
        for (miner, per_tuple) in [("batch-hard", &hard as PerTuple), ("batch-all", &every)] {
            let flags = ["--miner", miner, "--xbm", "6", "--xbm-start", "1", "--margin", "0.2"];
            let objective = objective(&flags);
            let mut past: Vec<(Vec<f64>, i64)> = Vec::new();
            tch::manual_seed(8);
            for step in 0..6i64 {
                let x = Tensor::randn([4, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
                let labels: Vec<i64> = (0..4).map(|row| (row * (step + 1) + step) % 3).collect();
                let (output, _) = objective.loss(&x, &Tensor::from_slice(&labels), 0);
                let rows: Vec<Vec<f64>> = Vec::try_from(x.to_kind(Kind::Double)).unwrap();
                let batch: Vec<_> = rows.into_iter().zip(labels).collect();
                let each = per_tuple(&triplets(&batch, &past));
                assert_eq!(output.tuples.int64_value(&[]), each.len() as i64, "{miner} {step}");
                let wanted = each.iter().sum::<f64>() / each.len().max(1) as f64;
                let found = output.loss.double_value(&[]);
                assert!((found - wanted).abs() < 1e-5, "{miner} {step}: {found}, {wanted}");
                output.loss.backward();
                assert!(x.grad().abs().sum(Kind::Float).double_value(&[]) > 0.0 || wanted == 0.0);
                if step >= 1 {
                    past.extend(batch);
                    past.drain(..past.len().saturating_sub(6));
                }
            }
        }
    }

    #[test]
    fn a_memory_that_has_no_effect_is_refused() {
        for (flags, words) in [
            (&["--xbm", "8", "--loss", "arcface"][..], "--xbm: no effect with --loss arcface"),
            (&["--xbm-start", "8"], "--xbm-start: no effect without --xbm"),
            (&["--xbm", "8", "--triplets", "list"], "--xbm: no effect with --triplets"),
            (&["--detect", "never", "--triplets", "list"], "--detect: no effect with --triplets"),
        ] {
            let settings = Flags::parse_from([&["train"], flags].concat()).settings;
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
