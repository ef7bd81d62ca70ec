//! How long a weight file takes to load into its network, and how much memory; `benches/load.py`
//! holds it against PyTorch.
//!
//!     cargo run --release --example load_weights -- vgg16 vgg16-397923af.pth
//!
//! Prints one JSON object: seconds to build and to load, and the resident memory (bytes) before the
//! network was built and at the peak of the process (Linux; elsewhere null).
#![allow(clippy::print_stdout)] // it talks

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use visage::models::{Architecture, Backbone, BuildOptions};
use visage::weights::{WeightFile, load};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let [Some(name), Some(path), None] = [arguments.next(), arguments.next(), arguments.next()]
    else {
        bail!("give an architecture and a file of its weights with the classifier of 1000 classes");
    };
    let architecture = Architecture::try_from(name.clone()).map_err(anyhow::Error::msg)?;
    // libtorch is awake before the clock starts.
    let _ = Tensor::ones([2, 2], (Kind::Float, Device::Cpu)).sum(Kind::Float);
    let before = resident("VmRSS:");
    let start = Instant::now();
    let options = BuildOptions { classes: Some(1000), ..BuildOptions::default() };
    let backbone = Backbone::build(architecture, Device::Cpu, &options)?;
    let built = start.elapsed();
    let file = WeightFile::open(Path::new(&path))?;
    let report = load::load_file(&backbone.params, &file, &load::LoadOptions::default())?;
    let loaded = start.elapsed() - built;
    if !report.is_strict() {
        bail!("{path} does not fit {name}: {report}");
    }
    // Tells that the values are the file's.
    let last = backbone.params.iter().last().context("a network without tensors")?;
    let figures = json!({
        "build": built.as_secs_f64(), "load": loaded.as_secs_f64(),
        "before": before, "peak": resident("VmHWM:"),
        "check": f64::try_from(last.tensor.to_kind(Kind::Double).sum(Kind::Double))?,
    });
    println!("{figures}");
    Ok(())
}

/// A line of the kernel's account of this process, in bytes.
fn resident(line: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|found| found.strip_prefix(line))?;
    value.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kilobytes| kilobytes << 10)
}
