//! The loss of `train-triplet`, with its miner and the figures for the log.

use tch::{Device, Tensor};

use super::settings::TripletSettings;
use super::step::Figure;
use crate::metric::BatchStats;
use crate::metric::losses::{Loss, LossOptions, LossOutput, LossShape, Mining};
use crate::metric::miners::{BATCH_ALL, Miner};

/// A loss, and the miner that chooses its tuples.
#[derive(Debug)]
pub struct Objective {
    loss: Box<dyn Loss>,
    miner: Miner,
}

impl Objective {
    /// The loss of the settings, over embeddings of length `dim` of `classes` identities. Class
    /// centres follow `tch::manual_seed`.
    pub fn new(settings: &TripletSettings, classes: usize, dim: i64, device: Device) -> Self {
        let TripletSettings { margin, distance, hinge, reduction, .. } = *settings;
        let options = LossOptions { margin, distance, hinge, reduction };
        let shape = LossShape { classes: classes as i64, dim, device };
        let loss = (settings.loss.build)(&options, &shape);
        let miner = if loss.mining().is_some() { settings.miner } else { BATCH_ALL };
        Self { loss, miner }
    }

    /// What the loss trains besides the network, by name.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        self.loss.parameters()
    }

    /// The loss of embeddings `[B, D]` with labels, int64 `[B]` (fastest on the host); and for the log
    /// the share of active tuples and the mean distances.
    pub fn loss(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        seed: u64,
    ) -> (LossOutput, Vec<Figure>) {
        let mining = self.loss.mining();
        let mut stats = BatchStats::new(mining.map(|mining| mining.active_margin));
        let (distance, margin) = mining
            .map_or_else(Default::default, |Mining { distance, margin, .. }| (distance, margin));
        let tuples = self.miner.mine_embeddings(
            embeddings,
            labels,
            distance,
            margin,
            seed,
            Some(&mut stats),
        );
        let output = self.loss.forward(embeddings, labels, &tuples);
        // Of all triplets of the batch, whatever the miner chose: comparable between miners.
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
