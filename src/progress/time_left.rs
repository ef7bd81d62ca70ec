//! How long work will take.

use std::time::Duration;

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
    pub fn left(&self, done: u64, elapsed: Duration) -> Option<Duration> {
        let done = self.done + done;
        let rate = rate(done, self.elapsed + elapsed);
        let left = (self.total > done && rate > 0.0).then(|| (self.total - done) as f64 / rate)?;
        Some(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX))
    }
}

/// Steps per second since the start; 0 before any time has passed.
pub fn rate(done: u64, elapsed: Duration) -> f64 {
    match elapsed.as_secs_f64() {
        0.0 => 0.0,
        seconds => done as f64 / seconds,
    }
}

/// A duration in its two largest units: `11 s`, `2 min 05 s`, `3 h 20 min`.
pub fn printed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}
