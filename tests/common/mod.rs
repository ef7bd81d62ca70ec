//! What tests of the command line share: drawn faces, and the program run on them.
#![allow(dead_code)] // not every test file needs all of it

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use image::{Rgb, RgbImage};
use tch::{Device, Kind, Tensor};

/// A "face": an identity is a colour pair and a wave; a picture varies phase and noise.
pub fn draw(identity: u32, picture: u32, side: u32) -> RgbImage {
    let mut state = identity * 7919 + picture * 104_729 + 1;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 24) / 255.0
    };
    let (frequency, phase) = (3.0 + 4.0 * f64::from(identity), 0.5 * f64::from(picture));
    RgbImage::from_fn(side, side, |x, y| {
        let (x, y) = (f64::from(x) / f64::from(side), f64::from(y) / f64::from(side));
        let wave = 0.5 + 0.5 * (frequency * (x + f64::from(identity % 2) * y) + phase).sin();
        let level = |tint: u32| 200.0 * wave * f64::from((identity + tint) % 3 + 1) / 3.0;
        Rgb([0, 1, 2].map(|tint| (level(tint) + 40.0 * noise()) as u8))
    })
}

/// The keys of JSON answers that have always spoken of the one face of a picture.
pub const ANSWER_KEYS: [&str; 8] = [
    "file",
    "label",
    "nearest",
    "probability",
    "known_probability",
    "distance",
    "nearest_path",
    "top",
];

pub const IDENTITIES: [&str; 4] = ["ada", "bohr", "curie", "dirac"];

pub fn write_faces(root: &Path) {
    for (identity, name) in IDENTITIES.iter().enumerate() {
        std::fs::create_dir_all(root.join(name)).unwrap();
        for picture in 0..8 {
            let side = 70 + 10 * picture;
            let path = root.join(name).join(format!("{picture}.png"));
            draw(identity as u32, picture, side).save(path).unwrap();
        }
    }
}

pub fn visage(folder: &Path, arguments: &[&str]) -> Output {
    Command::cargo_bin("visage")
        .unwrap()
        .current_dir(folder)
        .args(["--device", "cpu", "--threads", "1"])
        .args(arguments)
        .output()
        .unwrap()
}

/// As [`visage`], with a standard output that nobody reads.
pub fn unread(folder: &Path, arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    std::process::Command::new(assert_cmd::cargo::cargo_bin("visage"))
        .current_dir(folder)
        .args(["--device", "cpu", "--threads", "1"])
        .args(arguments)
        .stdout(writer)
        .output()
        .unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs a command that must succeed and returns its standard output.
pub fn run(folder: &Path, arguments: &[&str]) -> String {
    let output = visage(folder, arguments);
    assert!(output.status.success(), "visage {arguments:?}:\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail and returns its standard error.
pub fn fail(folder: &Path, arguments: &[&str]) -> String {
    let output = visage(folder, arguments);
    assert_eq!(output.status.code(), Some(2), "visage {arguments:?}:\n{}", text(&output.stdout));
    let errors = text(&output.stderr);
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

/// A training on the drawn faces, of a trunk that is part of the program.
pub const TRIPLET: [&str; 5] = ["train-triplet", "--data", "faces", "--backbone", "openface"];

/// A short training on the drawn faces.
pub const TRAIN: [&str; 13] = [
    "train-triplet",
    "--data",
    "faces",
    "--backbone",
    "openface",
    "--epochs",
    "2",
    "-p",
    "4",
    "-k",
    "2",
    "--seed",
    "7",
];

/// Pictures `[N, 3, S, S]` of the formula that the scripts in tests/golden share, in float64:
/// 0.5 + 0.5 sin(0.1 i (1 + n) + 0.07 j + c + 2 n).
pub fn waves(count: i64, size: i64) -> Tensor {
    let axis = |length: i64, place: usize| {
        let mut shape = [1; 4];
        shape[place] = length;
        Tensor::arange(length, (Kind::Double, Device::Cpu)).view(shape)
    };
    let (n, c, i, j) = (axis(count, 0), axis(3, 1), axis(size, 2), axis(size, 3));
    let wave = i * 0.1 * (&n + 1.0) + j * 0.07 + c + n * 2.0;
    wave.sin() * 0.5 + 0.5
}
