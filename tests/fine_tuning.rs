//! Fine-tuning any trunk: what is frozen, when, how fast, and in how many pieces.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{IDENTITIES, TRAIN, draw, fail, run, text, visage, write_faces};
use tch::Tensor;
use visage::models::{Architecture, Backbone, Compute, Mode};
use visage::recognise::ModelCard;
use visage::train::optim::{Optimizer, OptimizerConfig, OptimizerKind};
use visage::weights::{Source, TensorFile};

type Tensors = BTreeMap<String, Tensor>;

#[rustfmt::skip]
const BASE: [&str; 22] = [
    "train-triplet",
    "--backbone",
    "openface",
    "--data",
    "faces",
    "-p",
    "4",
    "-k",
    "2",
    "--seed",
    "7",
    "--blend",
    "1",
    "--optimizer",
    "sgd",
    "--warmup",
    "0",
    "--schedule",
    "constant",
    "--lr=0.002",
    "--precision",
    "f32",
];

/// Trains with SGD, whose steps are as small as the gradients, for some epochs; returns the last
/// weights and what was said.
fn trained(folder: &Path, out: &str, epochs: &str, flags: &[&str]) -> (Tensors, String) {
    let all = [&BASE[..], &["--epochs", epochs, "--out", out], flags].concat();
    let output = visage(folder, &all);
    let said = text(&output.stderr);
    assert!(output.status.success(), "visage {all:?}:\n{said}");
    (last(folder, out), said)
}

fn last(folder: &Path, out: &str) -> Tensors {
    let file = TensorFile::read(&folder.join(out).join("last.safetensors")).unwrap();
    file.tensors.into_iter().collect()
}

/// How far apart two networks are, all weights together.
fn apart(a: &Tensors, b: &Tensors) -> f64 {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    let square = |key: &String| (&a[key] - &b[key]).square().sum(None).double_value(&[]);
    a.keys().map(square).sum::<f64>().sqrt()
}

/// The embedded weights that training starts from.
fn start() -> Tensors {
    let trunk = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&trunk).unwrap();
    trunk.params.snapshot().into_iter().collect()
}

#[test]
fn a_batch_in_pieces_learns_what_a_batch_in_one_piece_learns() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let way = |out: &str, flags: &[&str]| trained(folder.path(), out, "1", flags).0;
    // The last layer alone is linear in its weights: nothing to blow a rounding up.
    let last = ["--unfreeze-every", "9"];
    let (whole, pieces) =
        (way("a", &last), way("b", &[&last[..], &["--micro-batch", "3"]].concat()));
    let (off, moved) = (apart(&whole, &pieces), apart(&whole, &start()));
    assert!(off < 1e-5 * moved, "{off:e} apart, on a way of {moved:e}");

    let (whole, pieces) = (way("c", &[]), way("d", &["--micro-batch", "3"]));
    let (off, moved) = (apart(&whole, &pieces), apart(&whole, &start()));
    // In float32 a rounding here or there turns a ReLU far below.
    assert!(off < 3e-2 * moved, "{off:e} apart, on a way of {moved:e}");
    // Triplets mined within pieces would be others, as with another margin.
    let far = apart(&whole, &way("e", &["--margin", "0.3"]));
    assert!(far > 10.0 * off, "{far:e} apart with another margin, {off:e} in pieces");

    let bn = [&TRAIN[..], &["--micro-batch", "3", "--bn", "train"]].concat();
    let said = fail(folder.path(), &bn);
    assert!(said.contains("--micro-batch requires --bn eval"), "{said}");
}

#[test]
fn kept_maps_of_frozen_blocks_change_nothing_but_the_work() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let blocks = "layer1,layer2,layer6,layer7,layer9,layer10,layer14,layer15,layer16";
    let flags = |more: [&'static str; 4]| {
        [&["--freeze", blocks, "--crop", "off", "--jitter", "off"], &more[..]].concat()
    };
    let nowhere = flags(["--cache-memory", "0", "--cache-disk", "0"]);
    let on_disk = flags(["--cache-memory", "0", "--cache-disk", "100"]);
    let in_memory = flags(["--cache-memory", "100", "--cache-disk", "0"]);
    let (computed, said) = trained(folder.path(), "computed", "1", &nowhere);
    assert!(said.contains("recomputed each time"), "{said}");
    for (out, flags, place) in [("disk", on_disk, "on disk"), ("memory", in_memory, "in memory")] {
        let (kept, said) = trained(folder.path(), out, "1", &flags);
        let note = "the output of the 6 frozen stages is computed once and kept";
        assert!(said.contains(&format!("{note} {place}")), "{said}");
        let (off, moved) = (apart(&computed, &kept), apart(&computed, &start()));
        assert!(off < 2e-3 * moved, "{place}: {off:e} apart, on a way of {moved:e}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path().join("disk")).unwrap().collect();
    assert_eq!(left.len(), 9, "the map file must not outlive the run: {left:?}");
    // With random crops the maps of training pictures cannot be kept; the blocks rest all the same.
    let (cropped, _) = trained(folder.path(), "cropped", "1", &["--freeze", blocks]);
    assert!(
        cropped["layer16.seq_list.0.1_conv.weight"] == computed["layer16.seq_list.0.1_conv.weight"]
    );
    assert!(cropped["layer25.weight"] != computed["layer25.weight"]);
}

#[test]
fn stages_join_the_training_from_the_top_down() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let (start, said) = trained(folder.path(), "one", "1", &["--unfreeze-every", "1"]);
    assert!(said.contains("from epoch 1 on 1 of 11 stages train, down to layer25"), "{said}");
    let (end, said) = trained(folder.path(), "three", "3", &["--unfreeze-every", "1"]);
    assert!(said.contains("from epoch 3 on 3 of 11 stages train, down to layer19"), "{said}");
    let moved = |key: &str| !start[key].equal(&end[key]);
    assert!(moved("layer25.weight") && moved("layer21.seq_list.0.1_conv.weight"));
    assert!(
        moved("layer19.seq_list.0.1_conv.weight") && !moved("layer18.seq_list.0.1_conv.weight")
    );
}

#[test]
fn lower_layers_learn_slower_and_long_gradients_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let (even, _) = trained(folder.path(), "even", "1", &[]);
    let (slow, _) = trained(folder.path(), "slow", "1", &["--lr-decay-by-layer", "0.1"]);
    let start = start();
    let way = |to: &Tensors, key: &str| (&to[key] - &start[key]).norm().double_value(&[]);
    // The first stage is ten below the top: it moves by 1e-10 of what it moves otherwise.
    assert!(way(&even, "layer1.weight") > 1e-5);
    assert!(way(&slow, "layer1.weight") < 1e-3 * way(&even, "layer1.weight"));

    let (_, said) = trained(folder.path(), "clip", "1", &["--clip-grad-norm", "0.001"]);
    assert!(said.contains("gradient "), "{said}");
    let table = std::fs::read_to_string(folder.path().join("clip/metrics.csv")).unwrap();
    assert!(table.lines().next().unwrap().contains("grad_norm"), "{table}");
    for (flag, value) in [("--clip-grad-norm", "0"), ("--lr-decay-by-layer", "1.5")] {
        let said = fail(folder.path(), &[&TRAIN[..], &[flag, value]].concat());
        assert!(said.contains(&format!("{flag} {value}")), "{said}");
    }
}

#[test]
fn an_embedding_layer_and_an_input_size_go_through_all_commands() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_faces(&folder.join("faces"));
    let trunk = ["--backbone", "vgg11", "--weights", "none", "--input-size", "40"];
    let train = ["train-triplet", "--data", "faces", "--epochs", "1", "-p", "4", "-k", "2"];
    run(folder, &[&train[..], &trunk, &["--embedding-dim", "12"]].concat());
    let card = ModelCard::peek(&folder.join("runs/triplet/best.safetensors")).unwrap();
    assert_eq!((card.embedding_dim, card.embedding_layer, card.input.size), (12, true, 40));
    run(folder, &["train-classifier"]);
    let model = TensorFile::read(&folder.join("runs/classifier/best.safetensors")).unwrap();
    assert_eq!(model.tensors["embedding.weight"].size(), [12, 512]);
    assert_eq!(model.tensors["classifier.weight"].size(), [4, 12]);
    assert_eq!(run(folder, &["classify", "faces/ada/1.png"]).lines().count(), 1);
    run(folder, &["embed", "faces", "--out", "rows.npy"]);

    // The layer is kept when the file is fine-tuned further, and missed when it is not asked for.
    let again = ["--weights", "runs/triplet/best.safetensors", "--backbone", "vgg11"];
    let sizes = ["--input-size", "40", "--embedding-dim", "12", "--out", "again"];
    run(folder, &[&train[..], &again, &sizes].concat());
    let said = fail(folder, &[&train[..], &again, &["--input-size", "40"]].concat());
    assert!(said.contains("embedding.weight"), "{said}");
    // A pair network has a head in its place.
    let pairs = ["train-pairs", "--data", "faces", "--input-size", "40", "--epochs", "1"];
    let output = visage(folder, &[&pairs[..], &again].concat());
    let said = text(&output.stderr);
    let left_out = "left out, as the net has no such layer: embedding.bias, embedding.weight";
    assert!(output.status.success() && said.contains(left_out), "{said}");
    let said = fail(folder, &[&train[..], &trunk[..4], &["--input-size", "31"]].concat());
    assert!(said.contains("at least 32x32"), "{said}");
}

#[test]
fn a_classifier_goes_on_any_untouched_trunk() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_faces(&folder.join("faces"));
    let base = ["train-classifier", "--data", "faces", "--epochs", "2"];
    let vgg = ["--backbone", "vgg11", "--trunk", "none", "--input-size", "32"];
    run(folder, &[&base[..], &vgg].concat());
    let card = ModelCard::peek(&folder.join("runs/classifier/best.safetensors")).unwrap();
    assert_eq!((card.architecture.name(), card.input.size), ("vgg11", 32));
    assert_eq!(run(folder, &["classify", "faces/ada/1.png"]).lines().count(), 1);
    let model = ["--backbone", "vgg16", "--trunk", "runs/classifier/best.safetensors"];
    let said = fail(folder, &[&base[..], &model].concat());
    assert!(said.contains("vgg11 trunk"), "{said}");
}

#[test]
fn how_many_pictures_are_kept_changes_nothing_but_the_work() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    for (picture, name) in (0..).zip(IDENTITIES.iter().cycle().take(16)) {
        let face = draw(picture % 4, 8 + picture / 4, 90);
        face.save(folder.path().join(format!("faces/{name}/more{picture}.png"))).unwrap();
    }
    let way =
        |out: &str, memory: &str| trained(folder.path(), out, "1", &["--picture-memory", memory]);
    let (all, said) = way("all", "4096");
    assert!(!said.contains("kept in memory"), "{said}");
    for (out, memory) in [("some", "1"), ("none", "0")] {
        let (weights, said) = way(out, memory);
        assert_eq!(apart(&all, &weights), 0.0, "{memory} MB:\n{said}");
        let kept = if memory == "0" { 0 } else { (1 << 20) / (3 * 96 * 96) };
        let note = format!("note: {kept} of 48 pictures are kept in memory (--picture-memory)");
        assert!(said.contains(&note), "{said}");
    }
}

#[test]
fn a_picture_that_goes_missing_ends_the_run_which_keeps_its_best_model() {
    let folder = tempfile::tempdir().unwrap();
    let faces = folder.path().join("faces");
    write_faces(&faces);
    let best = folder.path().join("gone/best.safetensors");
    let flags = ["--epochs", "100", "--out", "gone", "--picture-memory", "0", "--max-bad", "3"];
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_visage"))
        .args([&BASE[..], &flags].concat())
        .current_dir(folder.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let since = std::time::Instant::now();
    while !best.is_file() {
        assert!(since.elapsed().as_secs() < 120, "no model after two minutes");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let person = std::fs::read_dir(&faces).unwrap().next().unwrap().unwrap().path();
    for picture in std::fs::read_dir(&person).unwrap() {
        std::fs::remove_file(picture.unwrap().path()).unwrap();
    }
    let output = run.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let error = said.lines().last().unwrap();
    assert!(
        error.starts_with("error: ")
            && error.contains(person.file_name().unwrap().to_str().unwrap()),
        "{said}"
    );
    assert!(TensorFile::read(&best).is_ok());
}

/// The network that is validated between epochs is the one that trains: nothing made of older weights
/// stays behind, whoever wrote the new ones.
#[test]
fn what_is_measured_follows_the_training() {
    tch::manual_seed(3);
    let options = (tch::Kind::Float, tch::Device::Cpu);
    let pictures = Tensor::rand([4, 3, 96, 96], options);
    let build = || {
        let mut trunk = Backbone::new(Architecture::OpenFace, tch::Device::Cpu);
        trunk.set_compute(Compute::fast(None)).unwrap();
        trunk
    };
    let trunk = build();
    Source::resolve(None, Architecture::OpenFace).unwrap().load_into(&trunk).unwrap();
    let measure = |trunk: &Backbone| tch::no_grad(|| trunk.embed(&pictures, Mode::EVAL));
    let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
    let tuning = Mode { dropout: true, batch_statistics: false };
    for (kind, mode) in [
        (OptimizerKind::Adam, tuning),
        (OptimizerKind::AdamW, tuning),
        (OptimizerKind::Sgd, tuning),
        (OptimizerKind::Adam, Mode::TRAIN),
    ] {
        let before = measure(&trunk);
        let config = OptimizerConfig { lr: 1e-3, ..OptimizerConfig::new(kind) };
        let mut optimizer = Optimizer::new(config, trunk.params.trainable()).unwrap();
        optimizer.zero_grad().unwrap();
        let weights = Tensor::arange(4 * 128, options).cos().view([4, 128]);
        (trunk.embed(&pictures, mode) * weights).sum(tch::Kind::Float).backward();
        optimizer.step(1e-3).unwrap();
        let copy = build();
        for (ours, theirs) in trunk.params.iter().zip(copy.params.iter()) {
            tch::no_grad(|| theirs.tensor.shallow_clone().copy_(&ours.tensor));
        }
        let (live, fresh) = (measure(&trunk), measure(&copy));
        assert!(apart(&live, &fresh) < 1e-6, "{kind:?} {mode:?}: {}", apart(&live, &fresh));
        assert!(apart(&live, &before) > 1e-4, "{kind:?} {mode:?} has changed nothing");
    }
}

#[test]
fn a_recipe_trains_from_end_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write_faces(&folder.join("faces"));
    let recipe = ["--recipe", "avengers-openface"];
    let short = ["train-triplet", "--data", "faces", "--epochs", "1"];
    run(folder, &[&short[..], &recipe].concat());
    run(folder, &[&["train-classifier", "--epochs", "20"][..], &recipe].concat());
    let read = |run: &str| -> toml::Table {
        let path = folder.join("runs").join(run).join("config.toml");
        toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let (triplet, classifier) = (read("triplet"), read("classifier"));
    // The recipe's, and a flag that wins over it.
    assert_eq!(triplet["pictures-per-identity"].as_integer(), Some(6));
    assert_eq!(triplet["epochs"].as_integer(), Some(1));
    assert_eq!(classifier["lr"].as_float(), Some(0.02));
    let said = fail(folder, &[&["train-pairs", "--data", "faces"][..], &recipe].concat());
    assert!(said.contains("train-triplet"), "{said}");
}

#[test]
fn average_memory_monitor_and_interval_work_together() {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("faces"));
    let flags = ["--model-ema", "0.5", "--xbm", "16", "--xbm-start", "1", "--monitor", "map_at_r"];
    let (averaged, said) = trained(folder.path(), "average", "1", &flags);
    assert!(said.contains("epoch 1: "), "{said}");
    assert!(!said.contains("(best ") || said.contains("(best map_at_r)"), "{said}");
    // An average of the weights changes no step, and `last` has the trained weights.
    let plain = trained(folder.path(), "plain", "1", &flags[2..]).0;
    assert_eq!(apart(&averaged, &plain), 0.0);
    assert!(apart(&averaged, &start()) > 0.0);
    let board = folder.path().join("average/tensorboard");
    let events = std::fs::read_dir(board).unwrap().map(|entry| entry.unwrap().path());
    let events = events.filter(|path| path.to_string_lossy().contains("tfevents"));
    let bytes = std::fs::read(events.last().unwrap()).unwrap();
    for tag in ["_hparams_/session_end_info", "best/map_at_r", "val/r_precision"] {
        assert!(bytes.windows(tag.len()).any(|part| part == tag.as_bytes()), "{tag}");
    }
    assert!(!bytes.windows(9).any(|part| part == b"same_bias"));

    let said = fail(folder.path(), &[&TRAIN[..], &["--monitor", "acc"]].concat());
    assert!(said.contains("--monitor acc") && said.contains("map_at_r"), "{said}");
    let said = fail(folder.path(), &[&TRAIN[..], &["--model-ema", "1"]].concat());
    assert!(said.contains("--model-ema 1"), "{said}");
}

/// What Linux would grant, and kill the program for once it is filled.
#[test]
#[cfg(target_os = "linux")]
fn more_memory_than_there_is_ends_with_the_flags_to_lower() {
    let root = tempfile::tempdir().unwrap();
    write_faces(&root.path().join("faces"));
    let program = assert_cmd::cargo::cargo_bin("visage");
    let train = "train-triplet --backbone vgg11 --weights none --data faces -p 4 -k 8 --input-size 1024 --precision f32";
    // The program sets such a limit itself, to the memory of the machine.
    let command = format!("ulimit -d 1500000; exec '{}' {train}", program.display());
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .current_dir(root.path())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: not enough memory"), "{said}");
    assert!(last.contains("lower --micro-batch"), "{said}");
}

#[test]
fn a_limit_for_a_cache_that_is_not_there_is_noted() {
    let root = tempfile::tempdir().unwrap();
    write_faces(&root.path().join("faces"));
    let (_, said) = trained(root.path(), "a", "1", &["--cache-memory", "64"]);
    assert!(said.contains("note: --cache-memory has no effect without --freeze"), "{said}");
    let freeze = ["--cache-memory", "64", "--freeze", "layer1", "--crop", "off", "--jitter", "off"];
    let (_, said) = trained(root.path(), "b", "1", &freeze);
    assert!(!said.contains("no effect"), "{said}");
}

#[test]
fn a_prefix_that_no_parameter_has_is_refused() {
    let root = tempfile::tempdir().unwrap();
    write_faces(&root.path().join("faces"));
    let said = fail(root.path(), &[&BASE[..], &["--allow-missing", "layer99"]].concat());
    assert!(said.contains("--allow-missing layer99: no parameter of openface starts"), "{said}");
}
