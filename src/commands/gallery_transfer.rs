//! `visage gallery export` and `import`: embeddings in and out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use npyz::NpyFile;
use sha2::{Digest, Sha256};
use zip::write::FileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::context::Context;
use super::gallery_enroll::Summary;
use super::gallery_trunk::{embedding, set_up};
use super::numpy;
use super::output::{count, line};
use crate::cli::{GalleryExport, GalleryImport, TrunkChoice};
use crate::detect::DetectOptions;
use crate::gallery::{Exported, Gallery, NewFace};
use crate::recognise::{FaceSearch, ModelCard, Recogniser, runs};
use crate::words::{cell, cell_text, people};
use crate::{Error, Result, files};

/// Embeddings from a file.
#[derive(Debug, Default)]
struct Table {
    dim: usize,
    values: Vec<f32>,
    paths: Vec<String>,
    names: Vec<String>,
    sha256: Vec<Option<String>>,
}

pub fn export(flags: &GalleryExport) -> anyhow::Result<ExitCode> {
    let out = &flags.out;
    if out.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("npz")) {
        let text = format!("--out {}: the name must end in .npz", out.display());
        return Err(Error::Config(text).into());
    }
    let csv = out.with_extension("csv");
    files::refuse_existing(out, flags.force)?;
    files::refuse_existing(&csv, flags.force)?;
    let all = Gallery::open_existing(&flags.db.db)?.export()?;
    let mut numbers: BTreeMap<&str, i64> =
        all.names.iter().map(|name| (name.as_str(), 0)).collect();
    numbers.values_mut().zip(0..).for_each(|(number, at)| *number = at);
    let labels: Vec<i64> = all.names.iter().map(|name| numbers[name.as_str()]).collect();
    files::write_atomically(out, |out| {
        let mut zip = ZipWriter::new(out);
        let stored = FileOptions::default().compression_method(CompressionMethod::Stored);
        let shape = [all.names.len() as u64, all.dim as u64];
        zip.start_file("embeddings.npy", stored.large_file(true))?;
        numpy::write(&mut zip, &shape, &all.values)?;
        zip.start_file("labels.npy", stored)?;
        numpy::write(&mut zip, &shape[..1], &labels)?;
        zip.finish()?;
        Ok(())
    })?;
    write_csv(&csv, &all, &labels)?;
    let (rows, who) = (count(all.names.len(), "embedding"), people(numbers.len()));
    line(&format!(
        "wrote {rows} of {who} to {}, names and paths to {}",
        out.display(),
        csv.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn write_csv(path: &Path, all: &Exported, labels: &[i64]) -> Result<()> {
    files::write_atomically(path, |out| {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(["path", "label", "number", "sha256"])?;
        for (at, number) in labels.iter().enumerate() {
            let (path, name) = (cell(&all.paths[at]), cell(&all.names[at]));
            writer.write_record([&*path, &*name, &number.to_string(), &all.sha256[at]])?;
        }
        writer.flush()
    })
}

pub fn import(context: &Context, flags: &GalleryImport) -> anyhow::Result<ExitCode> {
    let from = &flags.from;
    let ending = from.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let (table, choice) = match ending.to_ascii_lowercase().as_str() {
        "csv" => (read_csv(from, true)?, flags.trunk.clone()),
        "npy" | "npz" => (read_numpy(from, ending)?, flags.trunk.clone()),
        _ => read_classifier(context, from)?,
    };
    if table.names.is_empty() || table.dim == 0 {
        return Err(Error::Data(format!("{}: holds no embeddings", from.display())).into());
    }
    let mut gallery = Gallery::open(&flags.db.db)?;
    // For the pictures of --strangers.
    let options = DetectOptions::default();
    let parts = embedding(context, &gallery, &choice, FaceSearch::Auto, options)?;
    set_up(context, &mut gallery, &flags.threshold, &parts)?;
    let mut groups: BTreeMap<String, Vec<NewFace>> = BTreeMap::new();
    for (at, row) in table.values.chunks_exact(table.dim).enumerate() {
        let known = || {
            hex::encode(Sha256::digest(
                row.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>(),
            ))
        };
        let face = NewFace {
            path: table.paths[at].clone(),
            sha256: table.sha256[at].clone().unwrap_or_else(known),
            bounds: [0.0; 4],
            detection: None,
            sharpness: None,
            thumbnail: None,
            embedding: row.to_vec(),
        };
        groups.entry(table.names[at].clone()).or_default().push(face);
    }
    let groups: Vec<(String, Vec<NewFace>)> = groups.into_iter().collect();
    context.say.line(&format!("note: working out the threshold for {}", people(groups.len())));
    let enrolled = gallery.enrol_all(&groups)?;
    let summary = Summary { people: groups.len(), enrolled, left_out: Vec::new() };
    summary.report(context, &gallery, false)?;
    Ok(ExitCode::SUCCESS)
}

/// Columns `path` and `label`, and with `values` `e0`, `e1`, ...
fn read_csv(path: &Path, values: bool) -> Result<Table> {
    let fail = |what: String| Error::Data(format!("{}: {what}", path.display()));
    let mut reader = csv::Reader::from_path(path).map_err(|error| fail(error.to_string()))?;
    let header = reader.headers().map_err(|error| fail(error.to_string()))?.clone();
    let column = |name: &str| header.iter().position(|column| column == name);
    let needed = |name: &str| column(name).ok_or_else(|| fail(format!("has no column {name}")));
    let (paths, labels, sums) = (needed("path")?, needed("label")?, column("sha256"));
    let first = if values { needed("e0")? } else { header.len() };
    let mut table = Table { dim: header.len() - first, ..Table::default() };
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|error| fail(error.to_string()))?;
        let text = |at: usize| cell_text(record.get(at).unwrap_or_default()).to_owned();
        table.paths.push(text(paths));
        table.names.push(text(labels));
        table.sha256.push(sums.map(text).filter(|sum| !sum.is_empty()));
        for value in record.iter().skip(first) {
            let number = value.trim().parse::<f32>();
            let number =
                number.map_err(|_| fail(format!("row {}: {value:?} is no number", row + 2)));
            table.values.push(number?);
        }
    }
    Ok(table)
}

/// A NumPy array `[N, D]`, with a CSV table beside it.
fn read_numpy(path: &Path, ending: &str) -> Result<Table> {
    let fail = |what: String| Error::Data(format!("{}: {what}", path.display()));
    let io = |source| Error::io(path, source);
    let file = BufReader::new(File::open(path).map_err(io)?);
    let (shape, values) = match ending.eq_ignore_ascii_case("npz") {
        false => read_array(file),
        true => {
            let mut zip = ZipArchive::new(file).map_err(|error| fail(error.to_string()))?;
            let array = zip.by_name("embeddings.npy");
            read_array(array.map_err(|_| fail("has no array `embeddings`".into()))?)
        }
    }
    .map_err(|error| fail(format!("no NumPy array of numbers: {error}")))?;
    let [rows, dim] = shape[..] else {
        return Err(fail(format!("its array is of shape {shape:?}, not [N, D]")));
    };
    let csv = path.with_extension("csv");
    let table = read_csv(&csv, false)?;
    if table.names.len() as u64 != rows {
        let names = count(table.names.len(), "row");
        return Err(fail(format!("{rows} embeddings, but {names} in {}", csv.display())));
    }
    Ok(Table { dim: dim as usize, values, ..table })
}

fn read_array(from: impl Read) -> std::io::Result<(Vec<u64>, Vec<f32>)> {
    let array = NpyFile::new(from)?;
    let shape = array.shape().to_vec();
    let array = match array.try_data::<f32>() {
        Ok(values) => return Ok((shape, values.collect::<std::io::Result<_>>()?)),
        Err(array) => array,
    };
    let values = array.data::<f64>().map_err(std::io::Error::other)?;
    Ok((
        shape,
        values.map(|value| value.map(|value| value as f32)).collect::<std::io::Result<_>>()?,
    ))
}

/// The training faces of a classifier, and its trunk.
fn read_classifier(context: &Context, from: &Path) -> Result<(Table, TrunkChoice)> {
    let choice =
        runs::choose(context.runs(), Some(from), &[crate::recognise::ModelKind::Classifier])?;
    let model = Recogniser::load(&choice.path, context.device()?)?;
    let known = &model.classifier()?.gallery;
    let ModelCard { classes, .. } = &model.card;
    let name = |&label: &usize| classes.get(label).cloned().unwrap_or_default();
    let table = Table {
        dim: known.embeddings.dim(),
        values: known.embeddings.values().to_vec(),
        paths: known.faces.iter().map(|face| face.path.clone()).collect(),
        names: known.labels.iter().map(name).collect(),
        sha256: known.faces.iter().map(|face| Some(face.sha256.clone())).collect(),
    };
    let model: Option<PathBuf> = Some(choice.path);
    Ok((table, TrunkChoice { model, ..TrunkChoice::default() }))
}
