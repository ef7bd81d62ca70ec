//! Enrolled people: names and embeddings in one SQLite file, without training.
//!
//! A face is compared with all enrolled ones, exactly. It gets the name of the nearest person (the mean
//! distance to their five nearest faces) if that is near enough, and is UNKNOWN otherwise. How near that
//! is follows from strangers: no more of them than asked get a name, however large the gallery grows.
//!
//! Every change is on the disk when it returns, or has not happened. Several processes may use one file.

mod answers;
mod file;
mod json;
mod memory;
mod others;
mod reports;
pub mod search;
mod seen;
pub mod threshold;
mod trunk;
mod unknown;

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{OptionalExtension, Transaction, params};

pub use json::left_out_json;
pub use reports::{EnrolledFace, EnrolledPerson, Exported};
pub use seen::one_face;
pub use trunk::{GalleryTrunk, TrunkSource};
pub use unknown::{Sighting, UnknownGroup};

use crate::train::calibrate::NEIGHBOURS;
use crate::train::strangers::Strangers;
use crate::{Error, Result};
use file::{Failure, File, to_bytes};
use memory::{Memory, Person};

/// A gallery.
#[derive(Debug)]
pub struct Gallery {
    file: File,
    memory: Memory,
}

/// A face to enrol, or one that was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct NewFace {
    /// The picture it is on.
    pub path: String,
    /// SHA-256 of the picture file, hexadecimal.
    pub sha256: String,
    /// Left, top, right and bottom in pixels.
    pub bounds: [f32; 4],
    /// The detector's probability, where it was asked.
    pub detection: Option<f32>,
    /// Variance of the Laplacian of the face as the trunk sees it.
    pub sharpness: Option<f64>,
    /// A small PNG of it, where it is to be kept.
    pub thumbnail: Option<Vec<u8>>,
    /// What the gallery's trunk makes of it.
    pub embedding: Vec<f32>,
}

/// What became of faces that were enrolled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enrolled {
    /// Number of faces that are new.
    pub added: usize,
    /// The pictures that were there already.
    pub again: Vec<String>,
    /// Faces nearer to somebody else than to the person's own other faces, or near enough to be named so.
    pub doubts: Vec<Doubt>,
}

/// A face that may be another person's.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    /// The picture.
    pub path: String,
    /// Whose it looks like.
    pub person: String,
    /// The distance to them.
    pub distance: f32,
    /// The very same picture is enrolled for them.
    pub is_same_picture: bool,
}

impl Gallery {
    /// Opens a gallery, or makes an empty one. The file is made by the first change.
    ///
    /// # Errors
    /// The file cannot be read, or is no gallery.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(File::open(path)?)
    }

    /// Opens a gallery that there is.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is none.
    pub fn open_existing(path: &Path) -> Result<Self> {
        Self::of(File::open_existing(path)?)
    }

    fn of(file: File) -> Result<Self> {
        let memory = file.read(Memory::read)?;
        Ok(Self { file, memory })
    }

    /// Reads the file again if another process has changed it; returns whether it has.
    ///
    /// # Errors
    /// As [`Gallery::open`].
    pub fn refresh(&mut self) -> Result<bool> {
        let revision = self.memory.revision;
        let fresh = self.file.read(|file| match revision_of(file)? == revision {
            true => Ok(None),
            false => Memory::read(file).map(Some),
        })?;
        let is_fresh = fresh.is_some();
        if let Some(memory) = fresh {
            self.memory = memory;
        }
        Ok(is_fresh)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The trunk of its embeddings; `None` before the first face.
    pub fn trunk(&self) -> Option<&GalleryTrunk> {
        self.memory.trunk.as_ref()
    }

    /// When a face is named; `None` before the first face.
    pub fn threshold(&self) -> Option<&threshold::Threshold> {
        self.memory.threshold.as_ref()
    }

    /// Number of enrolled faces.
    pub fn faces(&self) -> usize {
        self.memory.index.len()
    }

    /// Number of people.
    pub fn people(&self) -> usize {
        self.memory.people.len()
    }

    /// Sets the trunk of a new gallery, and checks that it is that of an old one.
    ///
    /// # Errors
    /// The gallery's trunk is another one, or nothing can be promised about strangers: there are no
    /// embeddings of any by this trunk.
    pub fn use_trunk(&mut self, trunk: GalleryTrunk, strangers: Option<&Strangers>) -> Result<()> {
        if let Some(own) = self.trunk() {
            own.check(&trunk)?;
        } else if strangers.is_none()
            && (Strangers::embedded(trunk.architecture)?.is_none() || !trunk.is_pretrained()?)
        {
            return Err(Error::Config(format!(
                "{}: Visage has no embeddings of strangers by this trunk, on which to choose the \
                 threshold; give pictures of some hundred people who will not be enrolled with \
                 --strangers DIR (only their embeddings are kept)",
                trunk.describe()
            )));
        }
        let is_new = self.memory.trunk.is_none();
        if !is_new && strangers.is_none() {
            return Ok(());
        }
        self.edit(|file, memory| {
            if is_new {
                memory.set_trunk(file, trunk)?;
            }
            memory.set_strangers(file, strangers)?;
            Ok(BTreeSet::new())
        })
    }

    /// Sets the share of strangers who may get a name, in (0, 1]; `None`: as little as can be shown, and no
    /// less than 1 %.
    ///
    /// # Errors
    /// It is less than the strangers can show; nothing is changed.
    pub fn set_fpir(&mut self, fpir: Option<f64>) -> Result<()> {
        self.edit(|file, memory| {
            file.execute("UPDATE gallery SET fpir = ?1", [fpir])?;
            memory.fpir = fpir;
            Ok(BTreeSet::new())
        })
    }

    /// Enrols faces of a person, who may be new.
    ///
    /// # Errors
    /// An impossible name, embeddings of another length or that are not finite; nothing is enrolled.
    pub fn enrol(&mut self, name: &str, faces: &[NewFace]) -> Result<Enrolled> {
        self.enrol_all(&[(name.to_owned(), faces.to_vec())])
    }

    /// Enrols faces of several people in one step.
    ///
    /// # Errors
    /// As [`Gallery::enrol`].
    pub fn enrol_all(&mut self, people: &[(String, Vec<NewFace>)]) -> Result<Enrolled> {
        for (name, faces) in people {
            check_name(name)?;
            let dim = self.memory.index.dim();
            faces.iter().try_for_each(|face| face.check(dim))?;
        }
        let mut enrolled = Enrolled::default();
        self.edit(|file, memory| {
            let (mut changed, mut added) = (BTreeSet::new(), Vec::new());
            let mut places = memory.by_name();
            for (name, faces) in people.iter().filter(|(_, faces)| !faces.is_empty()) {
                let person = match places.get(name) {
                    Some(person) => *person,
                    None => new_person(file, memory, name)?,
                };
                places.insert(name.clone(), person);
                changed.insert(person);
                for face in faces {
                    let row = memory.index.len();
                    if add_face(file, memory, person, face, &mut enrolled)? {
                        added.push((row, face));
                    }
                }
            }
            doubt(memory, &added, &mut enrolled)?;
            Ok(changed)
        })?;
        Ok(enrolled)
    }

    /// Gives a person another name.
    ///
    /// # Errors
    /// There is no such person, or already one of the new name.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<()> {
        check_name(new)?;
        let (id, _) = self.person(name)?;
        if self.memory.find(new).is_some() {
            return Err(Error::Config(format!(
                "{new}: is enrolled already; `visage gallery merge` makes one person of two"
            )));
        }
        self.edit(|file, memory| {
            file.execute("UPDATE people SET name = ?1 WHERE id = ?2", params![new, id])?;
            // Another process may have moved them.
            let place = memory.place(id)?;
            new.clone_into(&mut memory.people[place].name);
            Ok(BTreeSet::new())
        })
    }

    /// Forgets a person: no byte about them is left in the file. Returns the number of their faces.
    ///
    /// # Errors
    /// There is no such person.
    pub fn forget(&mut self, name: &str) -> Result<usize> {
        let (id, place) = self.person(name)?;
        let faces = self.memory.index.rows_of(place).len();
        self.rebuild(&[id], |file| {
            file.execute("DELETE FROM people WHERE id = ?1", [id])?;
            event(file, "a person was forgotten")?;
            Ok(())
        })?;
        self.file.vacuum()?;
        Ok(faces)
    }

    /// Makes one person of two: `from`'s faces become `into`'s. Returns their number.
    ///
    /// # Errors
    /// One of them is not enrolled, or they are the same.
    pub fn merge(&mut self, from: &str, into: &str) -> Result<usize> {
        let ((source, place), (target, _)) = (self.person(from)?, self.person(into)?);
        if source == target {
            return Err(Error::Config(format!("{from}: cannot be merged with themselves")));
        }
        let faces = self.memory.index.rows_of(place).len();
        self.rebuild(&[source, target], |file| {
            for table in ["faces", "negatives"] {
                let update = format!("UPDATE {table} SET person = ?1 WHERE person = ?2");
                file.execute(&update, params![target, source])?;
            }
            file.execute("DELETE FROM look_alikes WHERE ?1 IN (person, other)", [target])?;
            file.execute("DELETE FROM people WHERE id = ?1", [source])?;
            Ok(())
        })?;
        Ok(faces)
    }

    /// Remembers that these faces are not this person's: faces at least as near to one of them as to
    /// the person's own are not named so again.
    ///
    /// # Errors
    /// There is no such person.
    pub fn reject(&mut self, name: &str, faces: &[NewFace]) -> Result<()> {
        let (id, _) = self.person(name)?;
        let dim = self.memory.index.dim();
        faces.iter().try_for_each(|face| face.check(dim))?;
        self.edit(|file, memory| {
            let place = memory.place(id)?;
            for face in faces {
                file.execute(
                    "INSERT INTO negatives (person, path, sha256, vector) VALUES (?1, ?2, ?3, ?4)",
                    params![id, face.path, face.sha256, to_bytes(&face.embedding)],
                )?;
                memory.negatives.entry(place).or_default().push(face.embedding.clone());
            }
            Ok(BTreeSet::new())
        })
    }

    /// The numbers of a person in the file and in memory.
    fn person(&mut self, name: &str) -> Result<(i64, usize)> {
        self.refresh()?;
        if let Some(place) = self.memory.find(name) {
            return Ok((self.memory.people[place].id, place));
        }
        let names = self.memory.people.iter().map(|person| person.name.as_str());
        let alike = |other: &str| strsim::jaro_winkler(&other.to_lowercase(), &name.to_lowercase());
        let near = names.map(|other| (alike(other), other)).filter(|(alike, _)| *alike > 0.8);
        let near = near.max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near.map(|(_, other)| format!("; did you mean {other}?")).unwrap_or_default();
        let path = self.path().display();
        Err(Error::Config(format!("{name}: nobody of that name is enrolled in {path}{hint}")))
    }

    /// Changes the file and the memory together. `body` returns the people whose faces have changed.
    fn edit(
        &mut self,
        body: impl FnOnce(&Transaction, &mut Memory) -> Result<BTreeSet<usize>, Failure>,
    ) -> Result<()> {
        let Self { file, memory } = self;
        let changed = file.change(|file| {
            if revision_of(file)? != memory.revision {
                *memory = Memory::read(file)?;
            }
            let changed = body(file, memory)?;
            memory.recalibrate(file, &changed)?;
            memory.revision += 1;
            Ok(())
        });
        if changed.is_err() {
            // Undone in the file, so that it has to be in memory.
            *memory = file.read(Memory::read)?;
        }
        changed
    }

    /// Changes the file so that the memory has to be read again. `people` are those whose faces change.
    fn rebuild(
        &mut self,
        people: &[i64],
        body: impl FnOnce(&Transaction) -> Result<(), Failure>,
    ) -> Result<()> {
        self.memory = self.file.change(|file| {
            body(file)?;
            let mut memory = Memory::read(file)?;
            let changed = people.iter().filter_map(|&id| memory.place(id).ok()).collect();
            memory.recalibrate(file, &changed)?;
            memory.revision += 1;
            Ok(memory)
        })?;
        Ok(())
    }
}

impl NewFace {
    fn check(&self, dim: usize) -> Result<()> {
        let (path, length) = (&self.path, self.embedding.len());
        if length != dim {
            let text = format!("{path}: an embedding of length {length}, not the gallery's {dim}");
            return Err(Error::Data(text));
        }
        match self.embedding.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(Error::Data(format!("{path}: the embedding is not finite"))),
        }
    }
}

fn revision_of(file: &Transaction) -> Result<i64, Failure> {
    let revision = file.query_row("SELECT revision FROM gallery", [], |row| row.get(0));
    Ok(revision.optional()?.unwrap_or(0))
}

/// Checks that a name can be a person's.
///
/// # Errors
/// It is empty, starts or ends with space, or has control characters.
pub fn check_name(name: &str) -> Result<()> {
    let is_fine =
        !name.trim().is_empty() && name.trim() == name && !name.contains(char::is_control);
    match is_fine {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "--name {name:?}: a name has letters, no control characters and no space at its ends"
        ))),
    }
}

fn new_person(file: &Transaction, memory: &mut Memory, name: &str) -> Result<usize, Failure> {
    file.execute("INSERT INTO people (name, added) VALUES (?1, unixepoch())", [name])?;
    Ok(memory.add_person(Person { id: file.last_insert_rowid(), name: name.to_owned() }))
}

/// Doubts the faces that are as near to somebody else as to the other faces of their person; a person's
/// only face, where it is near enough to be named so.
fn doubt(
    memory: &Memory,
    added: &[(usize, &NewFace)],
    enrolled: &mut Enrolled,
) -> Result<(), Failure> {
    let limit = memory.threshold.as_ref().map(|threshold| threshold.limit);
    let radius = |row| {
        let own = memory.index.to_others(row, NEIGHBOURS).or(limit)?;
        // At the radius itself, too.
        Some((row, own.next_up()))
    };
    let (faces, rows): (Vec<_>, Vec<_>) =
        added.iter().filter_map(|&(row, face)| Some((face, radius(row)?))).unzip();
    let hits = memory.index.nearest_others(&rows, NEIGHBOURS)?;
    for (face, hit) in faces.into_iter().zip(hits) {
        // The same picture is reported as such.
        if let Some(hit) = hit.filter(|hit| hit.distance > 0.0) {
            let (path, person) = (face.path.clone(), memory.people[hit.person].name.clone());
            let distance = hit.distance;
            enrolled.doubts.push(Doubt { path, person, distance, is_same_picture: false });
        }
    }
    Ok(())
}

/// Adds one face, unless it is there; whether it was added. Doubts it if another person has it, too.
fn add_face(
    file: &Transaction,
    memory: &mut Memory,
    person: usize,
    face: &NewFace,
    enrolled: &mut Enrolled,
) -> Result<bool, Failure> {
    let same = "SELECT person FROM faces WHERE sha256 = ?1 AND person IS NOT NULL
                AND abs(x1 - ?2) < 1 AND abs(y1 - ?3) < 1";
    let mut same = file.prepare_cached(same)?;
    let [x1, y1, ..] = face.bounds.map(f64::from);
    let owners = same.query_map(params![face.sha256, x1, y1], |row| row.get::<_, i64>(0))?;
    for owner in owners.collect::<rusqlite::Result<Vec<i64>>>()? {
        let owner = memory.place(owner)?;
        if owner == person {
            enrolled.again.push(face.path.clone());
            return Ok(false);
        }
        let name = memory.people[owner].name.clone();
        let path = face.path.clone();
        enrolled.doubts.push(Doubt { path, person: name, distance: 0.0, is_same_picture: true });
    }
    let id = memory.people[person].id;
    let row = insert_face(file, face, Some(id), None)?;
    memory.add_face(row, id, &face.embedding)?;
    enrolled.added += 1;
    Ok(true)
}

/// Stores a face of a person or of an unknown group; returns its number.
fn insert_face(
    file: &Transaction,
    face: &NewFace,
    person: Option<i64>,
    unknown: Option<i64>,
) -> Result<i64, Failure> {
    let [x1, y1, x2, y2] = face.bounds.map(f64::from);
    let insert = "INSERT INTO faces (person, unknown, path, sha256, x1, y1, x2, y2, detection, sharpness, added)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, unixepoch())";
    file.prepare_cached(insert)?.execute(params![
        person,
        unknown,
        face.path,
        face.sha256,
        x1,
        y1,
        x2,
        y2,
        face.detection.map(f64::from),
        face.sharpness
    ])?;
    let row = file.last_insert_rowid();
    let vector = "INSERT INTO vectors (face, vector) VALUES (?1, ?2)";
    file.prepare_cached(vector)?.execute(params![row, to_bytes(&face.embedding)])?;
    if let Some(png) = &face.thumbnail {
        file.execute("INSERT INTO thumbnails (face, png) VALUES (?1, ?2)", params![row, png])?;
    }
    Ok(row)
}

/// Adds to the log, which names nobody.
fn event(file: &Transaction, what: &str) -> Result<(), Failure> {
    file.execute("INSERT INTO events (at, what) VALUES (unixepoch(), ?1)", [what])?;
    Ok(())
}

#[cfg(test)]
mod tests;
