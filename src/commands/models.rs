//! `visage models`: the table of architectures, or one of them in full.

use std::process::ExitCode;

use serde_json::{Value, json};
use tch::Device;

use super::output::{self, columns};
use crate::cli;
use crate::models::input::{IMAGENET_MEAN, IMAGENET_STD};
use crate::models::{
    Architecture, ArchitectureInfo, Backbone, InputSizes, InputSpec, KnownWeights,
};
use crate::words::grouped;

pub fn run(flags: &cli::Models) -> anyhow::Result<ExitCode> {
    match (flags.name, flags.json) {
        (None, false) => table(),
        (None, true) => {
            let all: Vec<_> = Architecture::ALL.iter().map(|one| about(one.info())).collect();
            output::line(&json!(all).to_string())
        }
        (Some(one), false) => page(one),
        (Some(one), true) => {
            let mut about = about(one.info());
            let blocks = blocks(one);
            let blocks = blocks.iter().map(|(name, n)| json!({ "name": name, "parameters": n }));
            about["blocks"] = blocks.collect();
            output::line(&about.to_string())
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The table as JSON.
fn about(info: &ArchitectureInfo) -> Value {
    let InputSpec { size, mean, std } = &info.input;
    let weights = info.weights.iter().map(|known| {
        json!({ "file": known.file, "source": known.source, "classes": known.classes,
                "licence": known.licence })
    });
    let sizes = match info.input_sizes {
        InputSizes::Only(side) => json!({ "from": side, "to": side }),
        InputSizes::From(side) => json!({ "from": side, "to": null }),
    };
    json!({
        "name": info.name, "summary": info.summary, "parameters": info.parameters,
        "gflops": info.gflops, "input": { "size": size, "mean": mean, "std": std, "sizes": sizes },
        "embedding": info.embedding_dim, "classifier": info.classifier,
        "weights": weights.collect::<Vec<_>>(), "paper": info.paper,
    })
}

/// One architecture per line, with its further weights below it.
fn table() -> std::io::Result<()> {
    let head = ["NAME", "PARAMETERS", "GFLOPS", "INPUT", "PIXELS", "EMBEDDING", "WEIGHTS"];
    let mut rows = vec![head.map(String::from)];
    for info in Architecture::ALL.map(Architecture::info) {
        let mut weights = info.weights.iter().map(|known| {
            let licence = known.licence.split([' ', ',', ';']).next().unwrap_or_default();
            format!("{} ({licence})", known.file)
        });
        let side = info.input.size;
        rows.push([
            info.name.into(),
            grouped(info.parameters),
            format!("{:.2}", info.gflops),
            format!("{side}x{side}"),
            pixels(&info.input),
            info.embedding_dim.to_string(),
            weights.next().unwrap_or_else(|| "-".into()),
        ]);
        for more in weights {
            let mut row: [String; 7] = Default::default();
            row[6] = more;
            rows.push(row);
        }
    }
    columns(&rows, &[1, 2, 5])?;
    output::line(
        "\n`visage models NAME` shows one architecture with its blocks, input sizes, licences and paper.",
    )
}

/// Everything about one architecture.
fn page(architecture: Architecture) -> std::io::Result<()> {
    let info = architecture.info();
    let InputSpec { size, mean, std } = &info.input;
    let sizes = match info.input_sizes {
        InputSizes::Only(side) => format!("only {side}x{side}"),
        InputSizes::From(side) => format!("at least {side}x{side}"),
    };
    let list = |values: &[f64; 3]| values.map(|value| format!("{value:.4}")).join(" ");
    let classifier = match info.classifier {
        [] => "none".into(),
        keys => format!("{}*, not part of the trunk", keys.join("* and ")),
    };
    output::line(&format!("{}: {}", info.name, info.summary))?;
    for (what, text) in [
        ("paper", info.paper.to_owned()),
        ("parameters", format!("{} in the trunk", grouped(info.parameters))),
        (
            "compute",
            format!("{:.2} GFLOPs (multiply-adds) per picture of {size}x{size}", info.gflops),
        ),
        ("input", format!("{size}x{size} RGB; {sizes}")),
        ("pixels", format!("(x - mean) / std in [0, 1]; mean {}, std {}", list(mean), list(std))),
        ("embedding", format!("{} dimensions, L2-normalised", info.embedding_dim)),
        ("classifier", classifier),
    ] {
        output::line(&format!("  {what:<12}{text}"))?;
    }
    output::line("\nknown weights, for --weights")?;
    for known in info.weights {
        let KnownWeights { file, source, licence, .. } = known;
        let classes = known.classes.map(|n| format!("; with a classifier of {n} classes"));
        output::line(&format!("  {file}: {source}{}; {licence}", classes.unwrap_or_default()))?;
    }
    output::line("\nblocks, for --freeze, with their number of parameters")?;
    let blocks =
        blocks(architecture).into_iter().map(|(name, n)| [format!("  {name}"), grouped(n)]);
    columns(&blocks.collect::<Vec<_>>(), &[1])
}

/// The blocks that `--freeze` takes, with their parameters.
fn blocks(architecture: Architecture) -> Vec<(String, usize)> {
    let params = Backbone::new(architecture, Device::Cpu).params;
    let size = |block: &str| params.below(block).map(|one| one.tensor.numel()).sum();
    params.blocks().into_iter().map(|block| (block.clone(), size(&block))).collect()
}

/// How pixels are normalised, in a word.
fn pixels(input: &InputSpec) -> String {
    let InputSpec { mean, std, .. } = input;
    match (*mean, *std) {
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0]) => "[0, 1]".into(),
        (IMAGENET_MEAN, IMAGENET_STD) => "ImageNet".into(),
        ([m, ..], [s, ..]) if *mean == [m; 3] && *std == [s; 3] => format!("(x - {m}) / {s:.3}"),
        _ => "other".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (3_733_968, "3,733,968")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn blocks_hold_every_parameter_once() {
        for architecture in [Architecture::OpenFace, Architecture::DenseNet121] {
            let total: usize = blocks(architecture).iter().map(|(_, n)| n).sum();
            assert_eq!(total, architecture.info().parameters);
        }
    }
}
