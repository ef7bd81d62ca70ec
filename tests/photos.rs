//! `classify` on photos: drawn people, a classifier of them, and scenes in which they stand.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{ANSWER_KEYS, fail, run, text, visage, write_faces};
use image::{RgbImage, imageops};
use serde_json::Value;
use tch::Device;
use visage::data::picture;
use visage::detect::{DetectOptions, Detector, Face, Framing};
use visage::recognise::ModelCard;
use visage::recognise::model_file::CARD;
use visage::weights::TensorFile;

const MODEL: &str = "runs/classifier/best.safetensors";
/// Who stands in the scene `row`, from left to right.
const ROW: [&str; 4] = ["ada", "bohr", "curie", "dirac"];

fn scene(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/detect/{name}.png"))
}

/// A crop around a face: a little aside, larger, darker than others of the same person.
fn crop(photo: &RgbImage, face: &Face, variant: u32) -> RgbImage {
    let aside = |k: u32| f64::from((variant * k) % 5) / 50.0 - 0.04;
    let [x1, y1, x2, y2] = face.bounds.map(f64::from);
    let side = (y2 - y1) * (1.1 + 0.02 * f64::from(variant % 4));
    let left = (0.5 * (x1 + x2 - side) + side * aside(2)).max(0.0) as u32;
    let top = (0.5 * (y1 + y2 - side) + side * aside(3)).max(0.0) as u32;
    let cut = imageops::crop_imm(photo, left, top, side as u32, side as u32).to_image();
    let side = 70 + 10 * variant;
    imageops::brighten(&picture::resize(&cut, side, side), 8 * variant as i32 - 30)
}

/// A folder with crops of the four people of `row`, and a classifier of them.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // Below the build folder: `cargo clean` takes it away.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("photos");
        let _ = std::fs::remove_dir_all(&folder);
        let row = picture::decode(&scene("row")).unwrap();
        let detector = Detector::new(Device::Cpu, DetectOptions::default()).unwrap();
        let mut faces = detector.detect(&[&row]).unwrap().remove(0);
        faces.sort_by(|a, b| a.bounds[0].total_cmp(&b.bounds[0]));
        assert_eq!(faces.len(), ROW.len());
        for (name, face) in ROW.iter().zip(&faces) {
            let people = folder.join("faces").join(name);
            std::fs::create_dir_all(&people).unwrap();
            for variant in 0..8 {
                crop(&row, face, variant).save(people.join(format!("{variant}.png"))).unwrap();
            }
        }
        let arguments = ["train-classifier", "--data", "faces", "--backbone", "openface"];
        let output = visage(&folder, &arguments);
        let said = text(&output.stderr);
        assert!(output.status.success() && said.contains("framing: a face on "), "{said}");
        for name in ["row", "one", "none"] {
            std::fs::copy(scene(name), folder.join(format!("{name}.png"))).unwrap();
        }
        folder
    })
}

fn objects(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn every_face_on_a_photo_is_named_from_left_to_right() {
    let folder = trained();
    let said = run(folder, &["classify", "row.png", "--unknown", "0"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    for (number, (line, name)) in lines.iter().zip(ROW).enumerate() {
        let rest = line.strip_prefix(&format!("face {} of 4 at ", number + 1)).unwrap();
        let (place, sentence) = rest.split_once(": ").unwrap();
        assert!(place.split(',').all(|part| part.parse::<u32>().is_ok()), "{line}");
        assert!(sentence.starts_with(&format!("{name} with ")), "{said}");
        assert!(sentence.ends_with("% probability"), "{line}");
    }
    // Several files: each line names its own; candidates follow their face.
    let said = run(
        folder,
        &["classify", "row.png", "none.png", "faces/ada/3.png", "--unknown", "0", "--top", "3"],
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4 * 3 + 1 + 3, "{said}");
    assert!(lines[0].starts_with("row.png: face 1 of 4 at ") && lines[1].starts_with("  2. "));
    assert_eq!(lines[12], "none.png: no face found");
    assert!(lines[13].starts_with("faces/ada/3.png: ada with "), "{said}");
}

#[test]
fn no_face_is_an_answer() {
    let folder = trained();
    for when in ["auto", "always"] {
        let flags = ["classify", "none.png", "--detect", when];
        assert_eq!(run(folder, &flags), "no face found\n");
        let answer = &objects(&run(folder, &[&flags[..], &["--json"]].concat()))[0];
        let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
        assert_eq!(keys, [&ANSWER_KEYS[..], &["crop", "model", "faces"]].concat());
        assert!(ANSWER_KEYS[1..7].iter().all(|key| answer[*key].is_null()), "{answer}");
        let rest = (&answer["top"], &answer["faces"], &answer["crop"]);
        assert_eq!(rest, (&Value::Array(vec![]), &Value::Array(vec![]), &Value::Bool(false)));
    }
    let never = run(folder, &["classify", "none.png", "--detect", "never"]);
    assert!(never.ends_with("% probability\n"), "{never}");
}

#[test]
fn a_crop_is_taken_as_it_is() {
    let folder = trained();
    let asked = |when: &str| {
        objects(&run(folder, &["classify", "faces", "--json", "--top", "2", "--detect", when]))
    };
    let (auto, never, always) = (asked("auto"), asked("never"), asked("always"));
    assert_eq!((auto.len(), never.len()), (32, 32));
    let crops = auto.iter().filter(|answer| answer["crop"] == true).count();
    assert!(crops >= 30, "{crops} of 32 crops are recognised as such");
    for ((auto, never), always) in auto.iter().zip(&never).zip(&always) {
        if auto["crop"] == true {
            assert!(ANSWER_KEYS.iter().all(|key| auto[*key] == never[*key]), "{auto} {never}");
        }
        assert_eq!(always["crop"], false);
        let (width, height) = image::image_dimensions(folder.join(auto["file"].as_str().unwrap()))
            .map(|(width, height)| (f64::from(width), f64::from(height)))
            .unwrap();
        assert_eq!(never["faces"][0]["box"], serde_json::json!([0.0, 0.0, width, height]));
        assert!(never["faces"][0]["detection"].is_null());
        assert!(never["faces"][0]["landmarks"].is_null());
        assert!(auto["faces"][0]["detection"].as_f64().unwrap() > 0.3);
        assert_eq!(auto["faces"][0]["landmarks"].as_array().unwrap().len(), 5);
    }
}

#[test]
fn json_speaks_for_the_largest_face_and_boxes_lie_on_the_photo() {
    let folder = trained();
    let mut photo = RgbImage::from_pixel(420, 300, image::Rgb([90, 120, 150]));
    let row = picture::decode(&folder.join("row.png")).unwrap();
    // The largest face is cut by the left edge.
    imageops::replace(&mut photo, &row, -125, 70);
    let place = folder.join("cut.png");
    photo.save(&place).unwrap();
    let flags = ["classify", "row.png", "cut.png", "--json", "--unknown", "0"];
    let answers = objects(&run(folder, &flags));
    for (answer, (width, height)) in answers.iter().zip([(400.0, 150.0), (420.0, 300.0)]) {
        assert_eq!(answer["crop"], false);
        let faces = answer["faces"].as_array().unwrap();
        let boxes: Vec<Vec<f64>> = faces.iter().map(|face| numbers(&face["box"])).collect();
        for edges in &boxes {
            let [x1, y1, x2, y2] = edges[..] else { panic!("{answer}") };
            assert!(0.0 <= x1 && x1 < x2 && x2 <= width, "{edges:?}");
            assert!(0.0 <= y1 && y1 < y2 && y2 <= height, "{edges:?}");
        }
        for key in &ANSWER_KEYS[1..] {
            assert_eq!(answer[*key], faces[0][*key], "{key}");
        }
    }
    let faces = answers[0]["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 4);
    assert_eq!(answers[0]["label"], "bohr");
    let high = |face: &Value| numbers(&face["box"])[3] - numbers(&face["box"])[1];
    assert!(faces.windows(2).all(|pair| high(&pair[0]) > high(&pair[1])), "largest first");
}

#[test]
fn drawings_have_the_size_of_their_photos() {
    let folder = trained();
    run(folder, &["classify", "row.png", "--draw", "drawn.png", "--unknown", "0"]);
    let (drawn, row) = (folder.join("drawn.png"), folder.join("row.png"));
    let (drawn, row) = (picture::decode(&drawn).unwrap(), picture::decode(&row).unwrap());
    assert_eq!(drawn.dimensions(), row.dimensions());
    let green = |picture: &RgbImage| picture.pixels().filter(|p| p.0 == [0, 204, 102]).count();
    assert!(green(&drawn) > 300 && green(&row) == 0, "{}", green(&drawn));

    let flags = ["classify", "faces/ada", "none.png", "--draw", "drawings", "--unknown", "100"];
    run(folder, &flags);
    for (name, like) in [("0.png", "faces/ada/0.png"), ("none.png", "none.png")] {
        let drawn = picture::decode(&folder.join("drawings").join(name)).unwrap();
        let before = picture::decode(&folder.join(like)).unwrap();
        assert_eq!(drawn.dimensions(), before.dimensions());
        assert_eq!(drawn == before, name == "none.png");
        let red = drawn.pixels().filter(|pixel| pixel.0 == [214, 84, 84]).count();
        assert_eq!(red > 30, name == "0.png", "{red}");
    }
    let said = fail(folder, &["classify", "faces", "--draw", "all.png"]);
    assert!(said.contains("--draw all.png") && said.contains("folder"), "{said}");
    // A drawing never takes the place of its photo.
    for flags in [
        ["classify", "row.png", "--draw", "row.png"],
        ["classify", "faces", "--draw", "faces"],
        ["detect", "faces", "--draw", "faces"],
    ] {
        let said = fail(folder, &flags);
        assert!(said.contains("--draw: the drawing would overwrite the photo"), "{said}");
    }
    assert_eq!(picture::decode(&folder.join("row.png")).unwrap(), row);
    let said = fail(folder, &["classify", "row.png", "--threshold", "0.5,0.5"]);
    assert!(said.contains("--face-threshold"), "{said}");
}

#[test]
fn a_model_of_an_older_version_still_takes_photos() {
    let folder = trained();
    let mut file = TensorFile::read(&folder.join(MODEL)).unwrap();
    let mut card: Value = serde_json::from_str(file.meta(CARD).unwrap()).unwrap();
    assert!(card.as_object_mut().unwrap().remove("framing").unwrap()["face"].is_object());
    file.metadata.insert(CARD.into(), card.to_string());
    let old = folder.join("old.safetensors");
    file.write(&old).unwrap();
    assert_eq!(ModelCard::peek(&old).unwrap().framing, None);
    let flags = ["--model", "old.safetensors", "--unknown", "0"];
    let said = run(folder, &[&["classify", "row.png"], &flags[..]].concat());
    assert_eq!(said.lines().count(), 4, "{said}");
    let said = run(folder, &[&["classify", "one.png"], &flags[..]].concat());
    assert!(said.lines().count() == 1 && !said.contains("no face"), "{said}");
}

/// Photos of the four people of `row`: a face of each somewhere on a larger picture; and one without a
/// face.
fn write_photos(root: &Path) {
    let folder = trained();
    for (person, name) in ROW.iter().enumerate() {
        std::fs::create_dir_all(root.join(name)).unwrap();
        for variant in 0..8 {
            let face = folder.join(format!("faces/{name}/{variant}.png"));
            let face = picture::decode(&face).unwrap();
            let face = picture::resize(&face, 100, 100);
            let shade = 60 + 20 * variant as u8;
            let mut photo = RgbImage::from_pixel(330, 260, image::Rgb([shade, 110, 140]));
            let place = (20 + 60 * person as i64 + 3 * variant, 10 + 18 * variant);
            imageops::replace(&mut photo, &face, place.0, place.1);
            photo.save(root.join(name).join(format!("{variant}.png"))).unwrap();
        }
    }
    std::fs::copy(scene("none"), root.join("ada/none.png")).unwrap();
}

#[test]
fn a_training_on_whole_photos_sees_what_classify_sees() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_photos(&root.join("photos"));
    let arguments = ["train-classifier", "--data", "photos", "--backbone", "openface"];
    let arguments = [&arguments[..], &["--epochs", "20"]].concat();
    let output = visage(root, &arguments);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("faces: cut out of 32 of 33 pictures, 0 used as they are"), "{said}");
    assert!(said.contains("no face found on 1 of 33 pictures: left out of training"), "{said}");
    assert!(said.contains("none.png") && !said.contains("framing:"), "{said}");
    let card = ModelCard::peek(&root.join(MODEL)).unwrap();
    assert_eq!(card.data.train + card.data.validation, 32);
    let Some(Framing::Face { tolerance, .. }) = card.framing else { panic!("{:?}", card.framing) };
    assert_eq!(tolerance, Framing::TOLERANCE);
    let split = std::fs::read_to_string(root.join("runs/classifier/split.csv")).unwrap();
    assert!(!split.contains("none.png") && split.lines().count() == 33, "{split}");
    let answers = objects(&run(root, &["classify", "photos", "--json", "--unknown", "0"]));
    let named = |answer: &&Value| {
        answer["file"].as_str().unwrap().contains(answer["label"].as_str().unwrap_or("nobody"))
    };
    assert!(answers.iter().filter(named).count() >= 31, "{answers:?}");
    // A training picture is its own nearest: classify cuts out the same pixels.
    let at_zero = answers.iter().filter(|answer| {
        answer["crop"] == false && answer["distance"].as_f64().is_some_and(|far| far < 1e-3)
    });
    assert_eq!(at_zero.count(), card.data.train);

    let never = [&arguments[..], &["--detect", "never", "--out", "whole"]].concat();
    let said = text(&visage(root, &never).stderr);
    assert!(said.contains("framing:") && !said.contains("faces:"), "{said}");
    let card = ModelCard::peek(&root.join("whole/best.safetensors")).unwrap();
    assert_eq!(card.data.train + card.data.validation, 33);
    // One person with a face is not enough.
    for name in &ROW[1..] {
        std::fs::remove_dir_all(root.join("photos").join(name)).unwrap();
    }
    std::fs::create_dir(root.join("photos/bohr")).unwrap();
    std::fs::copy(scene("none"), root.join("photos/bohr/none.png")).unwrap();
    let said = fail(root, &arguments);
    assert!(said.contains("on pictures of 1 person only") && said.contains("--detect"), "{said}");
}

#[test]
fn a_training_on_crops_is_the_same_with_and_without_the_detector() {
    let folder = trained();
    let arguments = ["train-classifier", "--data", "faces", "--backbone", "openface"];
    run(folder, &[&arguments[..], &["--detect", "never", "--out", "runs-of-crops/never"]].concat());
    let models = [MODEL, "runs-of-crops/never/best.safetensors"].map(|file| folder.join(file));
    let [auto, never] = models.each_ref().map(|file| TensorFile::read(file).unwrap());
    assert_eq!(auto.tensors.len(), never.tensors.len());
    for ((name, auto), (other, never)) in auto.tensors.iter().zip(&never.tensors) {
        assert!(name == other && auto.equal(never), "{name}");
    }
    let [auto, never] = models.map(|file| ModelCard::peek(&file).unwrap());
    assert_eq!((auto.framing, auto.data), (never.framing, never.data));
}

#[test]
fn what_shows_no_faces_is_searched_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_faces(&root.join("faces"));
    let arguments = ["train-classifier", "--data", "faces", "--backbone", "openface"];
    let output = visage(root, &[&arguments[..], &["--epochs", "2"]].concat());
    let said = text(&output.stderr);
    assert!(said.contains("use pictures as they are, without face detection"), "{said}");
    let card = ModelCard::peek(&root.join(MODEL)).unwrap();
    assert_eq!(card.framing, Some(Framing::None));
    let auto = run(root, &["classify", "faces", "--json"]);
    assert_eq!(auto, run(root, &["classify", "faces", "--json", "--detect", "never"]));
    assert!(objects(&auto).iter().all(|answer| answer["crop"] == true));
    assert_eq!(
        run(root, &["classify", "faces/ada/0.png", "--detect", "always"]),
        "no face found\n"
    );
}
