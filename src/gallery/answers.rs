//! Names for faces.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rusqlite::OptionalExtension;

use super::Gallery;
use super::search::Hit;
use super::threshold::Threshold;
use crate::eval::Embeddings;
use crate::eval::calibration::softmax;
use crate::eval::distance::squared;
use crate::recognise::{Answer, Identifier, Reason};
use crate::train::calibrate::NEIGHBOURS;
use crate::{Error, Result};

/// People whose faces may be reasons of an answer.
const PEOPLE: usize = 3;
/// Distances that differ by less are equal: the same picture, embedded in another batch.
const EQUAL: f32 = 1e-4;
/// Faces that are given as reasons.
const REASONS: usize = 3;

impl Gallery {
    /// One answer:
    /// P(person k) = P(known | distance d to the nearest person) · softmax(w d_1, w d_2, ...)_k over the near
    /// people, where w is the (negative) slope of P(known). Known is a face within the person's limit.
    fn answer(&self, query: &[f32]) -> Answer {
        let hits = self.nearest_people(query);
        let reasons = self.reasons(query, &hits);
        let (Some(best), Some(threshold), Some(nearest)) =
            (hits.first(), &self.memory.threshold, reasons.first())
        else {
            let (distance, ranking) = (f32::INFINITY, Vec::new());
            let known = 0.0;
            return Answer { ranking, known, is_known: false, distance, neighbour: 0, reasons };
        };
        let Threshold { known: curve, of_person, .. } = threshold;
        let known = curve.probability(f64::from(best.distance));
        let scores: Vec<f32> = hits.iter().map(|hit| curve.weight as f32 * hit.distance).collect();
        let shares = softmax(&scores, 1.0).into_iter().map(|share| share * known);
        let ranking = hits.iter().map(|hit| hit.person).zip(shares).collect();
        let is_known = best.distance <= of_person[best.person];
        let (distance, neighbour) = (nearest.distance, nearest.neighbour);
        Answer { ranking, known, is_known, distance, neighbour, reasons }
    }

    /// The people who come into question, nearest first.
    fn nearest_people(&self, query: &[f32]) -> Vec<Hit> {
        let index = &self.memory.index;
        if index.is_empty() {
            return Vec::new();
        }
        // Who has a rejected face that is at least as near as their own are.
        let rejected = self.memory.negatives.iter().filter(|(person, faces)| {
            let faces = faces.iter().map(|face| squared(query, face).sqrt());
            let nearest = faces.fold(f32::INFINITY, f32::min);
            index.distance(**person, query, 1).is_some_and(|own| nearest <= own.nearest + EQUAL)
        });
        let rejected: BTreeSet<usize> = rejected.map(|(&person, _)| person).collect();
        index.search(query, NEIGHBOURS, |person| rejected.contains(&person))
    }

    /// The nearest faces of the nearest people.
    fn reasons(&self, query: &[f32], hits: &[Hit]) -> Vec<Reason> {
        let index = &self.memory.index;
        let people = hits.iter().take(PEOPLE);
        let reason = |identity: usize, row: usize| {
            let distance = squared(query, index.row(row)).sqrt();
            Reason { neighbour: row, identity, distance }
        };
        let faces = people.flat_map(|hit| {
            index.rows_of(hit.person).iter().map(move |&row| reason(hit.person, row as usize))
        });
        let mut faces: Vec<Reason> = faces.collect();
        faces.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.neighbour.cmp(&b.neighbour)));
        faces.truncate(REASONS);
        faces
    }
}

impl Identifier for Gallery {
    fn name(&self, identity: usize) -> &str {
        self.memory.people.get(identity).map_or("?", |person| &person.name)
    }

    fn identify(&self, embeddings: &Embeddings) -> Result<Vec<Answer>> {
        let (dim, own) = (embeddings.dim(), self.memory.index.dim());
        if dim != own && self.memory.trunk.is_some() {
            let text = format!("embeddings of length {dim}, not the gallery's {own}");
            return Err(Error::Data(text));
        }
        Ok(embeddings.iter().map(|query| self.answer(query)).collect())
    }

    fn picture_of(&self, neighbour: usize) -> Option<Cow<'_, str>> {
        let face = self.memory.faces.get(neighbour)?;
        let path = "SELECT path FROM faces WHERE id = ?1";
        let path = self.file.connection.query_row(path, [face], |row| row.get(0)).optional();
        path.ok().flatten().map(Cow::Owned)
    }
}
