//! Nearest-centroid classification.
//!
//! A centroid is the mean of an identity's embeddings, computed in f64, not normalised. Ties go to the
//! lowest label.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Embeddings, assert_labelled, share};

/// Leave-one-out nearest-centroid accuracy: each picture is removed from its own identity's centroid
/// before it is compared with all.
///
/// Pictures of identities with one picture are no queries, but remain distractors. `None` without
/// queries.
///
/// # Panics
/// When there is not one label per embedding.
pub fn leave_one_out(embeddings: &Embeddings, labels: &[usize]) -> Option<f64> {
    let centroids = Centroids::new(embeddings, labels);
    let answers = (0..embeddings.rows()).into_par_iter().filter_map(|i| {
        let own = centroids.find(labels[i])?;
        let found = centroids.nearest_without(embeddings.row(i), own)?;
        Some((1, usize::from(found == own)))
    });
    let (all, right) = answers.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    share(right, all)
}

/// Nearest-centroid accuracy of `query` on the centroids of `gallery`.
///
/// Queries of identities that are not in the gallery are ignored. `None` without queries.
///
/// # Panics
/// When there is not one label per embedding, or the `dim`s differ.
pub fn against_gallery(
    gallery: &Embeddings,
    gallery_labels: &[usize],
    query: &Embeddings,
    query_labels: &[usize],
) -> Option<f64> {
    assert_labelled(query, query_labels);
    if gallery.rows() == 0 || query.rows() == 0 {
        return None;
    }
    assert_eq!(gallery.dim(), query.dim(), "gallery and query embeddings differ in size");
    let centroids = Centroids::new(gallery, gallery_labels);
    let answers = (0..query.rows()).into_par_iter().filter_map(|i| {
        let own = centroids.find(query_labels[i])?;
        Some((1, usize::from(centroids.nearest(query.row(i)) == Some(own))))
    });
    let (all, right) = answers.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    share(right, all)
}

/// The sums of embeddings per identity, from which one picture can be subtracted.
struct Centroids {
    /// Labels in ascending order; the index of a label is that in `sums` and `counts`.
    labels: Vec<usize>,
    /// `[labels, dim]`.
    sums: Vec<f64>,
    counts: Vec<usize>,
    dim: usize,
}

impl Centroids {
    fn new(embeddings: &Embeddings, labels: &[usize]) -> Self {
        assert_labelled(embeddings, labels);
        let dim = embeddings.dim();
        let mut sums = BTreeMap::<usize, (usize, Vec<f64>)>::new();
        for (&label, row) in labels.iter().zip(embeddings.iter()) {
            let (count, sum) = sums.entry(label).or_insert_with(|| (0, vec![0.0; dim]));
            *count += 1;
            sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        Self {
            labels: sums.keys().copied().collect(),
            counts: sums.values().map(|(count, _)| *count).collect(),
            sums: sums.into_values().flat_map(|(_, sum)| sum).collect(),
            dim,
        }
    }

    fn find(&self, label: usize) -> Option<usize> {
        self.labels.binary_search(&label).ok()
    }

    /// The index of the centroid nearest to `row`.
    fn nearest(&self, row: &[f32]) -> Option<usize> {
        let centroids = self.sums.chunks_exact(self.dim).zip(&self.counts);
        first_smallest(centroids.map(|(sum, &count)| distance(row, sum, count as f64)))
    }

    /// As [`nearest`](Self::nearest), with `row` removed from centroid `own`; `None` if that leaves
    /// `own` empty.
    fn nearest_without(&self, row: &[f32], own: usize) -> Option<usize> {
        if self.counts[own] < 2 {
            return None;
        }
        let without: Vec<f64> = self.sums[own * self.dim..(own + 1) * self.dim]
            .iter()
            .zip(row)
            .map(|(sum, &value)| sum - f64::from(value))
            .collect();
        let centroids = self.sums.chunks_exact(self.dim).zip(&self.counts).enumerate();
        first_smallest(centroids.map(|(place, (sum, &count))| {
            if place == own {
                distance(row, &without, count as f64 - 1.0)
            } else {
                distance(row, sum, count as f64)
            }
        }))
    }
}

/// `|row - sum / count|^2`.
fn distance(row: &[f32], sum: &[f64], count: f64) -> f64 {
    let scale = count.recip();
    row.iter().zip(sum).map(|(&value, sum)| (f64::from(value) - sum * scale).powi(2)).sum()
}

fn first_smallest(distances: impl Iterator<Item = f64>) -> Option<usize> {
    distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    /// Every query's centroids, computed from all rows.
    fn brute(embeddings: &Embeddings, labels: &[usize]) -> Option<f64> {
        let (mut right, mut all) = (0, 0);
        for i in 0..labels.len() {
            let mut best = (f64::INFINITY, None);
            let mut own_exists = false;
            for label in 0..=*labels.iter().max().unwrap() {
                let members: Vec<usize> =
                    (0..labels.len()).filter(|&j| j != i && labels[j] == label).collect();
                if members.is_empty() {
                    continue;
                }
                own_exists |= label == labels[i];
                let mut distance = 0.0;
                for d in 0..embeddings.dim() {
                    let total: f64 = members.iter().map(|&j| f64::from(embeddings.row(j)[d])).sum();
                    let mean = total / members.len() as f64;
                    distance += (f64::from(embeddings.row(i)[d]) - mean).powi(2);
                }
                if distance < best.0 {
                    best = (distance, Some(label));
                }
            }
            if own_exists {
                all += 1;
                right += usize::from(best.1 == Some(labels[i]));
            }
        }
        share(right, all)
    }

    #[test]
    fn leave_one_out_agrees_with_centroids_built_anew() {
        for seed in 0..5 {
            let embeddings = random(40, 3, seed);
            // Label 9 has one picture, label 5 none.
            let labels: Vec<usize> = (0..40).map(|i| if i == 39 { 9 } else { i % 5 }).collect();
            let score = leave_one_out(&embeddings, &labels);
            assert_eq!(score, brute(&embeddings, &labels));
            assert!(score.is_some_and(|score| score < 1.0));
        }
    }

    #[test]
    fn a_picture_does_not_vote_for_itself() {
        // The lone-ish picture at 10 drags its own mean to itself unless it is taken out.
        let line = Embeddings::new(4, 1, vec![0.0, 10.0, 6.0, 6.2]).unwrap();
        assert_eq!(leave_one_out(&line, &[0, 0, 1, 1]), Some(0.5));
        assert_eq!(leave_one_out(&line, &[0, 1, 2, 3]), None);
        assert_eq!(leave_one_out(&line.subset(&[]), &[]), None);
    }

    #[test]
    fn a_gallery_names_what_it_knows() {
        let gallery = Embeddings::new(3, 1, vec![0.0, 2.0, 10.0]).unwrap();
        let query = Embeddings::new(3, 1, vec![1.5, 5.6, 100.0]).unwrap();
        // Centroids 1 and 10: 5.6 is nearer to 10.
        assert_eq!(against_gallery(&gallery, &[4, 4, 8], &query, &[4, 4, 3]), Some(0.5));
        assert_eq!(against_gallery(&gallery, &[4, 4, 8], &query, &[1, 2, 3]), None);
    }
}
