//! `visage prepare faces`: aligned crops of the faces in a folder of photos.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

use super::context::Context;
use super::detection::{self, Outcome};
use super::output;
use super::output::count;
use crate::cli::{Keep, PrepareFaces};
use crate::data::picture;
use crate::detect::crop_record::{CropRecord, CropRow, FaceOutcome};
use crate::detect::{Crop, Face, Template, sharpness};
use crate::figures::save_png;
use crate::{Error, Result, files};

/// The table of outcomes, and what the crops were made with.
const TABLE: &str = "faces.csv";
const SETTINGS: &str = "faces.toml";

pub fn run(context: &Context, flags: &PrepareFaces) -> anyhow::Result<ExitCode> {
    let job = Job::new(flags)?;
    let detector = detection::detector(context, &flags.detector)?;
    let photos = picture::walk(&flags.input)?;
    if photos.is_empty() {
        return Err(Error::Data(format!("{}: contains no pictures", flags.input.display())).into());
    }
    job.claim_output()?;
    let mut record = CropRecord::open(&flags.output.join(TABLE), |rows| job.is_whole(rows))?;
    let (known, open): (Vec<_>, Vec<_>) =
        photos.into_iter().partition(|photo| record.knows(&job.name(photo)));
    if !known.is_empty() {
        context.say.line(&format!("{} already done", count(known.len(), "photo")));
    }
    let crops = record.photos().flatten().filter_map(|row| row.crop.clone());
    let mut taken: HashSet<String> = crops.collect();
    let bar = context.say.progress("faces", open.len() as u64, "photos");
    detection::detect_files(&detector, &open, Some(&bar), |paths, outcomes| {
        let judged = paths.par_iter().zip(outcomes);
        let judged: Vec<Photo> = judged.map(|(path, outcome)| job.judge(path, outcome)).collect();
        let mut rows = Vec::new();
        let mut crops = Vec::new();
        for photo in judged {
            if let Some(reason) = &photo.trouble {
                context.say.warn(reason);
            }
            for (mut row, crop) in photo.rows {
                if let Some(crop) = crop {
                    let name = free_name(&row.file, &mut taken);
                    crops.push((flags.output.join(&name), crop));
                    row.crop = Some(name);
                }
                rows.push(row);
            }
        }
        crops.par_iter().try_for_each(|(path, crop)| save_png(path, crop))?;
        for rows in rows.chunk_by(|a, b| a.file == b.file) {
            job.quarantine(rows)?;
        }
        Ok(record.add(rows)?)
    })?;
    bar.finish();
    record.finish()?;
    summary(flags, &job, &record)?;
    Ok(ExitCode::SUCCESS)
}

/// A crop with more than this fraction outside its photo is reported.
const BEYOND: f64 = 0.1;

/// What the crops depend on, written to `faces.toml`.
#[derive(Serialize)]
struct Settings {
    keep: Keep,
    template: Template,
    size: [u32; 2],
    margin: f64,
    min_size: f64,
    min_sharpness: f64,
    min_face: String,
    threshold: Vec<f32>,
}

/// The flags, checked.
struct Job<'a> {
    flags: &'a PrepareFaces,
    crop: Crop,
    quarantine: PathBuf,
}

/// A photo's rows with their crops, and a warning.
struct Photo {
    rows: Vec<(CropRow, Option<RgbImage>)>,
    trouble: Option<String>,
}

impl<'a> Job<'a> {
    fn new(flags: &'a PrepareFaces) -> anyhow::Result<Self> {
        for (flag, value) in
            [("--min-size", flags.min_size), ("--min-sharpness", flags.min_sharpness)]
        {
            if !(value.is_finite() && value >= 0.0) {
                let text = format!("{flag} {value}: must be a number of at least 0");
                return Err(Error::Config(text).into());
            }
        }
        let input = std::fs::canonicalize(&flags.input).map_err(|e| Error::io(&flags.input, e))?;
        if !input.is_dir() {
            let text = format!("{}: not a folder of photos", flags.input.display());
            return Err(Error::Data(text).into());
        }
        if resolved(&flags.output).starts_with(&input) {
            let text = format!(
                "{}: is inside {}, where its crops would be taken for photos; use another folder",
                flags.output.display(),
                flags.input.display()
            );
            return Err(Error::Config(text).into());
        }
        let crop = Crop::new(flags.template, flags.size, flags.margin)?;
        let mut quarantine = flags.output.components().as_path().as_os_str().to_owned();
        quarantine.push("-quarantine");
        Ok(Self { flags, crop, quarantine: quarantine.into() })
    }

    /// A photo's path below the input.
    fn name(&self, photo: &Path) -> String {
        photo.strip_prefix(&self.flags.input).unwrap_or(photo).to_string_lossy().into_owned()
    }

    /// Creates the folder of crops, or checks that an existing one was made with the same settings.
    fn claim_output(&self) -> anyhow::Result<()> {
        let flags = self.flags;
        let (width, height) = self.crop.size();
        let settings = Settings {
            keep: flags.keep,
            template: flags.template,
            size: [width, height],
            margin: flags.margin,
            min_size: flags.min_size,
            min_sharpness: flags.min_sharpness,
            min_face: flags.detector.min_face.to_string(),
            threshold: flags.detector.face_threshold.clone(),
        };
        let text = toml::to_string(&settings)?;
        let path = flags.output.join(SETTINGS);
        match std::fs::read_to_string(&path) {
            Ok(before) if before == text => Ok(()),
            Ok(before) => {
                let differ = text.lines().zip(before.lines()).find(|(now, before)| now != before);
                let (now, before) = differ.unwrap_or(("?", "?"));
                let text = format!(
                    "{}: was made with {before}, not {now}; use another folder, or the same settings",
                    flags.output.display()
                );
                Err(Error::Config(text).into())
            }
            Err(_) => {
                let mut inside = std::fs::read_dir(&flags.output).into_iter().flatten();
                if inside.next().is_some() {
                    let text = format!(
                        "{}: is not empty and has no {SETTINGS}; use a new folder",
                        flags.output.display()
                    );
                    return Err(Error::Config(text).into());
                }
                Ok(files::write_atomically(&path, |out| {
                    std::io::Write::write_all(out, text.as_bytes())
                })?)
            }
        }
    }

    /// Whether a photo's rows and crops are complete, so that it need not be processed again.
    fn is_whole(&self, rows: &[CropRow]) -> bool {
        let wanted = match (self.flags.keep, rows.first()) {
            (Keep::All, Some(row)) => row.faces.max(1),
            _ => 1,
        };
        rows.len() == wanted
            && rows.iter().all(|row| {
                let crop = row.crop.as_ref();
                row.outcome != FaceOutcome::Unreadable
                    && crop.is_none_or(|crop| self.flags.output.join(crop).is_file())
            })
    }

    /// Crops the faces of a photo and decides on its outcome.
    fn judge(&self, path: &Path, outcome: Outcome) -> Photo {
        let file = self.name(path);
        let row = |outcome: FaceOutcome, faces: usize, face: Option<&Face>| {
            let edge = |k: usize| face.map(|face| face.bounds[k]);
            CropRow {
                file: file.clone(),
                outcome,
                faces,
                crop: None,
                x1: edge(0),
                y1: edge(1),
                x2: edge(2),
                y2: edge(3),
                probability: face.map(|face| face.probability),
                sharpness: None,
                outside: None,
            }
        };
        let (picture, faces) = match outcome {
            Ok(found) => found,
            Err(error) => {
                let rows = vec![(row(FaceOutcome::Unreadable, 0, None), None)];
                return Photo { rows, trouble: Some(error.to_string()) };
            }
        };
        let large = |face: &&Face| {
            let (width, height) = face.size();
            f64::from(width.min(height)) >= self.flags.min_size
        };
        let fitting: Vec<&Face> = faces.iter().filter(large).collect();
        let cut = |face: &Face, outcome: FaceOutcome| {
            let mut row = row(outcome, faces.len(), Some(face));
            let Some(crop) = self.crop.cut(&picture, face) else {
                row.outcome = FaceOutcome::NoFace;
                return (row, None);
            };
            let sharp = sharpness(&crop);
            row.sharpness = Some((sharp * 10.0).round() / 10.0);
            let outside = self.crop.outside(picture.dimensions(), face);
            row.outside = Some((outside * 1000.0).round() / 1000.0);
            if sharp < self.flags.min_sharpness {
                row.outcome = FaceOutcome::Blurred;
                return (row, None);
            }
            (row, Some(crop))
        };
        let rows = match (self.flags.keep, fitting.len()) {
            (_, 0) if faces.is_empty() => vec![(row(FaceOutcome::NoFace, 0, None), None)],
            (Keep::All, _) => faces
                .iter()
                .map(|face| match large(&face) {
                    true => cut(face, FaceOutcome::Ok),
                    false => (row(FaceOutcome::TooSmall, faces.len(), Some(face)), None),
                })
                .collect(),
            (_, 0) => vec![(row(FaceOutcome::TooSmall, faces.len(), faces.first()), None)],
            (keep, several) => {
                let outcome = if several > 1 { FaceOutcome::SeveralFaces } else { FaceOutcome::Ok };
                chosen(keep, &fitting, &picture)
                    .map(|face| cut(face, outcome))
                    .into_iter()
                    .collect()
            }
        };
        Photo { rows, trouble: None }
    }

    /// Links a photo that needs review from the quarantine, and no other.
    fn quarantine(&self, rows: &[CropRow]) -> Result<()> {
        let (Some(first), outcome) = (rows.first(), overall(rows)) else { return Ok(()) };
        for (other, name) in FaceOutcome::ALL {
            let link = self.quarantine.join(name.replace(' ', "-")).join(&first.file);
            if link.is_symlink() {
                std::fs::remove_file(&link).map_err(|source| Error::io(&link, source))?;
            }
            if other == outcome && outcome != FaceOutcome::Ok {
                let photo = self.flags.input.join(&first.file);
                let photo = std::path::absolute(&photo).unwrap_or(photo);
                files::create_folder(link.parent().unwrap_or(&self.quarantine))?;
                make_link(&photo, &link).map_err(|source| Error::io(&link, source))?;
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn make_link(photo: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(photo, link)
}

#[cfg(not(unix))]
fn make_link(photo: &Path, link: &Path) -> std::io::Result<()> {
    std::fs::hard_link(photo, link)
}

/// The outcome of a photo as a whole: ok if one of its faces is, else that of its first face.
fn overall(rows: &[CropRow]) -> FaceOutcome {
    let outcomes = || rows.iter().map(|row| row.outcome);
    let kept = outcomes().find(|outcome| *outcome == FaceOutcome::Ok);
    kept.or_else(|| outcomes().next()).unwrap_or(FaceOutcome::NoFace)
}

/// The face to keep of several, which are sorted from large to small.
fn chosen<'f>(keep: Keep, faces: &[&'f Face], picture: &RgbImage) -> Option<&'f Face> {
    if keep != Keep::Central {
        return faces.first().copied();
    }
    let distance = |face: &Face| face.off_centre(picture.dimensions());
    faces.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// A crop's path below the output: the photo's, as PNG; a name that is taken gets a number.
fn free_name(file: &str, taken: &mut HashSet<String>) -> String {
    let stem = Path::new(file).with_extension("");
    let stem = stem.to_string_lossy();
    let names = std::iter::once(format!("{stem}.png"))
        .chain((2_u64..).map(|number| format!("{stem}-{number}.png")));
    let free = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

/// A path without links and dots, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let existing = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match existing {
        Some((part, found)) => found.join(path.strip_prefix(part).unwrap_or(Path::new(""))),
        None => path,
    }
}

fn summary(flags: &PrepareFaces, job: &Job, record: &CropRecord) -> anyhow::Result<()> {
    let outcomes: Vec<FaceOutcome> = record.photos().map(overall).collect();
    let crops = record.photos().flatten().filter(|row| row.crop.is_some()).count();
    let many = |outcome: FaceOutcome| outcomes.iter().filter(|other| **other == outcome).count();
    let parts: Vec<String> = FaceOutcome::ALL
        .iter()
        .map(|&(outcome, name)| format!("{} {name}", many(outcome)))
        .collect();
    output::line(&format!(
        "{}: {}; {} in {}",
        count(outcomes.len(), "photo"),
        parts.join(", "),
        count(crops, "crop"),
        flags.output.display()
    ))?;
    let rows = || record.photos().flatten().filter(|row| row.crop.is_some());
    let beyond = rows().filter(|row| row.outside.is_some_and(|share| share > BEYOND)).count();
    if beyond > 0 {
        output::line(&format!(
            "note: {} of {crops} crops extend beyond their photo by more than {:.0} %, where its edge \
             is repeated; use pictures that are crops already as they are",
            beyond,
            100.0 * BEYOND
        ))?;
    }
    if many(FaceOutcome::Ok) < outcomes.len() {
        output::line(&format!("for review: {}", job.quarantine.display()))?;
    }
    Ok(())
}
