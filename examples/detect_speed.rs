//! Times the face detector alone, for benches/detect.py.
//!
//! ```text
//! cargo run --release --example detect_speed -- SMALLEST_FACE PHOTO ...
//! ```
//!
//! Prints `{"faces": 231, "seconds": 4.2}`: all photos are decoded before the clock starts.

use std::path::Path;
use std::time::Instant;

use image::RgbImage;
use visage::data::picture;
use visage::detect::{DetectOptions, Detector};

/// Photos that are looked at together.
const BATCH: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let min_face = arguments.next().ok_or("name the smallest face, then photos")?.parse()?;
    let photos = arguments.map(|path| picture::decode(Path::new(&path)));
    let photos: Vec<RgbImage> = photos.collect::<visage::Result<_>>()?;
    let detector =
        Detector::new(tch::Device::Cpu, DetectOptions { min_face, ..DetectOptions::default() })?;
    let photos: Vec<&RgbImage> = photos.iter().collect();
    detector.detect(&photos[..photos.len().min(1)])?;
    let start = Instant::now();
    let mut faces = 0;
    for batch in photos.chunks(BATCH) {
        faces += detector.detect(batch)?.iter().map(Vec::len).sum::<usize>();
    }
    let seconds = start.elapsed().as_secs_f64();
    #[allow(clippy::print_stdout)] // the measurement is the result
    {
        println!("{}", serde_json::json!({"faces": faces, "seconds": seconds}));
    }
    Ok(())
}
