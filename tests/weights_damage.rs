//! Weight files damaged at random: any answer will do, but soon, without much memory and without a
//! panic. `PROPTEST_CASES=1000000 cargo test --release --test weights_damage` looks longer.
//! The longest look so far was 2,500,000 files in 10 minutes on one shared core, and found nothing.
//!
//! One test alone in its process, because it watches the process's memory.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use visage::weights::TensorFile;
use visage::weights::reference::Reference;

/// Every weight file of the golden folder, and a reference; zip checksums are taken off, or little else were tested.
fn collection() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().unwrap() != "json").collect();
    paths.push(folder.with_file_name("openface_reference.safetensors"));
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths.iter().map(|path| without_checksums(std::fs::read(path).unwrap())).collect()
}

/// Zeroes the checksums of a zip's table of contents, which then count as not recorded.
fn without_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for at in 0..bytes.len().saturating_sub(20) {
        if bytes[at..].starts_with(b"PK\x01\x02") {
            bytes[at + 16..at + 20].fill(0);
        }
    }
    bytes
}

/// One way to damage a file, by shares of its length.
#[derive(Debug, Clone)]
enum Damage {
    Flip(f64, u8),
    Overwrite(f64, Vec<u8>),
    Cut(f64, f64),
    Repeat(f64, f64, usize),
    /// Bytes of another file of the collection, inserted.
    Graft(usize, f64, f64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let numbers =
        prop::sample::select(vec![0u64, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX]);
    let number = (numbers, prop::sample::select(vec![1usize, 2, 4, 8]));
    let number = number.prop_map(|(n, width)| n.to_le_bytes()[..width].to_vec());
    // Pickle's instructions, where they do most.
    let instruction =
        prop::sample::select(b"(.01]}telsuaR\x81bQqhjJKMIX\x85\x86\x87\x8a\x93\x94c".to_vec());
    let share = || 0.0..1.0f64;
    prop_oneof![
        4 => (share(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, 1 << bit)),
        3 => (share(), number).prop_map(|(at, bytes)| Damage::Overwrite(at, bytes)),
        4 => (share(), instruction).prop_map(|(at, byte)| Damage::Overwrite(at, vec![byte])),
        1 => (share(), 0.0..0.1f64).prop_map(|(at, length)| Damage::Cut(at, length)),
        1 => (share(), 0.0..0.05f64, 1..200usize).prop_map(|(at, length, n)| Damage::Repeat(at, length, n)),
        1 => (0..1000usize, share(), share()).prop_map(|(file, from, at)| Damage::Graft(file, from, at)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>, collection: &[Vec<u8>]) {
        let place = |share: f64, length: usize| (share * length as f64) as usize;
        let length = bytes.len();
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, bit) => bytes[place(*at, length)] ^= bit,
            Self::Overwrite(at, with) => {
                let at = place(*at, length);
                let end = length.min(at + with.len());
                bytes[at..end].copy_from_slice(&with[..end - at]);
            }
            Self::Cut(at, share) => {
                let at = place(*at, length);
                bytes.drain(at..length.min(at + place(*share, length)));
            }
            Self::Repeat(at, share, count) => {
                let at = place(*at, length);
                let part = bytes[at..length.min(at + place(*share, length))].repeat(*count);
                bytes.splice(at..at, part);
            }
            Self::Graft(file, from, at) => {
                let other = &collection[file % collection.len()];
                let from = place(*from, other.len());
                let part = other[from..other.len().min(from + 64)].to_vec();
                let at = place(*at, length);
                bytes.splice(at..at, part);
            }
        }
    }
}

/// Peak resident memory of this process, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or(0)
        << 10
}

/// Reads the bytes to the last tensor; any answer will do, but soon and without much memory.
fn survive(bytes: &[u8]) {
    let (start, before) = (Instant::now(), peak_memory());
    if let Ok(file) = TensorFile::parse(Path::new("x"), bytes) {
        for tensor in file.tensors.values() {
            let _ = tensor.isfinite().all();
        }
    }
    if let Ok(reference) = Reference::parse(Path::new("x"), bytes) {
        reference.expected().for_each(drop);
    }
    let grown = peak_memory().saturating_sub(before);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(grown < 256 << 20, "{grown} bytes of memory");
}

#[test]
fn damaged_files_never_end_the_program() {
    let collection = collection();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: cases.unwrap_or(20_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(file in 0..collection.len(), damages in prop::collection::vec(damage(), 1..5))| {
        let mut bytes = collection[file].clone();
        for damage in &damages {
            damage.apply(&mut bytes, &collection);
        }
        survive(&bytes);
    });
}
