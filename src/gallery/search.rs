//! Exact search for the nearest people.
//!
//! All embeddings are in memory twice: as float32, and rounded to bfloat16. A search reads the half as
//! large rounded ones, and then computes the few distances that can matter from the exact ones: a rounded
//! row is at most the index's slack away from the row itself, so that by the triangle inequality no
//! other can be nearer. The answers are those of a plain loop over all rows.

use std::collections::BTreeSet;

use half::bf16;
use rayon::prelude::*;

use crate::eval::distance::squared;
use crate::eval::knn::mean_distance;
use crate::native::distance::squared_to_rounded;

/// Rows that one thread searches at a time.
const CHUNK: usize = 4096;
/// Distances that each chunk reports: the people of these rows are ranked.
const KEPT: usize = 32;
/// Relative rounding error of a sum of some hundred squares in float32, generously.
pub(super) const ROUNDING: f32 = 1e-4;

/// The embeddings of people, for search. A person is a number below [`Index::people`].
#[derive(Debug, Clone)]
pub struct Index {
    dim: usize,
    exact: Vec<f32>,
    rounded: Vec<bf16>,
    /// The largest Euclidean distance between a row and its rounded form.
    slack: f32,
    owners: Vec<u32>,
    /// The rows of each person, in ascending order.
    rows: Vec<Vec<u32>>,
}

/// How near a person is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The person.
    pub person: usize,
    /// The mean Euclidean distance to the nearest of the person's faces, `neighbours` of them or all
    /// there are.
    pub distance: f32,
    /// The row of the nearest face,
    pub row: usize,
    /// and the distance to it.
    pub nearest: f32,
}

impl Index {
    /// Nobody, with embeddings of length `dim`.
    pub fn new(dim: usize) -> Self {
        let (exact, rounded) = (Vec::new(), Vec::new());
        Self { dim, exact, rounded, slack: 0.0, owners: Vec::new(), rows: Vec::new() }
    }

    /// The length of an embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// No face is known.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Number of people, those without a face included.
    pub fn people(&self) -> usize {
        self.rows.len()
    }

    /// The rows of a person.
    pub fn rows_of(&self, person: usize) -> &[u32] {
        self.rows.get(person).map_or(&[], Vec::as_slice)
    }

    /// The person of a row.
    pub fn owner(&self, row: usize) -> Option<usize> {
        self.owners.get(row).map(|&person| person as usize)
    }

    /// The embedding of a row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.exact[row * self.dim..(row + 1) * self.dim]
    }

    /// Makes room for `rows` more.
    pub fn reserve(&mut self, rows: usize) {
        self.exact.reserve(rows * self.dim);
        self.rounded.reserve(rows * self.dim);
        self.owners.reserve(rows);
    }

    /// Adds a face of a person, who may be new.
    ///
    /// # Panics
    /// When the embedding is of another length.
    pub fn push(&mut self, person: usize, embedding: &[f32]) {
        assert_eq!(embedding.len(), self.dim, "embeddings of one length");
        let row = self.owners.len() as u32;
        self.exact.extend_from_slice(embedding);
        let start = self.rounded.len();
        self.rounded.extend(embedding.iter().map(|&value| bf16::from_f32(value)));
        let mut moved = [0.0];
        squared_to_rounded(embedding, &self.rounded[start..], &mut moved);
        self.slack = self.slack.max(moved[0].sqrt() * (1.0 + ROUNDING));
        self.owners.push(person as u32);
        self.add_people(person + 1);
        self.rows[person].push(row);
    }

    /// Makes it at least `people` people; the new ones have no faces yet.
    pub fn add_people(&mut self, people: usize) {
        if self.rows.len() < people {
            self.rows.resize_with(people, Vec::new);
        }
    }

    /// The people nearest to `query`, the nearest first, without those for whom `is_out` holds.
    ///
    /// The first is the nearest of all: the one with the smallest mean distance to their `neighbours`
    /// nearest faces (equal ones by row). The others are those to whom the nearest faces belong.
    ///
    /// # Panics
    /// When the query is of another length.
    pub fn search(
        &self,
        query: &[f32],
        neighbours: usize,
        is_out: impl Fn(usize) -> bool + Sync,
    ) -> Vec<Hit> {
        assert_eq!(query.len(), self.dim, "embeddings of one length");
        let mut squares = vec![0f32; self.len()];
        let scan = |(chunk, squares): (usize, &mut [f32])| {
            let first = chunk * CHUNK;
            let rows = &self.rounded[first * self.dim..(first + squares.len()) * self.dim];
            squared_to_rounded(query, rows, squares);
            let mut best: Vec<(f32, u32)> = Vec::with_capacity(KEPT + 1);
            let mut limit = f32::INFINITY;
            for (at, &square) in squares.iter().enumerate() {
                if square < limit && !is_out(self.owners[first + at] as usize) {
                    let place = best.partition_point(|other| other.0 <= square);
                    best.insert(place, (square, (first + at) as u32));
                    best.truncate(KEPT);
                    limit = if best.len() < KEPT { limit } else { best[KEPT - 1].0 };
                }
            }
            best
        };
        let best = squares.par_chunks_mut(CHUNK).enumerate().map(scan);
        let mut best: Vec<(f32, u32)> = best.flatten_iter().collect();
        best.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        best.truncate(KEPT);
        let Some(&(_, first)) = best.first() else { return Vec::new() };
        // Whoever is nearer than the owner of this row has a face within that owner's distance.
        let owner = self.owners[first as usize] as usize;
        let Some(bound) = self.distance(owner, query, neighbours) else { return Vec::new() };
        let bound = (bound.distance * (1.0 + ROUNDING) + self.slack).powi(2) * (1.0 + ROUNDING);
        let near = |(at, squares): (usize, &[f32])| -> Vec<u32> {
            let rows = squares.iter().enumerate().filter(|(_, square)| **square <= bound);
            let owners = rows.map(|(row, _)| self.owners[at * CHUNK + row]);
            owners.filter(|&person| !is_out(person as usize)).collect()
        };
        let near = squares.par_chunks(CHUNK).enumerate().flat_map_iter(near).collect::<Vec<_>>();
        let mut people: BTreeSet<u32> = near.into_iter().collect();
        people.extend(best.iter().map(|&(_, row)| self.owners[row as usize]));
        let people: Vec<u32> = people.into_iter().collect();
        let hits = people.par_iter();
        let hits = hits.filter_map(|&person| self.distance(person as usize, query, neighbours));
        let mut hits: Vec<Hit> = hits.collect();
        hits.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)));
        hits
    }

    /// How near one person is; `None` without faces.
    pub fn distance(&self, person: usize, query: &[f32], neighbours: usize) -> Option<Hit> {
        let rows = self.rows_of(person).iter().map(|&row| row as usize);
        self.nearest_of(person, query, neighbours, rows)
    }

    /// The distance of a face to the others of its person; `None` if it is the only one.
    pub fn to_others(&self, row: usize, neighbours: usize) -> Option<f32> {
        let person = self.owner(row)?;
        let others = self.rows_of(person).iter().map(|&other| other as usize);
        let others = others.filter(|&other| other != row);
        Some(self.nearest_of(person, self.row(row), neighbours, others)?.distance)
    }

    fn nearest_of(
        &self,
        person: usize,
        query: &[f32],
        neighbours: usize,
        rows: impl Iterator<Item = usize>,
    ) -> Option<Hit> {
        let (mut nearest, mut row) = (f32::INFINITY, None);
        let measure = |at: usize| {
            let square = squared(query, self.row(at));
            // Strictly: the first of equals stays.
            if square < nearest {
                (nearest, row) = (square, Some(at));
            }
            square
        };
        let mut squares: Vec<f32> = rows.map(measure).collect();
        let row = row?;
        let count = neighbours.clamp(1, squares.len());
        squares.select_nth_unstable_by(count - 1, f32::total_cmp);
        squares.truncate(count);
        squares.sort_unstable_by(f32::total_cmp);
        let distance = mean_distance(&squares)?;
        Some(Hit { person, distance, row, nearest: nearest.sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::eval::Embeddings;
    use crate::eval::knn::nearest_identity;

    /// `rows` embeddings of length one of `people` people, who differ more than their faces.
    pub fn faces(rows: usize, people: usize, dim: usize, seed: u64) -> (Vec<Vec<f32>>, Vec<usize>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut point = |centre: &[f32], spread: f32| -> Vec<f32> {
            let moved = centre.iter().map(|at| at + spread * rng.random_range(-1.0..1.0f32));
            let moved: Vec<f32> = moved.collect();
            let norm = moved.iter().map(|value| value * value).sum::<f32>().sqrt();
            moved.iter().map(|value| value / norm).collect()
        };
        let centres: Vec<_> = (0..people).map(|_| point(&vec![0.0; dim], 1.0)).collect();
        let labels: Vec<usize> = (0..rows).map(|row| row * 7 % people).collect();
        let rows = labels.iter().map(|&person| point(&centres[person], 0.07)).collect();
        (rows, labels)
    }

    fn index(rows: &[Vec<f32>], labels: &[usize]) -> Index {
        let mut index = Index::new(rows[0].len());
        rows.iter().zip(labels).for_each(|(row, &label)| index.push(label, row));
        index
    }

    #[test]
    fn the_search_is_exact() {
        // More than one chunk; and queries among the rows, near them and far from all.
        for (count, people, dim, seed) in [(9_000, 700, 40, 1), (300, 3, 128, 2), (1, 1, 5, 3)] {
            let (rows, labels) = faces(count, people, dim, seed);
            let index = index(&rows, &labels);
            let (mut queries, _) = faces(40, 40, dim, seed + 100);
            queries.extend(rows.iter().step_by(count / 20 + 1).cloned());
            queries.extend(rows.iter().step_by(count / 20 + 1).map(|row| {
                row.iter().enumerate().map(|(at, value)| value + 0.01 * (at % 3) as f32).collect()
            }));
            let gallery = Embeddings::new(count, dim, rows.concat()).unwrap();
            let query = Embeddings::new(queries.len(), dim, queries.concat()).unwrap();
            for k in [1, 5] {
                for (query, near) in
                    queries.iter().zip(nearest_identity(&gallery, &labels, &query, k))
                {
                    let hits = index.search(query, k, |_| false);
                    assert_eq!(hits[0].distance, near.identity);
                    // The nearest face may be another person's than the nearest person's faces on average.
                    let nearest = hits.iter().map(|hit| hit.nearest).fold(f32::INFINITY, f32::min);
                    assert_eq!(nearest, near.distance);
                    assert!(hits.is_sorted_by(|a, b| a.distance <= b.distance));
                }
            }
        }
    }

    #[test]
    fn who_is_out_is_not_found_and_the_next_is() {
        let (rows, labels) = faces(500, 100, 16, 5);
        let index = index(&rows, &labels);
        let all = index.search(&rows[0], 5, |_| false);
        assert_eq!(all[0].person, labels[0]);
        let others = index.search(&rows[0], 5, |person| person == labels[0]);
        assert_eq!(others[0], all[1]);
        assert!(index.search(&rows[0], 5, |_| true).is_empty());
        assert!(Index::new(16).search(&rows[0], 5, |_| false).is_empty());
    }
}
