//! Faces on photos: the cascade against facenet-pytorch, crops, and the command line.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::{Path, PathBuf};

use common::{fail, run, text, visage};
use image::{RgbImage, imageops};
use serde_json::Value;
use tch::Device;
use visage::data::picture;
use visage::detect::align::face_with_margin;
use visage::detect::{Crop, DetectOptions, Detector, Face, MinFace, Template};

const SCENES: [&str; 4] = ["one", "row", "edge", "none"];

fn scene_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/detect/{name}.png"))
}

fn scene(name: &str) -> RgbImage {
    picture::decode(&scene_path(name)).unwrap()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/detect/detect.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn detector(options: DetectOptions) -> Detector {
    Detector::new(Device::Cpu, options).unwrap()
}

fn far(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// Every face of facenet-pytorch's, in its order, within a hundredth of the bounds allowed.
fn agree(name: &str, faces: &[Face]) {
    let golden = golden();
    let wanted = golden[name]["faces"].as_array().unwrap();
    assert_eq!(faces.len(), wanted.len(), "{name}: {faces:?}");
    for (face, wanted) in faces.iter().zip(wanted) {
        assert!(far(&face.bounds, &numbers(&wanted["box"])) < 0.01, "{name}: {face:?} {wanted}");
        let chance = wanted["probability"].as_f64().unwrap();
        assert!((f64::from(face.probability) - chance).abs() < 1e-5, "{name}: {face:?} {wanted}");
        let points = face.landmarks.as_flattened();
        assert!(far(points, &numbers(&wanted["landmarks"])) < 0.01, "{name}: {face:?} {wanted}");
    }
}

#[test]
fn drawn_scenes_are_seen_as_facenet_pytorch_sees_them() {
    let detector = detector(DetectOptions::default());
    let scenes = SCENES.map(scene);
    // Sizes differ, one has no face: together, and each alone.
    let together = detector.detect(&scenes.each_ref()).unwrap();
    for ((name, scene), faces) in SCENES.iter().zip(&scenes).zip(&together) {
        agree(name, faces);
        agree(name, &detector.detect(&[scene]).unwrap()[0]);
    }
}

#[test]
fn no_picture_and_pictures_without_room_for_a_face_are_no_trouble() {
    let detector = detector(DetectOptions::default());
    assert!(detector.detect(&[]).unwrap().is_empty());
    let tiny =
        [RgbImage::new(1, 1), RgbImage::new(0, 0), RgbImage::new(3000, 5), RgbImage::new(20, 20)];
    let faces = detector.detect(&tiny.each_ref()).unwrap();
    assert_eq!(faces, vec![Vec::new(); 4]);
}

#[test]
fn a_large_picture_is_cut_into_strips_without_a_trace() {
    // Two megapixels are several strips; the same faces sit below the borders of some.
    let mut large = RgbImage::from_pixel(1200, 1700, image::Rgb([90, 120, 150]));
    let row = scene("row");
    let places = [100, 333, 700, 1111, 1480];
    for top in places {
        imageops::replace(&mut large, &row, 400, top);
    }
    let faces = detector(DetectOptions::default()).detect(&[&large]).unwrap().remove(0);
    let golden = golden();
    for top in places {
        for wanted in golden["row"]["faces"].as_array().unwrap() {
            let [x1, y1, x2, y2] = numbers(&wanted["box"])[..] else { panic!("{wanted}") };
            let (x, y) = ((x1 + x2) / 2.0 + 400.0, (y1 + y2) / 2.0 + top as f64);
            let side = (x2 - x1).max(y2 - y1);
            let near = |face: &Face| {
                let [a, b, c, d] = face.bounds.map(f64::from);
                ((a + c) / 2.0 - x).hypot((b + d) / 2.0 - y) < 0.2 * side
            };
            assert!(faces.iter().any(near), "{wanted} at {top}: {faces:?}");
        }
    }
}

#[test]
fn small_faces_are_not_looked_for_when_told_so() {
    let row = scene("row");
    let options = DetectOptions { min_face: MinFace::Share(0.5), ..DetectOptions::default() };
    let faces = detector(options).detect(&[&row]).unwrap().remove(0);
    assert!((1..4).contains(&faces.len()), "{faces:?}");
    let strict = DetectOptions { thresholds: [0.6, 0.7, 0.9999], ..DetectOptions::default() };
    assert!(detector(strict).detect(&[&row]).unwrap()[0].is_empty());
}

#[test]
fn crops_with_margin_are_facenet_pytorchs_to_the_bit() {
    let golden = golden();
    for name in ["one", "row", "edge"] {
        let (picture, wanted) = (scene(name), &golden[name]);
        let bounds = numbers(&wanted["faces"][0]["box"]);
        let bounds = [0, 1, 2, 3].map(|k| bounds[k] as f32);
        for (margin, rows) in wanted["crops"].as_object().unwrap() {
            let crop = face_with_margin(&picture, bounds, 160, margin.parse().unwrap());
            for (row, wanted) in rows.as_object().unwrap() {
                let start = row.parse::<usize>().unwrap() * 160 * 3;
                let ours = crop.as_raw()[start..start + 480].iter().map(|&v| f64::from(v));
                assert_eq!(ours.collect::<Vec<_>>(), numbers(wanted), "{name} {margin} {row}");
            }
        }
    }
}

#[test]
fn aligned_crops_hold_the_face_where_the_template_wants_it() {
    let detector = detector(DetectOptions::default());
    // dlib's chips are so tight that landmarks are found exactly only with a margin.
    let templates = [
        (Template::Openface, [0.0, 60.0]),
        (Template::Dlib, [60.0, 100.0]),
        (Template::Arcface, [0.0, 60.0]),
        (Template::Celeba, [0.0, 60.0]),
    ];
    for (template, margins) in templates {
        for (name, which) in [("one", 0), ("row", 0), ("row", 1)] {
            let photo = scene(name);
            let face = detector.detect(&[&photo]).unwrap()[0][which];
            let [plain, wide] = margins.map(|margin| {
                Crop::new(template, Some(192), margin).unwrap().cut(&photo, &face).unwrap()
            });
            assert_eq!(plain.dimensions(), wide.dimensions());
            // Found again in the crop: upright, and smaller where there is a margin.
            let seen = |crop: &RgbImage| detector.detect(&[crop]).unwrap()[0][0];
            let (near, far) = (seen(&plain), seen(&wide));
            for face in [near, far] {
                let [[lx, ly], [rx, ry], ..] = face.landmarks;
                let tilt = ((ry - ly) / (rx - lx)).atan().to_degrees();
                assert!(tilt.abs() < 8.0, "{template:?} {name}: {tilt}");
                let middle = 96.0;
                assert!(((lx + rx) / 2.0 - middle).abs() < 12.0, "{template:?} {name}: {face:?}");
            }
            let apart = |face: &Face| face.landmarks[1][0] - face.landmarks[0][0];
            let shrunk = apart(&far) / apart(&near);
            assert!((0.6..0.78).contains(&shrunk), "{template:?} {name}: {shrunk}");
        }
    }
}

#[test]
fn detect_writes_lines_json_tables_and_drawings() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("in/deep")).unwrap();
    std::fs::copy(scene_path("row"), root.join("in/deep/row.png")).unwrap();
    std::fs::copy(scene_path("none"), root.join("in/none.png")).unwrap();
    let lines = run(root, &["detect", "in", "--csv", "out.csv", "--draw", "drawn"]);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines[0].starts_with("in/deep/row.png: box 109.6 25.2 180.7 115.9, 99.9"), "{lines:?}");
    assert_eq!(lines[4], "in/none.png: no face found");
    let table = std::fs::read_to_string(root.join("out.csv")).unwrap();
    assert!(table.starts_with("file,x1,y1,x2,y2,probability,left_eye_x,"), "{table}");
    assert_eq!(table.lines().count(), 6);
    assert!(table.lines().all(|line| line.split(',').count() == 16));
    let drawn = picture::decode(&root.join("drawn/deep/row.png")).unwrap();
    assert_eq!(drawn.dimensions(), (400, 150));
    assert_ne!(drawn, scene("row"));
    assert_eq!(picture::decode(&root.join("drawn/none.png")).unwrap(), scene("none"));

    let json = run(root, &["detect", "in/deep/row.png", "in/none.png", "--json"]);
    let objects: Vec<Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[1], serde_json::json!({"file": "in/none.png", "faces": []}));
    assert_eq!(objects[0]["file"], "in/deep/row.png");
    let faces = objects[0]["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 4);
    assert_eq!(faces[0]["landmarks"].as_array().unwrap().len(), 5);
    assert!((faces[0]["box"][0].as_f64().unwrap() - 109.587).abs() < 0.01, "{}", faces[0]);
    assert!(faces[0]["probability"].as_f64().unwrap() > 0.99);
}

#[test]
fn an_unreadable_photo_is_one_error_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::write(root.join("a.jpg"), "no picture").unwrap();
    std::fs::copy(scene_path("one"), root.join("b.png")).unwrap();
    let output = visage(root, &["detect", "a.jpg", "b.png", "gone.png"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).starts_with("b.png: box"));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("error: a.jpg: cannot be read") && errors.contains("gone.png"),
        "{errors}"
    );
    for (flags, named) in [
        (["--threshold", "1.5"], "threshold 1.5"),
        (["--face-threshold", "0.5,0.5"], "--face-threshold: expected one or three"),
        (["--min-face", "0"], "--min-face"),
    ] {
        let errors = fail(root, &["detect", "b.png", flags[0], flags[1]]);
        assert!(errors.contains(named), "{errors}");
    }
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut table = csv::Reader::from_path(path).unwrap();
    table.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn prepare_faces_makes_a_tree_of_crops_and_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (scene, place) in
        [("one", "ada/a.png"), ("one", "ada/a.bmp"), ("row", "bob/b.png"), ("none", "bob/n.png")]
    {
        let path = root.join("in").join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self::scene(scene).save(path).unwrap();
    }
    let blurred = imageops::blur(&scene("one"), 6.0);
    blurred.save(root.join("in/ada/soft.png")).unwrap();
    std::fs::write(root.join("in/bob/broken.jpg"), "no").unwrap();
    let command = ["prepare", "faces", "in", "out", "--min-size", "30", "--min-sharpness", "15"];
    let said = run(root, &command);
    let wanted = "6 photos: 2 ok, 1 several faces, 1 no face, 0 too small, 1 blurred, 1 unreadable; 3 crops in out";
    assert_eq!(said.lines().next(), Some(wanted), "{said}");
    assert_eq!(said.lines().nth(1), Some("for review: out-quarantine"));
    for crop in ["ada/a.png", "ada/a-2.png", "bob/b.png"] {
        assert_eq!(picture::decode(&root.join("out").join(crop)).unwrap().dimensions(), (96, 96));
    }
    for (link, photo) in [
        ("several-faces/bob/b.png", "in/bob/b.png"),
        ("no-face/bob/n.png", "in/bob/n.png"),
        ("blurred/ada/soft.png", "in/ada/soft.png"),
        ("unreadable/bob/broken.jpg", "in/bob/broken.jpg"),
    ] {
        let link = root.join("out-quarantine").join(link);
        assert_eq!(std::fs::read(link).unwrap(), std::fs::read(root.join(photo)).unwrap());
    }
    let table = rows(&root.join("out/faces.csv"));
    let outcomes: Vec<_> = table.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let wanted = [
        ("ada/a.bmp", "ok"),
        ("ada/a.png", "ok"),
        ("ada/soft.png", "blurred"),
        ("bob/b.png", "several faces"),
        ("bob/broken.jpg", "unreadable"),
        ("bob/n.png", "no face"),
    ];
    assert_eq!(outcomes, wanted);

    // A second run: nothing is done twice, but for a crop that is gone and a file that was mended.
    let kept = std::fs::metadata(root.join("out/ada/a.png")).unwrap().modified().unwrap();
    std::fs::remove_file(root.join("out/bob/b.png")).unwrap();
    scene("one").save(root.join("in/bob/mended.png")).unwrap();
    std::fs::rename(root.join("in/bob/mended.png"), root.join("in/bob/broken.jpg")).unwrap();
    let output = visage(root, &command);
    let errors = text(&output.stderr);
    assert!(errors.contains("4 photos already done"), "{errors}");
    assert!(text(&output.stdout).starts_with("6 photos: 3 ok, 1 several faces"), "{output:?}");
    assert_eq!(std::fs::metadata(root.join("out/ada/a.png")).unwrap().modified().unwrap(), kept);
    assert!(root.join("out/bob/b.png").is_file() && root.join("out/bob/broken.png").is_file());
    assert!(!root.join("out-quarantine/unreadable/bob/broken.jpg").is_symlink());

    let errors = fail(root, &["prepare", "faces", "in", "out", "--template", "facenet"]);
    assert!(errors.contains("out: was made with"), "{errors}");
    let errors = fail(root, &["prepare", "faces", "in", "in/out"]);
    assert!(errors.contains("in/out: is inside in"), "{errors}");
    assert!(!root.join("in/out").exists());
    let errors = fail(root, &["prepare", "faces", "in", "in-other", "--margin", "96"]);
    assert!(errors.contains("margin 96: must be smaller"), "{errors}");
}

#[test]
fn all_faces_of_a_photo_are_kept_under_names_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("in")).unwrap();
    scene("row").save(root.join("in/row.png")).unwrap();
    let command = [
        "prepare",
        "faces",
        "in",
        "out",
        "--keep",
        "all",
        "--template",
        "facenet",
        "--min-size",
        "30",
    ];
    let said = run(root, &command);
    assert!(said.starts_with("1 photo: 1 ok,") && said.contains("; 3 crops in out"), "{said}");
    let table = rows(&root.join("out/faces.csv"));
    let crops: Vec<_> = table.iter().map(|row| (row[1].as_str(), row[3].as_str())).collect();
    let wanted = [("ok", "row.png"), ("ok", "row-2.png"), ("ok", "row-3.png"), ("too small", "")];
    assert_eq!(crops, wanted);
    assert_eq!(picture::decode(&root.join("out/row-3.png")).unwrap().dimensions(), (160, 160));
    let central = ["prepare", "faces", "in", "mid", "--keep", "central", "--template", "facenet"];
    run(root, &central);
    let middle = &rows(&root.join("mid/faces.csv"))[0];
    assert!((middle[4].parse::<f64>().unwrap() - 109.587).abs() < 0.1, "{middle:?}");
}
