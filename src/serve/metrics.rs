//! Counters and histograms, as text that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper ends of the classes of durations, in seconds.
const SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Upper ends of the classes of batch sizes.
const SIZES: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// A histogram with `N` classes and one for all above.
#[derive(Debug)]
struct Histogram<const N: usize> {
    ends: [f64; N],
    counts: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    fn new(ends: [f64; N]) -> Self {
        Self { ends, counts: [0; N], count: 0, sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        if let Some(at) = self.ends.iter().position(|end| value <= *end) {
            self.counts[at] += 1;
        }
    }

    /// The lines of the histogram `name` with these labels, such as `route="/"`.
    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (end, count) in self.ends.iter().zip(self.counts) {
            below += count;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{end}\"}} {below}");
        }
        let (count, sum) = (self.count, self.sum);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }
}

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    /// By method, route and status.
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    seconds: Mutex<BTreeMap<&'static str, Histogram<13>>>,
    batches: Mutex<Histogram<7>>,
    faces: AtomicU64,
    people: AtomicUsize,
    enrolled: AtomicUsize,
    connections: AtomicUsize,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            seconds: Mutex::default(),
            batches: Mutex::new(Histogram::new(SIZES)),
            faces: AtomicU64::new(0),
            people: AtomicUsize::new(0),
            enrolled: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        }
    }
}

impl Metrics {
    pub fn request(&self, method: &'static str, route: &'static str, status: u16, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, route, status)).or_default() += 1;
        drop(requests);
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        seconds.entry(route).or_insert_with(|| Histogram::new(SECONDS)).add(took.as_secs_f64());
    }

    /// So many pictures were computed together.
    pub fn batch(&self, pictures: usize) {
        if pictures > 0 {
            let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.add(pictures as f64);
        }
    }

    /// So many faces were found.
    pub fn faces(&self, faces: usize) {
        self.faces.fetch_add(faces as u64, Ordering::Relaxed);
    }

    /// The people and faces of the gallery.
    pub fn enrolled(&self, (people, faces): (usize, usize)) {
        self.people.store(people, Ordering::Relaxed);
        self.enrolled.store(faces, Ordering::Relaxed);
    }

    pub fn connections(&self, open: usize) {
        self.connections.store(open, Ordering::Relaxed);
    }

    /// Everything; `waiting` is the number of pictures in the queue.
    pub fn text(&self, waiting: usize) -> String {
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head(&mut out, "visage_requests_total", "counter", "Requests answered.");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, route, status), count) in requests.iter() {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            let _ = writeln!(out, "visage_requests_total{{{labels}}} {count}");
        }
        drop(requests);
        let name = "visage_request_duration_seconds";
        head(&mut out, name, "histogram", "From the headers of a request to its answer.");
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        for (route, histogram) in seconds.iter() {
            histogram.write(&mut out, name, &format!("route=\"{route}\""));
        }
        drop(seconds);
        head(&mut out, "visage_batch_pictures", "histogram", "Pictures computed together.");
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.write(&mut out, "visage_batch_pictures", "");
        drop(batches);
        head(&mut out, "visage_faces_total", "counter", "Faces found on pictures.");
        let _ = writeln!(out, "visage_faces_total {}", self.faces.load(Ordering::Relaxed));
        let gauges = [
            ("visage_queue_pictures", "Pictures waiting or being computed.", waiting),
            ("visage_people", "People in the gallery.", self.people.load(Ordering::Relaxed)),
            (
                "visage_enrolled_faces",
                "Faces in the gallery.",
                self.enrolled.load(Ordering::Relaxed),
            ),
            ("visage_connections", "Open connections.", self.connections.load(Ordering::Relaxed)),
        ];
        for (name, help, value) in gauges {
            head(&mut out, name, "gauge", help);
            let _ = writeln!(out, "{name} {value}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_is_below_their_end() {
        let metrics = Metrics::default();
        for millis in [1, 40, 70_000] {
            metrics.request("POST", "/identify", 200, Duration::from_millis(millis));
        }
        metrics.batch(3);
        let text = metrics.text(2);
        for line in [
            "visage_requests_total{method=\"POST\",route=\"/identify\",status=\"200\"} 3",
            "visage_request_duration_seconds_bucket{route=\"/identify\",le=\"0.001\"} 1",
            "visage_request_duration_seconds_bucket{route=\"/identify\",le=\"0.05\"} 2",
            "visage_request_duration_seconds_bucket{route=\"/identify\",le=\"10\"} 2",
            "visage_request_duration_seconds_bucket{route=\"/identify\",le=\"+Inf\"} 3",
            "visage_batch_pictures_bucket{le=\"4\"} 1",
            "visage_queue_pictures 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
