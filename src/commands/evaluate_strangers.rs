//! `visage evaluate --strangers`: what a classifier does with people it does not know, and what that costs
//! those it knows.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::context::Context;
use super::output::{line, percent};
use super::strangers::each_stranger;
use crate::Result;
use crate::detect::DetectOptions;
use crate::eval::Embeddings;
use crate::eval::open_set::{FnirAtFpir, Interval, Known, OpenSet};
use crate::eval::pair_scores::RESAMPLES;
use crate::figures::{self, Curve, Series};
use crate::recognise::{Answer, FaceSearch, Recogniser, Unknown, Viewer};
use crate::words;

/// The false-positive identification rates of the report.
const FPIRS: [f64; 4] = [0.1, 0.03, 0.01, 0.003];

/// The answers to strangers and to known faces.
pub struct StrangersReport {
    /// The known faces are those that the model was not trained on.
    set: OpenSet,
    /// Faces of strangers, and how many of them are UNKNOWN at the model's threshold.
    faces: usize,
    unknown: usize,
    unreadable: usize,
    /// The known faces at the model's threshold.
    right: usize,
    wrong: usize,
    rates: Option<Vec<FnirAtFpir>>,
    oscr: Option<Interval>,
}

impl StrangersReport {
    /// Answers the faces below `folder`, cut out as `classify` does, beside `known`: the answers to faces
    /// the model knows but was not trained on, with their labels.
    ///
    /// # Errors
    /// As [`each_stranger`].
    pub fn of(
        context: &Context,
        model: &Recogniser,
        folder: &Path,
        detect: FaceSearch,
        known: &[(&Answer, usize)],
    ) -> anyhow::Result<Self> {
        let classifier = model.classifier()?;
        let rule = classifier.calibration.unknown;
        let names = &model.card.classes;
        let viewer = Viewer::new(&model.card, detect, DetectOptions::default(), context.device()?)?;
        let (mut unknown, mut faces) = (0, 0);
        let mut people: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let mut add = |person: &str, embeddings: &Embeddings| -> Result<()> {
            for answer in classifier.answer(embeddings)? {
                faces += 1;
                unknown += usize::from(!answer.is_known);
                people.entry(person.to_owned()).or_default().push(score(&answer, rule));
            }
            Ok(())
        };
        let (trunk, say) = (&model.backbone, &context.say);
        let unreadable = each_stranger(trunk, &viewer, folder, names, say, &mut add)?;
        let is_right = |answer: &Answer, label| best(answer).0 == label;
        let named = |right: bool| {
            let is_it = |&&(answer, label): &&(&Answer, usize)| {
                answer.is_known && is_right(answer, label) == right
            };
            known.iter().filter(is_it).count()
        };
        let set = OpenSet {
            known: known
                .iter()
                .map(|&(answer, label)| Known {
                    score: score(answer, rule),
                    is_right: is_right(answer, label),
                })
                .collect(),
            strangers: people.into_values().collect(),
        };
        Ok(Self {
            faces,
            unknown,
            unreadable,
            right: named(true),
            wrong: named(false),
            rates: set.fnir_at_fpir(&FPIRS, RESAMPLES, 0),
            oscr: set.oscr(RESAMPLES, 0),
            set,
        })
    }

    /// The key `strangers` of the JSON output.
    pub fn json(&self) -> serde_json::Value {
        let known = self.set.known.len();
        json!({
            "pictures": self.faces,
            "people": self.set.strangers.len(),
            "unreadable": self.unreadable,
            "unknown": self.unknown,
            "unknown_rate": self.unknown as f64 / self.faces.max(1) as f64,
            "known": {
                "pictures": known,
                "right": self.right,
                "wrong": self.wrong,
                "unknown": known - self.right - self.wrong,
            },
            "fnir_at_fpir": self.rates,
            "oscr": self.oscr,
        })
    }

    /// Prints the table.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self) -> std::io::Result<()> {
        let share = |part: usize, all: usize| percent(part as f64 / all.max(1) as f64);
        line("")?;
        line(&format!(
            "strangers: {} of {} UNKNOWN ({}); {}",
            self.unknown,
            self.faces,
            share(self.unknown, self.faces),
            words::people(self.set.strangers.len())
        ))?;
        let known = self.set.known.len();
        let Some(rates) = &self.rates else {
            return line(
                "no rates: no picture of a known person that the model was not trained on",
            );
        };
        line(&format!(
            "known people, {known} pictures the model was not trained on: {} rightly named, {} with a \
             wrong name, {} UNKNOWN",
            share(self.right, known),
            share(self.wrong, known),
            share(known - self.right - self.wrong, known)
        ))?;
        line("")?;
        line(&format!(
            "{:>16}  {:>16}  {:>16}  {:>9}  {:>10}",
            "strangers named", "known not named", "95 % interval", "UNKNOWN", "wrong name"
        ))?;
        line(&format!("{:>16}  {:>16}", "(FPIR, at most)", "(FNIR)"))?;
        for rate in rates {
            let fpir = format!("{} %", 100.0 * rate.fpir);
            let optional = |figure: Option<f64>| figure.map_or_else(|| "-".into(), percent);
            if let Some(reason) = &rate.reason {
                line(&format!("{fpir:>16}  {:>16}  {reason}", "-"))?;
                continue;
            }
            let interval = match (rate.low, rate.high) {
                (Some(low), Some(high)) => format!("{:.1} to {:.1} %", 100.0 * low, 100.0 * high),
                _ => "-".into(),
            };
            let [fnir, refused, wrong] = [rate.fnir, rate.refused, rate.wrong].map(optional);
            line(&format!("{fpir:>16}  {fnir:>16}  {interval:>16}  {refused:>9}  {wrong:>10}"))?;
        }
        if let Some(area) = self.oscr {
            let [value, low, high] = [area.value, area.low, area.high].map(|share| 100.0 * share);
            line(&format!("area below the OSCR curve: {value:.2} % ({low:.2} to {high:.2} %)"))?;
        }
        Ok(())
    }

    /// Draws the FNIR over the FPIR, with the model's own threshold.
    ///
    /// # Errors
    /// Names `path`.
    pub fn draw(&self, path: &Path) -> Result<()> {
        let share = |part: usize, all: usize| 100.0 * part as f64 / all.max(1) as f64;
        let known = self.set.known.len();
        // A staircase: between two rates the lower one holds.
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (fpir, fnir) in self.set.trade_off() {
            points.extend(points.last().map(|&(_, before)| (100.0 * fpir, before)));
            points.push((100.0 * fpir, 100.0 * fnir));
        }
        let least = 100.0 / self.faces.max(1) as f64;
        let own = (share(self.faces - self.unknown, self.faces), share(known - self.right, known));
        let series = [
            Series { name: "known not named".into(), points },
            Series {
                name: "the model's threshold".into(),
                points: vec![(own.0.max(least), own.1)],
            },
        ];
        let title = format!(
            "{known} known faces, {} faces of {} strangers",
            self.faces,
            self.set.strangers.len()
        );
        let highest = series.iter().flat_map(|s| &s.points).map(|p| p.1).fold(1.0, f64::max);
        let figure = Curve {
            title: &title,
            x_label: "strangers who get a name, % (FPIR)",
            y_label: "known faces without their name, % (FNIR)",
            series: &series,
            x_range: Some((least, 100.0)),
            y_range: Some((0.0, highest)),
            diagonal: false,
        };
        figures::save_png(path, &figures::log_curve(&figure))
    }
}

/// What the model's rule compares to its threshold.
fn score(answer: &Answer, rule: Unknown) -> f64 {
    match rule {
        Unknown::KnownBelow(_) => answer.known,
        Unknown::ProbabilityBelow(_) => best(answer).1,
    }
}

/// The likeliest identity and its probability.
pub fn best(answer: &Answer) -> (usize, f64) {
    answer.ranking.first().copied().unwrap_or((usize::MAX, 0.0))
}
