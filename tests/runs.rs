//! Runs and models by name: numbered run folders, pins, the model in use, `config.toml`, and folders
//! that come split.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::Path;

use common::{IDENTITIES, draw, fail, run, text, visage, write_faces};
use serde_json::Value;
use visage::recognise::ModelCard;

const TRAIN: [&str; 11] = [
    "train-triplet",
    "--data",
    "faces",
    "--backbone",
    "openface",
    "--epochs",
    "1",
    "-p",
    "4",
    "-k",
    "2",
];

/// Runs a command that must succeed and returns its standard error.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = visage(folder, arguments);
    assert!(output.status.success(), "visage {arguments:?}:\n{}", text(&output.stderr));
    text(&output.stderr)
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let answer = run(folder, arguments);
    serde_json::from_str(answer.lines().next().unwrap()).unwrap()
}

#[test]
fn runs_are_numbered_and_a_pinned_one_comes_before_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write_faces(&here.join("faces"));
    run(here, &TRAIN);
    let first = std::fs::read(here.join("runs/triplet/best.safetensors")).unwrap();
    let told = said(here, &[&TRAIN[..], &["--lr", "3e-3", "--seed", "8"]].concat());
    let note = "runs/triplet holds a run already; this run goes to runs/triplet-2";
    assert!(told.contains(note), "{told}");
    assert!(std::fs::read(here.join("runs/triplet/best.safetensors")).unwrap() == first);

    // The newest run's model, until one is pinned.
    let embed = ["embed", "faces/ada", "--out", "e.csv", "--force"];
    let told = said(here, &embed);
    let model =
        "model: runs/triplet-2/best.safetensors (newest run): trunk, openface, validation AUC";
    assert!(told.contains(model), "{told}");
    assert_eq!(said(here, &[&embed[..], &["--quiet"]].concat()), "");
    let pinned = run(here, &["use", "runs/triplet"]);
    assert_eq!(pinned, "pinned trunk: runs/triplet/best.safetensors\n");
    let told = said(here, &embed);
    assert!(told.contains("model: runs/triplet/best.safetensors (pinned)"), "{told}");
    let pictures = ["faces/ada/0.png", "faces/ada/0.png"];
    let answer = json(here, &["verify", pictures[0], pictures[1], "--json"]);
    assert_eq!(answer["model"], "runs/triplet/best.safetensors");
    let list = run(here, &["use", "--list"]);
    let marks: Vec<_> =
        list.lines().skip(1).map(|row| row.split_whitespace().last().unwrap()).collect();
    assert_eq!(marks, ["pinned", "newest"], "{list}");

    // A classifier on the pinned trunk, and one on another run's.
    let classifier = ["train-classifier", "--epochs", "2"];
    assert!(said(here, &classifier).contains("runs/triplet/best.safetensors (pinned)"));
    let card = |run: &str| ModelCard::peek(&here.join(run).join("best.safetensors")).unwrap();
    let trunk = |run: &str| card(run).settings["trunk"].clone();
    assert_eq!(trunk("runs/classifier"), "runs/triplet/best.safetensors");
    run(here, &[&classifier[..], &["--trunk", "runs/triplet-2", "--out", "other"]].concat());
    assert_eq!(trunk("other"), "runs/triplet-2/best.safetensors");
    let model = "runs/classifier/best.safetensors";
    assert_eq!(json(here, &["classify", pictures[0], "--json"])["model"], model);
    assert_eq!(json(here, &["evaluate", "--data", "faces", "--json"])["model"], model);
    let other = json(here, &["classify", pictures[0], "--model", "other", "--json"]);
    assert_eq!(other["model"], "other/best.safetensors");
    let weights = ["--backbone", "openface", "--weights", "runs/triplet-2"];
    let told = said(here, &[&embed[..], &weights].concat());
    assert!(told.contains("runs/triplet-2/best.safetensors"), "{told}");
    let told = fail(here, &["classify", pictures[0], "--model", "faces"]);
    assert!(told.contains("faces: the folder has no best.safetensors"), "{told}");

    // The card of the newest model, and of any.
    let page = run(here, &["info"]);
    let unknown = "UNKNOWN         probability of a known face below";
    for part in ["classifier", "4 identities: ada, bohr", "faces: ", unknown, "accuracy", "epochs"]
    {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    assert!(run(here, &["info", "runs/triplet-2"]).contains("kind            trunk"));
    assert_eq!(json(here, &["info", "other", "--json"])["classes"], serde_json::json!(IDENTITIES));

    assert!(run(here, &["use", "--unset"]).contains("no model is pinned any more"));
    let verify = ["verify", pictures[0], pictures[1], "--json"];
    assert_eq!(json(here, &verify)["model"], model);
    run(here, &["export", "other", "other.onnx"]);
    let told = fail(here, &["export", "faces", "faces.onnx"]);
    assert!(told.contains("faces: the folder has no best.safetensors"), "{told}");
}

#[test]
fn two_trainings_at_one_folder_get_two_and_failed_ones_leave_none() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write_faces(&here.join("faces"));
    let both: Vec<String> = std::thread::scope(|scope| {
        let train = |seed| run(here, &[&TRAIN[..], &["--out", "run", "--seed", seed]].concat());
        let started = ["1", "2"].map(|seed| scope.spawn(move || train(seed)));
        started.map(|training| training.join().unwrap()).into()
    });
    let mut seeds = Vec::new();
    for name in ["run", "run-2"] {
        let best = format!("{name}/best.safetensors");
        assert!(both.iter().any(|said| said.contains(&format!("model: {best}\n"))), "{both:?}");
        let card = ModelCard::peek(&here.join(best)).unwrap();
        let config = std::fs::read_to_string(here.join(name).join("config.toml")).unwrap();
        assert!(config.contains(&format!("seed = {}\n", card.seed)), "{config}");
        seeds.push(card.seed);
    }
    seeds.sort_unstable();
    assert_eq!(seeds, [1, 2]);
    fail(here, &[&TRAIN[..], &["--out", "failed", "-k", "99"]].concat());
    assert!(!here.join("failed").exists());

    // What was left open is written down with its default.
    let config = std::fs::read_to_string(here.join("run/config.toml")).unwrap();
    let weights = "weights = \"openface-nn4-distilled\"";
    for line in ["data = \"faces\"", weights, "margin = 0.2", "weight-decay = 0.0", "blend = 0.75"]
    {
        assert!(config.contains(line), "no {line} in\n{config}");
    }
}

#[test]
fn train_and_val_inside_the_data_are_the_split() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for (identity, name) in IDENTITIES.iter().enumerate() {
        for (part, pictures) in [("train", 0..5), ("val", 5..7), ("test", 7..8)] {
            let own = here.join("faces").join(part).join(name);
            std::fs::create_dir_all(&own).unwrap();
            for picture in pictures {
                draw(identity as u32, picture, 96)
                    .save(own.join(format!("{picture}.png")))
                    .unwrap();
            }
        }
    }
    let told = said(here, &TRAIN);
    assert!(told.contains("train/ and val/ hold the identities; test/ is left out"), "{told}");
    assert!(told.contains("the split is the data set's own"), "{told}");
    run(here, &["train-classifier", "--epochs", "2"]);
    let pairs = ["train-pairs", "--data", "faces", "--epochs", "1", "--backbone", "openface"];
    let told = said(here, &[&pairs[..], &["--head", "euclidean"]].concat());
    assert!(told.contains("the split is the data set's own"), "{told}");
    for run in ["triplet", "classifier", "pairs"] {
        let run = here.join("runs").join(run);
        let split = std::fs::read_to_string(run.join("split.csv")).unwrap();
        let rows: Vec<_> = split.lines().skip(1).collect();
        assert_eq!(rows.len(), 28, "{split}");
        for row in rows {
            let part = if row.starts_with("train/") { ",train" } else { ",validation" };
            assert!(row.ends_with(part), "{row}");
        }
    }
    let card = ModelCard::peek(&here.join("runs/triplet/best.safetensors")).unwrap();
    assert_eq!((card.classes, card.data.validation), (IDENTITIES.map(String::from).into(), 8));
    let report = json(here, &["evaluate", "--data", "faces", "--json"]);
    assert_eq!((&report["pictures"], &report["trained_on"]), (&28.into(), &20.into()));

    // The default folder is reported once.
    std::fs::create_dir(here.join("data")).unwrap();
    std::fs::rename(here.join("faces"), here.join("data/orl")).unwrap();
    let told = said(here, &["train-triplet", "--epochs", "1", "-p", "4", "-k", "2"]);
    let lines: Vec<_> = told.lines().filter(|line| line.starts_with("data: ")).collect();
    assert!(matches!(&lines[..], [line] if line.contains("data/orl (--data DIR")), "{told}");
}

#[test]
fn runs_are_listed_compared_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    assert!(said(here, &["runs"]).contains("note: no runs in runs"));
    write_faces(&here.join("faces"));
    run(here, &TRAIN);
    run(here, &[&TRAIN[..], &["--lr", "3e-3"]].concat());
    // As a kill leaves it.
    std::fs::remove_file(here.join("runs/triplet/summary.json")).unwrap();
    let output = visage(here, &["runs"]);
    let (table, told) = (text(&output.stdout), text(&output.stderr));
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[1].contains("interrupted  openface trunk  faces"), "{table}");
    assert!(rows[2].contains("finished") && rows[2].ends_with("newest"), "{table}");
    assert!(told.contains("to go on: visage train-triplet --resume runs/triplet"), "{told}");
    assert_eq!(run(here, &["use", "--list"]), table);
    let listed = json(here, &["runs", "--json"]);
    assert_eq!(listed[1]["state"], "finished");
    assert_eq!(listed[1]["data"], "faces");
    assert!(listed[0]["bytes"].as_u64().unwrap() > 1_000_000, "{listed}");

    let differ = run(here, &["runs", "diff", "runs/triplet", "runs/triplet-2"]);
    let lr = differ.lines().find(|line| line.starts_with("lr ")).unwrap();
    assert!(lr.ends_with("0.003") && !differ.contains("backbone"), "{differ}");
    let differ = json(here, &["runs", "diff", "runs/triplet", "runs/triplet-2", "--json"]);
    assert_eq!(differ["settings"][0]["name"], "lr");

    // Without a terminal to ask on, nothing is deleted.
    let told = fail(here, &["runs", "rm", "runs/triplet"]);
    assert!(told.contains("--yes") && here.join("runs/triplet").is_dir(), "{told}");
    let told = fail(here, &["runs", "rm", "runs/triplet", "faces", "--yes"]);
    assert!(
        told.contains("faces: no training run") && here.join("runs/triplet").is_dir(),
        "{told}"
    );
    assert_eq!(run(here, &["runs", "rm", "runs/triplet", "--yes"]), "deleted runs/triplet\n");
    assert!(!here.join("runs/triplet").exists() && here.join("runs/triplet-2").is_dir());
}

#[test]
fn a_training_that_goes_wrong_for_good_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write_faces(&here.join("faces"));
    let output = visage(here, &[&TRAIN[..], &["--lr", "1e30"]].concat());
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert_eq!(told.matches("starting the epoch again").count(), 3, "{told}");
    assert!(
        told.contains("the best model, of epoch 0, is runs/triplet/best.safetensors"),
        "{told}"
    );
    assert!(run(here, &["runs"]).contains("stopped"));
    let output = visage(here, &[&TRAIN[..], &["--lr", "1e30", "--strict-numerics"]].concat());
    let told = text(&output.stderr);
    assert_eq!(
        (output.status.code(), told.matches("starting the epoch again").count()),
        (Some(3), 0),
        "{told}"
    );
}
