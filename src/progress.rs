//! Progress of long work and status lines, on stderr.
//!
//! On a terminal there is a live bar; anywhere else (a pipe, a file) a plain line now and then; with
//! `--quiet` nothing but warnings. Without the `cli` feature there is no bar. Stdout is never touched:
//! it belongs to results. A stderr that is closed or full is ignored.

#[cfg(feature = "cli")]
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[cfg(feature = "cli")]
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
#[cfg(not(feature = "cli"))]
use no_bars::{MultiProgress, ProgressBar, live_bar, live_bars};

use crate::words::printable;

#[cfg(not(feature = "cli"))]
mod no_bars;

/// The shortest time between two plain lines about the same work.
const PRINT_INTERVAL: Duration = Duration::from_secs(10);

/// How often a live bar is redrawn while nothing advances, so that its clock goes on.
#[cfg(feature = "cli")]
const TICK: Duration = Duration::from_millis(500);

/// How a live bar looks without and with a known total.
#[cfg(feature = "cli")]
const TEMPLATES: [&str; 2] = [
    "{prefix} {spinner} {pos} {unit}, {rate}  {wide_msg}",
    "{prefix} [{bar:24}] {pos}/{len} {unit}, {rate}, {left} left  {wide_msg}",
];

/// Where status goes. Clones write to the same place.
#[derive(Clone)]
pub struct Reporter {
    out: Arc<Mutex<dyn Write + Send>>,
    /// The live bars; none where stderr is not a terminal.
    bars: Option<MultiProgress>,
    /// Whether anything but warnings is printed.
    is_verbose: bool,
    interval: Duration,
}

impl Reporter {
    /// Reports on stderr: with bars on a terminal, in plain lines elsewhere, only warnings when
    /// `quiet`.
    pub fn stderr(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = !quiet && !dumb && std::io::stderr().is_terminal();
        let bars = if live { live_bars() } else { None };
        let out = Arc::new(Mutex::new(std::io::stderr()));
        Self { out, bars, is_verbose: !quiet, interval: PRINT_INTERVAL }
    }

    /// Says nothing at all, not even warnings.
    pub fn hidden() -> Self {
        let out = Arc::new(Mutex::new(std::io::sink()));
        Self { out, bars: None, is_verbose: false, interval: PRINT_INTERVAL }
    }

    /// A status line, above any live bar.
    pub fn line(&self, text: &str) {
        if self.is_verbose {
            self.print(text);
        }
    }

    /// A line that starts with `warning:` and is printed under `--quiet` too.
    pub fn warn(&self, text: &str) {
        self.print(&format!("warning: {text}"));
    }

    /// Hides the bars while `body` writes to the terminal.
    pub fn suspend<T>(&self, body: impl FnOnce() -> T) -> T {
        match &self.bars {
            Some(bars) => bars.suspend(body),
            None => body(),
        }
    }

    /// Prints an error about one of several things, after which the others go on.
    pub fn error(&self, text: &str) {
        self.print(&format!("error: {text}"));
    }

    /// Starts showing work of `total` steps, called `title` and counted in `unit`s (`"faces"`); a
    /// total of 0 stands for an unknown one.
    pub fn progress(&self, title: &str, total: u64, unit: &str) -> Progress {
        self.progress_within(title, total, unit, Whole { elapsed: Duration::ZERO, done: 0, total })
    }

    /// The same for a part of longer work: the time left is that of the `whole`.
    pub fn progress_within(&self, title: &str, total: u64, unit: &str, whole: Whole) -> Progress {
        let bar = self.bars.as_ref().map(|bars| live_bar(bars, title, total, unit, whole));
        let started = Instant::now();
        let (title, unit) = (title.to_owned(), unit.to_owned());
        let work = Job { title, unit, total, whole };
        Progress {
            reporter: self.clone(),
            bar,
            work,
            done: AtomicU64::new(0),
            message: Mutex::new(String::new()),
            started,
            printed: Mutex::new(started),
            finished: AtomicBool::new(false),
        }
    }

    /// Writes one whole line, with the bars out of the way.
    fn print(&self, text: &str) {
        let write = || {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            // An error of stderr itself cannot be reported.
            let _ = out
                .write_all(format!("{}\n", printable(text)).as_bytes())
                .and_then(|()| out.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// Longer work that a bar shows a part of.
#[derive(Debug, Clone, Copy)]
pub struct Whole {
    /// The time it took before the part.
    pub elapsed: Duration,
    /// Steps done before the part.
    pub done: u64,
    /// All its steps, those of the part too.
    pub total: u64,
}

impl Whole {
    /// The time left, `elapsed` after the start of the part with `done` of its steps, at the rate of the
    /// whole so far; none before the first step, which there is no rate to judge from, and after the last.
    fn left(&self, done: u64, elapsed: Duration) -> Option<Duration> {
        let done = self.done + done;
        let rate = rate(done, self.elapsed + elapsed);
        let left = (self.total > done && rate > 0.0).then(|| (self.total - done) as f64 / rate)?;
        Some(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX))
    }
}

/// Work that is going on. Threads may share it. Dropped without [`Progress::finish`] (after an
/// error, or when the caller prints a better line itself) it disappears without a line.
pub struct Progress {
    reporter: Reporter,
    bar: Option<ProgressBar>,
    work: Job,
    done: AtomicU64,
    message: Mutex<String>,
    started: Instant,
    /// When the last plain line was printed.
    printed: Mutex<Instant>,
    finished: AtomicBool,
}

impl Progress {
    /// `steps` more are done.
    pub fn inc(&self, steps: u64) {
        let done = self.done.fetch_add(steps, Ordering::Relaxed) + steps;
        if let Some(bar) = &self.bar {
            bar.inc(steps);
        } else if self.reporter.is_verbose {
            // Another thread is printing a line already.
            let Ok(mut printed) = self.printed.try_lock() else { return };
            if printed.elapsed() >= self.reporter.interval {
                *printed = Instant::now();
                let message = self.message.lock().unwrap_or_else(PoisonError::into_inner);
                let line = self.work.under_way(done, self.started.elapsed(), &message);
                self.reporter.print(&line);
            }
        }
    }

    /// A remark behind the bar, such as the running loss.
    pub fn set_message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        } else if self.reporter.is_verbose {
            text.clone_into(&mut self.message.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Ends the work: the bar makes place for one line with its duration and rate. Only the first
    /// call counts.
    pub fn finish(&self) {
        if self.finished.swap(true, Ordering::Relaxed) {
            return;
        }
        self.clear();
        let done = self.done.load(Ordering::Relaxed);
        self.reporter.line(&self.work.over(done, self.started.elapsed()));
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            if let Some(bars) = &self.reporter.bars {
                bars.remove(bar);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.finished.load(Ordering::Relaxed) {
            self.clear();
        }
    }
}

/// Title and unit of the work, for its plain lines.
struct Job {
    title: String,
    unit: String,
    total: u64,
    whole: Whole,
}

impl Job {
    /// `embedding: 120/500 faces, 34.1 faces/s, 11 s left, loss 0.3`
    fn under_way(&self, done: u64, elapsed: Duration, message: &str) -> String {
        let Self { title, unit, total, whole } = self;
        let rate = rate(done, elapsed);
        let mut line = match total {
            0 => format!("{title}: {done} {unit}, {rate:.1} {unit}/s"),
            _ => format!("{title}: {done}/{total} {unit}, {rate:.1} {unit}/s"),
        };
        if let Some(left) = whole.left(done, elapsed) {
            line.push_str(&format!(", {} left", printed(left)));
        }
        if !message.is_empty() {
            line.push_str(", ");
            line.push_str(message);
        }
        line
    }

    /// `embedding: 500 faces in 14.2 s (35.2 faces/s)`
    fn over(&self, done: u64, elapsed: Duration) -> String {
        let Self { title, unit, .. } = self;
        let time = match elapsed.as_secs() {
            0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
            _ => printed(elapsed),
        };
        format!("{title}: {done} {unit} in {time} ({:.1} {unit}/s)", rate(done, elapsed))
    }
}

/// Steps per second since the start; 0 before any time has passed.
fn rate(done: u64, elapsed: Duration) -> f64 {
    match elapsed.as_secs_f64() {
        0.0 => 0.0,
        seconds => done as f64 / seconds,
    }
}

/// A duration in its two largest units: `11 s`, `2 min 05 s`, `3 h 20 min`.
fn printed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(feature = "cli")]
fn live_bars() -> Option<MultiProgress> {
    Some(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
}

#[cfg(feature = "cli")]
fn live_bar(
    bars: &MultiProgress,
    title: &str,
    total: u64,
    unit: &str,
    whole: Whole,
) -> ProgressBar {
    let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
    let bar = bars.add(bar.with_style(style(total, unit, whole)).with_prefix(title.to_owned()));
    bar.enable_steady_tick(TICK);
    bar
}

/// The style of a live bar. Title and message are filled in by indicatif, so braces in them are safe.
#[cfg(feature = "cli")]
fn style(total: u64, unit: &str, whole: Whole) -> ProgressStyle {
    let template = TEMPLATES[usize::from(total > 0)];
    let (unit, per) = (unit.to_owned(), unit.to_owned());
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("unit", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&unit);
        })
        .with_key("rate", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{:.1} {per}/s", state.per_sec());
        })
        .with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let left = whole.left(state.pos(), state.elapsed());
            let _ = out.write_str(&left.map_or_else(|| "? s".to_owned(), printed));
        })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a reporter wrote, for the test to read.
    #[derive(Clone, Default)]
    pub struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub fn lines(&self) -> Vec<String> {
            let bytes = self.0.lock().unwrap();
            String::from_utf8(bytes.clone()).unwrap().lines().map(str::to_owned).collect()
        }

        pub fn reporter(&self, is_verbose: bool, interval: Duration) -> Reporter {
            Reporter { out: Arc::new(Mutex::new(self.clone())), bars: None, is_verbose, interval }
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn plain_work_speaks_at_intervals_and_at_its_end() {
        let page = Page::default();
        let silent = page.reporter(true, PRINT_INTERVAL).progress("embedding", 3, "faces");
        (0..3).for_each(|_| silent.inc(1));
        assert_eq!(page.lines(), Vec::<String>::new());
        silent.finish();
        silent.finish();
        assert_eq!(page.lines().len(), 1);
        assert!(page.lines()[0].starts_with("embedding: 3 faces in "), "{:?}", page.lines());

        let page = Page::default();
        let chatty = page.reporter(true, Duration::ZERO).progress("epoch {1}", 4, "batches");
        chatty.set_message("loss 0.25");
        chatty.inc(2);
        assert!(page.lines()[0].starts_with("epoch {1}: 2/4 batches, "), "{:?}", page.lines());
        assert!(page.lines()[0].ends_with(", loss 0.25"), "{:?}", page.lines());
        drop(chatty);
        assert_eq!(page.lines().len(), 1, "dropped work says nothing");
    }

    #[test]
    fn quiet_work_only_warns() {
        let page = Page::default();
        let reporter = page.reporter(false, Duration::ZERO);
        let progress = reporter.progress("embedding", 3, "faces");
        progress.inc(3);
        progress.set_message("x");
        progress.finish();
        reporter.line("status");
        reporter.warn("the disk is full");
        assert_eq!(page.lines(), ["warning: the disk is full"]);
    }

    #[test]
    fn a_closed_stderr_is_ignored() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        let out = Arc::new(Mutex::new(Closed));
        let reporter = Reporter { out, bars: None, is_verbose: true, interval: Duration::ZERO };
        reporter.line("nobody hears");
        let progress = reporter.progress("embedding", 1, "faces");
        progress.inc(1);
        progress.finish();
    }

    #[test]
    fn threads_count_together() {
        let page = Page::default();
        let progress = page.reporter(true, Duration::ZERO).progress("decoding", 400, "pictures");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| progress.inc(1)));
            }
        });
        progress.finish();
        let lines = page.lines();
        assert!(lines[lines.len() - 1].starts_with("decoding: 400 pictures in "), "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with("decoding: ")), "torn lines");
    }

    #[test]
    fn lines_tell_rate_and_time_left() {
        let job =
            |total, whole| Job { title: "embedding".into(), unit: "faces".into(), total, whole };
        let alone = |total| job(total, Whole { elapsed: Duration::ZERO, done: 0, total });
        let work = alone(500);
        let line = work.under_way(120, Duration::from_secs(4), "");
        assert_eq!(line, "embedding: 120/500 faces, 30.0 faces/s, 12 s left");
        assert_eq!(work.under_way(0, Duration::ZERO, ""), "embedding: 0/500 faces, 0.0 faces/s");
        let line = work.over(500, Duration::from_millis(12_500));
        assert_eq!(line, "embedding: 500 faces in 12.5 s (40.0 faces/s)");
        // The second of four epochs; the first took 6 s with its validation.
        let epoch = job(500, Whole { elapsed: Duration::from_secs(6), done: 500, total: 2000 });
        let line = epoch.under_way(250, Duration::from_secs(3), "");
        assert_eq!(line, "embedding: 250/500 faces, 83.3 faces/s, 15 s left");
        assert!(!epoch.under_way(1500, Duration::from_secs(30), "").contains("left"));
        let unknown = alone(0);
        let line = unknown.under_way(7, Duration::from_secs(2), "chris");
        assert_eq!(line, "embedding: 7 faces, 3.5 faces/s, chris");
        assert_eq!(printed(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(printed(Duration::from_secs(12_000)), "3 h 20 min");
    }

    #[test]
    #[cfg(feature = "cli")]
    fn a_live_bar_draws_every_template() {
        for total in [0, 5] {
            let target = ProgressDrawTarget::hidden();
            let bars = Some(MultiProgress::with_draw_target(target));
            let page = Page::default();
            let mut reporter = page.reporter(true, PRINT_INTERVAL);
            reporter.bars = bars;
            let progress = reporter.progress("a {title}", total, "faces");
            progress.inc(2);
            progress.set_message("{loss}");
            reporter.line("above the bar");
            progress.finish();
            assert_eq!(page.lines()[0], "above the bar");
            assert!(page.lines()[1].starts_with("a {title}: 2 faces in "));
            assert_eq!(page.lines().len(), 2);
        }
    }

    #[test]
    #[cfg(feature = "cli")]
    fn the_templates_are_valid() {
        for template in TEMPLATES {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
