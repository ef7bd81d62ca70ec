//! Progress of long work and status lines, on stderr.
//!
//! On a terminal there is a live bar; anywhere else (a pipe, a file) a plain line now and then; with
//! `--quiet` nothing but warnings. Without the `cli` feature there is no bar. Stdout is never touched:
//! it belongs to results. A stderr that is closed or full is ignored.

#[cfg(feature = "cli")]
mod bars;
#[cfg(not(feature = "cli"))]
#[path = "progress/no_bars.rs"]
mod bars;
mod time_left;

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use time_left::Whole;

use bars::{MultiProgress, ProgressBar, live_bar, live_bars};
use time_left::{printed, rate};

use crate::words::printable;

/// The shortest time between two plain lines about the same work.
const PRINT_INTERVAL: Duration = Duration::from_secs(10);

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
            let target = indicatif::ProgressDrawTarget::hidden();
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
}
