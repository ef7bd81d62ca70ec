//! `visage tsne`.

use std::path::Path;
use std::process::ExitCode;

use super::context::Context;
use super::inputs;
use super::trunk::{self, LoadedTrunk};
use crate::Error;
use crate::cli;
use crate::data::{Part, Split, source};
use crate::eval::tsne::{TsneOptions, tsne};
use crate::figures::{self, Scatter, scatter};
use crate::train::dataset;

pub fn run(context: &Context, flags: &cli::Tsne) -> anyhow::Result<ExitCode> {
    super::output::demand_png("--out", &flags.out)?;
    if flags.perplexity < 1.0 {
        let text = format!("--perplexity {}: expected 1 or more", flags.perplexity);
        return Err(Error::Config(text).into());
    }
    let say = &context.say;
    let loaded = trunk::open(context, &flags.trunk, trunk::EMBEDDERS)?;
    let viewer = loaded.viewer(context, flags.face.detect, None)?;
    let LoadedTrunk { backbone, split, .. } = loaded.into_trunk()?;
    let source = source::resolve(flags.data.as_deref(), Path::new("."))?;
    say.line(&format!("data: {}", source.name));
    let folder = dataset::open_labelled(&source.path, backbone.input.size, say)?;
    let paths: Vec<_> = folder.pictures.iter().map(|picture| picture.path.clone()).collect();
    let (used, embeddings) = inputs::embed_all(&backbone, &viewer, &paths, say)?;
    let options =
        TsneOptions { perplexity: flags.perplexity, iterations: flags.iterations, seed: 0 };
    let bar = say.progress("t-SNE", flags.iterations as u64, "steps");
    let points = tsne(&embeddings, &options, |_, _| bar.inc(1))?;
    bar.finish();
    // Validation faces are drawn hollow if the trunk's split is of these pictures.
    let split = split.and_then(|file| Split::read_csv(&file, &folder).ok());
    let validation: Vec<bool> = split.map_or_else(Vec::new, |split| {
        used.iter().map(|&picture| split.parts[picture] == Part::Validation).collect()
    });
    let labels: Vec<_> = used.iter().map(|&picture| folder.pictures[picture].identity).collect();
    let title = format!(
        "t-SNE of {} faces, {} ({}-d)",
        used.len(),
        backbone.architecture.name(),
        backbone.embedding_dim
    );
    let picture = scatter(&Scatter {
        title: &title,
        names: &folder.identities,
        points: &points,
        labels: &labels,
        validation: &validation,
    });
    figures::save_png(&flags.out, &picture)?;
    super::output::line(&format!("wrote {}", flags.out.display()))?;
    Ok(ExitCode::SUCCESS)
}
