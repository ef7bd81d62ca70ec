//! `visage audit`.

use std::process::ExitCode;

use super::context::Context;
use super::output::{self, count, identities, line};
use super::trunk::{self, LoadedTrunk};
use crate::audit::balance::{self, Sizes};
use crate::audit::scan::{self, Scan, Scanner};
use crate::audit::{
    AuditReport, Finding, QualityLimits, Severity, duplicates, html, mislabels, quality,
};
use crate::cli;
use crate::data::near_duplicates;
use crate::detect::{DetectOptions, Detector, MinFace};
use crate::models::Architecture;
use crate::progress::Reporter;
use crate::{Error, Result};

/// Exit code for findings of high severity.
const SERIOUS: u8 = 1;

/// Minimum face size, as a fraction of a picture; smaller faces are in the background.
const MIN_FACE: MinFace = MinFace::Share(0.15);

pub fn run(context: &Context, flags: &cli::Audit) -> anyhow::Result<ExitCode> {
    check(flags)?;
    let say = &context.say;
    let files = scan::list(&flags.data, flags.split.as_deref())?;
    let choice = match flags.trunk.model.is_none() && flags.trunk.backbone.is_none() {
        // It was not trained on the labels to check.
        true => flags.trunk.pretrained(Architecture::OpenFace),
        false => flags.trunk.clone(),
    };
    let LoadedTrunk { backbone: trunk, source, .. } = trunk::load(context, &choice)?;
    let options = DetectOptions { min_face: MIN_FACE, ..DetectOptions::default() };
    let detector = match flags.no_detect {
        true => None,
        false => Some(Detector::new(context.device()?, options)?),
    };
    let limits = QualityLimits {
        side: flags.min_side.unwrap_or(trunk.input.size),
        sharpness: flags.min_sharpness,
        darkness: flags.min_light,
        contrast: flags.min_contrast,
        aspect: flags.max_aspect,
    };
    let scanner = Scanner { trunk: &trunk, detector: detector.as_ref(), crop: flags.centre_crop };
    let scan = scan::scan(&scanner, files, say)?;
    let mut report = judge(flags, &limits, &scan, say)?;
    report.sort();

    for note in &report.notes {
        say.line(&format!("note: {note}"));
    }
    if let Some(path) = &flags.csv {
        report.write_csv(path)?;
        say.line(&format!("table: {}", path.display()));
    }
    if let Some(path) = &flags.html {
        html::write(path, &report, &flags.data)?;
        say.line(&format!("page: {}", path.display()));
    }
    let printed = match flags.json {
        true => {
            let mut object = report.json();
            object["model"] = source.into();
            line(&object.to_string())
        }
        false => print(&report, flags.top),
    };
    let serious = report.count(Severity::High) > 0;
    output::exit(printed, if serious { SERIOUS } else { 0 })
}

fn check(flags: &cli::Audit) -> Result<()> {
    for (flag, value, least) in [
        ("--margin", flags.margin, f64::MIN_POSITIVE),
        ("--min-sharpness", flags.min_sharpness, 0.0),
        ("--min-light", flags.min_light, 0.0),
        ("--min-contrast", flags.min_contrast, 0.0),
        ("--max-aspect", flags.max_aspect, 1.0),
        ("--imbalance", flags.imbalance, 1.0),
    ] {
        if !(value.is_finite() && value >= least) {
            let range = if least == 1.0 { "of at least 1" } else { "of at least 0" };
            let range = if flag == "--margin" { "above 0" } else { range };
            return Err(Error::Config(format!("{flag} {value}: must be a number {range}")));
        }
    }
    if flags.min_light > 127.0 {
        let text = format!(
            "--min-light {}: must be at most 127; above it every picture is too dark",
            flags.min_light
        );
        return Err(Error::Config(text));
    }
    Ok(())
}

/// All findings of a scan.
fn judge(
    flags: &cli::Audit,
    limits: &QualityLimits,
    scan: &Scan,
    say: &Reporter,
) -> Result<AuditReport> {
    let (pictures, stats, names) = (&scan.pictures, &scan.stats, &scan.identities);
    let total = pictures.len() as u64;
    let mut findings: Vec<Finding> = scan
        .unreadable
        .iter()
        .map(|(picture, reason)| Finding::unreadable(picture, names, reason))
        .collect();

    let bar = say.progress("duplicates", total, "pictures");
    let pairs = duplicates::pairs(stats, &|| bar.inc(1));
    bar.finish();
    let labels: Vec<_> = pictures.iter().map(|picture| picture.identity).collect();
    let groups = near_duplicates::join(pictures.len(), &pairs);
    let bar = say.progress("labels", total, "pictures");
    let step = || bar.inc(1);
    let scores = mislabels::score(&scan.embeddings, &labels, &groups, names.len(), &step)?;
    bar.finish();
    findings.extend(duplicates::findings(pictures, stats, names, &pairs, &scores));
    findings.extend(mislabels::findings(&scores, pictures, names, flags.margin));
    findings.extend(quality::findings(pictures, stats, names, limits));

    let mut counts = vec![0; names.len()];
    labels.iter().flatten().for_each(|&label| counts[label] += 1);
    findings.extend(balance::findings(names, &counts, flags.imbalance));

    let scored = scores.iter().flatten().count();
    let mut notes = scan.notes.clone();
    if names.is_empty() {
        notes.push("no sub-folders with pictures: there are no labels to check".into());
    } else if scored < pictures.len() {
        let which = count(pictures.len() - scored, "picture");
        notes.push(format!(
            "the labels of {which} could not be checked: no different photo of the identity, or no \
             other identity with two photos"
        ));
    }
    Ok(AuditReport {
        folder: flags.data.display().to_string(),
        pictures: pictures.len() + scan.unreadable.len(),
        identities: names.len(),
        scored,
        sizes: Sizes::of(&counts),
        findings,
        notes,
    })
}

/// The table of kinds with the fixes, then the worst findings.
fn print(report: &AuditReport, top: usize) -> std::io::Result<()> {
    let sizes = report.sizes.map_or_else(String::new, |sizes| {
        format!(" (min {}, median {}, max {} per identity)", sizes.min, sizes.median, sizes.max)
    });
    let (folder, pictures) = (&report.folder, count(report.pictures, "picture"));
    line(&format!("{folder}: {pictures} of {}{sizes}", identities(report.identities)))?;
    if report.findings.is_empty() {
        return line("no findings");
    }
    line("")?;
    line(&format!("{:<9}{:<16}{:>8}  what to do", "severity", "kind", "findings"))?;
    let (found, clean): (Vec<_>, Vec<_>) =
        report.counts().into_iter().partition(|&(_, count)| count > 0);
    for (kind, count) in found {
        let (severity, name, fix) = (kind.severity().name(), kind.name(), kind.fix());
        line(&format!("{severity:<9}{name:<16}{count:>8}  {fix}"))?;
    }
    let clean: Vec<_> = clean.into_iter().map(|(kind, _)| kind.name()).collect();
    if !clean.is_empty() {
        line(&format!("no findings: {}", clean.join(", ")))?;
    }
    if top == 0 {
        return Ok(());
    }
    line("")?;
    let all = report.findings.len();
    if top < all {
        line(&format!(
            "the worst {top} of {all} (--top all, --csv FILE or --html FILE for more):"
        ))?;
    }
    for finding in report.findings.iter().take(top) {
        let subject = finding.file.as_ref().or(finding.identity.as_ref());
        let subject = plain(subject.map_or("", String::as_str));
        let (severity, kind) = (finding.severity.name(), finding.kind.name());
        line(&format!("{severity:<9}{kind:<16}{subject}: {}", plain(&finding.what)))?;
    }
    Ok(())
}

/// A name without control characters, which would break the line or control the terminal.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
