//! Which distance is near enough for a name: near enough that strangers stay nameless.
//!
//! For every stranger the distance to the nearest person of the gallery is kept. The limit is the distance
//! at which the share of strangers that `--fpir` allows (the false-positive identification rate) is
//! nearer. Each further person brings some strangers nearer, so the limit follows the gallery.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::search::Index;
use crate::Result;
use crate::eval::Embeddings;
use crate::eval::open_set::distance_at;
use crate::eval::unknown::Logistic;
use crate::recognise::MeasuredFpir;
use crate::train::calibrate::NEIGHBOURS;
use crate::train::strangers::Strangers;
use crate::words;

/// The share of strangers who may get a name, where no `--fpir` is given; less than for a classifier, whose
/// validation faces say what a low rate costs.
const DEFAULT_FPIR: f64 = 0.01;
/// P(known) is fitted from this number of known faces on; with fewer, it is drawn by hand.
const FITTED: usize = 20;
/// Known faces that are looked at.
const SAMPLE: usize = 2000;
/// P(known) of the median stranger, where it is drawn by hand.
const AT_STRANGERS: f64 = 0.02;
/// The limit of a person with look-alikes is at least this part of the gallery's.
const LEAST: f32 = 0.7;

/// The person nearest to a stranger.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// The person, by number in the [`Index`]; `None` for a gallery without faces.
    pub person: Option<usize>,
    /// The distance, infinite without a person.
    pub distance: f32,
}

/// When a face is named.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// The greatest distance at which a face is named.
    pub limit: f32,
    /// The same for each person; smaller for those who have look-alikes.
    pub of_person: Vec<f32>,
    /// P(known | distance to the nearest person).
    pub known: Logistic,
    /// The share of strangers who get a name at this limit.
    pub fpir: MeasuredFpir,
}

/// The greatest distance at which a face is named, so that at most the share `fpir` of the strangers is (by
/// default 1 %, or as little as they can show), and the distances it was chosen on: those in the framing
/// that comes nearest. `None` for a gallery without faces.
///
/// # Errors
/// `fpir` is less than the strangers can show.
pub fn limit<'a>(
    index: &Index,
    strangers: &Strangers,
    nearest: &'a [Vec<Nearest>],
    fpir: Option<f64>,
) -> Result<Option<(f32, &'a [Nearest])>> {
    let rate = strangers.rate(fpir, DEFAULT_FPIR)?;
    let limit = |view: &'a Vec<Nearest>| {
        let distances: Vec<f64> = view.iter().map(|one| f64::from(one.distance)).collect();
        (distance_at(rate, &distances).unwrap_or(f64::INFINITY) as f32, view.as_slice())
    };
    let views = nearest.iter().filter(|_| !index.is_empty()).map(limit);
    Ok(views.min_by(|a, b| a.0.total_cmp(&b.0)))
}

impl Threshold {
    /// Works out what follows from a [`limit`] and the distances it was chosen on. `look_alikes` are the
    /// smallest distances between the faces of two people.
    pub fn new(
        index: &Index,
        strangers: &Strangers,
        (limit, view): (f32, &[Nearest]),
        fpir: Option<f64>,
        look_alikes: &[(usize, usize, f32)],
    ) -> Self {
        let mut of_person = vec![limit; index.people()];
        for &(a, b, distance) in look_alikes {
            for person in [a, b] {
                let own = &mut of_person[person];
                *own = own.min(distance.max(LEAST * limit));
            }
        }
        let is_named = |one: &&Nearest| one.person.is_some_and(|p| one.distance <= of_person[p]);
        let value = view.iter().filter(is_named).count() as f64 / view.len().max(1) as f64;
        let fpir = strangers.measured(fpir, value);
        let known = curve(index, view, limit);
        Self { limit, of_person, known, fpir }
    }
}

impl std::fmt::Display for Threshold {
    /// `named up to distance 0.323 (2 people with look-alikes up to less): 1.0 % of strangers get a name (...)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "named up to distance {:.3}", self.limit)?;
        let less = self.of_person.iter().filter(|own| **own < self.limit).count();
        if less > 0 {
            write!(f, " ({} with look-alikes up to less)", words::people(less))?;
        }
        write!(f, ": {}", self.fpir)
    }
}

/// P(known | distance), from the distances of faces to the others of their person and those of strangers.
fn curve(index: &Index, strangers: &[Nearest], limit: f32) -> Logistic {
    let step = index.len().div_ceil(SAMPLE).max(1);
    let rows = (0..index.len()).into_par_iter().step_by(step);
    let known: Vec<f64> =
        rows.filter_map(|row| index.to_others(row, NEIGHBOURS)).map(f64::from).collect();
    let mut far: Vec<f64> = strangers.iter().map(|one| f64::from(one.distance)).collect();
    if known.len() >= FITTED {
        let distances: Vec<f64> = known.iter().chain(&far).copied().collect();
        let is_known: Vec<bool> = (0..distances.len()).map(|at| at < known.len()).collect();
        if let Some(curve) = Logistic::fit(&distances, &is_known) {
            return curve;
        }
    }
    // 0.5 at the limit, and little where strangers are.
    far.sort_unstable_by(f64::total_cmp);
    let median = far.get(far.len() / 2).copied().unwrap_or(f64::INFINITY);
    let apart = (median - f64::from(limit)).max(1e-3);
    let weight = (AT_STRANGERS / (1.0 - AT_STRANGERS)).ln() / apart;
    Logistic { weight, bias: -weight * f64::from(limit) }
}

/// The person nearest to each stranger of a view.
pub fn nearest(index: &Index, view: &Embeddings) -> Vec<Nearest> {
    let rows = (0..view.rows()).into_par_iter();
    rows.map(|row| search(index, view.row(row))).collect()
}

/// Brings `nearest` up to date after the faces of the people in `changed` have changed.
pub fn update(
    index: &Index,
    view: &Embeddings,
    nearest: &mut [Nearest],
    changed: &BTreeSet<usize>,
) {
    nearest.par_iter_mut().enumerate().for_each(|(row, nearest)| {
        let stranger = view.row(row);
        if nearest.person.is_none_or(|person| changed.contains(&person)) {
            // The person may have moved away.
            *nearest = search(index, stranger);
            return;
        }
        for &person in changed {
            if let Some(hit) = index.distance(person, stranger, NEIGHBOURS)
                && hit.distance < nearest.distance
            {
                *nearest = Nearest { person: Some(person), distance: hit.distance };
            }
        }
    });
}

fn search(index: &Index, stranger: &[f32]) -> Nearest {
    let hit = index.search(stranger, NEIGHBOURS, |_| false).into_iter().next();
    Nearest {
        person: hit.map(|hit| hit.person),
        distance: hit.map_or(f32::INFINITY, |hit| hit.distance),
    }
}
