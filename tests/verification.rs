//! `visage evaluate --pairs` and `visage verify`, on drawn faces: figures, exit codes, errors.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::{Path, PathBuf};

use common::{IDENTITIES, TRAIN, fail, run, text, visage, write_faces};
use serde_json::Value;

/// The drawn faces, and a list of pairs of them: every line of one person beside one of two.
fn faces() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let mut table = String::from("a,b,same\n");
    for (person, name) in IDENTITIES.iter().enumerate() {
        let other = IDENTITIES[(person + 1) % IDENTITIES.len()];
        for i in 0..7 {
            table += &format!("{name}/{i}.png,{name}/{}.png,1\n", i + 1);
            table += &format!("{name}/{i}.png,{other}/{}.png,0\n", i + 1);
        }
    }
    std::fs::write(folder.path().join("pairs.csv"), table).unwrap();
    folder
}

const PAIRS: [&str; 5] = ["evaluate", "--pairs", "pairs.csv", "--data", "faces"];
const BACKBONE: [&str; 2] = ["--backbone", "openface"];

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}

fn append(folder: &Path, lines: &str) {
    let path = folder.join("pairs.csv");
    let table = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, table + lines).unwrap();
}

#[test]
fn pairs_are_measured_once_and_the_same_each_time() {
    let folder = faces();
    let root = folder.path();
    append(root, "ada/0.png,nobody/1.png,0\nada/1.png,broken/1.png,0\n");
    std::fs::create_dir(root.join("faces/broken")).unwrap();
    std::fs::write(root.join("faces/broken/1.png"), "no picture").unwrap();
    let all = [&PAIRS[..], &BACKBONE, &["--json", "--roc", "roc.png", "--histogram", "h.png"]];
    let output = visage(root, &all.concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(said.contains("nobody/1.png") && said.contains("broken/1.png"), "{said}");
    let found = json(&text(&output.stdout));
    assert_eq!((&found["pairs"], &found["skipped"]), (&56.into(), &2.into()));
    assert_eq!((&found["same"], &found["unreadable"]), (&28.into(), &1.into()));
    assert_eq!(found["distance"], "euclidean");
    assert_eq!((&found["folds"]["from"], &found["folds"]["count"]), (&"drawn".into(), &10.into()));
    for key in ["accuracy", "accuracy_std", "auc", "eer", "f1", "threshold"] {
        assert!(found[key].is_f64(), "{key} in {found}");
    }
    // 28 different pairs measure one in ten, and not one in a hundred.
    let rates = found["tar_at_far"].as_array().unwrap();
    assert_eq!(rates.len(), 4);
    let (low, tar) = (rates[0]["low"].as_f64().unwrap(), rates[0]["tar"].as_f64().unwrap());
    assert!(low <= tar && tar <= rates[0]["high"].as_f64().unwrap());
    assert!(rates[1]["tar"].is_null() && rates[1]["reason"].as_str().unwrap().contains("100"));
    for picture in ["roc.png", "h.png"] {
        assert!(image::open(root.join(picture)).unwrap().width() > 500, "{picture}");
    }
    assert_eq!(json(&run(root, &all.concat())), found);
    let table = run(root, &[&PAIRS[..], &BACKBONE].concat());
    assert!(table.contains("accuracy, 10 folds") && table.contains("TAR at FAR 0.0001"), "{table}");
}

#[test]
fn folds_of_the_file_are_used() {
    let folder = faces();
    let table = std::fs::read_to_string(folder.path().join("pairs.csv")).unwrap();
    let lines = table.lines().enumerate().map(|(at, line)| match at {
        0 => format!("{line},fold\n"),
        at => format!("{line},{}\n", (at - 1) / 14),
    });
    std::fs::write(folder.path().join("pairs.csv"), lines.collect::<String>()).unwrap();
    let found = json(&run(folder.path(), &[&PAIRS[..], &BACKBONE, &["--json"]].concat()));
    assert_eq!((&found["folds"]["from"], &found["folds"]["count"]), (&"file".into(), &4.into()));
}

#[test]
fn a_list_that_cannot_be_measured_is_an_error() {
    let folder = faces();
    let root = folder.path();
    std::fs::write(root.join("pairs.csv"), "a,b,same\nada/0.png,ada/1.png,1\n").unwrap();
    let error = fail(root, &[&PAIRS[..], &BACKBONE].concat());
    assert!(error.contains("only same pairs"), "{error}");
    let error = fail(root, &[&PAIRS[..], &BACKBONE, &["--roc", "roc.gif"]].concat());
    assert!(error.contains("--roc roc.gif"), "{error}");
    let error = fail(root, &[&PAIRS[..], &BACKBONE, &["--strangers", "faces"]].concat());
    assert!(error.contains("--strangers"), "{error}");
    let error = fail(root, &["evaluate", "--data", "faces", "--backbone", "openface"]);
    assert!(error.contains("--backbone") && error.contains("--pairs"), "{error}");
    let error = fail(root, &["evaluate", "--data", "faces", "--roc", "roc.png"]);
    assert!(error.contains("--pairs"), "{error}");
}

/// `visage verify` of two drawn faces: the exit code, and what it printed as JSON.
fn verify(root: &Path, a: &str, b: &str, more: &[&str]) -> (Option<i32>, Value) {
    let output = visage(root, &[&["verify", a, b, "--json"], more].concat());
    assert_ne!(output.status.code(), Some(2), "{}", text(&output.stderr));
    (output.status.code(), json(&text(&output.stdout)))
}

#[test]
fn the_exit_code_is_the_answer() {
    let folder = faces();
    let root = folder.path();
    let (a, b) = ("faces/ada/0.png", "faces/curie/3.png");
    // No run, no flag: the embedded trunk with the threshold of its manifest.
    let (code, found) = verify(root, a, a, &[]);
    assert_eq!((code, &found["same"], &found["distance"]), (Some(0), &true.into(), &0.0.into()));
    assert_eq!((&found["a"], &found["b"]), (&a.into(), &a.into()));
    assert_eq!(found["model"], "dlib-resnet");
    assert!((0.4..0.5).contains(&found["threshold"].as_f64().unwrap()), "{found}");
    assert!(found["probability"].as_f64().unwrap() > 0.9);

    let (code, near) = verify(root, a, b, &["--threshold", "2.1"]);
    assert_eq!((code, &near["same"], &near["threshold"]), (Some(0), &true.into(), &2.1.into()));
    let (code, far) = verify(root, b, a, &["--threshold", "0.0001"]);
    assert_eq!((code, &far["same"]), (Some(1), &false.into()));
    let apart = near["distance"].as_f64().unwrap() - far["distance"].as_f64().unwrap();
    assert!(apart.abs() < 1e-6, "either order, one distance");

    let output = visage(root, &["verify", a, b, "--threshold", "0.0001"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).starts_with("different people: distance "));
    for wrong in ["0", "-1", "nan", "inf"] {
        let flag = format!("--threshold={wrong}");
        assert!(fail(root, &["verify", a, b, &flag]).contains("--threshold"), "{wrong}");
    }
    assert!(fail(root, &["verify", a, "faces/nobody.png"]).contains("nobody.png"));
    assert!(fail(root, &["verify", a]).contains("<B>"));
}

#[test]
fn photos_are_searched_for_faces() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let scenes = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/detect");
    let (one, row) = (format!("{scenes}/one.png"), format!("{scenes}/row.png"));
    image::RgbImage::from_pixel(120, 90, image::Rgb([90; 3])).save(root.join("wall.png")).unwrap();
    let (_, photos) = verify(root, &one, &row, &[]);
    let (_, whole) = verify(root, &one, &row, &["--detect", "never"]);
    let distance = |found: &Value| found["distance"].as_f64().unwrap();
    assert!((distance(&photos) - distance(&whole)).abs() > 0.01, "{photos} {whole}");

    // Without a face: used as it is, aloud, or refused.
    let output = visage(root, &["verify", "wall.png", &one]);
    assert!(output.status.code().is_some_and(|code| code < 2));
    let said = text(&output.stderr);
    assert!(said.contains("no face found on 1 of 2 pictures (wall.png)"), "{said}");
    let error = fail(root, &["verify", "wall.png", &one, "--detect", "always"]);
    assert!(error.contains("wall.png: no face found"), "{error}");
    let embed = ["embed", "wall.png", &one, "--detect", "always", "--out", "e.csv"];
    let output = visage(root, &embed);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(root.join("e.csv")).unwrap().lines().count(), 2);
}

#[test]
fn without_a_measured_threshold_it_asks_for_one() {
    let folder = faces();
    let (a, b) = ("faces/ada/0.png", "faces/ada/1.png");
    let random = ["--backbone", "openface", "--weights", "none"];
    let error = fail(folder.path(), &[&["verify", a, b], &random[..]].concat());
    assert!(error.contains("--threshold") && error.contains("evaluate --pairs"), "{error}");
    let random = [&random[..], &["--threshold", "1"]].concat();
    let (_, found) = verify(folder.path(), a, b, &random);
    assert!(found["probability"].is_null(), "{found}");
}

#[test]
fn runs_bring_their_own_threshold_and_curve() {
    let folder = faces();
    let root = folder.path();
    run(root, &TRAIN);
    let (a, b) = ("faces/ada/0.png", "faces/ada/1.png");
    let (_, of_trunk) = verify(root, a, b, &[]);
    let card = visage::recognise::ModelCard::peek(
        &PathBuf::from(root).join("runs/triplet/best.safetensors"),
    )
    .unwrap();
    assert_eq!(of_trunk["threshold"].as_f64(), card.metrics.get("threshold").copied());
    let share = |distance: f64| {
        1.0 / (1.0 + (-(card.metrics["same_weight"] * distance + card.metrics["same_bias"])).exp())
    };
    let probability = of_trunk["probability"].as_f64().unwrap();
    assert!((probability - share(of_trunk["distance"].as_f64().unwrap())).abs() < 1e-9);

    run(root, &["train-classifier", "--data", "faces", "--epochs", "3"]);
    let (_, of_classifier) = verify(root, a, b, &[]);
    for key in ["threshold", "probability"] {
        let (one, other) = (of_trunk[key].as_f64().unwrap(), of_classifier[key].as_f64().unwrap());
        assert!((one - other).abs() < 1e-3, "{key}: {one} and {other}");
    }
}
