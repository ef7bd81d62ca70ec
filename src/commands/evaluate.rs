//! `visage evaluate`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::context::Context;
use super::evaluate_strangers::{StrangersReport, best};
use super::output::{count, demand_png, line, percent};
use super::{classify, evaluate_pairs, inputs, trunk};
use crate::cli;
use crate::data::folder::FaceFolder;
use crate::eval::calibration::expected_calibration_error;
use crate::eval::confusion::Confusion;
use crate::eval::knn;
use crate::eval::retrieval::Retrieval;
use crate::eval::roc::roc_auc;
use crate::figures::{self, ConfusionFigure};
use crate::recognise::{Answer, Classifier, FaceSearch, GalleryFace, Recogniser};
use crate::train::dataset;
use crate::train::scoring::Labelled;
use crate::{Error, Result};

pub fn run(context: &Context, flags: &cli::Evaluate) -> anyhow::Result<ExitCode> {
    if let Some(list) = &flags.pairs {
        return evaluate_pairs::run(context, flags, list);
    }
    if flags.trunk.backbone.is_some() {
        let text = "--backbone: a labelled folder is evaluated with a classifier; use --model, or \
                    --pairs";
        return Err(Error::Config(text.into()).into());
    }
    if let Some(path) = &flags.confusion {
        demand_png("--confusion", path)?;
    }
    if let Some(path) = &flags.fnir_curve {
        demand_png("--fnir-curve", path)?;
    }
    let say = &context.say;
    let (model, source) = classify::load(context, flags.trunk.model.as_deref(), flags.unknown)?;
    let classifier = model.classifier()?;
    let names = &model.card.classes;

    let size = model.card.input.size;
    let folder = dataset::open_labelled(&flags.data, size, say)?;
    let known = known_pictures(&folder, names, &flags.data, say)?;
    let (known, data) = embed_known(context, &model, &folder, known, flags.face.detect)?;
    let answers = classifier.answer(&data.embeddings)?;
    let seen = seen(&folder, &known, &classifier.gallery.faces);
    let strangers = match &flags.strangers {
        Some(folder) => {
            let unseen = answers.iter().zip(data.labels.iter().copied()).zip(&seen);
            let unseen: Vec<_> =
                unseen.filter(|(_, seen)| !**seen).map(|(answered, _)| answered).collect();
            Some(StrangersReport::of(context, &model, folder, flags.face.detect, &unseen)?)
        }
        None => None,
    };
    if let (Some(path), Some(strangers)) = (&flags.fnir_curve, &strangers) {
        strangers.draw(path)?;
        say.line(&format!("FNIR over FPIR: {}", path.display()));
    }
    let report = Evaluation::of(names, classifier, &data, &answers, &seen)?;
    if let Some(path) = &flags.confusion {
        let title = format!("{} pictures of {} identities", report.pictures, names.len());
        let counts = report.confusion.counts();
        let figure = ConfusionFigure { title: &title, names, counts };
        figures::save_png(path, &figures::confusion(&figure))?;
        say.line(&format!("confusion matrix: {}", path.display()));
    }
    if flags.json {
        let mut object = report.json(strangers.as_ref(), folder.unreadable.len(), classifier);
        object["model"] = json!(source.to_string_lossy());
        line(&object.to_string())?;
    } else {
        report.print()?;
        if let Some(strangers) = strangers {
            strangers.print()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Pictures of the model's identities, as (index, the model's label); reports the other folders.
fn known_pictures(
    folder: &FaceFolder,
    names: &[String],
    root: &Path,
    say: &crate::progress::Reporter,
) -> Result<Vec<(usize, usize)>> {
    let label = |identity: usize| {
        let name = folder.identities.get(identity)?;
        names.iter().position(|known| known == name)
    };
    let foreign: Vec<_> = (0..folder.identities.len())
        .filter(|&identity| label(identity).is_none())
        .map(|identity| folder.identities[identity].as_str())
        .collect();
    if !foreign.is_empty() {
        say.warn(&format!(
            "{} not among the model's identities and left out ({}{}); use --strangers for unknown people",
            count(foreign.len(), "folder") + if foreign.len() == 1 { " is" } else { " are" },
            foreign.iter().take(5).copied().collect::<Vec<_>>().join(", "),
            if foreign.len() > 5 { ", ..." } else { "" }
        ));
    }
    let known: Vec<_> = folder
        .pictures
        .iter()
        .enumerate()
        .filter_map(|(index, face)| Some((index, label(face.identity)?)))
        .collect();
    if known.is_empty() {
        return Err(Error::Data(format!(
            "--data {}: no folder has the name of an identity of the model ({})",
            root.display(),
            names.join(", ")
        )));
    }
    Ok(known)
}

/// Embeds the face on each known picture as `classify` does, of several the main one, and drops the pictures
/// without.
fn embed_known(
    context: &Context,
    model: &Recogniser,
    folder: &FaceFolder,
    known: Vec<(usize, usize)>,
    detect: FaceSearch,
) -> anyhow::Result<(Vec<(usize, usize)>, Labelled)> {
    let viewer = trunk::main_face(context, &model.card, detect)?;
    let paths: Vec<_> =
        known.iter().map(|&(index, _)| folder.pictures[index].path.clone()).collect();
    let (used, embeddings) = inputs::embed_all(&model.backbone, &viewer, &paths, &context.say)?;
    let known: Vec<_> = used.into_iter().map(|picture| known[picture]).collect();
    let labels = known.iter().map(|&(_, label)| label).collect();
    Ok((known, Labelled { embeddings, labels }))
}

/// Which of the known pictures are in the gallery, by content: the model was trained on them.
fn seen(folder: &FaceFolder, known: &[(usize, usize)], gallery: &[GalleryFace]) -> Vec<bool> {
    let gallery: BTreeSet<&str> = gallery.iter().map(|face| face.sha256.as_str()).collect();
    let seen = |&(index, _): &(usize, usize)| gallery.contains(folder.digest(index).as_str());
    known.iter().map(seen).collect()
}

/// The evaluation of a classifier on labelled pictures.
struct Evaluation {
    pictures: usize,
    seen: usize,
    /// Top-1 accuracy, without the UNKNOWN threshold.
    accuracy: f64,
    unseen_accuracy: Option<f64>,
    /// Fraction above the UNKNOWN threshold.
    named: f64,
    /// Fraction above the UNKNOWN threshold and correct.
    named_right: f64,
    knn: Option<f64>,
    /// Each picture against all the others.
    retrieval: Option<Retrieval>,
    auc: Option<f64>,
    ece: Option<f64>,
    /// With an UNKNOWN column.
    confusion: Confusion,
}

impl Evaluation {
    fn of(
        names: &[String],
        classifier: &Classifier,
        data: &Labelled,
        answers: &[Answer],
        seen: &[bool],
    ) -> Result<Self> {
        let right: Vec<bool> =
            answers.iter().zip(&data.labels).map(|(a, &label)| best(a).0 == label).collect();
        let share = |hits: usize, of: usize| hits as f64 / of.max(1) as f64;
        let total = answers.len();
        let unseen: Vec<bool> =
            right.iter().zip(seen).filter(|(_, seen)| !**seen).map(|(right, _)| *right).collect();
        let hits = |list: &[bool]| list.iter().filter(|right| **right).count();
        let mut confusion = Confusion::new(names.to_vec());
        let (mut named, mut named_right) = (0, 0);
        for ((answer, &label), right) in answers.iter().zip(&data.labels).zip(&right) {
            confusion.record(label, answer.is_known.then_some(best(answer).0))?;
            named += usize::from(answer.is_known);
            named_right += usize::from(answer.is_known && *right);
        }
        let confidences: Vec<f64> = answers.iter().map(|answer| best(answer).1).collect();
        let gallery = &classifier.gallery;
        Ok(Self {
            pictures: total,
            seen: hits(seen),
            accuracy: share(hits(&right), total),
            unseen_accuracy: (!unseen.is_empty() && unseen.len() < total)
                .then(|| share(hits(&unseen), unseen.len())),
            named: share(named, total),
            named_right: share(named_right, total),
            knn: knn::against_gallery(
                &gallery.embeddings,
                &gallery.labels,
                &data.embeddings,
                &data.labels,
            ),
            retrieval: Retrieval::within(&data.embeddings, &data.labels),
            auc: roc_auc(&data.pairs()),
            ece: expected_calibration_error(&confidences, &right, 15),
            confusion,
        })
    }

    fn json(
        &self,
        strangers: Option<&StrangersReport>,
        unreadable: usize,
        classifier: &Classifier,
    ) -> serde_json::Value {
        let matrix: Vec<_> =
            (0..self.confusion.names().len()).map(|row| self.confusion.row(row)).collect();
        json!({
            "pictures": self.pictures,
            "unreadable": unreadable,
            "trained_on": self.seen,
            "accuracy": self.accuracy,
            "unseen_accuracy": self.unseen_accuracy,
            "knn_accuracy": self.knn,
            "knn_leave_one_out": self.retrieval.map(|found| found.precision_at_1),
            "verification_auc": self.auc,
            "named": self.named,
            "named_right": self.named_right,
            "unknown": 1.0 - self.named,
            "unknown_rule": classifier.calibration.unknown,
            "ece": self.ece,
            "map_at_r": self.retrieval.map(|found| found.map_at_r),
            "r_precision": self.retrieval.map(|found| found.r_precision),
            "identities": self.confusion.table(),
            "confusion": {
                "labels": self.confusion.names(),
                "columns": "labels, then UNKNOWN",
                "matrix": matrix,
            },
            "strangers": strangers.map(StrangersReport::json),
        })
    }

    fn print(&self) -> std::io::Result<()> {
        let optional = |figure: Option<f64>| figure.map_or_else(|| "-".into(), percent);
        line(&format!("{:<34}{:>10}", "pictures", self.pictures))?;
        line(&format!("{:<34}{:>10}", "accuracy (without UNKNOWN)", percent(self.accuracy)))?;
        if self.seen > 0 {
            line(&format!("{:<34}{:>10}", "  of them in the training set", self.seen))?;
            let unseen = optional(self.unseen_accuracy);
            line(&format!("{:<34}{unseen:>10}", "  accuracy on the others"))?;
        }
        for (name, value) in [
            ("1-NN against the training faces", self.knn),
            ("1-NN among these, leave-one-out", self.retrieval.map(|found| found.precision_at_1)),
            ("MAP@R among these", self.retrieval.map(|found| found.map_at_r)),
            ("R-precision among these", self.retrieval.map(|found| found.r_precision)),
            ("verification AUC among these", self.auc),
            ("named", Some(self.named)),
            ("named correctly", Some(self.named_right)),
            ("expected calibration error", self.ece),
        ] {
            line(&format!("{name:<34}{:>10}", optional(value)))?;
        }
        line("")?;
        let width = self.confusion.names().iter().map(|name| name.chars().count()).max();
        let width = width.unwrap_or(0).max(8);
        line(&format!(
            "{:<width$}{:>10}{:>12}{:>10}{:>10}",
            "identity", "pictures", "precision", "recall", "UNKNOWN"
        ))?;
        for row in self.confusion.table() {
            let (precision, recall) = (optional(row.precision), optional(row.recall));
            line(&format!(
                "{:<width$}{:>10}{precision:>12}{recall:>10}{:>10}",
                row.name, row.support, row.unknown
            ))?;
        }
        Ok(())
    }
}
