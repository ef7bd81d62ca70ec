//! What all trainings of a trunk have in common.

use image::RgbImage;
use serde::Serialize;

use super::context::Context;
use super::output::{line, percent};
use crate::figures::{self, Curve, Series};
use crate::train::fit::fit;
use crate::train::fit_result::{FitResult, Scores};
use crate::train::interrupt::Interrupt;
use crate::train::log::RunLog;
use crate::train::optim::Optimizer;
use crate::train::plan::FitConfig;
use crate::train::run_folder::{RunFolder, config_text};
use crate::train::scoring::is_internal;
use crate::train::set_up::settings_json;
pub use crate::train::set_up::{device_summary, plan, resolve_auto, warm_up_batchnorm};
use crate::train::task::Task;
use crate::{Error, Result};

/// Runs the training loop of a command with its log: settings, curves, summary.
pub fn train<S: Serialize>(
    context: &Context,
    task: &mut dyn Task,
    optimizer: &mut Optimizer,
    plan: &FitConfig,
    run: &RunFolder,
    (command, settings): (&str, &S),
) -> Result<FitResult> {
    let say = &context.say;
    let mut log = match run.checkpoint() {
        Some(checkpoint) => {
            run.check_best(&checkpoint.header.state)?;
            RunLog::resume(run.path(), checkpoint.header.log.clone())
        }
        None => {
            let mut log = RunLog::create(run.path());
            // A Markdown code block, which TensorBoard shows unchanged.
            log.text("config", 0, &format!("```\n{}\n```", config_text(command, settings)?));
            log
        }
    };
    let plan = FitConfig { interrupt: Interrupt::watch(), ..plan.clone() };
    let outcome = fit(task, optimizer, &plan, run, &mut log, say)?;
    let settings = settings_json(settings)?;
    let best = outcome.best_of_all.as_ref().unwrap_or(&outcome.best);
    let best = best.values.iter().filter(|(name, _)| !is_internal(name));
    let best: Vec<_> = best.copied().collect();
    log.hparams(&settings, outcome.best_epoch as u64, &best);
    let curves = learning_curves(&title(command, &settings), &outcome);
    if let Err(error) = figures::save_png(&run.curves(), &curves) {
        say.warn(&format!("no learning curves: {error}"));
    }
    for warning in log.take_warnings() {
        say.warn(&warning);
    }
    run.finish(&outcome)?;
    match outcome.stopped {
        Some(cause) => {
            let FitResult { model, best_epoch, .. } = outcome;
            Err(Error::Stopped { cause, model, best_epoch })
        }
        None => Ok(outcome),
    }
}

/// Prints a table of validation figures, before training and of the best model, and of that on all pictures
/// where epochs are scored on a sample: (name, label in the table) each; those that were not measured are
/// left out.
pub fn print_figures(
    title: &str,
    figures: &[(&str, &str)],
    outcome: &FitResult,
) -> std::io::Result<()> {
    let mut columns = vec![("untouched", &outcome.untouched), ("best", &outcome.best)];
    columns.extend(outcome.best_of_all.iter().map(|scores| ("best, all", scores)));
    let row = |label: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>12}")).collect();
        line(&format!("{label:<22}{cells}"))
    };
    row(title, columns.iter().map(|(name, _)| (*name).to_owned()).collect())?;
    for (name, label) in figures {
        let of = |scores: &Scores| {
            scores.values.iter().find(|(other, _)| other == name).map(|(_, value)| percent(*value))
        };
        if let Some(cells) = columns.iter().map(|(_, scores)| of(scores)).collect() {
            row(label, cells)?;
        }
    }
    Ok(())
}

/// What was trained: `train-triplet, openface, arcface loss`.
fn title(command: &str, settings: &serde_json::Value) -> String {
    let setting = |name: &str| settings[name].as_str();
    let loss = setting("loss").map(|loss| format!("{loss} loss"));
    let parts = [Some(command.to_owned()), setting("backbone").map(str::to_owned), loss];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The validation figures that are shares, in the words of tables and curves.
pub const SHARES: [(&str, &str); 12] = [
    ("knn", "1-NN, leave-one-out"),
    ("knn_gallery", "1-NN against training"),
    ("centroid", "nearest centroid"),
    ("verification", "verification"),
    ("auc", "verification AUC"),
    ("f1", "F1"),
    ("accuracy", "accuracy"),
    ("named", "named"),
    ("map_at_r", "MAP@R"),
    ("r_precision", "R-precision"),
    ("agreement", "agreement, held out"),
    ("held_out_cosine", "cosine, held out"),
];

/// Training loss and validation figures over the epochs, each with an axis of its own.
fn learning_curves(title: &str, outcome: &FitResult) -> RgbImage {
    let epochs = || (0..).map(f64::from).zip(&outcome.history);
    let losses = epochs().filter_map(|(epoch, (loss, _))| Some((epoch, (*loss)?)));
    let losses = [Series { name: "training loss".into(), points: losses.collect() }];
    let figure = |(name, label): (&str, &str)| {
        let points = epochs().filter_map(|(epoch, (_, scores))| {
            let (_, value) = scores.values.iter().find(|(other, _)| *other == name)?;
            Some((epoch, *value))
        });
        Series { name: label.into(), points: points.collect() }
    };
    let shares: Vec<Series> =
        SHARES.into_iter().map(figure).filter(|series| !series.points.is_empty()).collect();
    let last = outcome.history.len().saturating_sub(1).max(1) as f64;
    let panel = |title: &str, y_label, series: &[Series]| {
        figures::curve(&Curve {
            title,
            x_label: "epoch",
            y_label,
            series,
            x_range: Some((0.0, last)),
            y_range: None,
            diagonal: false,
        })
    };
    figures::stacked(&[
        panel(&format!("Training loss: {title}"), "loss", &losses),
        panel(&format!("Validation: {title}"), "share", &shares),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::fit_result::Scores;

    #[test]
    fn the_loss_has_an_axis_of_its_own_and_the_title_names_the_training() {
        let json = serde_json::json!({ "backbone": "openface", "loss": "arcface", "lr": 0.1 });
        assert_eq!(title("train-triplet", &json), "train-triplet, openface, arcface loss");
        assert_eq!(title("train-classifier", &serde_json::json!({})), "train-classifier");
        let scores = |knn| Scores { values: vec![("knn", knn)], ..Scores::default() };
        let outcome = |loss: f64| FitResult {
            untouched: scores(0.5),
            best: scores(0.75),
            best_of_all: None,
            best_epoch: 1,
            epochs: 1,
            model: "best".into(),
            rollbacks: 0,
            stopped: None,
            history: vec![(None, scores(0.5)), (Some(loss), scores(0.75))],
        };
        let [small, large] = [0.5, 40.0].map(|loss| learning_curves("t", &outcome(loss)));
        // A large loss leaves the chart of the accuracies as it is.
        let lower = |sheet: &RgbImage| {
            let half = sheet.height() / 2;
            let view = image::imageops::crop_imm(sheet, 0, half, sheet.width(), half);
            view.to_image()
        };
        assert_eq!(lower(&small), lower(&large));
        assert_ne!(small, large);
    }
}
