//! What a batch of embeddings with labels is worth: the losses of `train-triplet` behind one name.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::settings::TripletSettings;
use crate::metric::Survey;
use crate::metric::losses::{
    BatchLoss, LossOutput, MarginHead, MarginKind, Reduction, TripletObjective,
};
use crate::metric::miners::Miner;
use crate::models::Params;

/// The margin between positives and negatives where none is given.
const MARGIN: f64 = 0.2;

/// A loss on embeddings and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Triplets that --miner chooses (Schroff et al. 2015)
    #[default]
    Triplet,
    /// Multi-similarity with its own miner (Wang et al. 2019)
    MultiSimilarity,
    /// Normalised temperature-scaled cross-entropy (Chen et al. 2020)
    NtXent,
    /// Supervised contrastive (Khosla et al. 2020)
    #[value(name = "supcon")]
    #[serde(rename = "supcon")]
    SupCon,
    /// A trained centre per identity, with a margin on the angle (Deng et al. 2019)
    #[value(name = "arcface")]
    #[serde(rename = "arcface")]
    ArcFace,
    /// The same with a margin on the cosine (Wang et al. 2018)
    #[value(name = "cosface")]
    #[serde(rename = "cosface")]
    CosFace,
}

#[derive(Debug)]
enum Loss {
    Triplet(TripletObjective, Miner),
    Batch(BatchLoss, Reduction),
    Margin(MarginHead),
}

/// A loss with its settings, and the class centres it trains where it has some.
#[derive(Debug)]
pub struct Objective {
    loss: Loss,
    /// The centres' book; empty for losses without.
    pub params: Params,
}

/// A figure for the log.
pub type Figure = (&'static str, Tensor);

impl Objective {
    /// The loss that the settings ask for, over embeddings of length `dim` of so many classes.
    /// Centres follow `tch::manual_seed`.
    pub fn new(settings: &TripletSettings, classes: usize, dim: i64, device: Device) -> Self {
        let reduction = settings.reduction;
        let batch = |loss| (Loss::Batch(loss, reduction), Params::default());
        let margin_head = |kind: MarginKind| {
            let (mut head, params) = Params::collect(device, |root| {
                let start = MarginHead::start(classes as i64, dim);
                MarginHead::new(kind, root.sub("centres").parameter("weight", start))
            });
            head.margin = settings.margin.unwrap_or(kind.default_margin());
            head.reduction = reduction;
            (Loss::Margin(head), params)
        };
        let (loss, params) = match settings.loss {
            LossKind::Triplet => {
                let objective = TripletObjective {
                    measure: settings.distance,
                    hinge: settings.hinge,
                    margin: settings.margin.unwrap_or(MARGIN),
                    reduction,
                };
                (Loss::Triplet(objective, settings.miner), Params::default())
            }
            LossKind::MultiSimilarity => batch(BatchLoss::MultiSimilarity),
            LossKind::NtXent => batch(BatchLoss::NtXent),
            LossKind::SupCon => batch(BatchLoss::SupCon),
            LossKind::ArcFace => margin_head(MarginKind::ArcFace),
            LossKind::CosFace => margin_head(MarginKind::CosFace),
        };
        Self { loss, params }
    }

    /// The loss of embeddings `[B, D]` with labels, int64 `[B]`, on the host for speed; and for the log the share of active
    /// tuples and the mean distances.
    pub fn loss(
        &self,
        embeddings: &Tensor,
        labels: &Tensor,
        seed: u64,
    ) -> (LossOutput, Vec<Figure>) {
        let share = |output: &LossOutput| &output.active / output.tuples.clamp_min(1);
        let (output, active, survey) = match &self.loss {
            Loss::Triplet(objective, miner) => {
                // Of all triplets of the batch, whatever the miner chose: comparable between miners.
                let mut survey = Survey::new(Some(objective.reach()));
                let (measure, margin) = (objective.measure, objective.margin);
                let selection =
                    miner.mine_and_survey(embeddings, labels, measure, margin, seed, &mut survey);
                let output = objective.over_embeddings(&selection, embeddings, labels);
                (output, survey.active(), survey)
            }
            Loss::Batch(loss, reduction) => {
                let output = loss.over(embeddings, labels, *reduction);
                let active = share(&output);
                (output, active, Survey::of(embeddings, labels))
            }
            Loss::Margin(head) => {
                let output = head.over(embeddings, labels);
                let active = share(&output);
                (output, active, Survey::of(embeddings, labels))
            }
        };
        let figures = vec![
            ("active", active),
            ("positive_distance", survey.positive_distance()),
            ("negative_distance", survey.negative_distance()),
        ];
        (output, figures)
    }
}
