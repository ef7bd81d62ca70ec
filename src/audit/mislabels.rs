//! Probably mislabelled faces.
//!
//! A picture's distance to an identity is its mean distance to the three nearest pictures of it, without
//! the picture itself. The margin is the distance to its own identity minus the distance to the nearest
//! other identity: above 0, the other identity is closer.
//!
//! Near-duplicates of the scored picture are ignored, and of other near-duplicates only the nearest
//! counts. Another identity needs at least two different photos, and the picture's own identity one
//! more photo; otherwise the picture has no score.
//!
//! A margin above the threshold is a probable mislabel if the own identity has three other photos, and a
//! doubtful label if it has fewer: of two photos that differ, either may be wrong. With three photos,
//! labels are doubtful from 60 % of the threshold.
//!
//! The threshold was measured with the embedded OpenFace as it was before its second distillation. Some
//! pictures were moved to another identity; the columns give how many of these `visage audit` reports as mislabelled (or as one photo
//! under two names), how many as that or doubtful, and how many of the others as mislabelled.
//!
//! | data | moved | found | found or doubtful | others |
//! |---|---|---|---|---|
//! | 218 pictures of 5 actors | 5 x 10 | 68 % | 88 % | 0.0 % |
//! | 1,815 pictures of the 298 people of LFW with 5 or more | 2 x 45 | 96 % | 99 % | 0.7 % |
//!
//! With more identities the nearest other identity is closer: use a larger threshold for thousands.

use std::ops::Range;

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::{Finding, FindingKind, Picture, finding};
use crate::Result;
use crate::eval::Embeddings;
use crate::eval::distance::euclidean;

/// Default threshold: a picture with this margin is probably mislabelled.
pub const MISLABEL: f64 = 0.25;
/// Fraction of the threshold from which a label is doubtful.
const DOUBT: f64 = 0.6;
/// Number of nearest pictures in the distance to an identity.
const NEIGHBOURS: usize = 3;
/// Minimum number of these for other identities than the picture's own.
const MIN_OTHER: usize = 2;
/// Pictures scored at once, and how many they are compared with at once: 32 MiB of distances, twice.
const QUERIES: usize = 1024;
const CANDIDATES: usize = 8192;

/// How well a picture's label agrees with its embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelScore {
    /// Distance to its own identity minus distance to the nearest other one.
    pub margin: f64,
    /// The nearest other identity.
    pub looks_like: usize,
    /// Nearest pictures of its own identity, without near-duplicates.
    pub own: Vec<usize>,
    /// Nearest pictures of the other identity.
    pub other: Vec<usize>,
}

/// Scores the label of every picture; `None` where there are too few pictures to compare with.
///
/// `labels` are below `identities`; `groups` are those of
/// [`near_duplicates::groups`](crate::data::near_duplicates::groups). Both have one entry per row. Every
/// picture is compared with all others; memory grows linearly.
///
/// # Errors
/// An error from libtorch.
pub fn score(
    embeddings: &Embeddings,
    labels: &[Option<usize>],
    groups: &[usize],
    identities: usize,
    step: &(dyn Fn() + Sync),
) -> Result<Vec<Option<LabelScore>>> {
    let rows = embeddings.rows().min(labels.len()).min(groups.len());
    let label = |row: usize| labels[row].filter(|&label| label < identities);
    // Identity by identity, so that each query has to keep the nearest pictures of one only.
    let mut order: Vec<usize> = (0..rows).filter(|&row| label(row).is_some()).collect();
    order.sort_by_key(|&row| label(row));
    let mut scores = vec![None; rows];
    let factors = Factors::of(&embeddings.subset(&order))?;
    let blocks = Run::blocks(&order, &label);
    let mut distances = Vec::new();
    for (at, queries) in order.chunks(QUERIES).enumerate() {
        let mut searches: Vec<Search> = queries.iter().map(|&row| Search::of(row)).collect();
        for ((block, candidates), runs) in order.chunks(CANDIDATES).enumerate().zip(&blocks) {
            let [from, to] = [(at * QUERIES, queries), (block * CANDIDATES, candidates)]
                .map(|(start, rows)| start..start + rows.len());
            factors.squared_distances(from, to, &mut distances)?;
            let rows = distances.par_chunks(candidates.len());
            searches.par_iter_mut().zip(rows).for_each(|(search, distances)| {
                for run in runs {
                    let (candidates, distances) =
                        (&candidates[run.rows.clone()], &distances[run.rows.clone()]);
                    if search.is_ruled_out(run, distances, labels) {
                        continue;
                    }
                    for (&candidate, &distance) in candidates.iter().zip(distances) {
                        search.offer(candidate, distance.max(0.0), labels, groups);
                    }
                }
            });
        }
        for mut search in searches {
            step();
            search.end_identity(labels);
            let picture = search.picture;
            scores[picture] = search.score(embeddings, labels);
        }
    }
    for _ in order.len()..rows {
        step();
    }
    Ok(scores)
}

/// Pictures of one identity in a row, within a block of candidates.
struct Run {
    rows: Range<usize>,
    label: Option<usize>,
    /// No other block has pictures of this identity.
    is_whole: bool,
}

impl Run {
    /// The runs of each block of `order`, which is sorted by label.
    fn blocks(order: &[usize], label: &dyn Fn(usize) -> Option<usize>) -> Vec<Vec<Self>> {
        let mut blocks: Vec<Vec<Self>> = Vec::new();
        let mut start = 0;
        for pictures in order.chunk_by(|&a, &b| label(a) == label(b)) {
            let end = start + pictures.len();
            for block in start / CANDIDATES..=(end - 1) / CANDIDATES {
                let first = block * CANDIDATES;
                let rows = start.max(first) - first..end.min(first + CANDIDATES) - first;
                let is_whole = rows.len() == pictures.len();
                blocks.resize_with(block + 1, Vec::new);
                blocks[block].push(Self { rows, label: label(pictures[0]), is_whole });
            }
            start = end;
        }
        blocks
    }
}

/// Embeddings as factors of a product that has their squared distances: `(-2 a, |a|^2, 1)` times `(b, 1, |b|^2)`.
struct Factors {
    /// `[N, D + 2]`, the embeddings around their mean, where the sums of squares cancel least.
    left: Tensor,
    /// `[D + 2, N]`.
    right: Tensor,
}

impl Factors {
    fn of(embeddings: &Embeddings) -> Result<Self> {
        let shape = [embeddings.rows() as i64, embeddings.dim() as i64];
        let rows = Tensor::f_from_slice(embeddings.values())?.f_reshape(shape)?;
        let rows = rows.f_sub(&rows.f_mean_dim(0, true, Kind::Float)?)?;
        let squares = rows.f_square()?.f_sum_dim_intlist(1, true, Kind::Float)?;
        let ones = squares.f_ones_like()?;
        Ok(Self {
            left: Tensor::f_cat(&[&rows.f_mul_scalar(-2.0)?, &squares, &ones], 1)?,
            right: Tensor::f_cat(&[&rows, &ones, &squares], 1)?.f_tr()?,
        })
    }

    /// The squared distances of two ranges of rows, row-major, into `distances`: good for choosing, not for
    /// reporting, and perhaps a little below 0.
    fn squared_distances(
        &self,
        a: Range<usize>,
        b: Range<usize>,
        distances: &mut Vec<f32>,
    ) -> Result<()> {
        let left = self.left.f_narrow(0, a.start as i64, a.len() as i64)?;
        let product = left.f_matmul(&self.right.f_narrow(1, b.start as i64, b.len() as i64)?)?;
        distances.resize(product.numel(), 0.0);
        product.f_copy_data(distances, product.numel())?;
        Ok(())
    }
}

/// The smallest of these, in lanes that a processor compares at once.
fn smallest(values: &[f32]) -> f32 {
    let (lanes, rest) = values.as_chunks::<8>();
    let mut least = [f32::INFINITY; 8];
    for lane in lanes {
        for (least, &value) in least.iter_mut().zip(lane) {
            *least = if value < *least { value } else { *least };
        }
    }
    rest.iter().chain(&least).copied().fold(f32::INFINITY, f32::min)
}

/// The nearest pictures of an identity as (squared distance, picture), nearest first; of each group of
/// near-duplicates only the nearest.
type Nearest = Vec<(f32, usize)>;

/// A picture's search for its own and the nearest other identity, among pictures that come identity by
/// identity.
struct Search {
    picture: usize,
    own: Nearest,
    /// The nearest other identity so far, with its mean distance.
    other: Option<(f32, Nearest)>,
    /// The identity that comes now.
    current: Nearest,
}

impl Search {
    fn of(picture: usize) -> Self {
        Self { picture, own: Nearest::new(), other: None, current: Nearest::new() }
    }

    /// Whether another identity cannot become the nearest: one photo is too few, and no mean is below the distance of
    /// the nearest picture.
    fn is_ruled_out(&self, run: &Run, distances: &[f32], labels: &[Option<usize>]) -> bool {
        if !run.is_whole || run.label == labels[self.picture] {
            return false;
        }
        if distances.len() < MIN_OTHER {
            return true;
        }
        self.other.as_ref().is_some_and(|other| smallest(distances).max(0.0).sqrt() >= other.0)
    }

    fn offer(
        &mut self,
        candidate: usize,
        distance: f32,
        labels: &[Option<usize>],
        groups: &[usize],
    ) {
        if self.current.first().is_some_and(|&(_, known)| labels[known] != labels[candidate]) {
            self.end_identity(labels);
        }
        let nearest = &mut self.current;
        let is_near = nearest.len() < NEIGHBOURS || nearest.last().is_some_and(|l| distance < l.0);
        if !is_near || groups[candidate] == groups[self.picture] {
            return;
        }
        if let Some(copy) = nearest.iter().position(|&(_, k)| groups[k] == groups[candidate]) {
            if nearest[copy].0 <= distance {
                return;
            }
            nearest.remove(copy);
        }
        nearest.truncate(NEIGHBOURS - 1);
        nearest.insert(nearest.partition_point(|known| known.0 <= distance), (distance, candidate));
    }

    fn end_identity(&mut self, labels: &[Option<usize>]) {
        let Some(&(_, first)) = self.current.first() else { return };
        if labels[first] == labels[self.picture] {
            std::mem::swap(&mut self.own, &mut self.current);
        } else if self.current.len() >= MIN_OTHER {
            let distance = self.current.iter().map(|known| known.0.sqrt()).sum::<f32>();
            let distance = distance / self.current.len() as f32;
            if self.other.as_ref().is_none_or(|other| distance < other.0) {
                let other = self.other.get_or_insert_default();
                other.0 = distance;
                std::mem::swap(&mut other.1, &mut self.current);
            }
        }
        self.current.clear();
    }

    /// The score, from exact distances.
    fn score(self, embeddings: &Embeddings, labels: &[Option<usize>]) -> Option<LabelScore> {
        let exact = |nearest: Nearest| {
            let row = embeddings.row(self.picture);
            let with = |(_, other)| (euclidean(row, embeddings.row(other)), other);
            let mut nearest: Vec<_> = nearest.into_iter().map(with).collect();
            nearest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let sum = nearest.iter().map(|&(distance, _)| f64::from(distance)).sum::<f64>();
            let mean = sum / nearest.len() as f64;
            (mean, nearest.into_iter().map(|(_, other)| other).collect::<Vec<_>>())
        };
        let ((own_distance, own), (distance, other)) = (exact(self.own), exact(self.other?.1));
        let looks_like = labels[*other.first()?]?;
        let margin = own_distance - distance;
        (!own.is_empty()).then_some(LabelScore { margin, looks_like, own, other })
    }
}

/// Pictures with a margin of at least `threshold` (mislabelled), or close to it (doubtful).
pub fn findings(
    scores: &[Option<LabelScore>],
    pictures: &[Picture],
    identities: &[String],
    threshold: f64,
) -> Vec<Finding> {
    let names = |list: &[usize]| {
        list.iter().filter_map(|&index| Some(pictures.get(index)?.name.clone())).collect()
    };
    let judged = scores.iter().zip(pictures);
    judged
        .filter_map(|(score, picture)| Some((score.as_ref()?, picture)))
        .filter_map(|(score, picture)| {
            let sure = score.own.len() >= NEIGHBOURS;
            let kind = match score.margin / threshold {
                share if share >= 1.0 && sure => FindingKind::Mislabel,
                share if share >= 1.0 || (share >= DOUBT && sure) => FindingKind::Doubtful,
                _ => return None,
            };
            let looks_like = identities.get(score.looks_like).cloned().unwrap_or_default();
            let own = finding::identity(picture, identities).unwrap_or_default();
            let margin = score.margin;
            let what = format!("closer to {looks_like} than to {own} by {margin:.2}");
            let found = Finding::new(kind, Some(margin), what).of(picture, identities);
            let nearest = [names(&score.own), names(&score.other)];
            Some(Finding { looks_like: Some(looks_like), nearest, ..found })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on the unit circle, at these degrees.
    fn circle(degrees: &[f32]) -> Embeddings {
        let values = degrees.iter().flat_map(|angle| {
            let (sin, cos) = angle.to_radians().sin_cos();
            [cos, sin]
        });
        Embeddings::new(degrees.len(), 2, values.collect()).unwrap()
    }

    fn names(labels: &[usize]) -> Vec<Picture> {
        let one = |(k, &label): (usize, &usize)| Picture {
            name: format!("{k}.png"),
            identity: Some(label),
            part: None,
        };
        labels.iter().enumerate().map(one).collect()
    }

    fn judged(degrees: &[f32], labels: &[usize], groups: &[usize]) -> Vec<Option<LabelScore>> {
        let labels: Vec<_> = labels.iter().copied().map(Some).collect();
        score(&circle(degrees), &labels, groups, 3, &|| ()).unwrap()
    }

    #[test]
    fn a_face_among_others_is_found_with_its_likeness_and_margin() {
        let degrees = [0.0, 2.0, 4.0, 60.0, 62.0, 64.0, 61.0];
        let labels = [0, 0, 0, 1, 1, 1, 0];
        let groups: Vec<usize> = (0..7).collect();
        let all = judged(&degrees, &labels, &groups);
        let found = findings(&all, &names(&labels), &["ann".into(), "bob".into()], MISLABEL);
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.kind, found.file.as_deref()), (FindingKind::Mislabel, Some("6.png")));
        assert_eq!(found.looks_like.as_deref(), Some("bob"));
        // Chords: 2 sin(angle / 2).
        let chord = |degrees: f64| 2.0 * (degrees.to_radians() / 2.0).sin();
        let own = (chord(61.0) + chord(59.0) + chord(57.0)) / 3.0;
        let other = (chord(1.0) + chord(1.0) + chord(3.0)) / 3.0;
        assert!((all[6].as_ref().unwrap().margin - (own - other)).abs() < 1e-4);
        assert_eq!(found.nearest[0], ["2.png", "1.png", "0.png"]);
        assert!(found.nearest[1].contains(&"4.png".to_owned()));
    }

    #[test]
    fn few_photos_and_small_margins_make_a_doubt_only() {
        let kinds = |degrees: &[f32], labels: &[usize]| {
            let groups: Vec<usize> = (0..labels.len()).collect();
            let all = judged(degrees, labels, &groups);
            let found = findings(&all, &names(labels), &["ann".into(), "bob".into()], MISLABEL);
            found.iter().map(|f| (f.kind, f.file.clone().unwrap())).collect::<Vec<_>>()
        };
        // Two other photos of ann's.
        let two = kinds(&[0.0, 2.0, 60.0, 62.0, 64.0, 61.0], &[0, 0, 1, 1, 1, 0]);
        assert_eq!(two, [(FindingKind::Doubtful, "5.png".to_owned())]);
        // Three, but the picture lies just beyond the middle between the two.
        let near = kinds(&[0.0, 1.0, 2.0, 60.0, 61.0, 62.0, 36.0], &[0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(near, [(FindingKind::Doubtful, "6.png".to_owned())]);
        let right = kinds(&[0.0, 1.0, 2.0, 60.0, 61.0, 62.0, 32.0], &[0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(right, []);
    }

    #[test]
    fn copies_do_not_vouch_for_each_other() {
        let degrees = [0.0, 2.0, 4.0, 60.0, 62.0, 64.0, 61.0, 61.0];
        let labels = [0, 0, 0, 1, 1, 1, 0, 0];
        // Without the group, the copy makes the wrong name look right.
        let alone: Vec<usize> = (0..8).collect();
        let fooled = judged(&degrees, &labels, &alone)[6].as_ref().unwrap().margin;
        let copies = [0, 1, 2, 3, 4, 5, 6, 6];
        let all = judged(&degrees, &labels, &copies);
        for score in &all[6..] {
            let score = score.as_ref().unwrap();
            assert!(score.margin > fooled + 0.2, "{score:?}");
            assert_eq!((score.looks_like, &score.own[..]), (1, &[2, 1, 0][..]));
        }
        // Three copies are one witness, which is too few to be looked like.
        let copies = [0, 1, 2, 3, 3, 3, 6, 7];
        assert_eq!(judged(&degrees, &labels, &copies), vec![None; 8]);
    }

    #[test]
    fn who_has_no_other_picture_is_not_judged() {
        let degrees = [0.0, 2.0, 4.0, 60.0, 62.0, 120.0];
        let labels = [0, 0, 0, 1, 1, 2];
        let all = judged(&degrees, &labels, &[0, 1, 2, 3, 4, 5]);
        assert_eq!(all.iter().filter(|one| one.is_none()).count(), 1);
        assert!(all[5].is_none());
        let flat = score(&circle(&degrees), &[None; 6], &[0, 1, 2, 3, 4, 5], 0, &|| ()).unwrap();
        assert_eq!(flat, vec![None; 6]);
    }

    /// As the definition says it: all distances of a picture, sorted.
    fn by_definition(
        picture: usize,
        rows: &Embeddings,
        labels: &[Option<usize>],
        groups: &[usize],
    ) -> Option<LabelScore> {
        let own = labels[picture]?;
        let row = rows.row(picture);
        let mut others: Vec<(f32, usize)> =
            (0..rows.rows()).map(|other| (euclidean(row, rows.row(other)), other)).collect();
        others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut nearest: Vec<Vec<(f32, usize)>> = vec![Vec::new(); 40];
        for (distance, other) in others {
            let Some(label) = labels[other].filter(|_| groups[other] != groups[picture]) else {
                continue;
            };
            let nearest = &mut nearest[label];
            let is_copy = nearest.iter().any(|&(_, known)| groups[known] == groups[other]);
            if nearest.len() < NEIGHBOURS && !is_copy {
                nearest.push((distance, other));
            }
        }
        let mean = |of: &[(f32, usize)]| {
            of.iter().map(|&(distance, _)| f64::from(distance)).sum::<f64>() / of.len() as f64
        };
        let others = (0..40).filter(|&label| label != own && nearest[label].len() >= MIN_OTHER);
        let looks_like = others.min_by(|&a, &b| mean(&nearest[a]).total_cmp(&mean(&nearest[b])))?;
        let names = |of: &[(f32, usize)]| of.iter().map(|&(_, other)| other).collect();
        (!nearest[own].is_empty()).then(|| LabelScore {
            margin: mean(&nearest[own]) - mean(&nearest[looks_like]),
            looks_like,
            own: names(&nearest[own]),
            other: names(&nearest[looks_like]),
        })
    }

    #[test]
    fn blocks_score_as_the_definition_does() {
        let count = CANDIDATES + 300;
        let rows = crate::eval::testing::random(count, 6, 5);
        // Far from the origin the sums of squares must not cancel.
        let far = rows.values().iter().map(|value| 0.1 * value + 7.0).collect();
        let rows = Embeddings::new(count, 6, far).unwrap();
        let labels: Vec<_> = (0..count).map(|k| Some(k * 7 % 41).filter(|&l| l < 40)).collect();
        let groups: Vec<_> = (0..count).map(|k| k - k % (1 + k % 4)).collect();
        let scores = score(&rows, &labels, &groups, 40, &|| ()).unwrap();
        for picture in (0..count).step_by(97) {
            let wanted = by_definition(picture, &rows, &labels, &groups);
            assert_eq!(scores[picture], wanted, "{picture}");
        }
        assert!(scores.iter().flatten().count() > 8000);
    }
}
