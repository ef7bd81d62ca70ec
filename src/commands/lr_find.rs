//! `visage lr-find`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use image::RgbImage;
use serde_json::json;

use super::context::Context;
use super::output::line;
use super::train_triplet;
use crate::cli;
use crate::figures::{self, Curve, Series};
use crate::train::interrupt::Interrupt;
use crate::train::log::{EventWriter, TENSORBOARD};
use crate::train::lr_find::{End, Keep, RangeTest, Suggestion, Sweep, lr_find};
use crate::{Error, Result, files};

pub fn run(context: &Context, flags: cli::LrFind) -> anyhow::Result<ExitCode> {
    let mut settings = flags.configured.settings;
    settings.check()?;
    if settings.triplet.triplets.is_some() {
        let text = "--triplets: lr-find works with mined triplets only; leave the flag out";
        return Err(Error::Config(text.into()).into());
    }
    let say = &context.say;
    if std::mem::take(&mut settings.triplet.tuning.unfreeze_every) > 0 {
        say.line("note: --unfreeze-every is ignored here: all stages train from the start");
    }
    let mut training = train_triplet::prepare(context, &mut settings.triplet)?;
    let scale_loss = training.backbone.compute().scales_loss();
    let test = RangeTest { scale_loss, ..settings.test() };
    let run = context.run_folder(&settings.triplet.out, "lr-find", &settings)?;
    settings.triplet.out = run.path().to_owned(); // of the disk cache, too
    run.write_split(training.data.divided(), say)?;
    let data = training.card.data.fingerprint.clone();
    let (mut task, optimizer) = training.task(&settings.triplet)?;
    let keep = Keep {
        run: &run,
        every: settings.triplet.schedule.checkpoint_every,
        interrupt: Interrupt::watch(),
        data: &data,
    };
    let sweep = lr_find(&mut task, optimizer, &test, Some(keep), say)?;
    if sweep.points.is_empty() {
        let text = "the loss is not finite before the first step; use other --weights";
        return Err(Error::Config(text.into()).into());
    }

    let suggestion = sweep.suggest();
    let (table, picture) = (run.path().join("lr_find.csv"), run.path().join("lr_find.png"));
    write_csv(&table, &sweep)?;
    let drawn = draw(&sweep, suggestion.ok().as_ref());
    figures::save_png(&picture, &drawn)?;
    if let Some(warning) = log(run.path(), &sweep, &drawn) {
        say.warn(&warning);
    }
    let found = suggestion.as_ref().ok();
    let report = json!({
        "suggestion": found.map(|found| found.steepest),
        "tenth_of_lowest": found.map(|found| found.lowest / 10.0),
        "lowest": found.map(|found| found.lowest),
        "why_none": suggestion.as_ref().err().map(ToString::to_string),
        "end": sweep.end,
        "steps": sweep.points.len(),
        "csv": table.to_string_lossy(),
        "png": picture.to_string_lossy(),
    });
    run.complete(&report)?;
    if flags.json {
        line(&report.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&ending(&sweep, test.to))?;
    match suggestion {
        Ok(Suggestion { steepest, lowest }) => {
            line(&format!("{:<28}--lr {steepest:.1e}", "steepest descent"))?;
            line(&format!("{:<28}--lr {:.1e}", "a tenth of the lowest point", lowest / 10.0))?;
        }
        Err(reason) => line(&format!("no suggestion: {reason}"))?,
    }
    line(&format!("curve: {}, numbers: {}", picture.display(), table.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// How the test ended.
fn ending(sweep: &Sweep, to: f64) -> String {
    let steps = sweep.points.len();
    let last = sweep.points.last().map_or(f64::NAN, |point| point.lr);
    match sweep.end {
        End::Whole if sweep.falls_to_the_end() => {
            format!("{steps} steps; the loss still falls at {to:.1e}: try a larger --to")
        }
        End::Whole => format!("{steps} steps, up to {to:.1e}"),
        End::Exploded => format!("{steps} steps; the loss diverged at {last:.1e}"),
        End::Collapsed => format!(
            "{steps} steps; the loss is constant from a rate of {last:.1e} on: the embeddings have \
             collapsed to one point"
        ),
        End::NotFinite => {
            format!("{steps} steps; after {last:.1e} the loss was not finite")
        }
    }
}

fn write_csv(path: &Path, sweep: &Sweep) -> Result<()> {
    files::write_atomically(path, |out| {
        writeln!(out, "lr,loss,smoothed")?;
        let mut rows = sweep.points.iter();
        rows.try_for_each(|point| writeln!(out, "{:e},{},{}", point.lr, point.loss, point.smoothed))
    })
}

/// Logs the points as scalars and the plot as an image; returns a warning if that failed.
fn log(run: &Path, sweep: &Sweep, picture: &RgbImage) -> Option<String> {
    let mut events = EventWriter::create(&run.join(TENSORBOARD));
    for (step, point) in (0..).zip(&sweep.points) {
        events.scalar("lr_find/lr", step, point.lr);
        events.scalar("lr_find/loss", step, point.loss);
        events.scalar("lr_find/smoothed", step, point.smoothed);
    }
    events.image("lr_find", 0, picture);
    events.flush();
    events.take_warning()
}

/// Loss over learning rate, with a vertical line at each suggestion.
fn draw(sweep: &Sweep, suggestion: Option<&Suggestion>) -> RgbImage {
    let smoothed: Vec<f64> = sweep.points.iter().map(|point| point.smoothed).collect();
    // Losses that diverge are far above their mean: then the mean sets the height.
    let exploded = matches!(sweep.end, End::Exploded | End::NotFinite);
    let low = sweep.points.iter().map(|point| point.loss).chain(smoothed.iter().copied());
    let losses = sweep.points.iter().map(|point| point.loss).filter(|_| !exploded);
    let high = smoothed.iter().copied().chain(losses).fold(0.0, f64::max) * 1.1;
    let low = low.fold(0.0, f64::min);
    let line = |name: &str, points: Vec<(f64, f64)>| Series { name: name.into(), points };
    let losses = sweep.points.iter().map(|point| (point.lr, point.loss)).collect();
    let means = sweep.points.iter().map(|point| (point.lr, point.smoothed)).collect();
    let mut series = vec![line("loss", losses), line("smoothed", means)];
    if let Some(Suggestion { steepest, lowest }) = suggestion {
        for (name, at) in [("steepest", *steepest), ("lowest / 10", lowest / 10.0)] {
            series.push(line(&format!("{name}: {at:.1e}"), vec![(at, low), (at, high)]));
        }
    }
    figures::log_curve(&Curve {
        title: "Learning-rate range test",
        x_label: "learning rate",
        y_label: "loss",
        series: &series,
        x_range: None,
        y_range: Some((low, high)),
        diagonal: false,
    })
}
