//! The examples run: drawn faces, one epoch, the figures and the lines they promise.
//!
//! `cargo test` builds the examples beside the tests; a single `cargo test --test examples` does not,
//! and takes those that are there.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{draw, text, write_faces};

/// The folder of this test is that of the examples' own, but for its last part.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("examples").join(name);
    let path = path.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.is_file(), "{} is missing: cargo build --release --examples", path.display());
    path
}

/// Runs an example on `data` and returns what it printed; it must have drawn `figures`.
fn run(name: &str, data: &Path, flags: &[&str], figures: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example(name))
        .current_dir(folder.path())
        .arg(data)
        .arg("drawn")
        .args(flags)
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {flags:?}:\n{}", text(&output.stderr));
    for figure in figures {
        let path = folder.path().join("drawn").join(figure);
        let picture = image::open(&path).unwrap_or_else(|error| panic!("{figure}: {error}"));
        assert!(picture.width() > 400 && picture.height() > 300, "{figure}");
    }
    let drawn = std::fs::read_dir(folder.path().join("drawn")).unwrap().count();
    assert_eq!(drawn, figures.len(), "{name} leaves something else behind");
    text(&output.stdout)
}

/// The number behind the first `before`.
fn number(printed: &str, before: &str) -> f64 {
    let (_, after) = printed.split_once(before).unwrap_or_else(|| panic!("{before}: {printed}"));
    let end = after.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-');
    after[..end.unwrap_or(after.len())].parse().unwrap_or_else(|_| panic!("{before}: {printed}"))
}

/// Four people with eight pictures each, one folder a person.
fn faces() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    write_faces(root.path());
    root
}

/// Six people with four pictures each, laid out as CelebA.
fn celeba() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let pictures = root.path().join("img_align_celeba");
    std::fs::create_dir(&pictures).unwrap();
    let mut rows = String::new();
    for number in 0..24 {
        let (identity, name) = (number % 6, format!("{:06}.jpg", number + 1));
        draw(identity, number, 48).save(pictures.join(&name)).unwrap();
        rows.push_str(&format!("{name} {}\n", 100 + identity));
    }
    std::fs::write(root.path().join("identity_CelebA.txt"), rows).unwrap();
    root
}

#[test]
fn avengers_openface() {
    let root = tempfile::tempdir().unwrap();
    for identity in 0..5 {
        let folder = root.path().join(format!("actor{identity}"));
        std::fs::create_dir(&folder).unwrap();
        for picture in 0..16 {
            draw(identity, picture, 96).save(folder.join(format!("{picture}.png"))).unwrap();
        }
    }
    let printed = run("avengers_openface", root.path(), &["1"], &["tsne.png"]);
    assert!(number(&printed, "epoch 1: loss ") > 0.0, "{printed}");
    assert!(printed.trim_end().ends_with("% probability"), "{printed}");
}

#[test]
fn celeba_siamese_densenet() {
    let flags = ["--side", "32", "--epochs", "1", "--batch", "8"];
    let figures = ["roc.png", "distances.png"];
    let printed = run("celeba_siamese_densenet", celeba().path(), &flags, &figures);
    assert!(printed.contains("6 people: 16 pictures to train, 8 of others"), "{printed}");
    assert!(number(&printed, "epoch 1: loss ") > 0.0, "{printed}");
    assert!(number(&printed, "two pictures nearer than ").is_finite(), "{printed}");
}

#[test]
fn celeba_contrastive_densenet() {
    // 16 pairs are 4 steps an epoch: 8 steps up, and the run ends before the top.
    let flags = ["--side", "32", "--epochs", "1", "--batch", "4"];
    let figures = ["loss.png", "learning_rate.png", "beta1.png"];
    let printed = run("celeba_contrastive_densenet", celeba().path(), &flags, &figures);
    // The rate of the last step, the third after the bottom: 0.001 (1/4 + 3/4 3/8).
    assert_eq!(number(&printed, ", rate "), 0.00053, "{printed}");
    // And beta1: 0.95 - 0.1 3/8.
    assert!((number(&printed, ", beta1 ") - 0.9125).abs() < 1e-3, "{printed}");
    assert!(printed.contains("at step 4\n"), "{printed}");
    assert!(printed.contains("; vectors of 32\n"), "{printed}");
}

#[test]
fn passport_vgg16() {
    let flags = ["--side", "32", "--epochs", "1", "--limit", "12", "--batch", "4"];
    let figures = ["loss.png", "roc.png", "distances.png"];
    let printed = run("passport_vgg16", faces().path(), &flags, &figures);
    assert!(printed.contains("6 triplets to train, 6 of other people"), "{printed}");
    // Near the margin, as the published path: at first the distances are next to nothing.
    assert!((number(&printed, "epoch 1: loss ") - 0.3).abs() < 0.05, "{printed}");
    assert!(printed.contains("computed once"), "{printed}");
    assert!(printed.contains("unseen people: accuracy "), "{printed}");
}

#[test]
fn passport_inception_bce() {
    let flags = ["--side", "171", "--epochs", "1"];
    let figures = ["loss.png", "roc.png", "distances.png"];
    let printed = run("passport_inception_bce", faces().path(), &flags, &figures);
    assert!(number(&printed, "epoch 1: loss ") > 0.0, "{printed}");
    let f1 = number(&printed, "F1 on unseen people: ");
    assert!((0.0..=1.0).contains(&f1), "{printed}");
}
