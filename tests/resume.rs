//! A training that is killed at any moment goes on with `--resume` and ends with the same files.

#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{TRIPLET, write_faces};

/// The files that must be the same, byte by byte.
const FILES: [&str; 4] = ["best.safetensors", "last.safetensors", "metrics.csv", "split.csv"];

fn visage(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_visage"));
    command.current_dir(root).args(["--threads", "1", "--device", "cpu"]).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs to the end, and gives what it said.
fn finish(root: &Path, arguments: &[&str]) -> String {
    let done = visage(root, arguments).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{arguments:?}: {said}");
    said
}

fn files(run: &Path) -> Vec<Vec<u8>> {
    FILES.iter().map(|name| std::fs::read(run.join(name)).unwrap_or_default()).collect()
}

/// Kills a training again and again, each time a little later, and compares its end with `wanted`.
fn survives(root: &Path, flags: &[&str], wanted: &[Vec<u8>], pause: Duration) -> u32 {
    let run = root.join("runs/killed");
    let (mut kills, mut wait) = (0, Duration::from_millis(300));
    let command = flags[0];
    let mut arguments = [flags, &["--out", "runs/killed", "--checkpoint-every", "1"]].concat();
    loop {
        let mut child = visage(root, &arguments).spawn().unwrap();
        let mut left = wait;
        while left > Duration::ZERO && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
            left = left.saturating_sub(Duration::from_millis(10));
        }
        if let Some(status) = child.try_wait().unwrap() {
            let said = child.wait_with_output().unwrap().stderr;
            assert!(status.success(), "{}", String::from_utf8_lossy(&said));
            break;
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        (kills, wait) = (kills + 1, wait + pause);
        if run.join("summary.json").exists() {
            break; // killed on its way out
        }
        if run.join("config.toml").exists() {
            arguments = vec![command, "--resume", "runs/killed"];
        }
    }
    assert!(files(&run) == wanted, "{flags:?} after {kills} kills");
    kills
}

#[test]
fn a_killed_training_ends_as_if_it_had_not_been_killed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_faces(&root.join("faces"));
    // With the best model scored at the end, after the last checkpoint.
    let triplet = [&TRIPLET[..], &["--epochs", "3", "--val-limit", "4"]].concat();
    for (name, flags) in [
        ("triplet", &triplet[..]),
        (
            "pairs",
            &[
                "train-pairs",
                "--data",
                "faces",
                "--backbone",
                "openface",
                "--epochs",
                "2",
                "--pairs",
                "12",
                "--hard-negatives",
                "2",
                "--model-ema",
                "0.9",
            ],
        ),
    ] {
        let out = format!("runs/{name}");
        finish(root, &[flags, &["--out", &out]].concat());
        let wanted = files(&root.join(&out));
        assert!(wanted.iter().all(|file| !file.is_empty()), "{name}");
        // `last` holds the trained weights, not the average that is scored.
        let [best, last] = ["best", "last"].map(|which| format!("{out}/{which}.safetensors"));
        let diff = visage(root, &["weights", "diff", &best, &last]).output().unwrap();
        assert_eq!(diff.status.code(), Some(1), "{name}");
        let kills = survives(root, flags, &wanted, Duration::from_millis(350));
        assert!(kills > 0, "{name}: too fast to be killed");
        std::fs::remove_dir_all(root.join("runs/killed")).unwrap();
    }
}

#[test]
fn a_signal_ends_a_step_and_what_has_changed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let root: PathBuf = folder.path().into();
    write_faces(&root.join("faces"));
    let flags = [&TRIPLET[..], &["--epochs", "200", "--out", "run"]].concat();
    let child = visage(&root, &flags).spawn().unwrap();
    while !root.join("run/checkpoint.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // One process a folder.
    let second = visage(&root, &["train-triplet", "--resume", "run"]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another process"), "{said}");
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(143), "{said}");
    assert!(said.contains("visage train-triplet --resume run"), "{said}");

    let refused = |arguments: &[&str], word: &str| {
        let done = visage(&root, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(word), "{arguments:?}: {said}");
    };
    let resume = ["train-triplet", "--resume", "run"];
    refused(&[&resume[..], &["--epochs", "3"]].concat(), "--epochs");
    refused(&[&resume[..], &["--seed", "3"]].concat(), "--seed");
    refused(&["train-pairs", "--resume", "run"], "train-");
    refused(&["lr-find", "--resume", "run"], "--resume");
    refused(&["train-triplet", "--resume", "faces"], "config.toml");
    // A picture that is gone.
    let picture = root.join("faces/ada/0.png");
    let before = std::fs::read(&picture).unwrap();
    std::fs::remove_file(&picture).unwrap();
    refused(&resume, "the pictures");
    common::draw(3, 3, 70).save(&picture).unwrap();
    refused(&resume, "the pictures");
    std::fs::write(&picture, before).unwrap();
    // The best model that is gone, or cut short.
    let best = root.join("run/best.safetensors");
    let before = std::fs::read(&best).unwrap();
    std::fs::remove_file(&best).unwrap();
    refused(&resume, "the best model so far");
    std::fs::write(&best, &before[..before.len() / 2]).unwrap();
    refused(&resume, "the best model so far");
    let mut flipped = before.clone();
    flipped[before.len() * 3 / 4] ^= 1;
    std::fs::write(&best, flipped).unwrap();
    refused(&resume, "its checksum is another");
    std::fs::write(&best, before).unwrap();
    // A new run beside it says how to go on with the old one.
    let said = finish(&root, &[&TRIPLET[..], &["--epochs", "1", "--out", "run"]].concat());
    assert!(said.contains("--resume run"), "{said}");
    let said = finish(&root, &[&resume[..], &["--epochs", "3", "--resume-anyway"]].concat());
    assert!(said.contains("resuming in epoch"), "{said}");
    refused(&resume, "finished");
}
