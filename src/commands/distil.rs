//! `visage distil`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};
use tch::Device;

use super::context::Context;
use super::output::{count, line, quoted};
use super::training::{SHARES, device_summary, plan, print_figures, resolve_auto, train};
use super::trunk::{Bare, Built, EMBEDDERS, Loaded, main_face, open};
use crate::cli::TrunkChoice;
use crate::data::folder::fingerprint;
use crate::data::formats;
use crate::data::pairs_file::PairList;
use crate::data::picture;
use crate::models::layers::Linear;
use crate::models::{Architecture, Backbone, Params};
use crate::progress::Reporter;
use crate::recognise::face_cuts::FaceCuts;
use crate::recognise::{DataCard, ModelCard, Viewer};
use crate::train::distil::{DistilFaces, DistilTask, MAX_HELD_OUT, ValidationPairs};
use crate::train::fit_result::FitResult;
use crate::train::optim::Optimizer;
use crate::train::run_folder::RunFolder;
use crate::train::set_up::settings_json;
use crate::train::settings::DistilSettings;
use crate::weights::Source;
use crate::{Error, Result};

pub fn run(context: &Context, mut settings: DistilSettings) -> anyhow::Result<ExitCode> {
    settings.check()?;
    let say = &context.say;
    let device = context.seed(settings.seed)?;
    let teacher = open_teacher(context, &settings.teacher)?;
    // The teacher's weights were drawn and dropped; the student's follow the seed.
    tch::manual_seed(settings.seed as i64);
    let (mut student, source) = build_student(context, &settings, device)?;

    let detect = settings.detect;
    let teacher_viewer = teacher.viewer(context, detect, None)?;
    let card = ModelCard::of_trunk(&student, &source);
    let student_viewer = || main_face(context, &card, detect);
    let pairs = match (&settings.pairs, &settings.pairs_data) {
        (Some(file), Some(root)) => {
            formats::open_packed(root)?;
            let list = PairList::read(file, root)?;
            if let Some(skipped) = list.describe_skipped(3) {
                say.warn(&format!("left out {skipped}"));
            }
            Some((list, root.as_path()))
        }
        _ => None,
    };
    let files = collect(&settings.data, pairs.as_ref(), say)?;
    let (faces, names) =
        cut_training_faces(&files, teacher_viewer, student_viewer()?, &settings, say)?;
    let pairs = match &pairs {
        Some((list, _)) => Some(cut_pairs(list, student_viewer()?, say)?),
        None => None,
    };
    settings.fill_in(&source, student.input.size);
    let framing = student_viewer()?.faces_framing();

    let teacher = teacher.into_trunk()?.backbone;
    teacher.params.freeze_all();
    let (projection, extra) = projection(&student, &teacher);
    if projection.is_some() {
        say.line(&format!(
            "note: {}-d embeddings for a {}-d teacher: a linear layer between them serves the cosine \
             term and is dropped afterwards",
            student.embedding_dim, teacher.embedding_dim
        ));
    }
    let mut tuning = settings.tuning();
    let deterministic = context.common.deterministic;
    resolve_auto(&mut tuning, &source, &mut student, deterministic, say)?;
    settings.precision = tuning.precision;
    say.line(&format!("training: {}", device_summary(device, &tuning)));
    let card = ModelCard {
        embedding_layer: settings.embedding_dim.is_some(),
        framing,
        seed: settings.seed,
        data: data_card(&settings.data, &faces, names)?,
        settings: settings_json(&settings)?,
        ..ModelCard::of_trunk(&student, &source)
    };
    let mut trainable = student.params.trainable();
    trainable.extend(extra.trainable());
    let mut optimizer = Optimizer::new(settings.schedule.optimizer(settings.lr), trainable)?;
    let run = context.run_folder(&settings.out, "distil", &settings)?;
    run.check_data(&card.data, say)?;
    let plan = plan(&settings.schedule, settings.epochs, settings.lr, &student);
    let networks = (&teacher, &student);
    let mut task =
        DistilTask::new(networks, projection.as_ref(), &faces, pairs.as_ref(), &card, &settings)?;
    let outcome = train(context, &mut task, &mut optimizer, &plan, &run, ("distil", &settings))?;
    summary(&outcome, &run)?;
    Ok(ExitCode::SUCCESS)
}

/// An architecture with its pretrained weights, a model file or a run folder.
fn open_teacher(context: &Context, name: &str) -> Result<Loaded> {
    let backbone = Architecture::from_str(name, false).ok();
    let model = backbone.is_none().then(|| PathBuf::from(name));
    if let Some(path) = model.as_ref().filter(|path| !path.exists()) {
        let known: Vec<_> = Architecture::ALL.iter().map(|one| one.name()).collect();
        return Err(Error::Config(format!(
            "--teacher {}: neither a model file or run folder, nor one of {}",
            path.display(),
            known.join(", ")
        )));
    }
    let choice =
        TrunkChoice { model, backbone, weights: None, allow_missing: Vec::new(), input_size: None };
    let loaded = open(context, &choice, EMBEDDERS)?;
    match &loaded {
        Loaded::Bare(built) if built.source == Source::Random => Err(Error::Config(format!(
            "--teacher {name}: Visage has no pretrained weights for it; name a model file"
        ))),
        Loaded::Pairs { .. } => Err(Error::Config(format!(
            "--teacher {name}: this is a pair network; name a trunk or a classifier"
        ))),
        _ => Ok(loaded),
    }
}

fn build_student(
    context: &Context,
    settings: &DistilSettings,
    device: Device,
) -> Result<(Backbone, Source)> {
    let bare = Bare {
        architecture: settings.backbone,
        weights: settings.trunk.weights.as_deref(),
        allow_missing: &settings.trunk.allow_missing,
        embedding_dim: settings.embedding_dim,
        input_size: settings.trunk.input_size,
    };
    let Built { backbone, source, line } = bare.build(device)?;
    context.say.line(&format!("student: {line}"));
    Ok((backbone, source))
}

/// The pictures of all folders, without those of the people of the validation pairs.
fn collect(
    folders: &[PathBuf],
    pairs: Option<&(PairList, &Path)>,
    say: &Reporter,
) -> Result<Vec<PathBuf>> {
    let (mut people, mut pictures) = (BTreeSet::new(), BTreeSet::new());
    if let Some((list, root)) = pairs {
        for path in list.pairs.iter().flat_map(|pair| [&pair.a, &pair.b]) {
            // A picture that lies in no folder of its own has no owner that could be recognised.
            if path.strip_prefix(root).is_ok_and(|below| below.components().count() > 1) {
                people.insert(picture::owner(root, path));
            }
            pictures.extend(path.canonicalize());
        }
    }
    let (mut files, mut left_out, mut met) = (Vec::new(), 0, BTreeSet::new());
    for folder in folders {
        formats::open_packed(folder)?;
        let found = picture::walk(folder)?;
        if found.is_empty() {
            return Err(Error::Data(format!("--data {}: contains no pictures", folder.display())));
        }
        for path in found {
            let owner = picture::owner(folder, &path);
            let is_same = || path.canonicalize().is_ok_and(|path| pictures.contains(&path));
            if people.contains(&owner) || (!pictures.is_empty() && is_same()) {
                left_out += 1;
                met.insert(owner);
            } else {
                files.push(path);
            }
        }
    }
    if left_out > 0 {
        say.line(&format!(
            "left out of training: {} of {} in the validation pairs",
            count(left_out, "picture"),
            count(met.len(), "folder")
        ));
    }
    match files.is_empty() {
        true => Err(Error::Data(
            "--data: all pictures are of people in --pairs; nothing is left to train on".into(),
        )),
        false => Ok(files),
    }
}

fn cut(
    files: &[PathBuf],
    viewer: Viewer,
    others: &[Viewer],
    title: &str,
    say: &Reporter,
) -> Result<FaceCuts> {
    let bar = say.progress(title, files.len() as u64, "pictures");
    let cuts = FaceCuts::read(files, viewer, others, |count| bar.inc(count as u64))?;
    drop(bar);
    let all = count(files.len(), "picture");
    for (number, what) in [
        (cuts.unreadable.len(), "cannot be read and are left out"),
        (cuts.faceless, "have no face that was found and are left out"),
        (cuts.whole, "have no face that was found and are used as they are"),
    ] {
        if number > 0 {
            let first = cuts.unreadable.first().filter(|_| what.starts_with("cannot"));
            let first = first.map(|error| format!(": {error}")).unwrap_or_default();
            say.warn(&format!("{number} of {all} {what}{first}"));
        }
    }
    Ok(cuts)
}

/// The faces to train on and those held out, and the pictures they are from.
fn cut_training_faces(
    files: &[PathBuf],
    teacher: Viewer,
    student: Viewer,
    settings: &DistilSettings,
    say: &Reporter,
) -> Result<(DistilFaces, Vec<PathBuf>)> {
    let FaceCuts { files, mut stores, .. } = cut(files, teacher, &[student], "faces", say)?;
    let (Some(student), Some(teacher)) = (stores.pop(), stores.pop()) else {
        return Err(Error::Data("--data: no faces".into()));
    };
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(settings.seed));
    let held_out = (settings.val_fraction * files.len() as f64).round() as usize;
    let mut held_out = order.split_off(order.len() - held_out.min(order.len()));
    held_out.truncate(MAX_HELD_OUT);
    if order.len() < 2 {
        let text =
            format!("--data: {} to train on; at least 2 are needed", count(order.len(), "face"));
        return Err(Error::Data(text));
    }
    say.line(&format!(
        "data: {} to train on, {} held out",
        count(order.len(), "face"),
        held_out.len()
    ));
    Ok((DistilFaces { teacher, student, train: order, held_out }, files))
}

/// The faces of the pairs as the student sees them.
fn cut_pairs(list: &PairList, viewer: Viewer, say: &Reporter) -> Result<ValidationPairs> {
    let paths: BTreeSet<&PathBuf> = list.pairs.iter().flat_map(|pair| [&pair.a, &pair.b]).collect();
    let paths: Vec<PathBuf> = paths.into_iter().cloned().collect();
    let FaceCuts { files, mut stores, .. } = cut(&paths, viewer, &[], "pairs", say)?;
    let rows: BTreeMap<&PathBuf, usize> =
        files.iter().enumerate().map(|(row, path)| (path, row)).collect();
    let complete = list
        .pairs
        .iter()
        .filter_map(|pair| Some((pair, (*rows.get(&pair.a)?, *rows.get(&pair.b)?))));
    let (mut places, mut same, mut folds) = (Vec::new(), Vec::new(), Vec::new());
    for (pair, place) in complete {
        places.push(place);
        same.push(pair.label.is_same());
        folds.push(pair.fold);
    }
    if !(same.contains(&true) && same.contains(&false)) {
        return Err(Error::Data(format!(
            "--pairs: same and different pairs are needed, but of {} only {} of one kind are left",
            count(list.pairs.len(), "pair"),
            places.len()
        )));
    }
    let faces = stores.pop().unwrap_or_default();
    say.line(&format!("validation: {}", count(places.len(), "pair")));
    Ok(ValidationPairs { faces, places, same, folds: (list.folds > 1).then_some(folds) })
}

/// The layer between embeddings of different lengths, on the student's device.
fn projection(student: &Backbone, teacher: &Backbone) -> (Option<Linear>, Params) {
    let (from, to) = (student.embedding_dim, teacher.embedding_dim);
    Params::collect(student.device(), |root| {
        (from != to).then(|| Linear::new(&root.sub("projection"), from, to))
    })
}

/// The entry about the data in model files; the fingerprint is that of the student's faces.
fn data_card(folders: &[PathBuf], faces: &DistilFaces, names: Vec<PathBuf>) -> Result<DataCard> {
    let mut digests = Vec::new();
    for (picture, name) in names.into_iter().enumerate() {
        let digest = Sha256::digest(faces.student.get(picture)?.as_raw());
        digests.push((name.to_string_lossy().into_owned(), digest.into()));
    }
    let folders: Vec<_> = folders.iter().map(|folder| folder.to_string_lossy()).collect();
    Ok(DataCard {
        path: folders.join(", "),
        fingerprint: fingerprint(digests.into_iter()),
        train: faces.train.len(),
        validation: faces.held_out.len(),
    })
}

fn summary(outcome: &FitResult, run: &RunFolder) -> std::io::Result<()> {
    print_figures("validation", &SHARES, outcome)?;
    line(&format!("best epoch: {} of {}", outcome.best_epoch, count(outcome.epochs, "epoch")))?;
    line(&format!("model: {}", outcome.model.display()))?;
    line(&format!("curves: tensorboard --logdir {}", run.path().display()))?;
    line(&format!("next: visage train-classifier --data DIR --trunk {}", quoted(&outcome.model)))
}
