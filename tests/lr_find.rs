//! `visage lr-find`, run as a user runs it on drawn faces.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::Path;

use common::{fail, run, write_faces};

const FIND: [&str; 16] = [
    "lr-find",
    "--backbone",
    "openface",
    "--data",
    "faces",
    "-p",
    "4",
    "-k",
    "2",
    "--seed",
    "7",
    "--weights",
    "none",
    "--steps",
    "16",
    "--quiet",
];

fn find<'a>(more: &[&'a str]) -> Vec<&'a str> {
    FIND.iter().copied().chain(more.iter().copied()).collect()
}

/// Columns lr, loss and smoothed.
fn table(path: &Path) -> Vec<[f64; 3]> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("lr,loss,smoothed"));
    let row = |line: &str| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        cells.try_into().unwrap()
    };
    lines.map(row).collect()
}

#[test]
fn the_curve_is_written_and_told_and_no_model_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let faces = folder.path();
    write_faces(&faces.join("faces"));
    let report = run(faces, &find(&["--from", "1e-5", "--to", "0.5", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let rows = table(&faces.join("runs/lr-find/lr_find.csv"));
    assert_eq!(report["steps"], rows.len());
    assert_eq!(report["csv"], "runs/lr-find/lr_find.csv");
    assert!((rows[0][0] / 1e-5 - 1.0).abs() < 1e-9);
    let factor = (0.5f64 / 1e-5).powf(1.0 / 15.0);
    for pair in rows.windows(2) {
        assert!((pair[1][0] / pair[0][0] / factor - 1.0).abs() < 1e-9);
    }
    // Smoothed from the losses in the same table: one step of 16 to both sides.
    let limit = 2.0 * rows[0][1];
    let clipped: Vec<f64> = rows.iter().map(|row| row[1].min(limit)).collect();
    for at in 1..rows.len() - 1 {
        let mean = clipped[at] / 2.0 + (clipped[at - 1] + clipped[at + 1]) / 4.0;
        assert!(report["end"] == "collapsed" || (mean - rows[at][2]).abs() < 1e-9, "{at}");
    }
    match report["suggestion"].as_f64() {
        Some(lr) => {
            assert!(rows.iter().any(|row| (row[0] / lr - 1.0).abs() < 1e-9), "{report}");
            assert!(report["why_none"].is_null());
        }
        None => assert!(report["why_none"].is_string(), "{report}"),
    }

    let out = faces.join("runs/lr-find");
    assert!(image::open(out.join("lr_find.png")).unwrap().width() > 1000);
    let files: Vec<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.iter().all(|name| !name.ends_with(".safetensors")), "{files:?}");
    assert_eq!(files.len(), 6, "{files:?}");
    let events = std::fs::read_dir(out.join("tensorboard")).unwrap().next().unwrap().unwrap();
    let bytes = std::fs::read(events.path()).unwrap();
    for tag in ["lr_find/lr", "lr_find/loss", "lr_find/smoothed"] {
        assert!(bytes.windows(tag.len()).any(|part| part == tag.as_bytes()), "{tag}");
    }

    // The same command once more: the same curve, in a folder of its own.
    let words = run(faces, &find(&["--from", "1e-5", "--to", "0.5"]));
    assert!(words.contains("lr_find.png"), "{words}");
    assert!(words.contains("--lr ") != words.contains("no suggestion"), "{words}");
    assert_eq!(table(&out.join("lr_find.csv")), rows);
    assert_eq!(table(&faces.join("runs/lr-find-2/lr_find.csv")), rows);
}

#[test]
fn a_training_runs_config_is_taken_but_not_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let faces = folder.path();
    write_faces(&faces.join("faces"));
    let run_folder = faces.join("runs/triplet");
    std::fs::create_dir_all(&run_folder).unwrap();
    let config = "data = \"faces\"\nout = \"runs/triplet\"\nweights = \"none\"\n\
        identities-per-batch = 4\npictures-per-identity = 2\n\n";
    std::fs::write(run_folder.join("config.toml"), config).unwrap();
    let config = ["lr-find", "--config", "runs/triplet/config.toml", "--steps", "10", "--quiet"];
    run(faces, &config);
    assert_eq!(table(&faces.join("runs/lr-find/lr_find.csv")).len(), 10);
    assert_eq!(std::fs::read_dir(&run_folder).unwrap().count(), 1);
    // What was written repeats the test.
    let again = ["lr-find", "--config", "runs/lr-find/config.toml", "--out", "again", "--quiet"];
    run(faces, &again);
    let rows = table(&faces.join("again/lr_find.csv"));
    assert_eq!(rows, table(&faces.join("runs/lr-find/lr_find.csv")));
}

#[test]
fn impossible_ranges_are_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, words) in [
        (["--from", "0"], "--from 0"),
        (["--to", "1e-9"], "--to 0.000000001"),
        (["--steps", "3"], "--steps 3"),
        (["--margin", "-1"], "--margin -1"),
    ] {
        let all: Vec<_> = ["lr-find", "--data", "nowhere"].into_iter().chain(flags).collect();
        let errors = fail(folder.path(), &all);
        assert!(errors.contains(words), "{errors}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
