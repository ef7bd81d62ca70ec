//! Nearest neighbours: exact search, and 1-NN accuracy.
//!
//! Ties go to the lowest index. Queries and gallery are processed in tiles that fit the cache; memory
//! grows linearly with the number of rows.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::distance::squared;
use super::{Embeddings, assert_labelled, share};

/// Queries per tile.
const TILE: usize = 16;
/// Gallery rows per tile.
const BLOCK: usize = 256;

/// The index of each query's nearest gallery row, and the Euclidean distance.
///
/// Empty if the gallery is empty.
///
/// # Panics
/// When both hold rows and their `dim`s differ.
pub fn nearest(gallery: &Embeddings, query: &Embeddings) -> Vec<(usize, f32)> {
    if gallery.rows() == 0 || query.rows() == 0 {
        return Vec::new();
    }
    assert_eq!(gallery.dim(), query.dim(), "gallery and query embeddings of one length");
    let mut found = vec![(0, f32::INFINITY); query.rows()];
    found.par_chunks_mut(TILE).enumerate().for_each(|(tile, best)| {
        for from in (0..gallery.rows()).step_by(BLOCK) {
            let block = from..(from + BLOCK).min(gallery.rows());
            for (i, best) in best.iter_mut().enumerate() {
                let row = query.row(tile * TILE + i);
                for other in block.clone() {
                    let distance = squared(row, gallery.row(other));
                    // Strictly: the first of equals stays.
                    if distance < best.1 {
                        *best = (other, distance);
                    }
                }
            }
        }
    });
    found.iter_mut().for_each(|(_, distance)| *distance = distance.sqrt());
    found
}

/// A face's nearest face, and how far the nearest identity is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    /// Row of the nearest face in the gallery.
    pub row: usize,
    /// Euclidean distance to it.
    pub distance: f32,
    /// The smallest mean distance to the `k` nearest faces of one identity (to all, if it has fewer).
    pub identity: f32,
}

/// Each query's nearest gallery row and identity, with the mean distance to the `k` nearest of it. Ties
/// go to the lowest row. Empty if the gallery is empty.
///
/// # Panics
/// When there is not one label per row, or the `dim`s differ.
pub fn nearest_identity(
    gallery: &Embeddings,
    labels: &[usize],
    query: &Embeddings,
    k: usize,
) -> Vec<Near> {
    let rows = (0..query.rows()).into_par_iter();
    rows.filter_map(|i| near(gallery, labels, query.row(i), k, None)).collect()
}

/// As [`nearest_identity`], for each row among all the others.
///
/// # Panics
/// When there is not one label per row.
pub fn nearest_identity_of_others(rows: &Embeddings, labels: &[usize], k: usize) -> Vec<Near> {
    let all = (0..rows.rows()).into_par_iter();
    all.filter_map(|i| near(rows, labels, rows.row(i), k, Some(i))).collect()
}

fn near(
    gallery: &Embeddings,
    labels: &[usize],
    query: &[f32],
    k: usize,
    without: Option<usize>,
) -> Option<Near> {
    assert_labelled(gallery, labels);
    let mut nearest: Option<(usize, f32)> = None;
    let identities = labels.iter().max().map_or(0, |label| label + 1);
    // The k smallest squared distances of each identity, in ascending order.
    let mut best: Vec<Vec<f32>> = vec![Vec::with_capacity(k + 1); identities];
    for (row, &label) in labels.iter().enumerate().filter(|&(row, _)| Some(row) != without) {
        let distance = squared(query, gallery.row(row));
        if nearest.is_none_or(|(_, least)| distance < least) {
            nearest = Some((row, distance));
        }
        let best = &mut best[label];
        if best.len() < k.max(1) || best.last().is_some_and(|last| distance < *last) {
            best.insert(best.partition_point(|other| *other <= distance), distance);
            best.truncate(k.max(1));
        }
    }
    let identity = best.iter().filter_map(|best| mean_distance(best)).min_by(f32::total_cmp)?;
    let (row, distance) = nearest?;
    Some(Near { row, distance: distance.sqrt(), identity })
}

/// The mean of distances, of which the squares are given in ascending order.
pub(crate) fn mean_distance(squares: &[f32]) -> Option<f32> {
    let sum: f32 = squares.iter().map(|square| square.sqrt()).sum();
    (!squares.is_empty()).then(|| sum / squares.len() as f32)
}

/// 1-NN accuracy of `query` on `gallery`.
///
/// Queries of identities that are not in the gallery are ignored; for their rejection see
/// [`unknown`](super::unknown). `None` without queries.
///
/// # Panics
/// When there is not one label per embedding, or the `dim`s differ.
pub fn against_gallery(
    gallery: &Embeddings,
    gallery_labels: &[usize],
    query: &Embeddings,
    query_labels: &[usize],
) -> Option<f64> {
    assert_labelled(gallery, gallery_labels);
    assert_labelled(query, query_labels);
    let known: BTreeSet<usize> = gallery_labels.iter().copied().collect();
    let queries = query_labels.iter().zip(nearest(gallery, query));
    count(
        queries
            .filter(|(label, _)| known.contains(label))
            .map(|(&label, (found, _))| label == gallery_labels[found]),
    )
}

/// The `k` nearest other rows of each row as `(index, Euclidean distance)`, nearest first.
///
/// Fewer than `k` if there are not that many rows.
pub fn neighbours(embeddings: &Embeddings, k: usize) -> Vec<Vec<(usize, f32)>> {
    let k = k.min(embeddings.rows().saturating_sub(1));
    (0..embeddings.rows())
        .into_par_iter()
        .map(|i| {
            let row = embeddings.row(i);
            let others = embeddings.iter().enumerate().filter(|&(j, _)| j != i);
            let mut all: Vec<(usize, f32)> = others.map(|(j, o)| (j, squared(row, o))).collect();
            let nearer = |a: &(usize, f32), b: &(usize, f32)| {
                a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0))
            };
            if k < all.len() {
                all.select_nth_unstable_by(k, nearer);
                all.truncate(k);
            }
            all.sort_unstable_by(nearer);
            all.iter_mut().for_each(|(_, distance)| *distance = distance.sqrt());
            all
        })
        .collect()
}

fn count(right: impl Iterator<Item = bool>) -> Option<f64> {
    let (mut all, mut good) = (0, 0);
    for right in right {
        all += 1;
        good += usize::from(right);
    }
    share(good, all)
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn the_nearest_identity_is_that_of_the_smallest_mean() {
        let line = |points: &[f32]| Embeddings::new(points.len(), 1, points.to_vec()).unwrap();
        // One face of identity 0 is nearest to 0, but its other one is far; two of 1 are near.
        let (gallery, labels) = (line(&[1.0, -20.0, 2.0, -2.0, 50.0]), [0, 0, 1, 1, 1]);
        let near = |k| nearest_identity(&gallery, &labels, &line(&[0.0]), k)[0];
        assert_eq!(near(1), Near { row: 0, distance: 1.0, identity: 1.0 });
        assert_eq!(near(2), Near { row: 0, distance: 1.0, identity: 2.0 });
        // Of identity 0 the two there are: 10.5; of identity 1 all three: 18.
        assert_eq!(near(3).identity, 10.5);
        let others = nearest_identity_of_others(&gallery, &labels, 1);
        assert_eq!((others[0].row, others[0].distance), (2, 1.0));
        assert!(nearest_identity(&line(&[]), &[], &line(&[0.0]), 1).is_empty());
    }

    #[test]
    fn blocked_search_agrees_with_a_double_loop() {
        let gallery = random(700, 19, 1);
        let query = random(53, 19, 2);
        let found = nearest(&gallery, &query);
        for (i, &(index, distance)) in found.iter().enumerate() {
            let mut best = (0, f32::INFINITY);
            for j in 0..gallery.rows() {
                let squares = gallery.row(j).iter().zip(query.row(i)).map(|(a, b)| (a - b).powi(2));
                let d = squares.sum::<f32>().sqrt();
                if d < best.1 {
                    best = (j, d);
                }
            }
            assert_eq!(index, best.0);
            assert!((distance - best.1).abs() < 1e-5);
        }
        assert!(nearest(&gallery.subset(&[]), &query).is_empty());
    }

    #[test]
    fn k_neighbours_begin_with_the_nearest_and_grow() {
        let all = random(90, 5, 3);
        let lists = neighbours(&all, 7);
        for (i, list) in lists.iter().enumerate() {
            assert_eq!(list.len(), 7);
            assert!(list.iter().all(|&(j, _)| j != i) && list.is_sorted_by(|a, b| a.1 <= b.1));
            let last = list[6].1;
            let closer =
                (0..90).filter(|&j| j != i && squared(all.row(i), all.row(j)).sqrt() < last);
            assert_eq!(closer.count(), 6);
        }
        assert_eq!(neighbours(&all.subset(&[0, 1]), 7)[0].len(), 1);
    }

    #[test]
    fn strangers_are_not_counted_against_a_gallery() {
        let gallery = Embeddings::new(2, 1, vec![0.0, 10.0]).unwrap();
        let query = Embeddings::new(3, 1, vec![1.0, 2.0, 9.0]).unwrap();
        assert_eq!(against_gallery(&gallery, &[0, 1], &query, &[0, 1, 5]), Some(0.5));
        assert_eq!(against_gallery(&gallery, &[0, 1], &query, &[5, 5, 5]), None);
        assert_eq!(against_gallery(&gallery.subset(&[]), &[], &query, &[0, 1, 5]), None);
    }
}
