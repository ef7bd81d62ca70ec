//! `visage evaluate --pairs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::context::Context;
use super::output::{count, demand_png, line, percent};
use super::{inputs, trunk};
use crate::data::formats;
use crate::data::pairs_file::PairList;
use crate::eval::Embeddings;
use crate::eval::pair_scores::PairScores;
use crate::eval::verification::Pairs;
use crate::figures::{self, Curve, Histogram, Series};
use crate::recognise::Comparison;
use crate::{Error, cli};

/// Random seed of the folds and of the bootstrap.
const SEED: u64 = 0;

pub fn run(context: &Context, flags: &cli::Evaluate, file: &Path) -> anyhow::Result<ExitCode> {
    for (flag, path) in [("--roc", &flags.roc), ("--histogram", &flags.histogram)] {
        if let Some(path) = path {
            demand_png(flag, path)?;
        }
    }
    let say = &context.say;
    formats::open_packed(&flags.data)?;
    let list = PairList::read(file, &flags.data)?;
    if let Some(skipped) = list.describe_skipped(3) {
        say.warn(&format!("left out {skipped}"));
    }
    let loaded = trunk::open(context, &flags.trunk, trunk::COMPARERS)?;
    let paths: BTreeSet<PathBuf> =
        list.pairs.iter().flat_map(|pair| [pair.a.clone(), pair.b.clone()]).collect();
    let paths: Vec<PathBuf> = paths.into_iter().collect();
    let (mut values, mut rows) = (Vec::new(), BTreeMap::new());
    let viewer = loaded.viewer(context, flags.face.detect, flags.centre_crop)?;
    inputs::embed_one_face(loaded.embedder(), &viewer, &paths, say, |path, row| {
        match row {
            Ok(row) => {
                rows.insert(path.to_owned(), rows.len());
                values.extend_from_slice(row);
            }
            Err(error) => say.warn(&format!("skipped {error}")),
        }
        Ok(())
    })?;
    let dim = loaded.embedder().dim();
    let embeddings = Embeddings::new(rows.len(), dim, values)?;

    let (mut places, mut same, mut folds) = (Vec::new(), Vec::new(), Vec::new());
    for pair in &list.pairs {
        if let (Some(&a), Some(&b)) = (rows.get(&pair.a), rows.get(&pair.b)) {
            places.push((a, b));
            same.push(pair.label.is_same());
            folds.push(pair.fold);
        }
    }
    let comparison = loaded.comparison();
    let pairs = Pairs::new(comparison.distances(&embeddings, &places)?, same)?;
    let given = list.folds > 1;
    let Some(scores) = PairScores::of(&pairs, given.then_some(folds.as_slice()), SEED) else {
        return Err(Error::Data(format!(
            "{}: same and different pairs are needed, but {} of {} are left",
            file.display(),
            match pairs.same.first() {
                Some(true) => "only same pairs",
                Some(false) => "only different pairs",
                None => "none",
            },
            count(list.pairs.len(), "pair")
        ))
        .into());
    };
    let report = PairsReport {
        scores,
        skipped: list.skipped.len() + list.pairs.len() - pairs.len(),
        unreadable: paths.len() - rows.len(),
        pairs,
        given,
        model: loaded.name(),
        source: loaded.source(),
        comparison,
    };
    if let Some(path) = &flags.roc {
        figures::save_png(path, &report.roc())?;
        say.line(&format!("ROC curve: {}", path.display()));
    }
    if let Some(path) = &flags.histogram {
        figures::save_png(path, &report.histogram())?;
        say.line(&format!("histograms: {}", path.display()));
    }
    match flags.json {
        true => line(&report.json().to_string())?,
        false => report.print()?,
    }
    Ok(ExitCode::SUCCESS)
}

struct PairsReport<'a> {
    scores: PairScores,
    pairs: Pairs,
    /// Pairs left out: a picture is missing or cannot be read.
    skipped: usize,
    /// Pictures that cannot be read.
    unreadable: usize,
    /// The folds are from the file.
    given: bool,
    /// The name of the model.
    model: String,
    /// Its file, or the name of its weights.
    source: String,
    comparison: Comparison<'a>,
}

impl PairsReport<'_> {
    fn same(&self) -> usize {
        self.pairs.same.iter().filter(|same| **same).count()
    }

    fn json(&self) -> serde_json::Value {
        let scores = &self.scores;
        let folds = scores.folds.as_ref();
        json!({
            "model": self.source,
            "accuracy": folds.map(|folds| folds.mean()),
            "accuracy_std": folds.map(|folds| folds.std()),
            "auc": scores.auc,
            "eer": scores.eer,
            "tar_at_far": scores.tar_at_far,
            "f1": scores.f1,
            "threshold": scores.threshold,
            "pairs": self.pairs.len(),
            "same": self.same(),
            "different": self.pairs.len() - self.same(),
            "skipped": self.skipped,
            "unreadable": self.unreadable,
            "distance": self.comparison.name(),
            "probability": scores.probability,
            "folds": folds.map(|folds| json!({
                "from": if self.given { "file" } else { "drawn" },
                "count": folds.accuracies.len(),
                "accuracies": folds.accuracies,
                "thresholds": folds.thresholds,
            })),
        })
    }

    fn print(&self) -> std::io::Result<()> {
        let scores = &self.scores;
        let row = |name: &str, value: &str| line(&format!("{name:<26}{value}"));
        let (same, all) = (self.same(), self.pairs.len());
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!("; {skipped} skipped"),
        };
        row("pairs", &format!("{all} ({same} same, {} different{skipped})", all - same))?;
        match &scores.folds {
            Some(folds) => row(
                &format!("accuracy, {} folds", folds.accuracies.len()),
                &format!("{} +- {}", percent(folds.mean()), percent(folds.std())),
            )?,
            None => row("accuracy", "-  (too few pairs for folds)")?,
        }
        row("AUC", &format!("{:.4}", scores.auc))?;
        row("equal error rate", &percent(scores.eer))?;
        for rate in &scores.tar_at_far {
            let value = match (rate.tar, rate.low, rate.high, &rate.reason) {
                (Some(tar), Some(low), Some(high), _) => {
                    format!("{} ({} to {})", percent(tar), percent(low), percent(high))
                }
                (.., Some(reason)) => format!("-  ({reason})"),
                _ => "-".into(),
            };
            row(&format!("TAR at FAR {}", rate.far), &value)?;
        }
        row("F1 at the threshold", &format!("{:.4}", scores.f1))?;
        row("threshold", &format!("{:.4} ({})", scores.threshold, self.comparison.name()))
    }

    fn roc(&self) -> image::RgbImage {
        let scores = &self.scores;
        let points = scores.roc.points().iter().map(|point| (point.far, point.tar));
        let mut series =
            vec![Series { name: format!("ROC, AUC {:.4}", scores.auc), points: points.collect() }];
        let mut mark = |name: String, at: (f64, f64)| {
            series.push(Series { name, points: vec![at] });
        };
        mark(format!("EER {}", percent(scores.eer)), (scores.eer, 1.0 - scores.eer));
        for rate in &scores.tar_at_far {
            if let Some(tar) = rate.tar {
                mark(format!("TAR {} at FAR {}", percent(tar), rate.far), (rate.far, tar));
            }
        }
        figures::curve(&Curve {
            title: &format!("{} on {}", self.model, count(self.pairs.len(), "pair")),
            x_label: "false accept rate (FAR)",
            y_label: "true accept rate (TAR)",
            series: &series,
            x_range: Some((0.0, 1.0)),
            y_range: Some((0.0, 1.0)),
            diagonal: true,
        })
    }

    fn histogram(&self) -> image::RgbImage {
        let of = |kind: bool| self.pairs.of_kind(kind).map(f64::from).collect();
        let kinds = [("same", of(true)), ("different", of(false))];
        figures::histogram(&Histogram {
            title: &format!("{} on {}", self.model, count(self.pairs.len(), "pair")),
            x_label: &format!("distance ({})", self.comparison.name()),
            kinds: &kinds,
            line: Some(("threshold", self.scores.threshold)),
        })
    }
}
