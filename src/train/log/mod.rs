//! What a training run writes down: TensorBoard files, the projector's files and `metrics.csv`.
//!
//! Logging never ends a run. Whatever goes wrong first (a full disk, a read-only or deleted folder)
//! switches the whole log off and leaves one warning for the caller to print. Without the `cli` feature
//! there are no event files.

#[cfg(feature = "cli")]
mod descriptions;
pub mod histogram;
#[cfg(feature = "cli")]
pub mod hparams;
pub mod metrics;
pub mod projector;
#[cfg(feature = "cli")]
pub mod summary;
#[cfg_attr(not(feature = "cli"), path = "no_tensorboard.rs")]
pub mod tensorboard;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use image::RgbImage;
use serde::{Deserialize, Serialize};

pub use metrics::{MetricsCsv, Rows};
pub use projector::{Projector, Sprite, write_points, write_projector};
pub use tensorboard::EventWriter;

use crate::{Error, Result};

/// The folder below the run folder that holds what TensorBoard reads.
pub const TENSORBOARD: &str = "tensorboard";

/// The table in the run folder.
pub const METRICS: &str = "metrics.csv";

/// What differs between two runs of a seed: seconds, and the share of waiting.
const TIMING: &str = "timing.csv";

/// The log of one run; switched off it does nothing, and is used the same way.
#[derive(Default)]
pub struct RunLog {
    parts: Option<Parts>,
    warnings: Vec<String>,
}

struct Parts {
    folder: PathBuf,
    events: EventWriter,
    table: MetricsCsv,
    timing: MetricsCsv,
    started: SystemTime,
}

/// What the files of a log held when a checkpoint was written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogPosition {
    table: Rows,
    timing: Rows,
    events: Option<(String, u64)>,
}

impl RunLog {
    /// Starts a log in the run folder: `metrics.csv`, replacing an older one, and a `tensorboard`
    /// folder. Where that is impossible the log is off and has a warning.
    pub fn create(run: &Path) -> Self {
        Self::resume(run, LogPosition::default())
    }

    /// Goes on with the log of a run as it was: what was written after that is cut off.
    pub fn resume(run: &Path, at: LogPosition) -> Self {
        let folder = run.join(TENSORBOARD);
        let table = MetricsCsv::resume(&run.join(METRICS), at.table);
        let timing = MetricsCsv::resume(&run.join(TIMING), at.timing);
        let events = match &at.events {
            Some((name, length)) => EventWriter::resume(&folder, (name, *length)),
            None => EventWriter::create(&folder),
        };
        let parts = Parts { folder, events, table, timing, started: SystemTime::now() };
        let mut log = Self { parts: Some(parts), warnings: Vec::new() };
        log.check();
        log
    }

    /// Cuts off what was written after `at`, an earlier position of the log in this run folder.
    pub fn rewind(&mut self, run: &Path, at: LogPosition) {
        // What is still in memory must not be written behind the cut.
        self.position();
        if let Some(Parts { started, .. }) = self.parts.take() {
            let mut warnings = std::mem::take(&mut self.warnings);
            *self = Self::resume(run, at);
            warnings.append(&mut self.warnings);
            self.warnings = warnings;
            self.parts.iter_mut().for_each(|parts| parts.started = started);
        }
    }

    /// What the files hold now, all of it handed to the operating system.
    pub fn position(&mut self) -> LogPosition {
        let position = self.parts.as_mut().map(|parts| LogPosition {
            table: parts.table.rows(),
            timing: parts.timing.rows(),
            events: parts.events.position(),
        });
        self.check();
        position.unwrap_or_default()
    }

    /// A log that does nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether anything is still written.
    pub fn is_on(&self) -> bool {
        self.parts.is_some()
    }

    /// What went wrong since the last call; at most one message a run about the log's end.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Numbers of one step, each under its tag.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) {
        self.events(|events| {
            values.iter().for_each(|(tag, value)| events.scalar(tag, step, *value))
        });
    }

    /// The distribution of the finite `values` at a step.
    pub fn histogram(&mut self, tag: &str, step: u64, values: &[f32]) {
        self.events(|events| events.histogram(tag, step, values));
    }

    /// A picture at a step.
    pub fn image(&mut self, tag: &str, step: u64, picture: &RgbImage) {
        self.events(|events| events.image(tag, step, picture));
    }

    /// A note in Markdown at a step.
    pub fn text(&mut self, tag: &str, step: u64, note: &str) {
        self.events(|events| events.text(tag, step, note));
    }

    /// Precision against recall of `scores` in `[0, 1]`, where `positive` holds the truth.
    pub fn pr_curve(&mut self, tag: &str, step: u64, positive: &[bool], scores: &[f32]) {
        self.events(|events| events.pr_curve(tag, step, positive, scores));
    }

    /// One row of `metrics.csv`; everything logged so far is handed to the operating system.
    pub fn epoch_row(&mut self, values: &[(&str, f64)]) {
        if let Some(parts) = &mut self.parts {
            parts.table.row(values);
            parts.events.flush();
        }
        self.check();
    }

    /// One row of `timing.csv`.
    pub fn timing_row(&mut self, values: &[(&str, f64)]) {
        if let Some(parts) = &mut self.parts {
            parts.timing.row(values);
        }
        self.check();
    }

    /// Replaces the projector's files by the embeddings of this moment. Embeddings that cannot be
    /// shown (a diverged trunk's are not finite) leave a warning and the log on.
    pub fn projector(&mut self, projector: &Projector) {
        self.project(|folder| write_projector(folder, projector));
    }

    /// Replaces the projector's embeddings by others of the same pictures.
    pub fn points(&mut self, embeddings: &[f32], dim: usize) {
        self.project(|folder| write_points(folder, embeddings, dim));
    }

    fn project(&mut self, write: impl FnOnce(&Path) -> Result<()>) {
        let Some(parts) = &self.parts else { return };
        match write(&parts.folder) {
            Ok(()) => {}
            Err(Error::Io { path, source }) => {
                self.warnings.push(off_warning(&path, &source));
                self.parts = None;
            }
            Err(error) => self.warnings.push(error.to_string()),
        }
    }

    /// For the HPARAMS tab, at the end of a run: its settings, a table of plain values and lists, and
    /// the figures to compare it with others by. These are written as `best/NAME` at `step`.
    pub fn hparams(&mut self, settings: &serde_json::Value, step: u64, figures: &[(&str, f64)]) {
        let Some(Parts { started, .. }) = self.parts else { return };
        let figures: Vec<_> =
            figures.iter().map(|(name, value)| (format!("best/{name}"), *value)).collect();
        let tags: Vec<_> = figures.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.scalars(step, &tags);
        let tags: Vec<String> = figures.into_iter().map(|(tag, _)| tag).collect();
        self.events(|events| events.hparams(settings, &tags, started));
        self.flush();
    }

    /// Hands everything logged so far to the operating system, where TensorBoard sees it.
    pub fn flush(&mut self) {
        self.events(EventWriter::flush);
    }

    fn events(&mut self, write: impl FnOnce(&mut EventWriter)) {
        if let Some(parts) = &mut self.parts {
            write(&mut parts.events);
        }
        self.check();
    }

    /// Goes off when a part has; the other part's trouble would only repeat the message.
    fn check(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        let Parts { table, timing, events, .. } = parts;
        let warnings = [table.take_warning(), timing.take_warning(), events.take_warning()];
        if let Some(warning) = warnings.into_iter().flatten().next() {
            self.warnings.push(warning);
            self.parts = None;
        }
    }
}

/// The one sentence a log leaves behind.
fn off_warning(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}; this run is no longer logged, the training goes on", path.display())
}

/// Fails when a file that is open has lost its name: what is written to it would be lost too.
fn still_there(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the file was deleted while it was written"))
}

#[cfg(test)]
#[cfg(feature = "cli")]
mod tests {
    use super::*;

    fn log_an_epoch(log: &mut RunLog, epoch: u64) {
        let embeddings = [0.0, 1.0];
        log.scalars(epoch, &[("loss", 0.5), ("accuracy", 0.9)]);
        log.histogram("distance", epoch, &[0.1, 0.9]);
        log.image("strip", epoch, &RgbImage::new(2, 2));
        log.text("note", epoch, "fine");
        log.pr_curve("pr", epoch, &[true], &[1.0]);
        log.projector(&Projector { embeddings: &embeddings, dim: 1, columns: &[], sprite: None });
        log.epoch_row(&[("epoch", epoch as f64), ("loss", 0.5)]);
    }

    #[test]
    fn a_healthy_log_is_silent() {
        let run = tempfile::tempdir().unwrap();
        let mut log = RunLog::create(run.path());
        (0..3).for_each(|epoch| log_an_epoch(&mut log, epoch));
        assert_eq!(log.take_warnings(), Vec::<String>::new());
        let table = std::fs::read_to_string(run.path().join(METRICS)).unwrap();
        assert_eq!(table, "epoch,loss\n0,0.5\n1,0.5\n2,0.5\n");
        assert_eq!(std::fs::read_dir(run.path().join(TENSORBOARD)).unwrap().count(), 3);
    }

    #[test]
    fn any_trouble_is_one_warning() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut log = RunLog::create(&file.join("run"));
        (0..3).for_each(|epoch| log_an_epoch(&mut log, epoch));
        assert_eq!(log.take_warnings().len(), 1);

        let run = folder.path().join("run");
        let mut log = RunLog::create(&run);
        log_an_epoch(&mut log, 0);
        if std::fs::remove_dir_all(&run).is_err() {
            return; // Some systems keep the folder of an open file.
        }
        (1..4).for_each(|epoch| log_an_epoch(&mut log, epoch));
        let warnings = log.take_warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("training goes on"));
        assert!(!log.is_on());
    }

    #[test]
    fn embeddings_that_cannot_be_shown_leave_the_log_on() {
        let run = tempfile::tempdir().unwrap();
        let mut log = RunLog::create(run.path());
        let embeddings = [f32::NAN];
        log.projector(&Projector { embeddings: &embeddings, dim: 1, columns: &[], sprite: None });
        assert!(log.take_warnings()[0].contains("not finite"));
        assert!(log.is_on());
    }

    #[test]
    fn a_log_that_is_off_does_nothing() {
        let mut log = RunLog::off();
        log_an_epoch(&mut log, 0);
        assert!(!log.is_on() && log.take_warnings().is_empty());
    }
}
