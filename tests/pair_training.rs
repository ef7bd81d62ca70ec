//! Pair networks from the command line: on drawn pairs, and on triplets somebody has put together.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::Path;

use common::{draw, fail, run, text, visage};
use tch::Device;
use visage::data::picture;
use visage::models::HeadKind;
use visage::recognise::{Comparison, ModelKind, PairModel, embed_pictures};
use visage::weights::TensorFile;

/// Eight people of four pictures each.
fn people(root: &Path) {
    for identity in 0..8 {
        let folder = root.join(format!("p{identity}"));
        std::fs::create_dir_all(&folder).unwrap();
        for picture in 0..4 {
            draw(identity, picture, 64).save(folder.join(format!("{picture}.png"))).unwrap();
        }
    }
}

#[rustfmt::skip]
const SMALL: [&str; 12] = [
    "train-pairs", "--data", "people", "--backbone", "densenet121", "--weights", "none",
    "--input-size", "32", "--batch-size", "8", "--seed=3",
];

#[test]
fn every_head_trains_and_its_model_file_answers_alike_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    people(&folder.path().join("people"));
    for (head, kind, flags) in [
        ("projection", HeadKind::Projection, vec!["--embedding-dim", "6", "--hard-negatives", "3"]),
        (
            "euclidean",
            HeadKind::Euclidean,
            vec!["--schedule", "triangular2", "--cycle", "1", "--model-ema", "0.5"],
        ),
        ("concat", HeadKind::Concat, vec!["--freeze", "all", "--crop", "off", "--jitter", "off"]),
    ] {
        let out = format!("runs/{head}");
        let flags = [&["--head", head, "--epochs", "1", "--out", &out][..], &flags].concat();
        let said = run(folder.path(), &[&SMALL[..], &flags].concat());
        assert!(said.contains("AUC") && said.contains("verification"), "{said}");
        for file in ["best.safetensors", "last.safetensors"] {
            let path = folder.path().join(&out).join(file);
            let model = PairModel::load(&path, Device::Cpu).unwrap();
            assert_eq!((model.card.kind, model.pair.head), (ModelKind::Pairs, kind));
            let pictures: Vec<_> = [(0, 0), (0, 1), (5, 0)].map(|(i, p)| draw(i, p, 50)).into();
            let fitted: Vec<_> = pictures.iter().map(|one| picture::fit(one, 32)).collect();
            let rows = embed_pictures(&model.net, &fitted).unwrap();
            let both = Comparison::of(&model.net).distances(&rows, &[(0, 2), (2, 0)]).unwrap();
            let (one, other) = (both[0], both[1]);
            assert!((one - other).abs() < 1e-6, "{head}: {one} one way, {other} the other");
            let chance = model.pair.probability.unwrap().probability(one.into());
            assert!((0.0..=1.0).contains(&chance) && model.pair.threshold.is_some());
        }
        assert!(folder.path().join(&out).join("curves.png").is_file());
        let split = std::fs::read_to_string(folder.path().join(&out).join("split.csv")).unwrap();
        for identity in 0..8 {
            let own: Vec<_> =
                split.lines().filter(|row| row.starts_with(&format!("p{identity}/"))).collect();
            let parts = own.iter().filter(|row| row.ends_with(",train")).count();
            assert!(own.len() == 4 && (parts == 0 || parts == 4), "p{identity} in both parts");
        }
    }
    // The newest pair network answers, and the exit code says what.
    let verify = |a: &str, b: &str| {
        visage(
            folder.path(),
            &["verify", a, b, "--json", "--model", "runs/projection/last.safetensors"],
        )
    };
    for (a, b) in [("people/p0/0.png", "people/p0/0.png"), ("people/p0/0.png", "people/p5/1.png")] {
        let output = verify(a, b);
        let answer: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
        let near = answer["distance"].as_f64().unwrap() < answer["threshold"].as_f64().unwrap();
        assert_eq!(answer["same"], near, "{answer}");
        assert_eq!(output.status.code(), Some(if near { 0 } else { 1 }));
    }
    // The distance of a logit head is the negated logit: a threshold below 0 makes sense there.
    for (head, code) in [("concat", Some(1)), ("projection", Some(2))] {
        let model = format!("runs/{head}/last.safetensors");
        let same = ["verify", "people/p0/0.png", "people/p5/1.png", "--threshold", "-1e9"];
        let output = visage(folder.path(), &[&same[..], &["--model", &model]].concat());
        assert_eq!(output.status.code(), code, "{output:?}");
    }
    let output = visage(folder.path(), &["verify", "people/p0/0.png", "people/p1/0.png"]);
    assert!(text(&output.stderr).contains("pair network, densenet121 and"), "{output:?}");
    let list = "a,b,same\np0/0.png,p0/1.png,1\np1/0.png,p1/1.png,1\np0/0.png,p2/1.png,0\np3/0.png,p4/1.png,0\n";
    std::fs::write(folder.path().join("pairs.csv"), list).unwrap();
    let pairs = ["evaluate", "--pairs", "pairs.csv", "--data", "people", "--json"];
    for head in ["projection", "concat"] {
        let model = format!("runs/{head}/best.safetensors");
        let report = run(folder.path(), &[&pairs[..], &["--model", &model]].concat());
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert_eq!((&report["pairs"], &report["skipped"]), (&4.into(), &0.into()), "{report}");
    }
    let model = ["--model", "runs/concat/best.safetensors"];
    let said = fail(folder.path(), &[&["embed", "people", "--out", "e.npy"][..], &model].concat());
    assert!(said.contains("visage verify A B"), "{said}");
    // A frozen trunk stays as it was; the head moves.
    let file =
        |name: &str| TensorFile::read(&folder.path().join("runs/concat").join(name)).unwrap();
    let (last, config) = (file("last.safetensors"), "runs/concat/config.toml");
    let again = ["train-pairs", "--config", config, "--epochs", "2", "--out", "again"];
    run(folder.path(), &again);
    let other = TensorFile::read(&folder.path().join("again/last.safetensors")).unwrap();
    let moved = |key: &str| last.tensors[key] != other.tensors[key];
    assert!(!moved("features.conv0.weight") && moved("head.last.weight"));
}

#[test]
fn given_triplets_train_the_passport_head_on_frozen_convolutions() {
    let folder = tempfile::tempdir().unwrap();
    people(&folder.path().join("people"));
    run(folder.path(), &["prepare", "strips", "people", "strips", "--size", "40", "--count", "3"]);
    let base =
        ["train-triplet", "--triplets", "strips", "--backbone", "vgg11", "--weights", "none"];
    #[rustfmt::skip]
    let flags = [
        "--head", "passport", "--embedding-dim", "10", "--input-size", "32", "--freeze", "features",
        "--distance", "mean-squared", "--optimizer", "sgd", "--lr", "0.001", "--bn", "eval",
        "--epochs", "1", "--crop", "off", "--jitter", "off",
    ];
    let output = visage(folder.path(), &[&base[..], &flags].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("24 triplets") || said.contains("to train"), "{said}");
    assert!(said.contains("the output of the 8 frozen stages is computed once"), "{said}");
    let best = folder.path().join("runs/triplet/last.safetensors");
    let model = PairModel::load(&best, Device::Cpu).unwrap();
    assert_eq!((model.pair.head, model.net.dim()), (HeadKind::Passport, 10));
    assert_eq!(
        TensorFile::read(&best).unwrap().tensors["classifier.6.weight"].size(),
        [1000, 4096]
    );

    let said = fail(folder.path(), &[&base[..], &["--head", "concat"]].concat());
    assert!(said.contains("triplets compare distances"), "{said}");
    let said = fail(folder.path(), &[&base[..], &["--loss", "supcon"]].concat());
    assert!(said.contains("--loss triplet"), "{said}");
    for (flag, value) in [("--miner", "semi-hard"), ("-p", "3"), ("-k", "3")] {
        let said = fail(folder.path(), &[&base[..], &[flag, value]].concat());
        assert!(said.contains("no effect with --triplets"), "{flag}: {said}");
    }
}

#[test]
fn what_does_not_fit_together_is_said_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    people(&folder.path().join("people"));
    for (flags, part) in [
        (vec!["--head", "concat", "--loss", "contrastive"], "returns a logit"),
        (vec!["--loss", "bce"], "returns a distance"),
        (vec!["--margin", "-1"], "--margin -1"),
        (vec!["--head", "concat", "--margin", "2"], "no effect with --loss bce"),
        (vec!["--head", "conv"], "needs a map of 4x4"),
        (vec!["--pairs", "0"], "--pairs 0"),
    ] {
        let said = fail(folder.path(), &[&SMALL[..], &flags].concat());
        assert!(said.contains(part), "{part}: {said}");
    }
    let model = folder.path().join("runs/pairs");
    assert!(!model.exists(), "a run folder although nothing ran");
}
