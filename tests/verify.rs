//! `visage weights verify` as a user runs it. `tests/golden/openface_reference.safetensors` is what
//! PyTorch computed with the embedded weights:
//!
//! ```text
//! python tests/parity/reference.py openface tests/golden/openface_reference.safetensors \
//!     --weights pretrained/openface-nn4-distilled.safetensors --gradients --values 12
//! ```
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tch::{Kind, Tensor};
use visage::weights::TensorFile;
use visage::weights::reference::ABOUT;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn reference() -> PathBuf {
    Path::new(ROOT).join("tests/golden/openface_reference.safetensors")
}

fn weights() -> PathBuf {
    Path::new(ROOT).join("pretrained/openface-nn4-distilled.safetensors")
}

fn verify(reference: &Path, model: &Path, flags: &[&str]) -> Output {
    Command::cargo_bin("visage")
        .unwrap()
        .args(["weights", "verify", "--threads", "1", "--device", "cpu", "--against"])
        .args([reference, model])
        .args(flags)
        .output()
        .unwrap()
}

/// Standard output of a run that ends with `code`; nothing may be said to be an error below 2.
fn answer(output: &Output, code: i32) -> String {
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{errors}");
    assert!(!errors.contains("error"), "{errors}");
    out
}

/// The error a run ends with.
fn error(output: &Output) -> String {
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{out}{errors}");
    assert!(errors.starts_with("error: ") && errors.matches("error:").count() == 1, "{errors}");
    errors
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A copy of a file with something changed.
fn changed(folder: &Path, of: &Path, change: impl FnOnce(&mut TensorFile)) -> PathBuf {
    let mut file = TensorFile::read(of).unwrap();
    change(&mut file);
    let path = folder.join("changed.safetensors");
    file.write(&path).unwrap();
    path
}

/// The description of the reference, with something replaced.
fn described(folder: &Path, from: &str, to: &str) -> PathBuf {
    changed(folder, &reference(), |file| {
        let about = file.metadata.get_mut(ABOUT).unwrap();
        assert!(about.contains(from), "{about}");
        *about = about.replacen(from, to, 1);
    })
}

#[test]
fn the_embedded_weights_compute_what_pytorch_computes() {
    let out = answer(&verify(&reference(), &weights(), &[]), 0);
    assert!(out.starts_with("openface, eval mode, float32, input [1, 3, 96, 96]"), "{out}");
    for block in ["layer1 ", "layer14 ", "layer25 ", "results ", "gradients "] {
        assert!(out.lines().any(|line| line.starts_with(block)), "{block}: {out}");
    }
    // 37 convolutions and batch normalisations each, a linear layer; the embedding; 150 gradients.
    assert!(out.ends_with("all 226 tensors agree\n"), "{out}");
}

#[test]
fn a_changed_weight_is_found_in_its_layer() {
    let folder = tempfile::tempdir().unwrap();
    let key = "layer16.seq_list.0.4_conv.weight";
    let model = changed(folder.path(), &weights(), |file| {
        let weight = file.tensors.get_mut(key).unwrap();
        *weight = &*weight * 1.001;
    });
    let out = answer(&verify(&reference(), &model, &[]), 1);
    let last = out.lines().last().unwrap();
    assert!(last.starts_with("first difference: layer layer16.seq_list.0.4_conv [1, 256, 6, 6]: "));
    assert!(last.contains("relative, at [0, ") && last.ends_with(" more"), "{last}");
    // Everything before agrees, and one per mille is what was changed.
    let report: Value =
        serde_json::from_str(&answer(&verify(&reference(), &model, &["--json"]), 1)).unwrap();
    assert_eq!(report["agree"], false);
    assert_eq!(report["first"]["name"], "layer16.seq_list.0.4_conv");
    let off = report["first"]["difference"].as_f64().unwrap();
    assert!((5e-4..2e-3).contains(&off), "{off}");
    answer(
        &verify(&reference(), &model, &["--tolerance", "0.5", "--gradient-tolerance", "0.5"]),
        0,
    );
}

#[test]
fn keys_that_are_missing_unexpected_or_of_another_shape_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let model = changed(here, &weights(), |file| {
        file.tensors.retain(|key, _| !key.starts_with("layer25."));
        file.tensors
            .insert("layer99.weight".into(), Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)));
    });
    let out = answer(&verify(&reference(), &model, &[]), 1);
    for part in ["layer25.weight, layer25.bias", "missing", "layer99.weight", "not used"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let report: Value =
        serde_json::from_str(&answer(&verify(&reference(), &model, &["--json"]), 1)).unwrap();
    assert_eq!(report["keys"]["missing"][0], "layer25.weight");
    assert_eq!(report["keys"]["unexpected"][0], "layer99.weight");

    let model = changed(here, &weights(), |file| {
        let bias = file.tensors.get_mut("layer1.bias").unwrap();
        *bias = bias.slice(0, 0, 63, 1);
    });
    let out = answer(&verify(&reference(), &model, &[]), 1);
    assert!(out.contains("layer1.bias has shape [63] in the file, [64] in the net"), "{out}");
}

#[test]
fn what_may_be_missing_leaves_the_layers_before_it_to_compare() {
    let folder = tempfile::tempdir().unwrap();
    let model = changed(folder.path(), &weights(), |file| {
        file.tensors.retain(|key, _| !key.starts_with("layer25."));
    });
    let out = answer(&verify(&reference(), &model, &["--allow-missing", "layer25"]), 0);
    assert!(
        out.ends_with("74 tensors agree; layer25.weight, layer25.bias were not compared\n"),
        "{out}"
    );
}

#[test]
fn another_architecture_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let said = error(&verify(&reference(), &weights(), &["--backbone", "vgg16"]));
    assert!(said.contains("is a reference of openface; --backbone is vgg16"), "{said}");
    // The description says facenet, its keys are openface's.
    let other = described(folder.path(), "\"openface\"", "\"facenet\"");
    let said = error(&verify(&other, &weights(), &[]));
    assert!(said.contains("its facenet has different keys"), "{said}");
    let strange = folder.path().join("strange.safetensors");
    let mut file = TensorFile::default();
    file.tensors.insert("conv0.weight".into(), Tensor::from(1f32));
    file.write(&strange).unwrap();
    let said = error(&verify(&reference(), &strange, &[]));
    assert!(said.contains("has no tensor of openface"), "{said}");
}

#[test]
fn a_reference_that_is_none_or_damaged_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let refused = |reference: &Path, part: &str| {
        let said = error(&verify(reference, &weights(), &[]));
        assert!(said.contains(part) && said.contains(".safetensors: "), "{part}: {said}");
    };
    refused(&weights(), "is no reference");
    refused(&described(here, "\"format\":1", "\"format\":9"), "format 9; 1 can be read");
    refused(&described(here, "\"eval\"", "\"both\""), "its description cannot be read");
    refused(&described(here, "activation:layer1\"", "activation:layer0\""), "not in the file");
    refused(&described(here, "[1,64,48,48]", "[1,1,1,2]"), "does not fit its shape");
    refused(
        &described(here, "[1,64,48,48]", "[1,9223372036854775807,9]"),
        "does not fit its shape",
    );
    let no_input = changed(here, &reference(), |file| drop(file.tensors.remove("input")));
    refused(&no_input, "holds no input");
    let float = changed(here, &reference(), |file| {
        let input = file.tensors.get_mut("input").unwrap();
        *input = input.to_kind(Kind::Float);
    });
    refused(&float, "not of dtype uint8");
    let small = changed(here, &reference(), |file| {
        let input = file.tensors.get_mut("input").unwrap();
        *input = input.slice(2, 0, 90, 1);
    });
    let said = error(&verify(&small, &weights(), &[]));
    assert!(said.contains("90x96") && said.contains("exactly 96x96"), "{said}");
    let said = error(&verify(&reference(), &weights(), &["--tolerance", "NaN"]));
    assert!(said.contains("--tolerance NaN"), "{said}");
}

#[test]
fn a_layer_of_another_shape_or_name_is_a_difference() {
    let folder = tempfile::tempdir().unwrap();
    let other = described(folder.path(), "[1,64,48,48]", "[1,64,24,96]");
    let out = answer(&verify(&other, &weights(), &[]), 1);
    assert!(
        out.contains("first difference: layer layer1 [1, 64, 24, 96]: shape [1, 64, 48, 48] here")
    );
    let other = changed(folder.path(), &reference(), |file| {
        let about = file.metadata.get_mut(ABOUT).unwrap();
        *about = about.replacen("activation:layer1\"", "activation:layer0\"", 1);
        let values = file.tensors.remove("activation:layer1").unwrap();
        file.tensors.insert("activation:layer0".into(), values);
    });
    let out = answer(&verify(&other, &weights(), &[]), 1);
    assert!(
        out.contains("first difference: layer layer0 [1, 64, 48, 48]: Visage has none; 1 more"),
        "{out}"
    );
}
