//! The commands as a user runs them, on drawn pictures: exit codes, standard output, files.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use common::{IDENTITIES, TRAIN, draw, fail, run, text, unread, visage, write_faces};
use image::{Rgb, RgbImage};
use serde_json::Value;
use visage::models::{Architecture, Backbone};
use visage::recognise::{ModelCard, Recogniser};
use visage::weights::{Source, TensorFile};

/// A folder with faces, a trunk and a classifier, trained once for all tests that only read them.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // Below the build folder: `cargo clean` takes it away.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trained");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        write_faces(&folder.join("faces"));
        run(&folder, &TRAIN);
        run(&folder, &["train-classifier"]);
        folder
    })
}

#[test]
fn a_run_folder_holds_what_the_documentation_says() {
    let folder = trained();
    for run in ["triplet", "classifier"] {
        let run = folder.join("runs").join(run);
        let files = ["best.safetensors", "last.safetensors", "config.toml", "split.csv"];
        for file in files.iter().chain(&["metrics.csv", "summary.json"]) {
            assert!(run.join(file).is_file(), "{}", run.join(file).display());
        }
        let card = ModelCard::peek(&run.join("best.safetensors")).unwrap();
        assert_eq!(card.classes, IDENTITIES);
        assert_eq!(card.data.train + card.data.validation, 32);
        assert_eq!(card.data.fingerprint.len(), 64);
        assert_eq!(card.settings["seed"], if run.ends_with("triplet") { 7 } else { 0 });
    }
    let table = std::fs::read_to_string(folder.join("runs/triplet/metrics.csv")).unwrap();
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 4, "a header, the untouched trunk and two epochs:\n{table}");
    for column in
        ["epoch", "loss", "active", "positive_distance", "knn", "centroid", "verification"]
    {
        assert!(rows[0].split(',').any(|name| name == column), "no column {column}: {}", rows[0]);
    }
    let board = folder.join("runs/triplet/tensorboard");
    let names: Vec<_> = std::fs::read_dir(board)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for wanted in ["events.out.tfevents", "projector_config.pbtxt", "tensors.tsv", "sprite.png"] {
        assert!(names.iter().any(|name| name.starts_with(wanted)), "{wanted} in {names:?}");
    }
    // The classifier kept the trunk's validation pictures out of its own training.
    let split = |run: &str| std::fs::read(folder.join("runs").join(run).join("split.csv")).unwrap();
    assert_eq!(split("triplet"), split("classifier"));
}

#[test]
fn the_trunk_in_a_model_file_has_pytorchs_keys_and_the_classifier_keeps_it() {
    let folder = trained().join("runs");
    let trunk = TensorFile::read(&folder.join("triplet/best.safetensors")).unwrap();
    let model = TensorFile::read(&folder.join("classifier/best.safetensors")).unwrap();
    let backbone = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
    let keys: std::collections::BTreeSet<_> =
        backbone.params.iter().map(|param| param.name.as_str()).collect();
    assert_eq!(
        trunk.tensors.keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>(),
        keys
    );
    for (name, tensor) in &trunk.tensors {
        assert_eq!(tensor, &model.tensors[name], "{name} changed although the trunk is frozen");
    }
    assert_eq!(model.tensors["classifier.weight"].size(), [4, 128]);
}

#[test]
fn the_same_config_gives_bit_identical_weights() {
    let folder = trained();
    let again = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.join("faces"), again.path().join("faces")).unwrap();
    let config = folder.join("runs/triplet/config.toml");
    run(again.path(), &["train-triplet", "--config", config.to_str().unwrap()]);
    for file in ["best.safetensors", "last.safetensors", "metrics.csv", "split.csv"] {
        let read = |root: &Path| std::fs::read(root.join("runs/triplet").join(file)).unwrap();
        assert!(read(folder) == read(again.path()), "{file} differs");
    }
    let other = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder.join("faces"), other.path().join("faces")).unwrap();
    let config = config.to_str().unwrap();
    run(other.path(), &["train-triplet", "--config", config, "--seed", "8"]);
    let weights = |root: &Path| {
        TensorFile::read(&root.join("runs/triplet/last.safetensors")).unwrap().tensors
    };
    assert_ne!(weights(folder)["layer25.weight"], weights(other.path())["layer25.weight"]);
}

#[test]
fn a_ruined_run_keeps_the_untouched_trunk_as_its_best() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    // A learning rate that destroys the trunk in one step.
    let ruined = [&TRAIN[..], &["--lr", "1000", "--warmup", "0", "--strict-numerics"]].concat();
    let output = visage(folder.path(), &ruined);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("stopped in epoch 1") && errors.contains("best model, of epoch 0"),
        "{errors}"
    );
    let path = folder.path().join("runs/triplet/best.safetensors");
    assert_eq!(ModelCard::peek(&path).unwrap().epoch, 0);
    let best = TensorFile::read(&path).unwrap();
    let untouched = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&untouched).unwrap();
    for param in untouched.params.iter() {
        assert_eq!(best.tensors[&param.name], param.tensor, "{}", param.name);
    }
}

#[test]
fn two_pictures_each_leave_nothing_to_validate_on_and_the_last_epoch_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    for (identity, name) in IDENTITIES.iter().enumerate() {
        let own = folder.path().join("faces").join(name);
        std::fs::create_dir_all(&own).unwrap();
        for picture in 0..2 {
            draw(identity as u32, picture, 96).save(own.join(format!("{picture}.png"))).unwrap();
        }
    }
    // Patience must not end a run that has no score to be patient about.
    let said = run(folder.path(), &[&TRAIN[..], &["--patience", "1"]].concat());
    assert!(said.contains("the last epoch"), "{said}");
    run(folder.path(), &["train-classifier"]);
    for (run, epochs) in [("triplet", 2), ("classifier", 60)] {
        let best = folder.path().join("runs").join(run).join("best.safetensors");
        assert_eq!(ModelCard::peek(&best).unwrap().epoch, epochs, "{run}");
    }
    let report = run(folder.path(), &["evaluate", "--data", "faces", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["accuracy"], 1.0, "the head was not trained: {report}");
}

#[test]
fn a_classifier_never_validates_on_what_its_trunk_has_learnt() {
    let folder = tempfile::tempdir().unwrap();
    let faces = folder.path().join("faces");
    write_faces(&faces);
    run(folder.path(), &TRAIN);
    let rows = |run: &str| -> Vec<String> {
        let split = folder.path().join("runs").join(run).join("split.csv");
        std::fs::read_to_string(split).unwrap().lines().map(str::to_owned).collect()
    };
    // Another spelling of the folder, and one more picture.
    draw(0, 99, 90).save(faces.join("ada/9.png")).unwrap();
    let absolute = faces.canonicalize().unwrap();
    run(folder.path(), &["train-classifier", "--data", absolute.to_str().unwrap()]);
    let (trunk, classifier) = (rows("triplet"), rows("classifier"));
    assert_eq!(classifier.len(), trunk.len() + 1);
    for row in &trunk {
        assert!(classifier.contains(row), "{row} changed its part");
    }
}

#[test]
fn a_classifier_on_the_untouched_trunk_is_the_baseline() {
    let folder = trained();
    let weights = "openface-nn4-distilled";
    run(folder, &["train-classifier", "--data", "faces", "--trunk", weights, "--out", "base"]);
    let model = TensorFile::read(&folder.join("base/best.safetensors")).unwrap();
    let start = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&start).unwrap();
    for param in start.params.iter() {
        assert_eq!(model.tensors[&param.name], param.tensor, "{}", param.name);
    }
}

#[test]
fn an_unfinished_run_is_no_default() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/triplet");
    std::fs::create_dir_all(&run).unwrap();
    let best = trained().join("runs/triplet/best.safetensors");
    std::fs::copy(best, run.join("best.safetensors")).unwrap();
    write_faces(&folder.path().join("faces"));
    let output = visage(folder.path(), &["train-classifier", "--data", "faces", "--epochs", "1"]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no trained trunk") && said.contains("dlib-resnet"), "{said}");
}

#[test]
fn frozen_prefixes_do_not_move() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    run(folder.path(), &[&TRAIN[..], &["--freeze", "layer1,layer14"]].concat());
    let last = TensorFile::read(&folder.path().join("runs/triplet/last.safetensors")).unwrap();
    let start = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&start).unwrap();
    for param in start.params.iter() {
        let moved = last.tensors[&param.name] != param.tensor;
        let frozen = param.name.starts_with("layer1.") || param.name.starts_with("layer14.");
        // Batch statistics stay as they are while fine-tuning.
        assert_eq!(moved, param.is_parameter && !frozen, "{}", param.name);
    }
    let said = fail(folder.path(), &[&TRAIN[..], &["--freeze", "layer99"]].concat());
    assert!(said.contains("--freeze layer99") && said.contains("layer25"), "{said}");
}

#[test]
fn a_model_with_nan_in_it_is_refused_by_file_and_tensor() {
    let folder = trained();
    let model = folder.join("runs/classifier/best.safetensors");
    let broken = tempfile::tempdir().unwrap();
    let path = broken.path().join("broken.safetensors");
    for name in ["classifier.bias", "layer1.weight", "gallery.embeddings"] {
        let mut file = TensorFile::read(&model).unwrap();
        let tensor = file.tensors.get_mut(name).unwrap();
        let _ = tensor.view([-1]).get(0).fill_(f64::NAN);
        file.write(&path).unwrap();
        for command in [["classify", "faces/ada/0.png"], ["evaluate", "--data=faces"]] {
            let said = fail(folder, &[&command[..], &["--model", path.to_str().unwrap()]].concat());
            assert!(said.contains("broken.safetensors") && said.contains(name), "{said}");
            assert!(said.contains("not finite") && !said.contains("panicked"), "{said}");
        }
    }
}

#[test]
fn classify_speaks_the_originals_words() {
    let folder = trained();
    let one = run(folder, &["classify", "faces/ada/0.png", "--unknown", "0"]);
    assert!(one.starts_with("ada with ") && one.ends_with("% probability\n"), "{one}");
    let one = run(folder, &["classify", "faces/ada/0.png", "--unknown", "100"]);
    assert!(one.starts_with("UNKNOWN FACE, but similar to ada with "), "{one}");
    let all = run(folder, &["classify", "faces/ada", "faces/bohr/3.png", "--unknown", "0"]);
    let lines: Vec<_> = all.lines().collect();
    assert_eq!(lines.len(), 9);
    assert!(lines[0].starts_with("faces/ada/0.png: "), "{all}");
    assert!(lines[8].starts_with("faces/bohr/3.png: "), "{all}");
    let top = run(folder, &["classify", "faces/ada/0.png", "--top", "3"]);
    assert_eq!(top.lines().count(), 3, "{top}");
}

#[test]
fn an_ambiguous_percentage_is_refused_with_what_to_write() {
    let folder = trained();
    for command in ["classify", "evaluate", "train-classifier"] {
        let data = ["--data", "faces"];
        let data = if command == "classify" { &["faces/ada/0.png"][..] } else { &data };
        let said = fail(folder, &[&[command, "--unknown", "0.9"], data].concat());
        assert!(said.contains("0.9%") && said.contains("90"), "{said}");
    }
    for percent in ["0.9%", "90", "90 %"] {
        run(folder, &["classify", "faces/ada/0.png", "--unknown", percent]);
    }
    let said = fail(folder, &["classify", "faces/ada/0.png", "--unknown", "101"]);
    assert!(said.contains("--unknown 101"), "{said}");
}

#[test]
fn an_impossible_input_size_is_refused_in_a_sentence() {
    let folder = trained();
    for size in ["0", "5000", "100000"] {
        for command in [
            &["train-triplet", "--data", "faces", "--backbone", "vgg11", "--weights", "none"][..],
            &["train-pairs", "--data", "faces", "--backbone", "vgg11", "--weights", "none"],
            &["embed", "faces", "--out", "e.npy", "--backbone", "vgg11", "--weights", "none"],
        ] {
            let said = fail(folder, &[command, &["--input-size", size]].concat());
            assert!(said.contains("--input-size") && said.contains("1024"), "{said}");
        }
    }
    let temporary = tempfile::tempdir().unwrap();
    let config = temporary.path().join("config.toml");
    std::fs::write(&config, "backbone = \"vgg11\"\ninput-size = 100000\n").unwrap();
    for command in ["train-triplet", "train-pairs", "train-classifier"] {
        let said = fail(temporary.path(), &[command, "--config", config.to_str().unwrap()]);
        assert!(said.contains("--input-size 100000") && said.contains("1024"), "{said}");
    }
}

#[test]
fn pictures_of_other_formats_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    draw(0, 0, 96).save(folder.path().join("in/a.png")).unwrap();
    for name in ["b.GIF", "c.tiff", "d", "notes.txt"] {
        std::fs::write(folder.path().join("in").join(name), "x").unwrap();
    }
    let output =
        visage(folder.path(), &["embed", "in", "--backbone", "openface", "--out", "e.csv"]);
    let said = text(&output.stderr);
    let wanted = "note: in: files ignored: 1 without extension, 1 .gif, 1 .tiff";
    assert!(output.status.success() && said.contains(wanted), "{said}");
}

#[test]
fn an_unread_output_ends_quietly_and_keeps_an_exit_code_that_answers() {
    let folder = trained();
    let output = unread(folder, &["models"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let two = ["runs/triplet/best.safetensors", "runs/classifier/best.safetensors"];
    for json in [&[][..], &["--json"]] {
        let output = unread(folder, &[&["weights", "diff"], &two[..], json].concat());
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), String::new()));
    }
    let data = tempfile::tempdir().unwrap();
    draw(0, 0, 96).save(data.path().join("a.png")).unwrap();
    std::fs::write(data.path().join("b.png"), "no picture").unwrap();
    let output = unread(data.path(), &["audit", ".", "--no-detect"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn more_threads_than_cpus_are_one_warning_and_capped() {
    let folder = trained();
    let binary = assert_cmd::cargo::cargo_bin("visage");
    let mut command = std::process::Command::new(binary);
    let output =
        command.args(["doctor", "--threads", "1000"]).current_dir(folder).output().unwrap();
    let (said, checks) = (text(&output.stderr), text(&output.stdout));
    let cpus = std::thread::available_parallelism().unwrap();
    let warning = format!("warning: --threads 1000: {cpus} are used, one per CPU available here\n");
    assert_eq!(said, warning);
    assert!(checks.contains(&format!("{cpus} for computing, {cpus} cores")), "{checks}");
}

#[test]
fn a_larger_picture_is_decoded_only_where_max_pixels_allows() {
    let folder = trained();
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("face.png");
    draw(0, 0, 96).save(&path).unwrap();
    let classify =
        |limit| visage(folder, &["classify", path.to_str().unwrap(), "--max-pixels", limit]);
    let said = text(&classify("9215").stderr);
    assert!(said.contains("face.png") && said.contains("96x96 is more than 9215 pixels"), "{said}");
    assert!(classify("9216").status.success());
}

#[test]
fn names_that_look_like_formulas_are_text_in_tables_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (index, person) in ["=ada", "-bob", "@cleo"].into_iter().enumerate() {
        std::fs::create_dir_all(root.join("faces").join(person)).unwrap();
        for picture in 0..4 {
            let path = root.join("faces").join(person).join(format!("{picture}.png"));
            draw(index as u32, picture, 96).save(path).unwrap();
        }
    }
    let train = ["train-triplet", "--data", "faces", "--backbone", "openface", "--epochs", "1"];
    run(root, &[&train[..], &["--out", "a"]].concat());
    let split = std::fs::read_to_string(root.join("a/split.csv")).unwrap();
    for person in ["=ada", "-bob", "@cleo"] {
        assert!(split.contains(&format!("\n'{person}/0.png,'{person},")), "{split}");
    }
    run(root, &[&train[..], &["--out", "b", "--split", "a/split.csv"]].concat());
    assert_eq!(std::fs::read_to_string(root.join("b/split.csv")).unwrap(), split);
    run(root, &["embed", "faces", "--backbone", "openface", "--out", "e.csv"]);
    let table = std::fs::read_to_string(root.join("e.csv")).unwrap();
    assert!(table.contains(",'=ada,") && table.contains(",'@cleo,"), "{table}");
}

#[test]
fn classify_json_has_the_documented_keys() {
    let folder = trained();
    let output = visage(folder, &["classify", "faces", "--json", "--top", "2"]);
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 32);
    for answer in &lines {
        assert!(Path::new(answer["file"].as_str().unwrap()).starts_with("faces"));
        let probability = answer["probability"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&probability));
        assert!(answer["label"].is_null() || answer["label"] == answer["nearest"]);
        assert!(answer["distance"].as_f64().unwrap() >= 0.0);
        assert!(folder.join(answer["nearest_path"].as_str().unwrap()).is_file());
        assert!(answer["known_probability"].as_f64().unwrap() >= probability);
        assert_eq!(answer["top"].as_array().unwrap().len(), 2);
    }
    // A training face is its own nearest neighbour.
    assert!(lines.iter().any(|answer| answer["distance"].as_f64().unwrap() < 1e-3));
}

#[test]
fn a_bad_picture_is_an_error_line_and_the_others_go_on() {
    let folder = trained();
    let broken = tempfile::tempdir().unwrap();
    let corrupt = broken.path().join("corrupt.png");
    let whole = std::fs::read(folder.join("faces/ada/0.png")).unwrap();
    std::fs::write(&corrupt, &whole[..whole.len() / 2]).unwrap();
    let output = visage(
        folder,
        &["classify", "no/such.png", corrupt.to_str().unwrap(), "faces/ada/0.png", "--json"],
    );
    assert_eq!(output.status.code(), Some(1));
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(errors.contains("error: no/such.png"), "{errors}");
    assert!(errors.contains("corrupt.png"), "{errors}");
}

#[test]
fn evaluate_reports_accuracy_unknowns_and_strangers() {
    let folder = trained();
    let strangers = tempfile::tempdir().unwrap();
    for picture in 0..5 {
        let path = strangers.path().join(format!("{picture}.png"));
        RgbImage::from_pixel(96, 96, Rgb([picture as u8 * 50; 3])).save(path).unwrap();
    }
    let strangers = strangers.path().to_str().unwrap();
    let arguments =
        ["evaluate", "--data", "faces", "--strangers", strangers, "--json", "--confusion", "c.png"];
    let arguments = [&arguments[..], &["--fnir-curve", "f.png"]].concat();
    let report: Value = serde_json::from_str(&run(folder, &arguments)).unwrap();
    assert_eq!(report["pictures"], 32);
    assert!(report["trained_on"].as_u64().unwrap() > 16);
    for key in ["accuracy", "unseen_accuracy", "knn_accuracy", "named", "named_right", "ece"] {
        let value = report[key].as_f64().unwrap_or_else(|| panic!("{key}: {report}"));
        assert!((0.0..=1.0).contains(&value), "{key}: {value}");
    }
    let found = &report["strangers"];
    assert_eq!((&found["pictures"], &found["people"]), (&5.into(), &1.into()));
    // Five faces cannot show that no more than one in ten is named.
    assert!(found["fnir_at_fpir"][0]["reason"].as_str().unwrap().contains("it takes 10"));
    let known = &found["known"];
    let counts = ["right", "wrong", "unknown"].map(|key| known[key].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 32 - report["trained_on"].as_u64().unwrap());
    assert!((0.0..=1.0).contains(&found["oscr"]["value"].as_f64().unwrap()), "{found}");
    assert!(image::open(folder.join("f.png")).unwrap().width() > 200);
    let matrix = report["confusion"]["matrix"].as_array().unwrap();
    let counted: u64 = matrix
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(counted, 32);
    assert_eq!(matrix[0].as_array().unwrap().len(), 5, "four identities and UNKNOWN");
    assert!(image::open(folder.join("c.png")).unwrap().width() > 200);
    let table = run(folder, &["evaluate", "--data", "faces"]);
    assert!(table.contains("accuracy") && table.contains("dirac"), "{table}");
}

#[test]
fn a_false_positive_rate_is_kept_or_refused() {
    let folder = trained();
    let train = ["train-classifier", "--data", "faces", "--backbone", "openface", "--epochs", "2"];
    let said = run(folder, &[&train[..], &["--fpir", "3%", "--out", "fpir"]].concat());
    assert!(said.contains("3.0 % of strangers get a name (95 % interval "), "{said}");
    assert!(said.contains("measured on 3460 embedded strangers"), "{said}");
    let card = run(folder, &["info", "fpir"]);
    assert!(card.contains("3.0 % of strangers get a name"), "{card}");
    for (flags, reason) in [
        (&["--fpir", "0.01%"][..], "3460 strangers can show no less than 0.09%"),
        (&["--fpir", "1%", "--strangers", "faces/ada"], "--strangers"),
        (&["--fpir", "1%", "--unknown", "50"], "--unknown"),
        (&["--fpir", "100"], "a percentage above 0 and below 100"),
        (&["--fpir", "1%", "--trunk", "none"], "no strangers"),
    ] {
        let error = fail(folder, &[&train[..], flags, &["--out", "refused"]].concat());
        assert!(error.contains(reason), "{flags:?}: {error}");
    }
}

#[test]
fn embeddings_come_in_three_formats_with_paths_and_labels() {
    let folder = trained();
    let embed = |out: &'static str| ["embed", "faces", "--backbone", "openface", "--out", out];
    for out in ["e.npy", "e.safetensors"] {
        run(folder, &embed(out));
    }
    // Nothing is overwritten unasked, nor is the table beside an .npy.
    std::fs::write(folder.join("record.csv"), "of something else").unwrap();
    for (out, existing) in [("e.csv", "e.csv"), ("record.npy", "record.csv")] {
        let said = fail(folder, &embed(out));
        assert!(said.contains(&format!("{existing}: already exists")), "{said}");
        assert!(said.contains("--force"), "{said}");
    }
    assert!(!folder.join("record.npy").exists());
    run(folder, &[&embed("e.csv")[..], &["--force"]].concat());
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let bytes = read("e.npy");
    let array = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(array.shape(), [32, 128]);
    let values: Vec<f32> = array.into_vec().unwrap();
    let file = TensorFile::read(&folder.join("e.safetensors")).unwrap();
    assert_eq!(Vec::<f32>::try_from(file.tensors["embeddings"].flatten(0, -1)).unwrap(), values);
    let table = text(&read("e.csv"));
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    for (index, row) in rows.records().enumerate() {
        let row = row.unwrap();
        assert_eq!(row[1], *IDENTITIES[index / 8]);
        assert_eq!(row[2].parse::<f32>().unwrap(), values[index * 128]);
    }
    let length: f32 = values[..128].iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-4, "not on the unit sphere: {length}");
    let said = fail(folder, &["embed", "faces", "--backbone", "openface", "--out", "e.txt"]);
    assert!(said.contains("--out e.txt") && said.contains(".npy"), "{said}");
}

#[test]
fn tsne_draws_the_same_picture_twice() {
    let folder = trained();
    let draw = |name: &str| {
        run(folder, &["tsne", "--data", "faces", "--out", name, "--iterations", "100"]);
        std::fs::read(folder.join(name)).unwrap()
    };
    assert!(draw("t1.png") == draw("t2.png"));
}

#[test]
fn an_exported_classifier_gives_embeddings_and_calibrated_logits() {
    use tch::{CModule, IValue, Tensor};

    let folder = trained();
    let model = "runs/classifier/best.safetensors";
    let said = run(folder, &["export", model, "faces.pt"]);
    assert!(said.contains("embedding [N, 128], logits [N, 4]"), "{said}");
    let said = run(folder, &["export", model, "faces.bin", "--format", "onnx", "--batch", "2"]);
    assert!(said.contains("pictures [2, 3, 96, 96]"), "{said}");
    let said = fail(folder, &["export", model, "faces.pt"]);
    assert!(said.contains("faces.pt: already exists") && said.contains("--force"), "{said}");
    assert!(std::fs::read(folder.join("faces.bin")).unwrap().windows(6).any(|w| w == b"logits"));

    let recogniser = Recogniser::load(&folder.join(model), tch::Device::Cpu).unwrap();
    let classifier = recogniser.classifier().unwrap();
    let drawn: Vec<_> = (0..4).map(|identity| draw(identity, 1, 96)).collect();
    let embeddings = recogniser.embed(&drawn).unwrap();
    let store = visage::data::PictureStore::of(&drawn, 96);
    let xs = store.batch(&store.all(), tch::Device::Cpu).unwrap();
    let module = CModule::load(folder.join("faces.pt")).unwrap();
    let IValue::Tuple(found) = module.forward_is(&[IValue::Tensor(xs)]).unwrap() else { panic!() };
    let [embedding, logits] = found.try_into().unwrap();
    let values = |value| Vec::<f32>::try_from(Tensor::try_from(value).unwrap().flatten(0, -1));
    let near = |a: &f32, b: &f32| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
    let embedding = values(embedding).unwrap();
    assert!(embedding.iter().zip(embeddings.values()).all(|(a, b)| near(a, b)));
    let temperature = classifier.calibration.temperature as f32;
    let wanted = classifier.head.logits(&embeddings).unwrap().concat();
    let logits = values(logits).unwrap();
    assert_eq!(logits.len(), wanted.len());
    assert!(logits.iter().zip(&wanted).all(|(a, b)| near(a, &(b / temperature))), "{logits:?}");
}

#[test]
fn export_says_what_it_can_write_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let said = fail(here, &["export", "none", "m.pth", "--backbone", "openface"]);
    assert!(said.contains(".onnx") && said.contains("weights convert"), "{said}");
    let said = fail(here, &["export", "no.safetensors", "m.onnx"]);
    assert!(said.contains("no.safetensors"), "{said}");
    let said = fail(here, &["export", "none", "m.onnx", "--backbone", "openface", "--batch", "0"]);
    assert!(said.contains("dynamic"), "{said}");
    assert_eq!(std::fs::read_dir(here).unwrap().count(), 0, "nothing may be left behind");
}

#[test]
fn models_lists_all_and_shows_one() {
    let here = tempfile::tempdir().unwrap();
    let here = here.path();
    let table = run(here, &["models"]);
    for architecture in Architecture::ALL {
        let name = format!("\n{} ", architecture.name());
        assert!(table.contains(&name), "no {name} in\n{table}");
    }
    assert!(table.contains("3,733,968") && table.contains("(Apache-2.0)"), "{table}");
    let page = run(here, &["models", "densenet121"]);
    for part in ["features.denseblock4", "6,953,856", "arXiv:1608.06993", "BSD-3-Clause", "29x29"] {
        assert!(page.contains(part), "no {part} in\n{page}");
    }
    let all: Value = serde_json::from_str(&run(here, &["models", "--json"])).unwrap();
    assert_eq!(all.as_array().unwrap().len(), Architecture::ALL.len());
    let one: Value = serde_json::from_str(&run(here, &["models", "openface", "--json"])).unwrap();
    let blocks = one["blocks"].as_array().unwrap();
    let sum: u64 = blocks.iter().map(|block| block["parameters"].as_u64().unwrap()).sum();
    assert_eq!(sum, 3_733_968);
    assert_eq!(blocks[0]["name"], "layer1");
    let said = fail(here, &["models", "opnface"]);
    assert!(said.contains("similar") && said.contains("'openface'"), "{said}");
}

/// OMP_DISPLAY_ENV has libgomp print its settings when it is loaded.
#[test]
fn openmp_threads_spin_briefly_unless_the_user_says_so() {
    let spin_count = |variables: &[(&str, &str)]| {
        let mut command = Command::cargo_bin("visage").unwrap();
        command.env_remove("OMP_WAIT_POLICY").env_remove("GOMP_SPINCOUNT");
        let command = command.env("OMP_DISPLAY_ENV", "verbose").envs(variables.to_vec());
        let output = command.arg("--version").output().unwrap();
        assert!(output.status.success() && output.stdout.starts_with(b"visage "));
        let text = String::from_utf8(output.stderr).unwrap();
        let line = text.lines().rev().find(|line| line.contains("GOMP_SPINCOUNT")).unwrap();
        line.split('\'').nth(1).unwrap().to_owned()
    };
    assert_eq!(spin_count(&[]), "10000");
    assert_eq!(spin_count(&[("GOMP_SPINCOUNT", "7")]), "7");
    assert!(spin_count(&[("OMP_WAIT_POLICY", "active")]).parse::<u64>().unwrap() > 1_000_000);
}

#[test]
fn doctor_tells_what_is_there_and_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let said = run(empty.path(), &["doctor"]);
    let version = visage::native::version::built_for();
    assert!(said.contains(&format!("built for {version}")), "{said}");
    assert!(said.contains("visage train-triplet"), "no advice: {said}");
    let report: Value = serde_json::from_str(&run(empty.path(), &["doctor", "--json"])).unwrap();
    assert_eq!(report["libtorch"]["state"], "ok");
    assert_eq!(report["newest_model"]["state"], "missing");
}

#[test]
fn cuda_that_is_not_there_is_refused_with_the_reason() {
    if visage::native::cuda::load().is_ok() {
        eprintln!("skipped: CUDA works here");
        return;
    }
    let folder = trained();
    let output = Command::cargo_bin("visage")
        .unwrap()
        .current_dir(folder)
        .args(["classify", "faces/ada/0.png", "--device", "cuda"])
        .output()
        .unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.starts_with("error: --device cuda:0: "), "{errors}");
    assert_eq!(errors.matches("error:").count(), 1, "printed once: {errors}");
}

#[test]
fn bad_input_names_the_flag_and_the_fix() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let cases: [(&[&str], &[&str]); 14] = [
        (&["train-triplet", "--data", "nowhere"], &["nowhere"]),
        (&["train-triplet", "--margin", "-1"], &["--margin -1", "above 0"]),
        // A flag that would change nothing is an error that names what takes it.
        (
            &["train-triplet", "--loss", "supcon", "--margin", "0.3"],
            &["--margin", "--loss supcon", "triplet, circle, arcface, cosface"],
        ),
        (&["train-triplet", "--loss", "nt-xent", "--margin", "0.2"], &["--loss nt-xent"]),
        (
            &["train-triplet", "--loss", "multi-similarity", "--miner", "semi-hard"],
            &["--miner", "losses that take it: triplet"],
        ),
        (&["train-triplet", "--loss", "arcface", "--hinge", "soft"], &["--hinge"]),
        (&["lr-find", "--loss", "circle", "--distance", "cosine"], &["--distance"]),
        (&["train-triplet", "--batch-size", "16"], &["--batch-size", "--triplets"]),
        (&["train-triplet", "--val-fraction", "1"], &["--val-fraction 1"]),
        (&["train-triplet", "-k", "1"], &["--pictures-per-identity 1"]),
        (
            &["train-triplet", "--weights", "no.pth"],
            &["--weights no.pth", "openface-nn4-distilled"],
        ),
        (&["train-classifier"], &["train-triplet"]),
        (&["classify", "x.png"], &["train-classifier"]),
        (&["classify", "x.png", "--model", "no.safetensors"], &["no.safetensors"]),
    ];
    for (arguments, parts) in cases {
        let said = fail(here, arguments);
        for part in parts {
            assert!(said.contains(part), "visage {arguments:?} should say {part:?}:\n{said}");
        }
    }
    assert_eq!(std::fs::read_dir(here).unwrap().count(), 0, "nothing may be left behind");
}
