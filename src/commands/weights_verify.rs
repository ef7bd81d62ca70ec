//! `visage weights verify`: compares a network with the reference outputs of PyTorch.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::context::Context;
use super::output;
use crate::cli::WeightsVerify;
use crate::models::is_below;
use crate::recognise::{ModelCard, model_file};
use crate::weights::reference::{Part, Reference};
use crate::weights::verify::{self, Comparison, Outcome};
use crate::weights::{BESIDE_TRUNK, LoadReport, WeightFile, load};

pub fn run(context: &Context, flags: &WeightsVerify) -> anyhow::Result<ExitCode> {
    for (flag, value) in
        [("--tolerance", flags.tolerance), ("--gradient-tolerance", flags.gradient_tolerance)]
    {
        if !(0.0..1.0).contains(&value) {
            bail!("{flag} {value}: a relative difference is at least 0 and below 1");
        }
    }
    let reference = Reference::open(&flags.against)?;
    let file = WeightFile::open(&flags.model)?;
    let card = file.metadata().contains_key(model_file::CARD);
    if let Some(backbone) = flags.backbone {
        verify::same_architecture(&reference, "--backbone", backbone.name())?;
    }
    if card {
        let card = ModelCard::peek(&flags.model)?;
        let model = flags.model.display().to_string();
        verify::same_architecture(&reference, &model, card.architecture.name())?;
    }
    let backbone = verify::network(&reference, context.device()?)?;
    let [theirs, ours] = verify::key_differences(&reference, &backbone);
    if !theirs.is_empty() || !ours.is_empty() {
        let name = backbone.architecture.name();
        let lists = format!("only PyTorch's: {theirs:?}; only Visage's: {ours:?}");
        bail!("{}: its {name} has different keys: {lists}", flags.against.display());
    }
    // A model file of Visage has a head and a gallery beside the trunk.
    let own: &[&str] = if card { &BESIDE_TRUNK } else { &[] };
    let published = backbone.architecture.info().classifier;
    let published = if reference.about.classes.is_none() { published } else { &[] };
    let extras: Vec<&str> = own.iter().chain(published).copied().collect();
    let options = load::LoadOptions { extras: &extras, allow_missing: &flags.allow_missing };
    let keys = load::load_file(&backbone.params, &file, &options)?;
    if !keys.is_strict() {
        return keys_differ(flags, &reference, &keys);
    }
    let partial = !keys.allowed.is_empty();
    let mut compared = verify::verify(&backbone, &reference, partial)?;
    // Layers without weights cannot be compared.
    compared.retain(|found| {
        let inside =
            |key: &String| key.rsplit_once('.').is_some_and(|(layer, _)| layer == found.name);
        !(partial && keys.allowed.iter().any(inside))
    });
    let bad = |found: &Comparison| {
        let bound = match found.part {
            Part::Gradient => flags.gradient_tolerance,
            _ => flags.tolerance,
        };
        found.difference() > bound
    };
    let first = compared.iter().find(|found| bad(found));
    let printed = if flags.json {
        let about = &reference.about;
        let all = json!({
            "agree": first.is_none(), "architecture": about.architecture, "mode": about.mode,
            "dtype": about.dtype, "input": reference.input.size(), "torch": about.torch,
            "keys": keys_json(&keys), "first": first, "compared": compared,
        });
        output::line(&all.to_string())
    } else {
        let layers = output::count(compared.len(), "tensor");
        let conclusion = match first {
            Some(first) => {
                let others = compared.iter().filter(|found| bad(found)).count() - 1;
                format!("first difference: {}; {others} more", describe(first))
            }
            None if partial => {
                format!("{layers} agree; {} were not compared", keys.allowed.join(", "))
            }
            None => format!("all {layers} agree"),
        };
        table(&reference, &backbone.params.blocks(), &compared)
            .and_then(|()| output::line(&conclusion))
    };
    output::exit(printed, u8::from(first.is_some()))
}

/// The file and the network have different keys or shapes: nothing was run.
fn keys_differ(
    flags: &WeightsVerify,
    reference: &Reference,
    keys: &LoadReport,
) -> anyhow::Result<ExitCode> {
    let (model, name) = (flags.model.display(), reference.about.architecture.name());
    if keys.matched == 0 {
        bail!("{model}: has no tensor of {name}, the architecture of {}", flags.against.display());
    }
    let all = json!({"agree": false, "keys": keys_json(keys)});
    let printed = output::line(&match flags.json {
        true => all.to_string(),
        false => format!("{model}: its tensors are not those of {name}: {keys}"),
    });
    output::exit(printed, 1)
}

fn keys_json(keys: &LoadReport) -> serde_json::Value {
    json!({
        "matched": keys.matched, "renamed": keys.renamed, "allowed": keys.allowed,
        "missing": keys.missing, "unexpected": keys.unused, "wrong_shape": keys.wrong_shape,
        "not_finite": keys.not_finite,
    })
}

/// The largest difference of each block, of the outputs, the gradients and the statistics.
fn table(reference: &Reference, blocks: &[String], compared: &[Comparison]) -> std::io::Result<()> {
    let about = &reference.about;
    output::line(&format!(
        "{}, {} mode, {}, input {:?}, PyTorch {}",
        about.architecture.name(),
        json!(about.mode).as_str().unwrap_or_default(),
        json!(about.dtype).as_str().unwrap_or_default(),
        reference.input.size(),
        about.torch
    ))?;
    let group = |found: &Comparison| -> String {
        match found.part {
            Part::Activation => {
                let block = blocks.iter().find(|block| is_below(&found.name, block));
                block.cloned().unwrap_or_else(|| found.name.clone())
            }
            Part::Output => "results".into(),
            Part::Gradient => "gradients".into(),
            Part::Statistic => "running statistics".into(),
        }
    };
    // In the order of execution, which interleaves no two groups but by branches.
    let mut groups: Vec<(String, usize, &Comparison)> = Vec::new();
    for found in compared {
        let name = group(found);
        match groups.iter_mut().find(|(known, ..)| *known == name) {
            None => groups.push((name, 1, found)),
            Some((_, count, worst)) => {
                *count += 1;
                if found.difference() > worst.difference() {
                    *worst = found;
                }
            }
        }
    }
    output::line(&format!("{:<24} {:>7} {:>10}  worst", "block", "tensors", "difference"))?;
    for (name, count, worst) in groups {
        let (difference, place) = (worst.difference(), &worst.name);
        output::line(&format!("{name:<24} {count:>7} {difference:>10.1e}  {place}"))?;
    }
    Ok(())
}

fn describe(found: &Comparison) -> String {
    let Comparison { part, name, shape, outcome } = found;
    let what = match part {
        Part::Activation => "layer ",
        Part::Output => "",
        Part::Gradient => "gradient of ",
        Part::Statistic => "statistic ",
    };
    let how = match outcome {
        Outcome::Compared { difference, place, found, expected } => {
            format!("{difference:.1e} relative, at {place:?} {found:e} and not {expected:e}")
        }
        Outcome::Shape { found } => format!("shape {found:?} here"),
        Outcome::Absent => "Visage has none".into(),
        Outcome::Unexpected => "PyTorch has none".into(),
    };
    format!("{what}{name} {shape:?}: {how}")
}
