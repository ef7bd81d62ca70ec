//! `visage bench`.

mod cold;
mod measures;
mod peer;
mod profile;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use tch::Device;

use self::measures::{Measure, NAMES, Setting};
use self::peer::Peer;
use self::profile::Profile;
use super::context::Context;
use super::output::line;
use crate::data::{picture, source};
use crate::models::{Architecture, Compute};
use crate::native::Half;
use crate::{Error, Result, cli, device};

/// A round of timing takes about so many seconds, made of as many repetitions as fit.
const ROUND: f64 = 0.5;

/// A measure's medians.
struct Row {
    name: String,
    about: &'static str,
    unit: &'static str,
    visage: f64,
    peer: Option<f64>,
    /// Who the peer is.
    against: Option<String>,
    /// How many times as fast, or as small, Visage is.
    ratio: Option<f64>,
}

pub fn run(context: &Context, flags: &cli::Bench) -> anyhow::Result<ExitCode> {
    let wanted = |name: &str| flags.only.is_empty() || flags.only.iter().any(|only| only == name);
    let is_openface = flags.backbone == Architecture::OpenFace;
    let names: &[&str] = if is_openface { &NAMES } else { &measures::OF_ANY };
    if let Some(unknown) = flags.only.iter().find(|name| !names.contains(&name.as_str())) {
        let of = if is_openface { "" } else { " of this --backbone" };
        let text = format!("--only {unknown}: the measures{of} are {}", names.join(", "));
        return Err(Error::Config(text).into());
    }
    let device = context.device()?;
    let half = flags.precision.set_up(device)?;
    if flags.against_pytorch.is_some() && (device != Device::Cpu || half == Some(Half::Float16)) {
        let text = "--against-pytorch: the other side computes on the CPU, in float32 or bfloat16; \
                    give --device cpu and leave --precision f16 out";
        return Err(Error::Config(text.into()).into());
    }
    tch::manual_seed(0);
    let setting = Setting {
        architecture: flags.backbone,
        device,
        compute: Compute::fast(half),
        batch: i64::from(flags.batch),
        mined: i64::from(flags.mined),
        pictures: pictures(flags)?,
    };
    if is_openface && setting.pictures.is_empty() {
        let text = "note: no pictures found; load, embed and cold are left out (--data DIR)";
        context.say.line(text);
    }
    let mut peer = match &flags.against_pytorch {
        Some(python) => Some(Peer::start(python, &setting)?),
        None => None,
    };
    let against = peer.as_ref().map(|peer| format!(", against {}", peer.versions()));
    context.say.line(&format!(
        "{} on {} in {}, {} threads, batches of {}, {} pictures, medians of {}{}",
        flags.backbone.name(),
        device::name(device),
        flags.precision.explicit(device).name(),
        tch::get_num_threads(),
        flags.batch,
        setting.pictures.len(),
        flags.repeats,
        against.unwrap_or_default()
    ));
    if !flags.json {
        let peers =
            if peer.is_some() { format!("{:>12}{:>9}", "peer", "ratio") } else { String::new() };
        line(&format!("{:<23}{:>12}{peers}  {:<13}what", "measure", "visage", "unit"))?;
    }
    let mut profiles = Vec::new();
    for name in names.iter().copied().filter(|name| wanted(name)) {
        let Some(mut measure) = measures::build(&setting, name)? else { continue };
        for row in rows(&mut measure, is_openface, peer.as_mut(), usize::from(flags.repeats))? {
            line(&if flags.json { object(&row) } else { text(&row) })?;
        }
        if flags.profile
            && let Some(profile) = Profile::of(&mut measure, &setting)?
        {
            profiles.push(profile.text(name));
        }
    }
    profiles.iter().try_for_each(|text| line(text))?;
    Ok(ExitCode::SUCCESS)
}

/// At most `--pictures` of the data that is there; none is fetched for this.
fn pictures(flags: &cli::Bench) -> Result<Vec<PathBuf>> {
    let folder = match &flags.data {
        Some(folder) => Some(folder.clone()),
        None => source::locate(std::path::Path::new(".")),
    };
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let all = picture::walk(&folder)?;
    let count = all.len().min(usize::from(flags.pictures));
    let at = |number: usize| all.get(number * all.len() / count.max(1)).cloned();
    Ok((0..count).filter_map(at).collect())
}

/// Times a measure, in turns with its peers.
fn rows(
    measure: &mut Measure,
    is_openface: bool,
    peer: Option<&mut Peer>,
    repeats: usize,
) -> Result<Vec<Row>> {
    // The first rounds warm caches and tell how many repetitions make a round.
    measure.seconds(1)?;
    let once = measure.seconds(1)?;
    let rounds = ((ROUND / once.max(1e-9)) as usize).clamp(1, 1000);
    let mut peer = peer;
    let peers = peer.as_ref().map_or(Vec::new(), |peer| measure.peers(is_openface, &peer.others));
    let mut own = Vec::new();
    let mut theirs = vec![Vec::new(); peers.len()];
    if let Some(peer) = &mut peer {
        peers.iter().try_for_each(|name| peer.seconds(name, 2).map(drop))?;
    }
    for _ in 0..repeats {
        own.push(measure.seconds(rounds)?);
        if let Some(peer) = &mut peer {
            for (name, seconds) in peers.iter().zip(&mut theirs) {
                seconds.push(peer.seconds(name, rounds)?);
            }
        }
    }
    let (unit, about) = (measure.unit, measure.about);
    let ours = median(&mut own);
    let row = |name: &str, theirs: Option<f64>| Row {
        name: name.to_owned(),
        about,
        unit,
        visage: measure.rate(ours, rounds),
        peer: theirs.map(|seconds| measure.rate(seconds, rounds)),
        against: theirs.map(|_| measures::peer_of(name).to_owned()),
        ratio: theirs.map(|seconds| seconds / ours),
    };
    let mut rows: Vec<Row> = match theirs.is_empty() {
        true => vec![row(measure.name, None)],
        false => peers
            .iter()
            .zip(&mut theirs)
            .map(|(name, seconds)| row(name, Some(median(seconds))))
            .collect(),
    };
    if let Some(visage) = measure.memory() {
        let theirs = peer.and_then(|peer| peer.memory());
        rows.push(Row {
            name: format!("{}-memory", measure.name),
            about: "the most memory it takes",
            unit: "MiB",
            visage,
            peer: theirs,
            against: theirs.map(|_| measures::PYTORCH.to_owned()),
            ratio: theirs.map(|theirs| theirs / visage),
        });
    }
    Ok(rows)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => f64::NAN,
        1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

fn object(row: &Row) -> String {
    json!({
        "name": row.name,
        "visage": row.visage,
        "against": row.against,
        "peer": row.peer,
        "pytorch": row.peer.filter(|_| row.against.as_deref() == Some(measures::PYTORCH)),
        "unit": row.unit,
        "ratio": row.ratio,
    })
    .to_string()
}

fn text(row: &Row) -> String {
    let number = |value: f64| match value < 10.0 {
        true => format!("{value:.3}"),
        false => format!("{value:.1}"),
    };
    let peers = row
        .peer
        .zip(row.ratio)
        .map(|(theirs, ratio)| format!("{:>12}{:>9}", number(theirs), format!("{ratio:.2}x")));
    let peers = peers.unwrap_or_default();
    format!("{:<23}{:>12}{peers}  {:<13}{}", row.name, number(row.visage), row.unit, row.about)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_numbers_as_people_read_them() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        let row = Row {
            name: "step".into(),
            about: "work",
            unit: "triplets/s",
            visage: 150.04,
            peer: Some(1.25),
            against: Some("pytorch".into()),
            ratio: Some(120.032),
        };
        let words: Vec<String> = text(&row).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["step", "150.0", "1.250", "120.03x", "triplets/s", "work"]);
        let parsed: serde_json::Value = serde_json::from_str(&object(&row)).unwrap();
        assert_eq!(parsed["ratio"], 120.032);
        assert_eq!((&parsed["pytorch"], &parsed["peer"]), (&json!(1.25), &json!(1.25)));
    }
}
