//! `visage weights`: inspects, compares and converts weight files, one tensor in memory at a time.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use super::context::Context;
use super::{output, weights_verify};
use crate::cli::WeightsAction;
use crate::files;
use crate::weights::stats::{self, Stats};
use crate::weights::{Entry, TensorFile, WeightFile, dtype};

pub fn run(context: &Context, action: &WeightsAction) -> anyhow::Result<ExitCode> {
    match action {
        WeightsAction::Convert { input, output, force } => convert(context, input, output, *force),
        WeightsAction::Inspect { file, json } => inspect(&WeightFile::open(file)?, *json),
        WeightsAction::Diff { a, b, json } => diff(a, b, *json),
        WeightsAction::Verify(flags) => weights_verify::run(context, flags),
    }
}

fn convert(
    context: &Context,
    input: &Path,
    output: &Path,
    force: bool,
) -> anyhow::Result<ExitCode> {
    let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let write = match ending.to_ascii_lowercase().as_str() {
        "safetensors" => TensorFile::write,
        "pth" | "pt" => TensorFile::write_pth,
        _ => bail!(
            "{}: unknown format; the name must end in .safetensors, .pth or .pt",
            output.display()
        ),
    };
    files::refuse_existing(output, force)?;
    let file = WeightFile::open(input)?;
    for note in file.notes() {
        context.say.line(&format!("{}: {note}", input.display()));
    }
    write(&TensorFile::collect(&file)?, output)?;
    let tensors = output::count(file.entries().len(), "tensor");
    context.say.line(&format!(
        "{tensors} from {} ({}) to {}",
        input.display(),
        file.format(),
        output.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn inspect(file: &WeightFile, json: bool) -> anyhow::Result<ExitCode> {
    let entries = file.entries();
    if json {
        let mut tensors = Vec::new();
        for entry in entries {
            let Stats { finite, count, mean, std, min, max } = stats::stats(&file.tensor(entry)?)?;
            tensors.push(json!({
                "name": entry.name, "shape": entry.shape, "dtype": dtype::name(entry.kind),
                "bytes": entry.bytes(), "mean": mean, "std": std, "min": min, "max": max,
                "not_finite": count - finite,
            }));
        }
        let all = json!({
            "file": file.path(), "format": file.format().to_string(), "notes": file.notes(),
            "metadata": file.metadata(), "tensors": tensors,
        });
        output::line(&all.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let values: usize = entries.iter().map(Entry::count).sum();
    let bytes = entries.iter().map(Entry::bytes).sum();
    output::line(&format!(
        "{}: {}, {}, {values} values, {}",
        file.path().display(),
        file.format(),
        output::count(entries.len(), "tensor"),
        size(bytes)
    ))?;
    for note in file.notes() {
        output::line(&format!("  {note}"))?;
    }
    for key in file.metadata().keys() {
        output::line(&format!("  metadata: {key}"))?;
    }
    let mut open: Vec<&str> = Vec::new(); // the modules the line before was in
    for entry in as_tree(entries) {
        let mut path: Vec<&str> = entry.name.split('.').collect();
        let leaf = path.pop().unwrap_or_default();
        let shared = open.iter().zip(&path).take_while(|(a, b)| a == b).count();
        for (depth, module) in path.iter().enumerate().skip(shared) {
            output::line(&format!("{:1$}{module}", "", 2 * depth))?;
        }
        let (label, indent) = (format!("{leaf} {:?}", entry.shape), 2 * path.len());
        let values = describe(&stats::stats(&file.tensor(entry)?)?);
        let (kind, size) = (dtype::name(entry.kind), size(entry.bytes()));
        output::line(&format!("{:indent$}{label:<32} {kind:<8} {size:>9}  {values}", ""))?;
        open = path;
    }
    Ok(ExitCode::SUCCESS)
}

/// The tensors so that every module comes once: modules in the order in which their first tensors are in
/// the file, which may hold them dtype by dtype.
fn as_tree(entries: &[Entry]) -> Vec<&Entry> {
    let prefixes = |name: &str| -> Vec<String> {
        let ends = name.match_indices('.').map(|(at, _)| at).chain([name.len()]);
        ends.map(|end| name[..end].to_owned()).collect()
    };
    let mut first: HashMap<String, usize> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        for prefix in prefixes(&entry.name) {
            first.entry(prefix).or_insert(index);
        }
    }
    let mut tree: Vec<&Entry> = entries.iter().collect();
    tree.sort_by_cached_key(|entry| -> Vec<usize> {
        prefixes(&entry.name).iter().filter_map(|prefix| first.get(prefix).copied()).collect()
    });
    tree
}

fn describe(stats: &Stats) -> String {
    let Stats { finite, count, mean, std, min, max } = stats;
    let range = format!("mean {mean:.4e}, std {std:.4e}, {min:.4e} to {max:.4e}");
    match count - finite {
        0 if *count == 0 => "empty".into(),
        0 => range,
        bad => format!("{range}, {bad} NOT FINITE"),
    }
}

/// A number of bytes such as `527.8 MB`, in powers of 1024.
fn size(bytes: usize) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KB", "MB"] {
        if size < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1} GB")
}

/// One way in which two files differ.
struct Difference {
    name: String,
    /// Machine-readable: `only in a`, `only in b`, `shape`, `dtype`, `values`.
    what: &'static str,
    text: String,
    /// Largest absolute difference and number of differing values.
    values: Option<(f64, usize)>,
}

fn diff(a: &Path, b: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let (a, b) = (WeightFile::open(a)?, WeightFile::open(b)?);
    let found = differences(&a, &b)?;
    let same = a.entries().len() - found.iter().filter(|found| found.what != "only in b").count();
    let printed = if json {
        let listed = found.iter().map(|found| {
            // JSON has no infinity.
            let most = found
                .values
                .map(|(most, _)| if most.is_finite() { json!(most) } else { json!("inf") });
            json!({
                "name": found.name, "what": found.what, "text": found.text,
                "max_abs": most, "differing": found.values.map(|(_, count)| count),
            })
        });
        let listed: Vec<Value> = listed.collect();
        output::line(&json!({"same": same, "differences": listed}).to_string())
    } else {
        let different =
            if found.is_empty() { "none differ".into() } else { format!("{} differ", found.len()) };
        let mut lines = found.iter().map(|Difference { name, text, .. }| format!("{name}: {text}"));
        lines.try_for_each(|text| output::line(&text)).and_then(|()| {
            output::line(&format!("{} the same, {different}", output::count(same, "tensor")))
        })
    };
    output::exit(printed, u8::from(!found.is_empty()))
}

fn differences(a: &WeightFile, b: &WeightFile) -> anyhow::Result<Vec<Difference>> {
    let mut found = Vec::new();
    let mut note = |name: &str, what, text: String, values| {
        found.push(Difference { name: name.to_owned(), what, text, values });
    };
    for entry in a.entries() {
        let name = &entry.name;
        let Some(other) = b.get(name) else {
            note(name, "only in a", format!("only in {}", a.path().display()), None);
            continue;
        };
        if entry.shape != other.shape {
            note(name, "shape", format!("shape {:?} and {:?}", entry.shape, other.shape), None);
            continue;
        }
        let (most, differing) = stats::difference(&a.tensor(entry)?, &b.tensor(other)?)?;
        let values = (differing > 0).then_some((most, differing));
        let by = format!("{differing} of {} values differ, by at most {most:e}", entry.count());
        if entry.kind != other.kind {
            let kinds = [entry.kind, other.kind].map(dtype::name);
            let by = if differing > 0 { by } else { "the values agree".into() };
            note(name, "dtype", format!("dtype {} and {}; {by}", kinds[0], kinds[1]), values);
        } else if differing > 0 {
            note(name, "values", by, values);
        }
    }
    for entry in b.entries().iter().filter(|entry| a.get(&entry.name).is_none()) {
        note(&entry.name, "only in b", format!("only in {}", b.path().display()), None);
    }
    Ok(found)
}
