//! Without the `cli` feature there are no event files: a writer that writes nothing.

use std::path::Path;
use std::time::SystemTime;

use image::RgbImage;

/// Takes everything and writes nothing.
pub struct EventWriter;

#[allow(missing_docs)] // as the real one's
impl EventWriter {
    pub fn create(_: &Path) -> Self {
        Self
    }

    pub fn resume(_: &Path, _: (&str, u64)) -> Self {
        Self
    }

    pub fn position(&mut self) -> Option<(String, u64)> {
        None
    }

    pub fn take_warning(&mut self) -> Option<String> {
        None
    }

    pub fn scalar(&mut self, _: &str, _: u64, _: f64) {}

    pub fn histogram(&mut self, _: &str, _: u64, _: &[f32]) {}

    pub fn image(&mut self, _: &str, _: u64, _: &RgbImage) {}

    pub fn text(&mut self, _: &str, _: u64, _: &str) {}

    pub fn pr_curve(&mut self, _: &str, _: u64, _: &[bool], _: &[f32]) {}

    pub fn hparams(&mut self, _: &serde_json::Value, _: &[String], _: SystemTime) {}

    pub fn flush(&mut self) {}
}
