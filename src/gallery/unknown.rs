//! Unknown people who are seen again.
//!
//! A face joins the group whose faces are nearest on average, if near enough (average linkage), never one
//! that already has a face of the same photo; or it starts a group of its own.

use std::collections::{BTreeMap, BTreeSet};

use kodama::{Method, linkage};
use rusqlite::{Transaction, params};

use super::file::{Failure, to_values};
use super::{Enrolled, Gallery, NewFace, check_name, insert_face, new_person};
use crate::eval::Embeddings;
use crate::eval::distance::squared;
use crate::train::strangers::Strangers;
use crate::{Error, Result};

/// The share of pairs of strangers that would be taken for one person.
const CONFUSED: f64 = 1e-3;
/// Strangers whose pairs are looked at.
const SAMPLE: usize = 1000;
/// Faces that are clustered together: the distances between them take 400 MB.
const MOST: usize = 10_000;
/// The distance between faces of one photo: so far that a mean over all pairs of two groups stays beyond
/// every limit, and sums of it are no infinity.
const APART: f32 = 1e30;

/// A group of faces of one unknown person.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnknownGroup {
    /// Its number, which is never given again.
    pub id: i64,
    /// Number of pictures.
    pub faces: usize,
    /// The day of the first picture, UTC, as YYYY-MM-DD.
    pub first_seen: String,
    /// The day of the last.
    pub last_seen: String,
    /// The pictures.
    pub paths: Vec<String>,
}

/// Where a face that was seen belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The group.
    pub group: UnknownGroup,
    /// The face is the group's first.
    pub is_new: bool,
}

/// A remembered face.
struct Seen {
    id: i64,
    group: i64,
    /// The photo it is on.
    photo: String,
    embedding: Vec<f32>,
}

impl Gallery {
    /// Remembers the faces of unknown people on one photo; returns the group of each.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&mut self, faces: &[NewFace]) -> Result<Vec<Sighting>> {
        let dim = self.memory.index.dim();
        faces.iter().try_for_each(|face| face.check(dim))?;
        let limit = self.same_person()?;
        let sightings = self.file.change(|file| {
            let mut seen = read(file)?;
            let mut placed = Vec::new();
            for face in faces {
                let again = seen.iter().find(|seen| {
                    seen.photo == face.sha256 && squared(&seen.embedding, &face.embedding) < 1e-6
                });
                if let Some(again) = again {
                    placed.push((again.group, false));
                    continue;
                }
                let found = nearest_group(&seen, face, limit);
                let group = match found {
                    Some(group) => {
                        let update = "UPDATE unknown SET last_seen = unixepoch() WHERE id = ?1";
                        file.execute(update, [group])?;
                        group
                    }
                    None => new_group(file)?,
                };
                let id = insert_face(file, face, None, Some(group))?;
                let (photo, embedding) = (face.sha256.clone(), face.embedding.clone());
                seen.push(Seen { id, group, photo, embedding });
                placed.push((group, found.is_none()));
            }
            let sighting = |(id, is_new)| Ok(Sighting { group: group(file, id)?, is_new });
            placed.into_iter().map(sighting).collect()
        })?;
        self.memory.revision += 1;
        Ok(sightings)
    }

    /// All groups, the one seen last first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn unknown(&self) -> Result<Vec<UnknownGroup>> {
        self.file.read(|file| {
            let mut ids = file.prepare("SELECT id FROM unknown ORDER BY last_seen DESC, id")?;
            let ids = ids.query_map([], |row| row.get(0))?;
            ids.map(|id| group(file, id?)).collect()
        })
    }

    /// Groups all remembered faces again, by average linkage. Returns the number of groups before and after.
    ///
    /// # Errors
    /// Too many faces; the file cannot be written.
    pub fn cluster(&mut self) -> Result<(usize, usize)> {
        let limit = self.same_person()?;
        let before = self.unknown()?.len();
        self.file.change(|file| {
            let seen = read(file)?;
            if seen.len() > MOST {
                let text = format!(
                    "{} faces of unknown people; at most {MOST} can be grouped again",
                    seen.len()
                );
                return Err(Error::Data(text).into());
            }
            regroup(file, &seen, limit)
        })?;
        self.memory.revision += 1;
        Ok((before, self.unknown()?.len()))
    }

    /// Enrols the faces of an unknown group under a name. Returns what became of them.
    ///
    /// # Errors
    /// There is no such group, or the name is impossible.
    pub fn promote(&mut self, group: i64, name: &str) -> Result<Enrolled> {
        check_name(name)?;
        let count = self.file.read(|file| {
            let count = "SELECT count(*) FROM faces WHERE unknown = ?1";
            Ok(file.query_row(count, [group], |row| row.get::<_, i64>(0))?)
        })?;
        if count == 0 {
            let path = self.path().display();
            return Err(Error::Config(format!(
                "{group}: no unknown person of that number in {path}; `visage gallery list --unknown` \
                 shows them"
            )));
        }
        self.refresh()?;
        let known = self.memory.find(name).map(|place| self.memory.people[place].id);
        if known.is_none() {
            self.edit(|file, memory| {
                new_person(file, memory, name)?;
                Ok(Default::default())
            })?;
        }
        let (id, _) = self.person(name)?;
        self.rebuild(&[id], |file| {
            let update = "UPDATE faces SET person = ?1, unknown = NULL WHERE unknown = ?2";
            file.execute(update, params![id, group])?;
            file.execute("DELETE FROM unknown WHERE id = ?1", [group])?;
            Ok(())
        })?;
        Ok(Enrolled { added: count as usize, ..Enrolled::default() })
    }

    /// Forgets an unknown group, or all of them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget_unknown(&mut self, group: Option<i64>) -> Result<usize> {
        let gone = self.file.change(|file| match group {
            Some(group) => Ok(file.execute("DELETE FROM unknown WHERE id = ?1", [group])?),
            None => Ok(file.execute("DELETE FROM unknown", [])?),
        })?;
        self.memory.revision += 1;
        self.file.vacuum()?;
        Ok(gone)
    }

    /// The distance within which two faces count as one person's: that which one in a thousand pairs of
    /// strangers falls below.
    fn same_person(&self) -> Result<f32> {
        let Some(Strangers { views, .. }) = &self.memory.strangers else {
            let text = "the gallery has no trunk yet; enrol somebody first";
            return Err(Error::Config(format!("{}: {text}", self.path().display())));
        };
        let of = || views.first().map_or(0.0, same_person);
        Ok(*self.memory.same_person.get_or_init(of))
    }
}

/// The distance that the share [`CONFUSED`] of the pairs of strangers falls below.
fn same_person(strangers: &Embeddings) -> f32 {
    let rows = strangers.rows().min(SAMPLE);
    let pairs = (0..rows).flat_map(|a| (0..a).map(move |b| (a, b)));
    let square = |(a, b)| squared(strangers.row(a), strangers.row(b));
    let mut squares: Vec<f32> = pairs.map(square).collect();
    if squares.is_empty() {
        return 0.0;
    }
    let at = (CONFUSED * squares.len() as f64) as usize;
    let (_, square, _) = squares.select_nth_unstable_by(at, f32::total_cmp);
    square.sqrt()
}

/// The group of that number.
fn group(file: &Transaction, id: i64) -> Result<UnknownGroup, Failure> {
    let mut paths = file.prepare_cached("SELECT path FROM faces WHERE unknown = ?1 ORDER BY id")?;
    let paths = paths.query_map([id], |row| row.get(0))?;
    let paths: Vec<String> = paths.collect::<rusqlite::Result<_>>()?;
    let days = "SELECT date(first_seen, 'unixepoch'), date(last_seen, 'unixepoch') FROM unknown
                WHERE id = ?1";
    Ok(file.prepare_cached(days)?.query_row([id], |row| {
        let (first_seen, last_seen) = (row.get(0)?, row.get(1)?);
        Ok(UnknownGroup { id, faces: paths.len(), first_seen, last_seen, paths })
    })?)
}

fn new_group(file: &Transaction) -> Result<i64, Failure> {
    let insert = "INSERT INTO unknown (first_seen, last_seen) VALUES (unixepoch(), unixepoch())";
    file.execute(insert, [])?;
    Ok(file.last_insert_rowid())
}

fn read(file: &Transaction) -> Result<Vec<Seen>, Failure> {
    let mut faces = file.prepare(
        "SELECT faces.id, faces.unknown, faces.sha256, vectors.vector
         FROM faces JOIN vectors ON vectors.face = faces.id WHERE faces.unknown IS NOT NULL ORDER BY faces.id",
    )?;
    let faces = faces.query_map([], |row| {
        let embedding = to_values(row.get_ref(3)?.as_blob()?).collect();
        Ok(Seen { id: row.get(0)?, group: row.get(1)?, photo: row.get(2)?, embedding })
    })?;
    Ok(faces.collect::<rusqlite::Result<_>>()?)
}

/// The group whose faces are nearest on average, within `limit`, and that has no face of this photo.
fn nearest_group(seen: &[Seen], face: &NewFace, limit: f32) -> Option<i64> {
    let mut distances: BTreeMap<i64, (f32, f32)> = BTreeMap::new();
    for other in seen {
        let distance = match other.photo == face.sha256 {
            true => f32::INFINITY,
            false => squared(&other.embedding, &face.embedding).sqrt(),
        };
        let (sum, count) = distances.entry(other.group).or_default();
        *sum += distance;
        *count += 1.0;
    }
    let means = distances.into_iter().map(|(group, (sum, count))| (group, sum / count));
    let near = means.filter(|(_, distance)| *distance <= limit);
    near.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(group, _)| group)
}

/// Groups by average linkage. A cluster keeps the number that most of its faces had, if no larger
/// cluster takes it.
fn regroup(file: &Transaction, seen: &[Seen], limit: f32) -> Result<(), Failure> {
    let mut clusters = clusters(seen, limit);
    clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.len()));
    let mut taken: BTreeSet<i64> = BTreeSet::new();
    for cluster in clusters {
        let mut votes: BTreeMap<i64, usize> = BTreeMap::new();
        for &face in &cluster {
            *votes.entry(seen[face].group).or_default() += 1;
        }
        let old = votes.into_iter().filter(|(group, _)| !taken.contains(group));
        let group = match old.max_by_key(|&(group, count)| (count, std::cmp::Reverse(group))) {
            Some((group, _)) => group,
            None => new_group(file)?,
        };
        taken.insert(group);
        let mut update = file.prepare_cached("UPDATE faces SET unknown = ?1 WHERE id = ?2")?;
        for face in cluster {
            update.execute([group, seen[face].id])?;
        }
        let times = "UPDATE unknown SET
            first_seen = (SELECT min(added) FROM faces WHERE unknown = ?1),
            last_seen = (SELECT max(added) FROM faces WHERE unknown = ?1) WHERE id = ?1";
        file.execute(times, [group])?;
    }
    file.execute(
        "DELETE FROM unknown WHERE id NOT IN (SELECT unknown FROM faces WHERE unknown IS NOT NULL)",
        [],
    )?;
    Ok(())
}

/// Average linkage, cut at `limit`; faces of one photo are never together.
fn clusters(seen: &[Seen], limit: f32) -> Vec<Vec<usize>> {
    let pairs = (0..seen.len()).flat_map(|a| (a + 1..seen.len()).map(move |b| (a, b)));
    let distance = |(a, b): (usize, usize)| match seen[a].photo == seen[b].photo {
        true => APART,
        false => squared(&seen[a].embedding, &seen[b].embedding).sqrt(),
    };
    let mut distances: Vec<f32> = pairs.map(distance).collect();
    let mut groups: Vec<Vec<usize>> = (0..seen.len()).map(|face| vec![face]).collect();
    if seen.len() > 1 {
        // Step k makes cluster n + k.
        for step in linkage(&mut distances, seen.len(), Method::Average).steps() {
            let joined = match step.dissimilarity <= limit {
                true => {
                    let mut both = std::mem::take(&mut groups[step.cluster1]);
                    both.append(&mut groups[step.cluster2]);
                    both
                }
                false => Vec::new(),
            };
            groups.push(joined);
        }
    }
    groups.into_iter().filter(|group| !group.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: i64, photo: &str, x: f32) -> Seen {
        Seen { id, group: id, photo: photo.to_owned(), embedding: vec![x, 0.0] }
    }

    #[test]
    fn groups_are_joined_by_their_mean_distance_and_never_within_a_photo() {
        // The third is farther than the limit from the first, but near enough on average.
        let mut faces = vec![seen(1, "a", 0.0), seen(2, "b", 0.2), seen(3, "c", 0.5)];
        assert_eq!(clusters(&faces, 0.45), [vec![2, 0, 1]]);
        assert_eq!(clusters(&faces, 0.39), [vec![2], vec![0, 1]]);
        faces.push(seen(4, "a", 0.0));
        let mut groups = clusters(&faces, 10.0);
        groups.iter_mut().for_each(|group| group.sort_unstable());
        assert_eq!(groups.len(), 2);
        assert!(groups.iter().all(|group| !(group.contains(&0) && group.contains(&3))));
    }
}
