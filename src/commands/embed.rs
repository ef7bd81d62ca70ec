//! `visage embed`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tch::Tensor;

use super::context::Context;
use super::inputs::{collect, embed_one_face};
use super::output::{count, line};
use super::{numpy, trunk};
use crate::cli;
use crate::data::picture;
use crate::models::Compute;
use crate::weights::TensorFile;
use crate::words::cell;
use crate::{Error, Result, files};

/// Format of the output file, from its ending.
#[derive(Debug, Clone, Copy)]
enum FileFormat {
    Npy,
    Csv,
    Safetensors,
}

impl FileFormat {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(OsStr::to_str) {
            Some("npy") => Ok(Self::Npy),
            Some("csv") => Ok(Self::Csv),
            Some("safetensors") => Ok(Self::Safetensors),
            _ => Err(Error::Config(format!(
                "--out {}: the name must end in .npy, .csv or .safetensors",
                path.display()
            ))),
        }
    }
}

/// The rows of the output.
struct Table {
    dim: usize,
    paths: Vec<String>,
    labels: Vec<String>,
    values: Vec<f32>,
}

pub fn run(context: &Context, flags: &cli::Embed) -> anyhow::Result<ExitCode> {
    let format = FileFormat::of(&flags.out)?;
    files::refuse_existing(&flags.out, flags.force)?;
    let table_of_paths = flags.out.with_extension("csv");
    if matches!(format, FileFormat::Npy) {
        files::refuse_existing(&table_of_paths, flags.force)?;
    }
    let loaded = trunk::open(context, &flags.trunk, trunk::EMBEDDERS)?;
    let viewer = loaded.viewer(context, flags.face.detect, None)?;
    let mut backbone = loaded.into_trunk()?.backbone;
    let half = flags.precision.set_up(backbone.device())?;
    backbone.set_compute(Compute::everywhere(half))?;
    let (mut paths, mut failed) = collect(&flags.inputs, &context.say);
    paths.sort();
    paths.dedup();
    let owner = |path: &Path| {
        let inputs = flags.inputs.iter().filter(|input| path.starts_with(input));
        let root = inputs.max_by_key(|input| input.components().count());
        picture::owner(root.map_or(Path::new(""), PathBuf::as_path), path)
    };
    let dim = backbone.embedding_dim as usize;
    let mut table = Table { dim, paths: Vec::new(), labels: Vec::new(), values: Vec::new() };
    embed_one_face(&backbone, &viewer, &paths, &context.say, |path, row| {
        match row {
            Ok(row) => {
                if row.iter().any(|value| !value.is_finite()) {
                    let path = path.display();
                    let text =
                        format!("{path}: the embedding is not finite: the weights may be broken");
                    return Err(Error::Data(text).into());
                }
                table.paths.push(path.to_string_lossy().into_owned());
                table.labels.push(owner(path));
                table.values.extend_from_slice(row);
            }
            Err(error) => {
                context.say.error(&error.to_string());
                failed += 1;
            }
        }
        Ok(())
    })?;
    if table.paths.is_empty() {
        return Err(
            Error::Data("none of the pictures can be read; nothing was written".into()).into()
        );
    }
    table.write(&flags.out, format)?;
    let rows = count(table.paths.len(), "embedding");
    let beside = match format {
        FileFormat::Npy => format!(", paths and labels to {}", table_of_paths.display()),
        _ => String::new(),
    };
    line(&format!("wrote {rows} of length {dim} to {}{beside}", flags.out.display()))?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

impl Table {
    fn write(&self, path: &Path, format: FileFormat) -> Result<()> {
        match format {
            FileFormat::Npy => {
                self.write_npy(path)?;
                self.write_csv(&path.with_extension("csv"), false)
            }
            FileFormat::Csv => self.write_csv(path, true),
            FileFormat::Safetensors => {
                let shape = [self.paths.len() as i64, self.dim as i64];
                let mut file = TensorFile::default();
                let tensor = Tensor::from_slice(&self.values).view(shape);
                file.tensors.insert("embeddings".into(), tensor);
                let table = serde_json::json!({ "paths": self.paths, "labels": self.labels });
                file.metadata.insert("visage-embeddings".into(), table.to_string());
                file.write(path)
            }
        }
    }

    /// A `[N, D]` float32 array that `numpy.load` opens.
    fn write_npy(&self, path: &Path) -> Result<()> {
        files::write_atomically(path, |out| {
            let shape = [self.paths.len() as u64, self.dim as u64];
            numpy::write(out, &shape, &self.values)
        })
    }

    /// One row per picture: path, label and, with `numbers`, the embedding.
    fn write_csv(&self, path: &Path, numbers: bool) -> Result<()> {
        files::write_atomically(path, |out| {
            let mut writer = csv::Writer::from_writer(out);
            let mut header = vec!["path".to_owned(), "label".to_owned()];
            if numbers {
                header.extend((0..self.dim).map(|i| format!("e{i}")));
            }
            writer.write_record(&header)?;
            let names = self.paths.iter().zip(&self.labels);
            for ((path, label), row) in names.zip(self.values.chunks_exact(self.dim)) {
                let mut record = vec![cell(path).into_owned(), cell(label).into_owned()];
                if numbers {
                    record.extend(row.iter().map(ToString::to_string));
                }
                writer.write_record(&record)?;
            }
            writer.flush()?;
            Ok(())
        })
    }
}
