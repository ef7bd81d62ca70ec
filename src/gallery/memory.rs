//! What of a gallery is in memory: everything that naming a face needs.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{OptionalExtension, Transaction, params};

use super::file::{Failure, to_bytes, to_values};
use super::search::Index;
use super::threshold::{self, Nearest, Threshold};
use super::trunk::{GalleryTrunk, TrunkSource};
use crate::eval::Embeddings;
use crate::train::calibrate::NEIGHBOURS;
use crate::train::strangers::Strangers;
use crate::{Error, Result};

/// New faces of a person that are compared with other people.
const COMPARED: usize = 5;

/// A person by the numbers of the [`Index`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The number in the file.
    pub id: i64,
    pub name: String,
}

/// The gallery as it is in the file at one revision.
#[derive(Debug)]
pub struct Memory {
    pub revision: i64,
    /// None until the first face is enrolled.
    pub trunk: Option<GalleryTrunk>,
    pub fpir: Option<f64>,
    pub people: Vec<Person>,
    /// From the file's numbers to those of the index.
    pub place: HashMap<i64, usize>,
    pub index: Index,
    /// The file's number of the face of each row.
    pub faces: Vec<i64>,
    /// Embeddings of faces that are not this person's.
    pub negatives: BTreeMap<usize, Vec<Vec<f32>>>,
    /// Pairs of people with the smallest distance between them.
    pub look_alikes: Vec<(usize, usize, f32)>,
    pub strangers: Option<Strangers>,
    /// The distance within which two faces count as one person's, once it was needed.
    pub same_person: OnceCell<f32>,
    /// The person nearest to each stranger, in each framing.
    pub nearest: Vec<Vec<Nearest>>,
    pub threshold: Option<Threshold>,
}

impl Memory {
    /// Reads everything.
    pub fn read(file: &Transaction) -> Result<Self, Failure> {
        let row = "SELECT architecture, fingerprint, dim, source, fpir, revision FROM gallery";
        type Row = (String, String, i64, String, Option<f64>, i64);
        let row: Option<Row> = file
            .query_row(row, [], |row| {
                let text = |at| row.get::<_, String>(at);
                Ok((text(0)?, text(1)?, row.get(2)?, text(3)?, row.get(4)?, row.get(5)?))
            })
            .optional()?;
        let (mut trunk, mut fpir, mut revision) = (None, None, 0);
        if let Some((architecture, fingerprint, dim, source, asked, at)) = row {
            (fpir, revision) = (asked, at);
            let architecture = serde_json::from_value(architecture.into()).map_err(damaged)?;
            let source: TrunkSource = serde_json::from_str(&source).map_err(damaged)?;
            trunk = Some(GalleryTrunk { architecture, fingerprint, dim: dim as usize, source });
        }
        let dim = trunk.as_ref().map_or(0, |trunk| trunk.dim);
        let mut memory = Self {
            revision,
            trunk,
            fpir,
            people: Vec::new(),
            place: HashMap::new(),
            index: Index::new(dim),
            faces: Vec::new(),
            negatives: BTreeMap::new(),
            look_alikes: Vec::new(),
            strangers: None,
            same_person: OnceCell::new(),
            nearest: Vec::new(),
            threshold: None,
        };
        memory.read_people(file)?;
        memory.read_strangers(file)?;
        Ok(memory)
    }

    fn read_people(&mut self, file: &Transaction) -> Result<(), Failure> {
        let mut people = file.prepare("SELECT id, name FROM people ORDER BY id")?;
        let people =
            people.query_map([], |row| Ok(Person { id: row.get(0)?, name: row.get(1)? }))?;
        for person in people {
            self.add_person(person?);
        }
        let count = "SELECT count(*) FROM faces WHERE person IS NOT NULL";
        let count: i64 = file.query_row(count, [], |row| row.get(0))?;
        self.index.reserve(count as usize);
        let mut faces = file.prepare(
            "SELECT vectors.face, faces.person, vectors.vector FROM vectors JOIN faces ON faces.id = vectors.face
             WHERE faces.person IS NOT NULL ORDER BY vectors.face",
        )?;
        let mut rows = faces.query([])?;
        let mut values = Vec::new();
        while let Some(row) = rows.next()? {
            let (face, person) = (row.get(0)?, row.get::<_, i64>(1)?);
            self.values(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?, &mut values)?;
            self.add_face(face, person, &values)?;
        }
        let mut negatives = file.prepare("SELECT person, vector FROM negatives ORDER BY id")?;
        let mut rows = negatives.query([])?;
        while let Some(row) = rows.next()? {
            let person = self.place(row.get(0)?)?;
            self.values(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, &mut values)?;
            self.negatives.entry(person).or_default().push(values.clone());
        }
        let mut pairs = file.prepare("SELECT person, other, distance FROM look_alikes")?;
        let mut rows = pairs.query([])?;
        while let Some(row) = rows.next()? {
            let (a, b) = (self.place(row.get(0)?)?, self.place(row.get(1)?)?);
            self.look_alikes.push((a, b, row.get::<_, f64>(2)? as f32));
        }
        Ok(())
    }

    fn read_strangers(&mut self, file: &Transaction) -> Result<(), Failure> {
        let Some(trunk) = &self.trunk else { return Ok(()) };
        let own = "SELECT people, source, vectors FROM strangers";
        let own = file
            .query_row(own, [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .optional()?;
        self.strangers = match own {
            Some((people, source, bytes)) => {
                let values: Vec<f32> = to_values(&bytes).collect();
                let view = Embeddings::new(values.len() / trunk.dim.max(1), trunk.dim, values)?;
                let source = serde_json::from_str(&source).map_err(damaged)?;
                Some(Strangers { views: vec![view], people: people as usize, source })
            }
            None => Strangers::embedded(trunk.architecture)?,
        };
        let Some(strangers) = &self.strangers else { return Ok(()) };
        if strangers.views.iter().any(|view| view.dim() != trunk.dim) {
            return Err(damaged("strangers of another length").into());
        }
        let mut stored = file.prepare("SELECT nearest FROM stranger_distances ORDER BY view")?;
        let stored = stored.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        let stored: Vec<Vec<u8>> = stored.collect::<rusqlite::Result<_>>()?;
        let stored = stored.iter().map(|bytes| self.parse_nearest(bytes)).collect::<Vec<_>>();
        let whole = stored.len() == strangers.views.len()
            && stored.iter().zip(&strangers.views).all(|(a, b)| a.len() == b.rows());
        self.nearest = match whole {
            true => stored,
            false => strangers.views.iter().map(|v| threshold::nearest(&self.index, v)).collect(),
        };
        self.choose()?;
        Ok(())
    }

    /// People who are gone count as none, so that the next update searches again.
    fn parse_nearest(&self, bytes: &[u8]) -> Vec<Nearest> {
        let one = |bytes: &[u8; 12]| {
            let [a, b, c, d, e, f, g, h, distance @ ..] = *bytes;
            let id = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let person = self.place.get(&id).copied();
            Nearest { person, distance: f32::from_le_bytes(distance) }
        };
        bytes.as_chunks::<12>().0.iter().map(one).collect()
    }

    fn choose(&mut self) -> Result<()> {
        let Some(strangers) = &self.strangers else { return Ok(()) };
        let (index, fpir) = (&self.index, self.fpir);
        let limit = threshold::limit(index, strangers, &self.nearest, fpir)?;
        let threshold = |limit| Threshold::new(index, strangers, limit, fpir, &self.look_alikes);
        self.threshold = limit.map(threshold);
        Ok(())
    }

    fn values(&self, bytes: &[u8], into: &mut Vec<f32>) -> Result<(), Failure> {
        into.clear();
        into.extend(to_values(bytes));
        match into.len() == self.index.dim() && into.iter().all(|value| value.is_finite()) {
            true => Ok(()),
            false => Err(damaged("an embedding that is not finite or of another length").into()),
        }
    }

    /// The number in the index of a person of the file.
    pub fn place(&self, id: i64) -> Result<usize> {
        self.place.get(&id).copied().ok_or_else(|| damaged("faces of a person who is not there"))
    }

    /// The number in the index of the person of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.people.iter().position(|person| person.name == name)
    }

    /// The numbers of all people by name.
    pub fn by_name(&self) -> HashMap<String, usize> {
        let people = self.people.iter().enumerate();
        people.map(|(place, person)| (person.name.clone(), place)).collect()
    }

    /// Adds a person without faces; returns their number in the index.
    pub fn add_person(&mut self, person: Person) -> usize {
        let place = self.people.len();
        self.place.insert(person.id, place);
        self.people.push(person);
        self.index.add_people(self.people.len());
        place
    }

    /// Adds a face of a person of the file.
    pub fn add_face(&mut self, face: i64, person: i64, embedding: &[f32]) -> Result<()> {
        let place = self.place(person)?;
        self.index.push(place, embedding);
        self.faces.push(face);
        Ok(())
    }

    /// Computes the threshold again after the faces of `changed` people have changed, and stores what
    /// the next process needs for it.
    pub fn recalibrate(
        &mut self,
        file: &Transaction,
        changed: &BTreeSet<usize>,
    ) -> Result<(), Failure> {
        if let Some(strangers) = &self.strangers {
            for (nearest, view) in self.nearest.iter_mut().zip(&strangers.views) {
                threshold::update(&self.index, view, nearest, changed);
            }
            // Look-alikes are those within the limit, which depends on nobody's look-alikes.
            let limit = threshold::limit(&self.index, strangers, &self.nearest, self.fpir)?;
            if let Some((limit, _)) = limit {
                self.find_look_alikes(file, changed, limit)?;
            }
        }
        self.choose()?;
        for (view, nearest) in self.nearest.iter().enumerate() {
            let one = |one: &Nearest| {
                let id = one.person.map_or(-1, |person| self.people[person].id);
                id.to_le_bytes().into_iter().chain(one.distance.to_le_bytes())
            };
            let bytes: Vec<u8> = nearest.iter().flat_map(one).collect();
            let row = "INSERT OR REPLACE INTO stranger_distances (view, nearest) VALUES (?1, ?2)";
            file.execute(row, params![view as i64, bytes])?;
        }
        Ok(())
    }

    fn find_look_alikes(
        &mut self,
        file: &Transaction,
        changed: &BTreeSet<usize>,
        limit: f32,
    ) -> Result<(), Failure> {
        let rows_of = |&person: &usize| self.index.rows_of(person).iter().rev().take(COMPARED);
        let rows = changed.iter().flat_map(rows_of).map(|&row| (row as usize, limit));
        let rows: Vec<_> = rows.collect();
        let hits = self.index.nearest_others(&rows, NEIGHBOURS)?;
        let known = self.look_alikes.iter().map(|&(a, b, distance)| ((a, b), distance));
        let mut pairs: BTreeMap<_, _> = known.collect();
        let mut insert = file.prepare_cached(
            "INSERT INTO look_alikes (person, other, distance) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET distance = min(distance, excluded.distance)",
        )?;
        for ((row, _), hit) in rows.iter().zip(hits) {
            let (Some(person), Some(hit)) = (self.index.owner(*row), hit) else { continue };
            let pair = (person.min(hit.person), person.max(hit.person));
            let least = pairs.entry(pair).or_insert(f32::INFINITY);
            *least = least.min(hit.distance);
            let (a, b) = (self.people[pair.0].id, self.people[pair.1].id);
            insert.execute(params![a, b, f64::from(hit.distance)])?;
        }
        self.look_alikes = pairs.into_iter().map(|((a, b), distance)| (a, b, distance)).collect();
        Ok(())
    }

    /// Sets the trunk of a new gallery.
    pub fn set_trunk(&mut self, file: &Transaction, trunk: GalleryTrunk) -> Result<(), Failure> {
        let source = serde_json::to_string(&trunk.source).map_err(damaged)?;
        file.execute(
            "INSERT INTO gallery (one, architecture, fingerprint, dim, source, fpir, revision)
             VALUES (1, ?1, ?2, ?3, ?4, ?5, 0)",
            params![
                trunk.architecture.name(),
                trunk.fingerprint,
                trunk.dim as i64,
                source,
                self.fpir
            ],
        )?;
        self.index = Index::new(trunk.dim);
        self.trunk = Some(trunk);
        Ok(())
    }

    /// Sets the strangers of a folder, or those that are part of the program.
    pub fn set_strangers(
        &mut self,
        file: &Transaction,
        own: Option<&Strangers>,
    ) -> Result<(), Failure> {
        self.same_person = OnceCell::new();
        file.execute("DELETE FROM strangers", [])?;
        file.execute("DELETE FROM stranger_distances", [])?;
        if let Some(Strangers { views, people, source }) = own {
            let source = serde_json::to_string(source).map_err(damaged)?;
            let bytes = views.first().map(|view| to_bytes(view.values())).unwrap_or_default();
            let row = "INSERT INTO strangers (one, people, source, vectors) VALUES (1, ?1, ?2, ?3)";
            file.execute(row, params![*people as i64, source, bytes])?;
        }
        self.read_strangers(file)
    }
}

/// What is in the file makes no sense.
fn damaged(what: impl std::fmt::Display) -> Error {
    Error::Data(format!("damaged: {what}"))
}
