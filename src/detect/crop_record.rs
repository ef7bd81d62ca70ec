//! `faces.csv`: the outcome for every photo, so that an interrupted run can be resumed.
//!
//! Rows are appended while photos are processed; an incomplete last row is ignored. At the end the
//! table is sorted and rewritten.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::words::{cell, cell_text};
use crate::{Error, Result, files};

/// The outcome for a photo, or for one of its faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaceOutcome {
    /// Its face was cropped.
    #[serde(rename = "ok")]
    Ok,
    /// One of its faces was cropped; check that it is the right one.
    #[serde(rename = "several faces")]
    SeveralFaces,
    /// No face was detected.
    #[serde(rename = "no face")]
    NoFace,
    /// All faces are smaller than the minimum size.
    #[serde(rename = "too small")]
    TooSmall,
    /// The crop is less sharp than the minimum.
    #[serde(rename = "blurred")]
    Blurred,
    /// The file cannot be decoded.
    #[serde(rename = "unreadable")]
    Unreadable,
}

impl FaceOutcome {
    /// All outcomes and their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Ok, "ok"),
        (Self::SeveralFaces, "several faces"),
        (Self::NoFace, "no face"),
        (Self::TooSmall, "too small"),
        (Self::Blurred, "blurred"),
        (Self::Unreadable, "unreadable"),
    ];

    /// Its name in `faces.csv`.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(outcome, _)| *outcome == self).map_or("", |(_, name)| name)
    }
}

/// A row: a photo, or one face of it if all are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CropRow {
    /// Path of the photo, relative to the input folder.
    pub file: String,
    /// Outcome.
    pub outcome: FaceOutcome,
    /// Number of faces detected on the photo.
    pub faces: usize,
    /// Path of the crop, relative to the output folder.
    pub crop: Option<String>,
    /// Left edge of the face's box, in pixels.
    pub x1: Option<f32>,
    /// Top edge.
    pub y1: Option<f32>,
    /// Right edge.
    pub x2: Option<f32>,
    /// Bottom edge.
    pub y2: Option<f32>,
    /// Face probability.
    pub probability: Option<f32>,
    /// Sharpness of the crop; see [`super::sharpness`].
    pub sharpness: Option<f64>,
    /// Fraction of the crop outside the photo, where edge pixels are repeated.
    pub outside: Option<f64>,
}

impl CropRow {
    /// With the names of photo and crop as `map` gives them.
    fn map_names<'a, T: Into<String>>(&'a self, map: impl Fn(&'a str) -> T) -> Self {
        let crop = self.crop.as_deref().map(|crop| map(crop).into());
        Self { file: map(&self.file).into(), crop, ..self.clone() }
    }
}

/// The table of an output folder.
#[derive(Debug)]
pub struct CropRecord {
    path: PathBuf,
    rows: BTreeMap<String, Vec<CropRow>>,
    end: File,
}

impl CropRecord {
    /// Opens or creates the table. `whole` tells whether the rows of a photo are complete and up to
    /// date; others are dropped.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(path: &Path, whole: impl Fn(&[CropRow]) -> bool) -> Result<Self> {
        let mut rows: BTreeMap<String, Vec<CropRow>> = BTreeMap::new();
        if path.exists() {
            let mut text = std::fs::read(path).map_err(|source| Error::io(path, source))?;
            text.truncate(text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
            let table = csv::Reader::from_reader(text.as_slice()).into_deserialize::<CropRow>();
            for row in table.flatten().map(|row| row.map_names(cell_text)) {
                rows.entry(row.file.clone()).or_default().push(row);
            }
        }
        rows.retain(|_, rows| whole(rows));
        write(path, rows.values().flatten())?;
        let end = OpenOptions::new().append(true).open(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_path_buf(), rows, end })
    }

    /// Whether a photo has been processed.
    pub fn knows(&self, file: &str) -> bool {
        self.rows.contains_key(file)
    }

    /// All rows, grouped by photo.
    pub fn photos(&self) -> impl Iterator<Item = &[CropRow]> {
        self.rows.values().map(Vec::as_slice)
    }

    /// Appends the rows of processed photos.
    ///
    /// # Errors
    /// Names the file.
    pub fn add(&mut self, rows: Vec<CropRow>) -> Result<()> {
        let text = table(&rows, false).map_err(|error| Error::io(&self.path, error))?;
        self.end.write_all(&text).map_err(|error| Error::io(&self.path, error))?;
        for row in rows {
            self.rows.entry(row.file.clone()).or_default().push(row);
        }
        Ok(())
    }

    /// Writes the table, sorted.
    ///
    /// # Errors
    /// Names the file.
    pub fn finish(&self) -> Result<()> {
        write(&self.path, self.rows.values().flatten())
    }
}

fn write<'a>(path: &Path, rows: impl Iterator<Item = &'a CropRow>) -> Result<()> {
    let rows: Vec<CropRow> = rows.cloned().collect();
    files::write_atomically(path, |out| out.write_all(&table(&rows, true)?))
}

fn table(rows: &[CropRow], head: bool) -> std::io::Result<Vec<u8>> {
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    if head {
        csv.write_record([
            "file",
            "outcome",
            "faces",
            "crop",
            "x1",
            "y1",
            "x2",
            "y2",
            "probability",
            "sharpness",
            "outside",
        ])?;
    }
    for row in rows {
        csv.serialize(row.map_names(cell))?;
    }
    csv.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(file: &str, outcome: FaceOutcome) -> CropRow {
        CropRow {
            file: file.into(),
            outcome,
            faces: 1,
            crop: (outcome == FaceOutcome::Ok).then(|| format!("{file}.png")),
            x1: Some(1.5),
            y1: Some(-2.0),
            x2: Some(40.25),
            y2: Some(50.0),
            probability: Some(0.99),
            sharpness: None,
            outside: None,
        }
    }

    #[test]
    fn a_stopped_run_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.csv");
        let mut record = CropRecord::open(&path, |_| true).unwrap();
        record.add(vec![row("b, \"x\"", FaceOutcome::Ok), row("a", FaceOutcome::NoFace)]).unwrap();
        record.add(vec![row("c", FaceOutcome::Ok)]).unwrap();
        drop(record);
        // The last row was cut off while it was written.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 25]).unwrap();
        let record = CropRecord::open(&path, |rows| rows[0].outcome == FaceOutcome::Ok).unwrap();
        assert!(record.knows("b, \"x\"") && !record.knows("c") && !record.knows("a"));
        assert_eq!(record.photos().collect::<Vec<_>>(), [[row("b, \"x\"", FaceOutcome::Ok)]]);
        record.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn names_that_look_like_formulas_are_written_as_text_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces.csv");
        let rows = vec![row("=1+2.jpg", FaceOutcome::Ok)];
        CropRecord::open(&path, |_| true).unwrap().add(rows.clone()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\n'=1+2.jpg,ok,1,'=1+2.jpg.png,"), "{text}");
        let record = CropRecord::open(&path, |_| true).unwrap();
        assert_eq!(record.photos().collect::<Vec<_>>(), [rows]);
    }

    #[test]
    fn fates_are_written_by_their_names() {
        for (outcome, name) in FaceOutcome::ALL {
            assert_eq!(outcome.name(), name);
            let text = String::from_utf8(table(&[row("a", outcome)], false).unwrap()).unwrap();
            assert!(text.starts_with(&format!("a,{name},1,")), "{text}");
        }
    }
}
