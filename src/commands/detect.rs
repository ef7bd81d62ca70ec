//! `visage detect`.

use std::path::Path;
use std::process::ExitCode;

use image::RgbImage;

use super::context::Context;
use super::{detection, inputs, output};
use crate::cli;
use crate::detect::Face;
use crate::figures::{self, FaceLabel, save_png};
use crate::recognise::reply::{detected, short};
use crate::words::cell;
use crate::{Result, files};

/// Number of photos from which on a progress bar is shown.
const MANY: usize = 16;

/// The landmarks of a face, as in the header of the table.
const POINTS: [&str; 5] = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"];

pub fn run(context: &Context, flags: &cli::Detect) -> anyhow::Result<ExitCode> {
    let detector = detection::detector(context, &flags.detector)?;
    let (files, mut failed) = inputs::collect(&flags.inputs, &context.say);
    let names =
        flags.draw.as_deref().map(|folder| detection::drawn_names(folder, &flags.inputs, &files));
    if let (Some(folder), Some(names)) = (&flags.draw, &names) {
        detection::keep_photos(names, &files)?;
        files::create_folder(folder)?;
    }
    let mut table = Vec::new();
    let mut done = 0;
    let bar =
        (files.len() >= MANY).then(|| context.say.progress("photos", files.len() as u64, "photos"));
    detection::detect_files(&detector, &files, bar.as_ref(), |paths, outcomes| {
        for (path, outcome) in paths.iter().zip(outcomes) {
            match outcome {
                Err(error) => {
                    context.say.error(&error.to_string());
                    failed += 1;
                }
                Ok((picture, faces)) => {
                    let lines = if flags.json {
                        vec![detected(path, &faces).to_string()]
                    } else {
                        lines(path, &faces)
                    };
                    for line in lines {
                        context.say.suspend(|| output::line(&line))?;
                    }
                    table.extend(flags.csv.iter().flat_map(|_| rows(path, &faces)));
                    if let Some(names) = &names {
                        save_png(&names[done], &drawn(&picture, &faces))?;
                    }
                }
            }
            done += 1;
        }
        Ok(())
    })?;
    if let Some(csv) = &flags.csv {
        write_table(csv, &table)?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// One line per face: box, probability, landmarks.
fn lines(path: &Path, faces: &[Face]) -> Vec<String> {
    let path = path.display();
    if faces.is_empty() {
        return vec![format!("{path}: no face found")];
    }
    let line = |face: &Face| {
        let [x1, y1, x2, y2] = face.bounds;
        let points: Vec<String> =
            face.landmarks.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        format!(
            "{path}: box {x1:.1} {y1:.1} {x2:.1} {y2:.1}, {:.2} %, landmarks {}",
            100.0 * face.probability,
            points.join(" ")
        )
    };
    faces.iter().map(line).collect()
}

/// The table's rows for a photo: one per face, or one without values.
fn rows(path: &Path, faces: &[Face]) -> Vec<Vec<String>> {
    let name = path.to_string_lossy().into_owned();
    if faces.is_empty() {
        let empty = std::iter::repeat_n(String::new(), 5 + 2 * POINTS.len());
        return vec![std::iter::once(name).chain(empty).collect()];
    }
    let row = |face: &Face| {
        let places = face.bounds.into_iter().map(short).map(|value| value.to_string());
        let points = face.landmarks.as_flattened().iter().map(|&value| short(value).to_string());
        let chance = face.probability.to_string();
        std::iter::once(name.clone()).chain(places).chain([chance]).chain(points).collect()
    };
    faces.iter().map(row).collect()
}

fn write_table(path: &Path, rows: &[Vec<String>]) -> Result<()> {
    let points = POINTS.iter().flat_map(|point| [format!("{point}_x"), format!("{point}_y")]);
    let names = ["file", "x1", "y1", "x2", "y2", "probability"].map(str::to_owned);
    let head: Vec<String> = names.into_iter().chain(points).collect();
    files::write_atomically(path, |out| {
        let mut csv = csv::Writer::from_writer(out);
        csv.write_record(&head)?;
        for row in rows {
            // The file, and numbers.
            let (file, numbers) = row.split_at(1);
            let file = file.iter().map(|name| cell(name).into_owned());
            csv.write_record(file.chain(numbers.iter().cloned()))?;
        }
        csv.flush()
    })
}

fn drawn(picture: &RgbImage, faces: &[Face]) -> RgbImage {
    let marked: Vec<FaceLabel> = faces
        .iter()
        .map(|face| FaceLabel {
            bounds: face.bounds.map(f64::from),
            landmarks: face.landmarks.iter().map(|point| point.map(f64::from)).collect(),
            words: format!("{:.1} %", 100.0 * face.probability),
            is_known: true,
        })
        .collect();
    figures::faces(picture, &marked)
}
