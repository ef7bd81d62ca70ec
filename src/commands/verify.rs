//! `visage verify`.

use std::process::ExitCode;

use super::context::Context;
use super::inputs;
use super::output::{self, line};
use super::trunk::{self, Loaded};
use crate::eval::Embeddings;
use crate::eval::unknown::Logistic;
use crate::eval::verification::best_threshold;
use crate::recognise::reply::Compared;
use crate::recognise::{Comparison, ModelKind, Recogniser};
use crate::train::scoring::{Labelled, SAME_BIAS, SAME_WEIGHT};
use crate::weights::{Source, manifest};
use crate::{Error, Result, cli};

/// Exit code for pictures of different people.
const DIFFERENT: u8 = 1;

pub fn run(context: &Context, flags: &cli::Verify) -> anyhow::Result<ExitCode> {
    let loaded = trunk::open(context, &flags.trunk, trunk::COMPARERS)?;
    if let Some(threshold) = flags.threshold {
        check_threshold(threshold, loaded.comparison())?;
    }
    let rule = Rule::of(&loaded)?;
    let threshold = flags.threshold.or(rule.threshold).ok_or_else(|| {
        Error::Config(
            "the trunk has no threshold; measure one with `visage evaluate --pairs` and pass it \
             as --threshold DISTANCE"
                .into(),
        )
    })?;

    let mut values = Vec::new();
    let files = [flags.a.clone(), flags.b.clone()];
    let viewer = loaded.viewer(context, flags.face.detect, flags.centre_crop)?;
    inputs::embed_one_face(loaded.embedder(), &viewer, &files, &context.say, |_, row| {
        values.extend_from_slice(row?);
        Ok(())
    })?;
    let rows = Embeddings::new(2, loaded.embedder().dim(), values)?;
    let distances = loaded.comparison().distances(&rows, &[(0, 1)])?;
    let distance = distances.first().copied().map_or(f64::NAN, f64::from);
    if !distance.is_finite() {
        let text = format!("the distance is {distance}: the model's weights are broken");
        return Err(Error::Data(text).into());
    }
    let probability = rule.probability.map(|curve| curve.probability(distance));
    let compared = Compared { distance, threshold, probability };
    let same = compared.is_same();
    let reply = if flags.json {
        compared.json(&loaded.source(), &flags.a, &flags.b).to_string()
    } else {
        let verdict = if same { "same person" } else { "different people" };
        let sure = probability
            .map(|share| format!(", probability {:.2}%", 100.0 * share))
            .unwrap_or_default();
        format!("{verdict}: distance {distance:.4}, threshold {threshold:.4}{sure}")
    };
    output::exit(line(&reply), if same { 0 } else { DIFFERENT })
}

/// Checks that a threshold is a distance that the model can return: a logit may be negative.
fn check_threshold(threshold: f64, comparison: Comparison) -> Result<()> {
    let (fits, what) = match comparison {
        Comparison::Euclidean => (threshold > 0.0, "a distance above 0"),
        Comparison::Logit(_) => (true, "a finite number"),
    };
    match fits && threshold.is_finite() {
        true => Ok(()),
        false => Err(Error::Config(format!("--threshold {threshold}: expected {what}"))),
    }
}

/// How a model turns the distance of two pictures into a decision.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rule {
    /// Below it they show the same person.
    pub threshold: Option<f64>,
    /// P(same | distance), with equal priors. It is fitted on other pairs than the threshold was
    /// chosen on, so 50 % need not lie at the threshold.
    pub probability: Option<Logistic>,
}

impl Rule {
    pub fn of(loaded: &Loaded) -> Result<Self> {
        match loaded {
            Loaded::Model { model, .. } => Self::of_model(model),
            Loaded::Bare(built) => Self::of_weights(&built.source),
            Loaded::Pairs { model, .. } => {
                Ok(Self { threshold: model.pair.threshold, probability: model.pair.probability })
            }
        }
    }

    /// A trunk's card has the best threshold on its training pairs; a classifier has the training
    /// faces themselves (the `threshold` in its card is the one of UNKNOWN). The curves of both are
    /// fitted on validation pairs.
    fn of_model(model: &Recogniser) -> Result<Self> {
        let figure = |name: &str| model.card.metrics.get(name).copied();
        let threshold = match model.card.kind {
            ModelKind::Classifier => {
                let gallery = &model.classifier()?.gallery;
                let (embeddings, labels) = (gallery.embeddings.clone(), gallery.labels.clone());
                best_threshold(&Labelled { embeddings, labels }.pairs()).map(|at| at.distance)
            }
            _ => figure("threshold"),
        };
        let curve = figure(SAME_WEIGHT).zip(figure(SAME_BIAS));
        let probability = curve.map(|(weight, bias)| Logistic { weight, bias });
        Ok(Self { threshold, probability })
    }

    /// Weights of the manifest come with a measured threshold; others do not.
    fn of_weights(source: &Source) -> Result<Self> {
        let Source::Named(name) = source else { return Ok(Self::default()) };
        let entry = manifest::entries()?.into_iter().find(|entry| entry.name == *name);
        Ok(entry.and_then(|entry| entry.verification).map_or_else(Self::default, |found| Self {
            threshold: Some(found.threshold),
            probability: Some(Logistic { weight: found.weight, bias: found.bias }),
        }))
    }
}
