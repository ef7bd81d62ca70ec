//! `visage distil` from the command line.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::path::Path;

use common::{fail, run, write_faces};

/// A column of metrics.csv, as (first value, last value).
fn column(run: &Path, name: &str) -> (f64, f64) {
    let text = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let mut lines = text.lines();
    let at = lines.next().unwrap().split(',').position(|column| column == name).unwrap();
    let values: Vec<f64> = lines.filter_map(|line| line.split(',').nth(at)?.parse().ok()).collect();
    (values[0], values[values.len() - 1])
}

#[test]
fn a_student_comes_nearer_to_its_teacher_without_the_people_of_the_pairs() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let mut pairs = String::from("a,b,same\n");
    for k in 0..6 {
        pairs += &format!("curie/{k}.png,curie/{}.png,1\n", k + 1);
        pairs += &format!("curie/{k}.png,dirac/{k}.png,0\n");
    }
    std::fs::write(folder.path().join("pairs.csv"), pairs).unwrap();
    let told = run(
        folder.path(),
        &[
            "distil",
            "--backbone",
            "openface",
            "--weights",
            "none",
            "--data",
            "faces",
            "faces/ada",
            "--detect",
            "never",
            "--pairs",
            "pairs.csv",
            "--pairs-data",
            "faces",
            "--val-fraction",
            "0.25",
            "--batch-size",
            "6",
            "--epochs",
            "4",
            "--model-ema",
            "0.5",
            "--out",
            "run",
            "--monitor",
            "agreement",
        ],
    );
    assert!(told.contains("verification AUC") && told.contains("agreement, held out"), "{told}");
    let out = folder.path().join("run");
    let (before, after) = column(&out, "agreement");
    assert!(after > before, "{before} to {after}");
    let (before, after) = column(&out, "held_out_cosine");
    assert!(after > before, "{before} to {after}");
    let info = run(folder.path(), &["info", "run", "--json"]);
    // 24 pictures are named, of which 16 + 8 are ada's and bohr's.
    assert!(info.contains("\"train\":18") && info.contains("\"validation\":6"), "{info}");
    // The model is an ordinary trunk, also as a teacher; with other dimensions only the relations and a
    // layer in between count.
    run(
        folder.path(),
        &[
            "distil",
            "--teacher",
            "run",
            "--backbone",
            "openface",
            "--embedding-dim",
            "16",
            "--data",
            "faces",
            "--detect",
            "never",
            "--batch-size",
            "16",
            "--epochs",
            "1",
            "--out",
            "second",
        ],
    );
    let info = run(folder.path(), &["info", "second", "--json"]);
    assert!(info.contains("\"embedding_dim\":16") && !info.contains("projection"), "{info}");
    run(folder.path(), &["embed", "faces/ada", "--model", "second", "--out", "ada.npy"]);
}

#[test]
fn what_cannot_work_is_refused_before_the_pictures_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, words) in [
        (&[][..], "--data: name at least one folder"),
        (&["--data", "x", "--teacher", "nobody"], "--teacher nobody: neither a model file"),
        (&["--data", "x", "--teacher", "vgg11"], "--teacher vgg11: Visage has no pretrained"),
        (&["--data", "x", "--batch-size", "1"], "--batch-size 1: expected 2 or more"),
        (&["--data", "x", "--relational=-1"], "--relational -1: expected 0 or more"),
        (&["--data", "x", "--cosine", "0", "--relational", "0", "--hard-pairs", "0"], "all are 0"),
        (&["--data", "x", "--pairs", "p.csv"], "--pairs-data"),
        (&["--data", "x", "--weights", "none"], "x"),
    ] {
        let told = fail(folder.path(), &[&["distil"], flags].concat());
        assert!(told.contains(words), "{flags:?}: {told}");
    }
}
