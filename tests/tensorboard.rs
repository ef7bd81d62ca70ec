//! A run's log, read back: record by record here, and by the real TensorBoard where python has it.

// A helper of a test may fail the test.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used)]

#[path = "common/python.rs"]
mod python;

use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Rgb, RgbImage};
use protobuf::Message;
use python::python;
use serde_json::{Value, json};
use tensorboard_proto::event::Event;
use visage::train::log::histogram::Histogram;
use visage::train::log::{METRICS, Projector, RunLog, Sprite, TENSORBOARD};

const DISTANCES: [f32; 6] = [0.0, 0.5, 0.5, 1.75, 3.0, f32::NAN];
const EMBEDDINGS: [f32; 6] = [0.1, -0.2, 1e-20, 3.0, -0.0, 0.333_333_34];
const NOTE: &str = "trunk **nn4**, grüße 🙂";

fn strip() -> RgbImage {
    RgbImage::from_fn(9, 4, |x, y| Rgb([x as u8 * 20, y as u8 * 50, 7]))
}

fn sprite() -> Sprite {
    let shade = |value: u8| RgbImage::from_pixel(16, 16, Rgb([value, 0, 0]));
    Sprite::tile(&[shade(50), shade(100), shade(150)], (8, 8))
}

/// Writes a run with everything in it.
fn write_run(run: &Path) {
    let mut log = RunLog::create(run);
    for epoch in 0..3_u64 {
        let loss = 1.0 / (epoch as f64 + 1.0);
        log.scalars(epoch, &[("loss", loss), ("val/accuracy", 0.5 + 0.125 * epoch as f64)]);
        log.histogram("distance", epoch, &DISTANCES);
        log.image("strip", epoch, &strip());
        log.epoch_row(&[("epoch", epoch as f64), ("loss", loss)]);
    }
    log.text("note", 0, NOTE);
    log.pr_curve("same face", 2, &[true, true, false, false], &[0.875, 0.5, 0.625, 0.125]);
    let column = |labels: [&str; 3]| labels.map(str::to_owned);
    let names = column(["chris_evans", "mark\truffalo", "müller"]);
    let parts = column(["train", "train", "val"]);
    let paths = column(["a/1.png", "b/2.png", "c/3\n.png"]);
    log.projector(&Projector {
        embeddings: &EMBEDDINGS,
        dim: 2,
        columns: &[("name", &names), ("part", &parts), ("path", &paths)],
        sprite: Some(&sprite()),
    });
    log.epoch_row(&[("epoch", 3.0), ("val/accuracy", 0.75)]);
    let settings = json!({ "lr": 0.5, "loss": "arcface", "flip": true, "freeze": ["a", "b"] });
    log.hparams(&settings, 2, &[("accuracy", 0.75)]);
    assert_eq!(log.take_warnings(), Vec::<String>::new());
}

/// The event files of a run, in TensorBoard's order.
fn event_files(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join(TENSORBOARD)).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("/events.out.tfevents."))
        .collect();
    files.sort();
    files
}

/// CRC-32C bit by bit (reflected polynomial 0x82F63B78), masked as record files want it.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    let crc = !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 * (crc & 1)))
    });
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Splits an event file into its records, checking both sums of each.
fn records(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at(8);
        let (length_crc, rest) = rest.split_at(4);
        assert_eq!(masked_crc32c(length).to_le_bytes(), length_crc, "record {}", events.len());
        let length = u64::from_le_bytes(length.try_into().unwrap());
        let (data, rest) = rest.split_at(length as usize);
        let (data_crc, rest) = rest.split_at(4);
        assert_eq!(masked_crc32c(data).to_le_bytes(), data_crc, "record {}", events.len());
        events.push(Event::parse_from_bytes(data).unwrap());
        bytes = rest;
    }
    events
}

#[test]
fn records_carry_the_right_sums_in_the_order_they_were_written() {
    // The check value every CRC-32C catalogue lists.
    let unmasked = masked_crc32c(b"123456789").wrapping_sub(0xA282_EAD8).rotate_left(15);
    assert_eq!(unmasked, 0xE306_9283);

    let run = tempfile::tempdir().unwrap();
    write_run(run.path());
    let files = event_files(run.path());
    let events = records(&std::fs::read(&files[0]).unwrap());
    assert_eq!(events[0].get_file_version(), "brain.Event:2");
    assert!(events.iter().all(|event| event.get_wall_time() > 1.7e9));
    let written: Vec<(i64, &str)> = events[2..]
        .iter()
        .map(|event| (event.get_step(), event.get_summary().get_value()[0].get_tag()))
        .collect();
    let epoch = |step| ["loss", "val/accuracy", "distance", "strip"].map(|tag| (step, tag));
    let rest = [
        (0, "note"),
        (2, "same face"),
        (2, "best/accuracy"),
        (0, "_hparams_/experiment"),
        (0, "_hparams_/session_start_info"),
        (0, "_hparams_/session_end_info"),
    ];
    let expected = [epoch(0), epoch(1), epoch(2)].concat().into_iter().chain(rest);
    assert_eq!(written, expected.collect::<Vec<_>>());

    let table = std::fs::read_to_string(run.path().join(METRICS)).unwrap();
    let rows = ["epoch,loss,val/accuracy", "0,1,", "1,0.5,", "2,0.3333333333333333,", "3,,0.75"];
    assert_eq!(table.lines().collect::<Vec<_>>(), rows);
}

fn decoded(base64: &Value) -> Vec<u8> {
    let digit = |symbol: u8| match symbol {
        b'A'..=b'Z' => u32::from(symbol - b'A'),
        b'a'..=b'z' => u32::from(symbol - b'a') + 26,
        b'0'..=b'9' => u32::from(symbol - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = base64.as_str().unwrap().trim_end_matches('=').as_bytes();
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let bits = group.iter().fold(0, |bits, &symbol| bits << 6 | digit(symbol));
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

#[test]
fn tensorboard_reads_everything_back() {
    let Some(python) = python("tensorboard") else { return };
    let runs = tempfile::tempdir().unwrap();
    // A second run into the same folder replaces the first one's curves instead of joining them.
    let mut stale = RunLog::create(&runs.path().join("triplet"));
    stale.scalars(0, &[("loss", 99.0), ("gone", 1.0)]);
    stale.scalars(7, &[("loss", 99.0)]);
    drop(stale);
    write_run(&runs.path().join("triplet"));

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/read_tensorboard.py");
    let run = format!("triplet/{TENSORBOARD}");
    let output = Command::new(python).arg(script).arg(runs.path()).arg(&run).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();

    check_events(&found["accumulator"]);
    check_plugins(&found["served"], &run);
    check_hparams(&found["served"]["hparams"], &run);
    let tags = &found["served"]["tags"][&run];
    let description = tags["loss"]["description"].as_str().unwrap();
    assert!(description.contains("Training loss"), "{tags}");
    check_projector(&found["served"]["projector"]);
}

/// What the event reader saw, value by value.
fn check_events(read: &Value) {
    assert_eq!(read["file_version"], 2.0);
    let third = f64::from(1.0_f32 / 3.0);
    assert_eq!(read["scalars"]["loss"], json!([[0, 1.0], [1, 0.5], [2, third]]));
    assert_eq!(read["scalars"]["val/accuracy"], json!([[0, 0.5], [1, 0.625], [2, 0.75]]));

    let Histogram { min, max, sum, sum_squares, limits, counts } =
        Histogram::of(&DISTANCES).unwrap();
    let expected = json!({
        "min": min, "max": max, "num": 5.0, "sum": sum, "sum_squares": sum_squares,
        "bucket_limit": limits, "bucket": counts,
    });
    let histograms = read["histograms"]["distance"].as_array().unwrap();
    assert_eq!(histograms.len(), 3);
    assert_eq!(histograms[2], json!([2, expected]));

    let pictures = read["images"]["strip"].as_array().unwrap();
    assert_eq!(pictures.len(), 3);
    assert_eq!((&pictures[1]["step"], &pictures[1]["width"]), (&json!(1), &json!(9)));
    assert_eq!(pictures[1]["height"], 4);
    let picture = image::load_from_memory(&decoded(&pictures[1]["png"])).unwrap().to_rgb8();
    assert_eq!(picture, strip());
}

/// What the plugins answer to a browser.
fn check_plugins(served: &Value, run: &str) {
    assert_eq!(served["runs"], json!([run]));
    let steps = |name: &str| -> Vec<i64> {
        served[name].as_array().unwrap().iter().map(|point| point[1].as_i64().unwrap()).collect()
    };
    assert_eq!(steps("scalars"), [0, 1, 2]);
    assert_eq!(steps("histograms"), [0, 1, 2]);
    assert_eq!(served["scalars"][0][2], 1.0);
    let buckets = served["histograms"][0][2].as_array().unwrap();
    let first = json!([0.0, f64::from(3.0_f32 / 30.0), 1.0]);
    assert_eq!((buckets.len(), &buckets[0]), (30, &first));
    assert_eq!(served["images"].as_array().unwrap().len(), 3);
    let picture = image::load_from_memory(&decoded(&served["image"])).unwrap().to_rgb8();
    assert_eq!(picture, strip());

    let note = served["text"][0]["text"].as_str().unwrap();
    assert!(note.contains("<strong>nn4</strong>, grüße 🙂"), "{note}");

    let curve = &served["pr_curve"][run][0];
    assert_eq!(curve["step"], 2);
    // At threshold 0.5 both positives and one negative are called, at 0.75 one positive alone.
    for (threshold, [precision, recall]) in [(100, [2.0 / 3.0, 1.0]), (150, [1.0, 0.5])] {
        let close = |key: &str, expected: f64| {
            (curve[key][threshold].as_f64().unwrap() - expected).abs() < 1e-6
        };
        assert!(close("precision", precision) && close("recall", recall), "{threshold}");
    }
}

/// What the HPARAMS tab shows.
fn check_hparams(hparams: &Value, run: &str) {
    let columns: Vec<_> = hparams["experiment"]["hparamInfos"]
        .as_array()
        .unwrap()
        .iter()
        .map(|info| (info["name"].as_str().unwrap(), info["type"].as_str().unwrap()))
        .collect();
    for wanted in [
        ("lr", "DATA_TYPE_FLOAT64"),
        ("loss", "DATA_TYPE_STRING"),
        ("flip", "DATA_TYPE_BOOL"),
        ("freeze", "DATA_TYPE_STRING"),
    ] {
        assert!(columns.contains(&wanted), "{columns:?}");
    }
    let group = &hparams["groups"]["sessionGroups"][0];
    let values = json!({ "lr": 0.5, "loss": "arcface", "flip": true, "freeze": "a,b" });
    assert_eq!(group["hparams"], values);
    let session = &group["sessions"][0];
    assert_eq!((&session["name"], &session["status"]), (&json!(run), &json!("STATUS_SUCCESS")));
    let metric = &session["metricValues"][0];
    assert_eq!((&metric["name"]["tag"], &metric["value"]), (&json!("best/accuracy"), &json!(0.75)));
}

/// What the projector shows.
fn check_projector(projector: &Value) {
    let embedding = &projector["config"]["embeddings"][0];
    assert_eq!(embedding["tensorName"], "embeddings");
    assert_eq!(embedding["tensorShape"], json!([3, 2]));
    assert_eq!(embedding["sprite"]["singleImageDim"], json!([8, 8]));
    let tensor: Vec<u32> = decoded(&projector["tensor"])
        .chunks(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert_eq!(tensor, EMBEDDINGS.map(f32::to_bits));
    assert_eq!(
        projector["metadata"],
        "name\tpart\tpath\nchris_evans\ttrain\ta/1.png\nmark\\truffalo\ttrain\tb/2.png\n\
         müller\tval\tc/3\\n.png\n"
    );
    let sheet = image::load_from_memory(&decoded(&projector["sprite"])).unwrap().to_rgb8();
    assert_eq!(sheet, sprite().sheet);
}
