//! Who is in a gallery, and whether the file is sound.

use std::collections::BTreeMap;

use rusqlite::OptionalExtension;

use super::Gallery;
use super::file::to_values;
use super::threshold;
use crate::{Error, Result};

/// A person, for lists.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EnrolledPerson {
    /// Their name.
    pub name: String,
    /// Number of enrolled faces.
    pub faces: usize,
    /// Number of faces that were rejected.
    pub rejected: usize,
    /// The day they were enrolled, UTC, as YYYY-MM-DD.
    pub added: String,
    /// The greatest distance at which a face is named so.
    pub limit: Option<f32>,
    /// Enrolled people who look like them, with the smallest distance between their faces.
    pub look_alikes: BTreeMap<String, f32>,
}

/// An enrolled face.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EnrolledFace {
    /// Its number in the file.
    pub id: i64,
    /// The picture it was on.
    pub path: String,
    /// SHA-256 of that file.
    pub sha256: String,
    /// Where it was: left, top, right, bottom in pixels.
    #[serde(rename = "box")]
    pub bounds: [f64; 4],
    /// The detector's probability.
    pub detection: Option<f64>,
    /// Variance of the Laplacian.
    pub sharpness: Option<f64>,
    /// The day it was enrolled.
    pub added: String,
    /// The distance to the person's other faces: a large one may be another person.
    pub to_others: Option<f32>,
    /// A thumbnail is kept.
    pub has_thumbnail: bool,
}

/// All embeddings with what they belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// Length of a row.
    pub dim: usize,
    /// Row by row.
    pub values: Vec<f32>,
    /// The person of each row.
    pub names: Vec<String>,
    /// The picture of each row.
    pub paths: Vec<String>,
    /// Its SHA-256.
    pub sha256: Vec<String>,
}

impl Gallery {
    /// All people, by name.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self) -> Result<Vec<EnrolledPerson>> {
        let memory = &self.memory;
        let days: BTreeMap<i64, String> = self.file.read(|file| {
            let mut days = file.prepare("SELECT id, date(added, 'unixepoch') FROM people")?;
            let days = days.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(days.collect::<rusqlite::Result<_>>()?)
        })?;
        let mut alike: BTreeMap<usize, BTreeMap<String, f32>> = BTreeMap::new();
        for &(a, b, distance) in &memory.look_alikes {
            for (person, other) in [(a, b), (b, a)] {
                let name = memory.people[other].name.clone();
                alike.entry(person).or_default().insert(name, distance);
            }
        }
        let person = |(place, person): (usize, &super::Person)| EnrolledPerson {
            name: person.name.clone(),
            faces: memory.index.rows_of(place).len(),
            rejected: memory.negatives.get(&place).map_or(0, Vec::len),
            added: days.get(&person.id).cloned().unwrap_or_default(),
            limit: memory.threshold.as_ref().map(|threshold| threshold.of_person[place]),
            look_alikes: alike.remove(&place).unwrap_or_default(),
        };
        let mut people: Vec<EnrolledPerson> =
            memory.people.iter().enumerate().map(person).collect();
        people.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(people)
    }

    /// One person with all their faces.
    ///
    /// # Errors
    /// There is no such person.
    pub fn show(&mut self, name: &str) -> Result<(EnrolledPerson, Vec<EnrolledFace>)> {
        let (id, place) = self.person(name)?;
        let person = self.list()?.into_iter().find(|person| person.name == name);
        let person =
            person.ok_or_else(|| Error::Data(format!("{name}: was forgotten just now")))?;
        let memory = &self.memory;
        let rows: BTreeMap<i64, usize> = memory
            .index
            .rows_of(place)
            .iter()
            .map(|&row| (memory.faces[row as usize], row as usize))
            .collect();
        let faces = self.file.read(|file| {
            let mut faces = file.prepare(
                "SELECT id, path, sha256, x1, y1, x2, y2, detection, sharpness, date(added, 'unixepoch'),
                 EXISTS (SELECT 1 FROM thumbnails WHERE face = faces.id) FROM faces WHERE person = ?1 ORDER BY id",
            )?;
            let faces = faces.query_map([id], |row| {
                let id = row.get(0)?;
                let others = rows.get(&id).and_then(|&row| memory.index.to_others(row, 1));
                Ok(EnrolledFace {
                    id,
                    path: row.get(1)?,
                    sha256: row.get(2)?,
                    bounds: [row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?],
                    detection: row.get(7)?,
                    sharpness: row.get(8)?,
                    added: row.get(9)?,
                    to_others: others,
                    has_thumbnail: row.get(10)?,
                })
            })?;
            Ok(faces.collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        Ok((person, faces))
    }

    /// The thumbnail of a face: a PNG, if one is kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn thumbnail(&self, face: i64) -> Result<Option<Vec<u8>>> {
        self.file.read(|file| {
            let png = "SELECT png FROM thumbnails WHERE face = ?1";
            Ok(file.query_row(png, [face], |row| row.get(0)).optional()?)
        })
    }

    /// All embeddings of enrolled people, in the order in which they were enrolled.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn export(&self) -> Result<Exported> {
        let dim = self.memory.index.dim();
        let (values, names) = (Vec::new(), Vec::new());
        let (paths, sha256) = (Vec::new(), Vec::new());
        let mut all = Exported { dim, values, names, paths, sha256 };
        self.file.read(|file| {
            let mut faces = file.prepare(
                "SELECT people.name, faces.path, faces.sha256, vectors.vector FROM faces
                 JOIN people ON people.id = faces.person JOIN vectors ON vectors.face = faces.id ORDER BY faces.id",
            )?;
            let mut rows = faces.query([])?;
            while let Some(row) = rows.next()? {
                all.names.push(row.get(0)?);
                all.paths.push(row.get(1)?);
                all.sha256.push(row.get(2)?);
                let vector = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
                all.values.extend(to_values(vector));
            }
            Ok(())
        })?;
        Ok(all)
    }

    /// What is wrong with the file; empty if nothing is.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub fn check(&self) -> Result<Vec<String>> {
        let mut problems = self.file.read(|file| {
            let mut found = Vec::new();
            let mut integrity = file.prepare("PRAGMA integrity_check")?;
            let lines = integrity.query_map([], |row| row.get::<_, String>(0))?;
            for line in lines {
                found.push(line?);
            }
            found.retain(|line| line != "ok");
            let mut keys = file.prepare("PRAGMA foreign_key_check")?;
            let mut rows = keys.query([])?;
            while let Some(row) = rows.next()? {
                let table: String = row.get(0)?;
                found.push(format!("a row of {table} belongs to nothing"));
            }
            let bare = "SELECT count(*) FROM faces WHERE id NOT IN (SELECT face FROM vectors)";
            let bare: i64 = file.query_row(bare, [], |row| row.get(0))?;
            if bare > 0 {
                found.push(format!("{bare} faces have no embedding"));
            }
            Ok(found)
        })?;
        let memory = &self.memory;
        if let Some(strangers) = &memory.strangers {
            let mut views = strangers.views.iter().zip(&memory.nearest);
            let is_right = |(view, stored): (_, &Vec<threshold::Nearest>)| {
                let fresh = threshold::nearest(&memory.index, view);
                fresh.iter().zip(stored).all(|(a, b)| a.distance == b.distance)
            };
            if !views.all(is_right) {
                problems
                    .push("the strangers' distances are not those of the enrolled faces".into());
            }
        }
        Ok(problems)
    }
}
