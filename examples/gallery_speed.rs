//! How long an exact search in a gallery takes: `cargo run --release --example gallery_speed -- 1000000`.
//!
//! Random embeddings of length one, 128 numbers each, five faces a person; half of the queries are near an
//! enrolled face. Prints the median over 50 queries.

#![allow(clippy::print_stdout)] // the measurement is the result

use std::time::Instant;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use visage::gallery::search::Index;

const DIM: usize = 128;

fn main() {
    let rows = std::env::args().nth(1).and_then(|rows| rows.parse().ok()).unwrap_or(1_000_000);
    let mut rng = StdRng::seed_from_u64(0);
    let mut unit = || -> Vec<f32> {
        let row: Vec<f32> = (0..DIM).map(|_| rng.random_range(-1.0..1.0f32)).collect();
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter().map(|value| value / norm).collect()
    };
    let mut index = Index::new(DIM);
    index.reserve(rows);
    for row in 0..rows {
        index.push(row / 5, &unit());
    }
    let mut times = Vec::new();
    for query in 0..50 {
        let mut face = unit();
        if query % 2 == 0 {
            let near = index.row(query * rows / 50);
            face = face.iter().zip(near).map(|(noise, value)| value + 0.3 * noise).collect();
        }
        let started = Instant::now();
        let hits = index.search(&face, 5, |_| false);
        times.push(1000.0 * started.elapsed().as_secs_f64());
        assert!(!hits.is_empty());
    }
    times.sort_by(f64::total_cmp);
    println!("{rows} faces: median {:.1} ms, slowest {:.1} ms", times[25], times[49]);
}
