//! `visage prepare strips` as a user runs it: exit codes, messages, files.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use image::{Rgb, RgbImage};

/// A picture that no other seed makes, never blank.
fn draw(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let value = x * (seed + 3) * 7 + y * (2 * seed + 5) * 5;
        Rgb([value as u8, (value / 3 + 40 * seed) as u8, (x * y / (seed + 1)) as u8])
    })
}

fn write(root: &Path, names: &[&str]) {
    for (seed, name) in (0..).zip(names) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        draw(seed, 40, 48).save(path).unwrap();
    }
}

fn visage(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("visage").unwrap();
    command.current_dir(folder).args(["prepare", "strips", "--threads", "1"]);
    command.args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = visage(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn fail(folder: &Path, arguments: &[&str]) -> String {
    let output = visage(folder, arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty() && !errors.contains("panicked"), "{errors}");
    errors
}

#[test]
fn passport_folders_become_strips_and_strips_become_triplets() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(
        root,
        &[
            "in/trainset/1/user/a_script.png",
            "in/trainset/1/user/b.png",
            "in/trainset/1/user/c.png",
            "in/trainset/2/user/script.png",
            "in/trainset/2/user/b.png",
            "in/trainset/3/user/b.png",
        ],
    );
    let (out, errors) = run(root, &["in", "strips", "--size", "32", "--jpeg", "95"]);
    assert!(out.starts_with("3 strips of "), "{out}");
    assert!(out.ends_with(" people written to strips; none quarantined\n"), "{out}");
    assert!(errors.contains("in: 2 people with enough pictures, passports and photos"), "{errors}");
    assert!(errors.contains("1 folder without a picture named *script*"), "{errors}");
    let strip = image::open(root.join("strips/00002.jpg")).unwrap();
    assert_eq!((strip.width(), strip.height()), (96, 32));

    std::fs::write(root.join("strips/cut.jpg"), "cut").unwrap();
    let (out, errors) = run(root, &["--cut", "strips", "triplets"]);
    let list = Path::new("triplets").join("quarantine.csv");
    let wanted = format!(
        " people cut into triplets in triplets; 1 file quarantined, listed in {}\n",
        list.display()
    );
    assert!(out.starts_with("3 strips of ") && out.ends_with(&wanted), "{out}");
    assert!(errors.contains("warning: cut.jpg: "), "{errors}");
    for name in ["anchor", "positive", "negative"] {
        let path = root.join(format!("triplets/00000/{name}.png"));
        assert_eq!(image::open(path).unwrap().width(), 32);
    }
    let list = std::fs::read_to_string(root.join("triplets/triplets.csv")).unwrap();
    assert!(list.contains("00000/anchor.png,00000/positive.png,00000/negative.png,"), "{list}");
    let arguments = ["--cut", "strips", "files", "--layout", "files", "--limit", "1"];
    let (out, _) = run(root, &arguments);
    assert!(out.starts_with("1 strip "), "{out}");
    assert!(root.join("files/00000_negative.png").is_file());
}

#[test]
fn any_face_folder_serves_and_the_seed_repeats_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, &["faces/ann/1.png", "faces/ann/2.png", "faces/bob/1.png", "faces/bob/2.png"]);
    let list = |name: &str, seed: &str| {
        run(root, &["faces", name, "--count", "8", "--seed", seed, "--size", "16"]);
        std::fs::read_to_string(root.join(name).join("strips.csv")).unwrap()
    };
    let one = list("one", "1");
    assert_eq!(one.lines().count(), 17);
    assert_eq!(one, list("again", "1"));
    assert_ne!(one, list("other", "2"));
}

#[test]
fn misuse_is_explained_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, &["faces/ann/1.png", "faces/ann/2.png", "faces/bob/1.png", "faces/bob/2.png"]);
    std::fs::create_dir(root.join("there")).unwrap();
    for (arguments, parts) in [
        (vec!["faces", "there"], vec!["there: already exists"]),
        (vec!["--cut", "faces", "there"], vec!["there: already exists"]),
        (vec!["gone", "out"], vec!["gone: "]),
        (
            vec!["there", "out"],
            vec!["a person with two pictures and somebody else", "trainset/*/user/*"],
        ),
        (vec!["--cut", "faces", "out"], vec!["no strip can be cut", "not a multiple of 3"]),
        (vec!["--cut", "there", "out"], vec!["it has no picture"]),
        (vec!["faces", "out", "--size", "8"], vec!["--size", "16..=4096"]),
        (vec!["faces", "out", "--jpeg", "0"], vec!["--jpeg"]),
        (vec!["faces", "out", "--cut", "--size", "32"], vec!["--cut", "--size"]),
    ] {
        let errors = fail(root, &arguments);
        for part in parts {
            assert!(errors.contains(part), "{part} in {errors}");
        }
    }
    assert!(!root.join("out").exists());
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 2, "rubbish left");
}
