//! Data sets in files: record files, shards and tables train as the folder does.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{IDENTITIES, run, text, visage, write_faces};
use sha2::{Digest, Sha256};

/// SHA-256 of the values in a safetensors file; its header names the data and differs.
fn weights(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    assert!(bytes.len() > 8 + header + 1_000_000);
    hex::encode(Sha256::digest(&bytes[8 + header..]))
}

fn table(root: &Path) {
    let mut rows = String::from("path,label\n");
    // Backwards: the table is sorted when it is read.
    for name in IDENTITIES.iter().rev() {
        (0..8).rev().for_each(|picture| rows += &format!("faces/{name}/{picture}.png,{name}\n"));
    }
    std::fs::write(root.join("faces.csv"), rows).unwrap();
}

#[test]
fn packed_data_trains_to_the_same_bits_as_the_folder() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    write_faces(&at.join("faces"));
    std::fs::write(at.join("faces/ada/broken.png"), "no picture").unwrap();
    let packed = run(at, &["prepare", "pack", "faces", "faces.rec"]);
    assert!(
        packed.contains("32 pictures of 4 identities packed into faces.rec; 1 left out"),
        "{packed}"
    );
    let packed =
        run(at, &["prepare", "pack", "faces", "faces-{000..NNN}.tar", "--shard-size", "1"]);
    assert!(packed.contains("packed into faces-000.tar"), "{packed}");
    let shards = (0..9).take_while(|n| at.join(format!("faces-00{n}.tar")).is_file()).count();
    table(at);
    let shards = format!("faces-{{000..00{}}}.tar", shards - 1);
    let mut sums = Vec::new();
    for (number, data) in ["faces", "faces.rec", &shards, "faces.csv"].into_iter().enumerate() {
        let out = format!("run{number}");
        run(
            at,
            &[
                "train-triplet",
                "--data",
                data,
                "--backbone",
                "openface",
                "--epochs",
                "1",
                "--detect",
                "never",
                "--seed",
                "3",
                "--out",
                &out,
            ],
        );
        sums.push(weights(&at.join(out).join("best.safetensors")));
    }
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");

    // Nothing is overwritten.
    let again = visage(at, &["prepare", "pack", "faces", "faces.rec"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("faces.rec: already exists; give --force"));
}

#[test]
fn every_command_reads_what_is_packed() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    write_faces(&at.join("faces"));
    run(at, &["prepare", "pack", "faces", "faces.rec"]);
    run(at, &["prepare", "pack", "faces.rec", "faces.tar"]);
    table(at);
    let embedded = |data: &str| {
        let out = ["embed", data, "--out", "e.csv", "--force", "--detect", "never"];
        run(at, &out);
        std::fs::read_to_string(at.join("e.csv")).unwrap()
    };
    let plain = embedded("faces");
    for data in ["faces.rec", "faces.tar"] {
        assert_eq!(embedded(data).replace(&format!("{data}/"), "faces/"), plain, "{data}");
    }
    assert_eq!(embedded("faces.csv").replace("./faces/", "faces/"), plain);
    let audited = |data: &str| {
        let json = visage(at, &["audit", data, "--json", "--no-detect"]);
        let mut json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        json["folder"] = "".into();
        json.to_string()
    };
    let plain = audited("faces");
    for data in ["faces.rec", "faces.tar"] {
        assert_eq!(audited(data), plain, "{data}");
    }
    std::fs::write(
        at.join("pairs.csv"),
        "a,b,same\nada/0.png,ada/1.png,1\nada/0.png,bohr/1.png,0\n",
    )
    .unwrap();
    for data in ["faces.rec", "faces.tar"] {
        let out =
            run(at, &["evaluate", "--pairs", "pairs.csv", "--data", data, "--detect", "never"]);
        assert!(out.contains("2 (1 same, 1 different)"), "{out}");
    }
    run(at, &["train-classifier", "--data", "faces.tar", "--detect", "never", "--epochs", "2"]);
    let out = run(at, &["evaluate", "--data", "faces.rec"]);
    assert!(out.contains("accuracy"), "{out}");
    run(
        at,
        &[
            "tsne",
            "--data",
            "faces.csv",
            "--out",
            "t.png",
            "--iterations",
            "5",
            "--detect",
            "never",
        ],
    );
    run(
        at,
        &[
            "distil",
            "--data",
            "faces.tar",
            "--teacher",
            "openface",
            "--epochs",
            "1",
            "--detect",
            "never",
        ],
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let root = tempfile::tempdir().unwrap();
    let at = root.path();
    std::fs::write(at.join("bad.rec"), "no records").unwrap();
    std::fs::write(at.join("bad.csv"), "a,b\n").unwrap();
    for (data, part) in [
        ("bad.rec", "bad.rec: record 0 at byte 0: "),
        ("bad.csv", "bad.csv: line 1: the columns path and label are needed"),
        ("gone-{0..3}.tar", "--data gone-{0..3}.tar: does not exist; expected"),
    ] {
        let output = visage(at, &["train-triplet", "--data", data]);
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(part), "{part} in {error}");
    }
}
