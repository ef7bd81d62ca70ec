//! `train-triplet` in several processes, run as a user runs it on drawn faces.

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{TRAIN, text, write_faces};

/// The files that must be the same, byte by byte.
const FILES: [&str; 4] = ["best.safetensors", "last.safetensors", "metrics.csv", "split.csv"];

fn visage(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("visage"));
    command.current_dir(folder).args(["--device", "cpu", "--threads", "1"]).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TRAIN.iter().copied().chain(["--precision", "f32"]).chain(more.iter().copied()).collect()
}

fn finish(folder: &Path, arguments: &[&str]) {
    let output = visage(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
}

fn files(run: &Path) -> Vec<Vec<u8>> {
    FILES.iter().map(|name| std::fs::read(run.join(name)).unwrap()).collect()
}

/// The columns of metrics.csv, row by row; empty cells are NaN.
fn metrics(run: &Path) -> Vec<Vec<f64>> {
    let table = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let row = |line: &str| line.split(',').map(|cell| cell.parse().unwrap_or(f64::NAN)).collect();
    table.lines().skip(1).map(row).collect()
}

/// Starts a training, waits for its first checkpoint, and does something to it.
fn disturbed(folder: &Path, arguments: &[&str], run: &str, disturb: impl Fn(u32)) -> Output {
    let child = visage(folder, arguments).spawn().unwrap();
    while !folder.join(run).join("checkpoint.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    disturb(child.id());
    child.wait_with_output().unwrap()
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// The processes that a process started, the first of them first.
fn children(process: u32) -> Vec<u32> {
    let list = format!("/proc/{process}/task/{process}/children");
    let list = std::fs::read_to_string(list).unwrap();
    list.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn two_processes_train_what_one_does_and_survive_what_one_does() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    write_faces(&folder.join("faces"));
    finish(folder, &train(&["--out", "one"]));
    finish(folder, &train(&["--out", "two", "--processes", "2"]));
    finish(folder, &train(&["--out", "again", "--processes=2", "--micro-batch", "3"]));
    let (one, two) = (metrics(&folder.join("one")), metrics(&folder.join("two")));
    assert_eq!(one.len(), two.len());
    for (a, b) in one.iter().zip(&two) {
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-3 * a.abs() || (a.is_nan() && b.is_nan()), "{a}, {b}");
        }
    }
    for (a, b) in metrics(&folder.join("again")).iter().zip(&two) {
        assert!((a[1] - b[1]).abs() <= 1e-3 || a[1].is_nan(), "{a:?}, {b:?}");
    }

    // With batch statistics, which are those of the whole batch.
    for (out, processes) in [("bn", "1"), ("bn-2", "2")] {
        let flags = ["--bn", "train", "--out", out, "--processes", processes];
        finish(folder, &train(&flags));
    }
    let (one, two) = (metrics(&folder.join("bn")), metrics(&folder.join("bn-2")));
    for (a, b) in one.iter().flatten().zip(two.iter().flatten()) {
        assert!((a - b).abs() <= 1e-2 * a.abs() || (a.is_nan() && b.is_nan()), "{a}, {b}");
    }

    // Killed, and told to stop: it goes on, and ends with the same bytes.
    let wanted = files(&folder.join("two"));
    let slow = train(&["--out", "killed", "--processes", "2", "--checkpoint-every", "1"]);
    let killed = disturbed(folder, &slow, "killed", |id| kill("-KILL", children(id)[1]));
    let said = text(&killed.stderr);
    assert_eq!(killed.status.code(), Some(2), "{said}");
    assert!(said.contains("process 1 of 2 was killed"), "{said}");
    let resume = ["train-triplet", "--resume", "killed"];
    let alone = visage(folder, &resume).output().unwrap();
    assert!(text(&alone.stderr).contains("--processes: 2, now 1"), "{}", text(&alone.stderr));
    finish(folder, &[&resume[..], &["--processes", "2"]].concat());
    assert!(files(&folder.join("killed")) == wanted, "after a kill");

    let slow = train(&["--out", "told", "--processes", "2", "--checkpoint-every", "1"]);
    let told = disturbed(folder, &slow, "told", |id| kill("-TERM", id));
    let said = text(&told.stderr);
    assert_eq!(told.status.code(), Some(143), "{said}");
    assert!(said.contains("--resume told"), "{said}");
    finish(folder, &["train-triplet", "--resume", "told", "--processes", "2"]);
    assert!(files(&folder.join("told")) == wanted, "after a signal");
}

#[test]
fn a_launcher_that_is_misused_is_told() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    write_faces(&folder.join("faces"));
    let fails = |arguments: &[&str], variables: &[(&str, &str)], word: &str| {
        let output = visage(folder, arguments).envs(variables.iter().copied()).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(word), "{arguments:?}: {said}");
    };
    let ranks = [("RANK", "0"), ("WORLD_SIZE", "2")];
    let at = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")];
    let all = [ranks, at].concat();
    fails(&train(&[]), &ranks, "MASTER_ADDR is not set");
    fails(&["train-pairs", "--data", "faces"], &all, "only train-triplet");
    fails(&train(&["--processes", "2"]), &all, "leave the flag out");
    fails(&train(&["--processes", "9"]), &[], "too small for 9 processes");
    fails(&train(&["--triplets", "faces", "--processes", "2"]), &[], "--triplets");
    // Nothing is left behind.
    let left: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["faces"]);
}
