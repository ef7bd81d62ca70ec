//! One line for each request: when, what route, how it ended. Never who was seen, file names or pictures.

use std::io::Write;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::{Error, Result};

/// Lines that may wait for the reader of the log; more are lost.
const WAITING: usize = 1024;

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum LogFormat {
    /// One line of words per request
    Text,
    /// One JSON object per request
    Json,
    /// No log
    Off,
}

/// Where the log goes.
pub struct LogOutput {
    /// How lines look.
    pub format: LogFormat,
    /// Who writes them.
    pub out: Box<dyn Write + Send>,
}

impl std::fmt::Debug for LogOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogOutput").field("format", &self.format).finish_non_exhaustive()
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine {
    pub method: &'static str,
    pub route: &'static str,
    pub status: u16,
    pub took: Duration,
    /// Bytes of the reply's body.
    pub bytes: u64,
}

/// The log: lines are written by a thread of its own, so that no request waits for the disk.
#[derive(Debug)]
pub struct Log {
    format: LogFormat,
    lines: Mutex<Option<SyncSender<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Starts to write.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(LogOutput { format, mut out }: LogOutput) -> Result<Self> {
        let (sender, lines) = sync_channel::<String>(WAITING);
        // A log that cannot be written does not stop the service.
        let write = move || {
            lines.iter().for_each(|line| {
                let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
            })
        };
        let thread = thread::Builder::new()
            .name("log".into())
            .spawn(write)
            .map_err(|error| Error::Config(format!("no thread to write the log with: {error}")))?;
        let (lines, thread) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Self { format, lines, thread })
    }

    pub fn request(&self, entry: &RequestLine) {
        if self.format == LogFormat::Off {
            return;
        }
        let line = line(self.format, entry, SystemTime::now());
        if let Some(lines) = &*self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = lines.try_send(line);
        }
    }

    /// Writes the lines that wait, and ends.
    pub fn finish(&self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn line(format: LogFormat, entry: &RequestLine, now: SystemTime) -> String {
    let RequestLine { method, route, status, took, bytes } = *entry;
    let (time, ms) = (timestamp(now), (took.as_secs_f64() * 1e5).round() / 100.0);
    match format {
        LogFormat::Json => {
            let object = json!({ "time": time, "method": method, "route": route, "status": status,
                                 "ms": ms, "bytes": bytes });
            format!("{object}\n")
        }
        _ => format!("{time} {method} {route} {status} {ms:.2} ms {bytes} bytes\n"),
    }
}

/// UTC, as in RFC 3339, in milliseconds.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, day) = ((seconds / 86_400) as i64, seconds % 86_400);
    // The calendar of days since 1970: eras of 400 years that start on 1 March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (day / 3600, day / 60 % 60, day % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_time_in_utc() {
        // `date -u -d @1709210096.5 +%FT%T`
        let at = UNIX_EPOCH + Duration::from_millis(1_709_210_096_500);
        assert_eq!(timestamp(at), "2024-02-29T12:34:56.500Z");
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
        let took = Duration::from_micros(12_345);
        let entry =
            RequestLine { method: "GET", route: "/people/{name}", status: 404, took, bytes: 7 };
        assert_eq!(
            line(LogFormat::Text, &entry, at),
            "2024-02-29T12:34:56.500Z GET /people/{name} 404 12.35 ms 7 bytes\n"
        );
        let json = line(LogFormat::Json, &entry, at);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (json["status"].as_u64(), json["route"].as_str()),
            (Some(404), Some("/people/{name}"))
        );
    }
}
