//! `visage bench`: what it reports. How fast is not tested: machines are shared.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;
#[path = "common/python.rs"]
mod python;

use common::{fail, run, unread};
use python::python;
use serde_json::Value;

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_measure_has_a_number_and_a_unit() {
    let folder = tempfile::tempdir().unwrap();
    let face = common::draw(1, 1, 120);
    face.save(folder.path().join("face.png")).unwrap();
    let flags = ["bench", "--repeats", "1", "--batch", "12", "--data", "face.png"];
    let found = rows(&run(folder.path(), &[&flags[..], &["--json"]].concat()));
    let names: Vec<_> = found.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let known = ["load", "forward", "embed", "step", "mine", "classifier", "cold", "cold-memory"];
    // What 16 bits add is there where the processor has them.
    let always: Vec<_> = names.iter().copied().filter(|name| !name.ends_with("-16")).collect();
    assert_eq!(always, known);
    for row in &found {
        assert!(row["visage"].as_f64().unwrap() > 0.0 && !row["unit"].as_str().unwrap().is_empty());
        assert!(row["pytorch"].is_null() && row["ratio"].is_null());
    }
    let table = run(folder.path(), &[&flags[..], &["--only", "mine"]].concat());
    let lines: Vec<_> = table.lines().collect();
    assert!(lines.len() == 2 && lines[1].starts_with("mine "), "{table}");

    let said = fail(folder.path(), &[&flags[..], &["--only", "mine,steps"]].concat());
    assert!(said.contains("--only steps: the measures are load, forward, "), "{said}");
    let pytorch = ["--against-pytorch", "no-python"];
    let said = fail(folder.path(), &[&flags[..], &pytorch, &["--precision", "f16"]].concat());
    assert!(said.contains("leave --precision f16 out"), "{said}");
    let said = fail(folder.path(), &[&flags[..], &pytorch].concat());
    assert!(said.contains("no-python"), "{said}");
}

#[test]
fn a_peer_that_dies_is_an_error_and_an_unread_output_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["bench", "--repeats", "1", "--batch", "12", "--only", "mine"];
    // It says hello and ends: the next question goes into a broken pipe.
    let python = folder.path().join("python");
    let script = "#!/bin/sh\nexec <&-\necho '{\"pytorch\": \"9\"}'\nsleep 1\n";
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let against = ["--against-pytorch", python.to_str().unwrap()];
    let said = fail(folder.path(), &[&flags[..], &against].concat());
    assert!(said.contains("--against-pytorch: "), "{said}");
    let output = unread(folder.path(), &flags);
    assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(0), false), "{output:?}");
    assert!(!common::text(&output.stderr).contains("error"), "{output:?}");
}

#[test]
fn pytorch_does_the_same_work() {
    let Some(python) = python("torch, safetensors, numpy, PIL") else { return };
    let folder = tempfile::tempdir().unwrap();
    common::draw(1, 1, 120).save(folder.path().join("face.png")).unwrap();
    let flags = ["bench", "--repeats", "1", "--batch", "12", "--data", "face.png", "--json"];
    let flags = [&flags[..], &["--only", "load,embed,step,mine,cold"]].concat();
    let python = python.to_string_lossy();
    let found = rows(&run(folder.path(), &[&flags[..], &["--against-pytorch", &python]].concat()));
    let names: Vec<_> = found.iter().map(|row| row["name"].as_str().unwrap()).collect();
    for name in ["load", "embed", "step", "step-plain", "step-original", "mine", "cold"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for row in &found {
        let [ours, theirs, ratio] =
            ["visage", "peer", "ratio"].map(|key| row[key].as_f64().unwrap());
        let wanted = if ["s", "MiB"].contains(&row["unit"].as_str().unwrap()) {
            theirs / ours
        } else {
            ours / theirs
        };
        assert!((ratio / wanted - 1.0).abs() < 1e-6, "{row}");
    }
}

#[test]
fn other_backbones_have_the_measures_that_every_network_has() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["bench", "--backbone", "mobilefacenet", "--repeats", "1", "--batch", "12"];
    let found = rows(&run(folder.path(), &[&flags[..], &["--only", "step", "--json"]].concat()));
    assert_eq!((found.len(), found[0]["name"].as_str()), (1, Some("step")));
    assert!(found[0]["visage"].as_f64().unwrap() > 0.0);
    let said = fail(folder.path(), &[&flags[..], &["--only", "mine"]].concat());
    assert!(said.contains("--only mine") && said.contains("forward-16, step"), "{said}");
}
