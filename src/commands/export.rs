//! `visage export`.

use std::io::Write;
use std::process::ExitCode;

use tch::Device;

use super::context::Context;
use super::output;
use super::trunk::{Bare, Built};
use crate::cli;
use crate::export::{BatchSize, Export, ExportFormat, INPUT};
use crate::recognise::Recogniser;
use crate::weights::model_path;
use crate::{Result, files};

pub fn run(context: &Context, flags: &cli::Export) -> anyhow::Result<ExitCode> {
    let format = flags.format.map_or_else(|| ExportFormat::of(&flags.out), Ok)?;
    if format == ExportFormat::TorchScript && flags.batch != BatchSize::Dynamic {
        context.say.line("note: --batch is for ONNX only; a TorchScript file takes any batch size");
    }
    files::refuse_existing(&flags.out, flags.force)?;
    let model = load(context, flags)?;
    let bytes = match format {
        ExportFormat::TorchScript => model.to_torchscript()?,
        ExportFormat::Onnx => model.to_onnx(flags.batch)?,
    };
    files::write_atomically(&flags.out, |out| out.write_all(&bytes))?;
    let [channels, height, width] = model.picture();
    let batch = match (format, flags.batch) {
        (ExportFormat::Onnx, BatchSize::Fixed(count)) => count.to_string(),
        _ => "N".into(),
    };
    let outputs = model.outputs();
    let outputs = outputs.iter().map(|(name, columns)| format!("{name} [{batch}, {columns}]"));
    output::line(&format!(
        "wrote {}: {INPUT} [{batch}, {channels}, {height}, {width}] in [0, 1] -> {}",
        flags.out.display(),
        outputs.collect::<Vec<_>>().join(", ")
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn load(context: &Context, flags: &cli::Export) -> Result<Export> {
    let Some(architecture) = flags.backbone else {
        return Export::model(Recogniser::load(&model_path(&flags.model)?, Device::Cpu)?);
    };
    let weights = flags.model.to_string_lossy();
    let bare = Bare {
        architecture,
        weights: Some(&weights),
        allow_missing: &[],
        embedding_dim: None,
        input_size: None,
    };
    tch::manual_seed(0); // the same random weights every time
    let Built { backbone, line, .. } = bare.build(Device::Cpu)?;
    context.say.line(&format!("trunk: {line}"));
    Export::trunk(backbone)
}
