//! `visage doctor`: checks the installation and says how to fix what is missing.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::context::Context;
use super::output;
use crate::cli;
use crate::data::source;
use crate::device;
use crate::models::Architecture;
use crate::native::{self, cuda, version};
use crate::recognise::{ModelKind, runs};
use crate::weights::Source;

/// One line of the report.
struct Check {
    what: &'static str,
    state: CheckResult,
    text: String,
    /// How to fix it, if something is missing.
    advice: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CheckResult {
    Ok,
    Missing,
    Broken,
}

impl Check {
    fn ok(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, state: CheckResult::Ok, text: text.into(), advice: None }
    }

    fn missing(what: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what, state: CheckResult::Missing, text: text.into(), advice: Some(advice.into()) }
    }
}

pub fn run(context: &Context, flags: &cli::Doctor) -> anyhow::Result<ExitCode> {
    let checks = [
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
    let broken = checks.iter().any(|check| check.state == CheckResult::Broken);
    let printed = match flags.json {
        true => output::line(&json(&checks).to_string()),
        false => print(&checks),
    };
    output::exit(printed, u8::from(broken))
}

fn json(checks: &[Check]) -> Value {
    let entries = checks.iter().map(|check| {
        let state = match check.state {
            CheckResult::Ok => "ok",
            CheckResult::Missing => "missing",
            CheckResult::Broken => "broken",
        };
        let key = check.what.replace(' ', "_");
        (key, json!({"state": state, "text": check.text, "advice": check.advice}))
    });
    Value::Object(entries.collect())
}

fn print(checks: &[Check]) -> std::io::Result<()> {
    for Check { what, state, text, advice } in checks {
        let mark = match state {
            CheckResult::Ok => "ok",
            CheckResult::Missing => "--",
            CheckResult::Broken => "!!",
        };
        output::line(&format!("{mark}  {what:<16} {text}"))?;
        if let Some(advice) = advice {
            output::line(&format!("    {:<16} -> {advice}", ""))?;
        }
    }
    Ok(())
}

fn libtorch() -> Check {
    let (runs_on, folder) = (version::runs_on_text(), version::folder());
    let built_for = version::built_for();
    Check::ok("libtorch", format!("{runs_on} in {}, built for {built_for}", folder.display()))
}

fn processor() -> Check {
    let capability = native::cpu_capability().unwrap_or_else(|error| error.to_string());
    let features = cpu_features();
    let bf16 = features.contains(&"avx512_bf16");
    let speed = if bf16 { "bfloat16 is fast here" } else { "bfloat16 is not fast here" };
    let list =
        if features.is_empty() { "no vector extensions".into() } else { features.join(", ") };
    Check::ok("processor", format!("libtorch uses {capability}; {list}; {speed}"))
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

fn threads() -> Check {
    let cores = device::available_cpus();
    let text = format!("{} for computing, {cores} cores", tch::get_num_threads());
    Check::ok("threads", text)
}

fn cuda() -> Check {
    match cuda::load() {
        Ok(()) => {
            let devices = tch::Cuda::device_count();
            let cudnn = if tch::Cuda::cudnn_is_available() { "with" } else { "without" };
            Check::ok("cuda", format!("{devices} devices, {cudnn} cuDNN"))
        }
        Err(error) => Check::missing(
            "cuda",
            error.to_string(),
            "without a GPU: nothing to do; with one: install its driver and run `make CUDA=1 libtorch`",
        ),
    }
}

fn device(context: &Context) -> Check {
    let choice = context.common.device;
    match context.device() {
        Ok(device) => Check::ok("device", format!("--device {choice} is {}", device::name(device))),
        Err(error) => Check {
            what: "device",
            state: CheckResult::Broken,
            text: error.to_string(),
            advice: Some("leave --device out, or fix the problem it names".into()),
        },
    }
}

fn weights() -> Check {
    let architecture = Architecture::OpenFace;
    match Source::resolve(None, architecture) {
        Ok(source) => {
            Check::ok("default weights", format!("{}: {}", architecture.name(), source.describe()))
        }
        Err(error) => Check::missing("default weights", error.to_string(), "reinstall"),
    }
}

/// Needed only to download the default data.
fn python() -> Check {
    let asked = std::process::Command::new("python3").args(["-m", "pip", "--version"]).output();
    match asked {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            let version: Vec<_> = text.split_whitespace().take(2).collect();
            Check::ok("python", format!("python3 with {}", version.join(" ")))
        }
        _ => Check::missing(
            "python",
            "no python3 with pip",
            "needed only for `visage fetch orl`; install python3-pip, or use --data DIR",
        ),
    }
}

fn data() -> Check {
    match source::locate(Path::new(".")) {
        Some(path) => Check::ok("default data", path.display().to_string()),
        None => Check::missing(
            "default data",
            "none yet",
            "run `visage fetch orl` (python3 with pip), or use --data DIR",
        ),
    }
}

fn model(context: &Context, kind: ModelKind) -> Check {
    let what = match kind {
        ModelKind::Trunk => "newest trunk",
        ModelKind::Classifier => "newest model",
        ModelKind::Pairs => "newest pair network",
    };
    match runs::choose(context.runs(), None, &[kind]) {
        Ok(choice) => Check::ok(what, choice.to_string()),
        Err(error) => {
            let command = match kind {
                ModelKind::Trunk => "visage train-triplet",
                ModelKind::Classifier => "visage train-classifier",
                ModelKind::Pairs => "visage train-pairs",
            };
            let text = error.to_string();
            let text = text.split(';').next().unwrap_or_default().to_owned();
            Check::missing(what, text, format!("run `{command}`"))
        }
    }
}
