//! Retrieval within one set: each picture is a query, all the others are the references (Musgrave,
//! Belongie and Lim, "A Metric Learning Reality Check", 2020).

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::distance::squared;
use super::{Embeddings, assert_labelled};

/// Queries handled together by one thread.
const TILE: usize = 16;
/// References scanned before the next query of the tile has its turn.
const BLOCK: usize = 256;

/// Means over the queries whose identity has another picture. `R` is the number of those others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieval {
    /// Leave-one-out 1-NN accuracy: the share of queries whose nearest reference is of their identity.
    pub precision_at_1: f64,
    /// The share of the query's identity among its `R` nearest references.
    pub r_precision: f64,
    /// Mean average precision at `R`: `1/R sum_{i=1..R} P(i)`, where `P(i)` is the share of the identity
    /// among the `i` nearest references if the `i`-th is of the identity, else 0.
    pub map_at_r: f64,
}

impl Retrieval {
    /// Every picture against all the others; ties go to the lowest index. A picture whose identity has
    /// no other is no query and stays among the references. `None` when no query is left.
    ///
    /// Memory of the order of the rows, for each thread.
    ///
    /// # Panics
    /// When there is not one label per embedding.
    pub fn within(embeddings: &Embeddings, labels: &[usize]) -> Option<Self> {
        assert_labelled(embeddings, labels);
        let mut pictures = BTreeMap::<usize, usize>::new();
        for &label in labels {
            *pictures.entry(label).or_default() += 1;
        }
        let queries: Vec<usize> = (0..labels.len()).filter(|&i| pictures[&labels[i]] > 1).collect();
        let each: Vec<[f64; 3]> = queries
            .par_chunks(TILE)
            .flat_map_iter(|tile| {
                let distances = distances(embeddings, tile);
                let of = |(&query, row): (&usize, &Vec<f32>)| {
                    let hits = hits(query, row, labels, pictures[&labels[query]] - 1);
                    figures(&hits)
                };
                tile.iter().zip(&distances).map(of).collect::<Vec<_>>()
            })
            .collect();
        let mean = |figure: usize| {
            each.iter().map(|figures| figures[figure]).sum::<f64>() / each.len() as f64
        };
        (!each.is_empty()).then(|| Self {
            precision_at_1: mean(0),
            r_precision: mean(1),
            map_at_r: mean(2),
        })
    }
}

/// The squared distances of some queries to all rows.
fn distances(embeddings: &Embeddings, queries: &[usize]) -> Vec<Vec<f32>> {
    let rows = embeddings.rows();
    let mut all = vec![Vec::with_capacity(rows); queries.len()];
    for from in (0..rows).step_by(BLOCK) {
        let block = from..(from + BLOCK).min(rows);
        for (found, &query) in all.iter_mut().zip(queries) {
            let row = embeddings.row(query);
            found.extend(block.clone().map(|other| squared(row, embeddings.row(other))));
        }
    }
    all
}

/// Whether the `r` nearest other rows are of the query's identity, nearest first.
fn hits(query: usize, distances: &[f32], labels: &[usize], r: usize) -> Vec<bool> {
    let mut others: Vec<usize> = (0..distances.len()).filter(|&other| other != query).collect();
    let nearer = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]).then(a.cmp(b));
    if r < others.len() {
        others.select_nth_unstable_by(r, nearer);
        others.truncate(r);
    }
    others.sort_unstable_by(nearer);
    others.into_iter().map(|other| labels[other] == labels[query]).collect()
}

/// Precision at 1, R-precision and average precision at R of one query with a hit to find.
fn figures(hits: &[bool]) -> [f64; 3] {
    let (mut right, mut precisions) = (0.0, 0.0);
    for (&hit, rank) in hits.iter().zip(1u32..) {
        if hit {
            right += 1.0;
            precisions += right / f64::from(rank);
        }
    }
    let r = hits.len() as f64;
    [f64::from(u8::from(hits.first() == Some(&true))), right / r, precisions / r]
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::super::testing::random;
    use super::*;

    /// By definition, in float64 and with a full sort.
    fn naive(embeddings: &Embeddings, labels: &[usize]) -> [f64; 3] {
        let (mut sums, mut queries) = ([0.0; 3], 0.0);
        for (i, row) in embeddings.iter().enumerate() {
            let mut others: Vec<(f64, usize)> = (0..labels.len())
                .filter(|&j| j != i)
                .map(|j| {
                    let apart = row.iter().zip(embeddings.row(j));
                    (apart.map(|(a, b)| f64::from(a - b).powi(2)).sum(), j)
                })
                .collect();
            others.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let is_hit = |&(_, j): &(f64, usize)| labels[j] == labels[i];
            let r = others.iter().filter(|other| is_hit(other)).count();
            if r == 0 {
                continue;
            }
            let right = |k: usize| others[..k].iter().filter(|other| is_hit(other)).count() as f64;
            let ranks = (1..=r).filter(|&k| is_hit(&others[k - 1]));
            sums[0] += right(1);
            sums[1] += right(r) / r as f64;
            sums[2] += ranks.map(|k| right(k) / k as f64).sum::<f64>() / r as f64;
            queries += 1.0;
        }
        sums.map(|sum| sum / queries)
    }

    #[test]
    fn agrees_with_a_naive_loop() {
        let mut rng = StdRng::seed_from_u64(3);
        for (rows, identities) in [(2, 1), (40, 5), (40, 30), (700, 12)] {
            let embeddings = random(rows, 7, rows as u64);
            let labels: Vec<usize> = (0..rows).map(|_| rng.random_range(0..identities)).collect();
            let found = Retrieval::within(&embeddings, &labels).unwrap();
            let found = [found.precision_at_1, found.r_precision, found.map_at_r];
            for (found, wanted) in found.into_iter().zip(naive(&embeddings, &labels)) {
                assert!((found - wanted).abs() < 1e-12, "{rows} rows: {found}, {wanted}");
            }
        }
    }

    #[test]
    fn agrees_with_pytorch_metric_learning() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/retrieval.json")).unwrap();
        let numbers = |name: &str| -> Vec<f64> {
            golden[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
        };
        let labels: Vec<usize> = numbers("labels").iter().map(|&label| label as usize).collect();
        let values = numbers("embeddings").iter().map(|&value| value as f32).collect();
        let dim = golden["dim"].as_u64().unwrap() as usize;
        let embeddings = Embeddings::new(labels.len(), dim, values).unwrap();
        let found = Retrieval::within(&embeddings, &labels).unwrap();
        for (found, name) in [
            (found.precision_at_1, "precision_at_1"),
            (found.r_precision, "r_precision"),
            (found.map_at_r, "mean_average_precision_at_r"),
        ] {
            let wanted = golden[name].as_f64().unwrap();
            assert!((found - wanted).abs() < 1e-6, "{name}: {found}, {wanted}");
        }
    }

    #[test]
    fn the_papers_example_by_hand() {
        // R = 3; hits at ranks 1 and 3: (1/1 + 2/3) / 3.
        let [first, precision, average] = figures(&[true, false, true]);
        assert_eq!((first, precision), (1.0, 2.0 / 3.0));
        assert!((average - 5.0 / 9.0).abs() < 1e-15);
        assert_eq!(figures(&[false, true]), [0.0, 0.5, 0.25]);
    }

    #[test]
    fn ties_go_to_the_lowest_index_and_lone_identities_are_no_query() {
        let nearest = |embeddings: &Embeddings, labels: &[usize]| {
            Some(Retrieval::within(embeddings, labels)?.precision_at_1)
        };
        // On a line: 0 at 0.0, 1 at 1.0, 0 at 2.0, 2 (alone) at 2.5.
        let line = Embeddings::new(4, 1, vec![0.0, 1.0, 2.0, 2.5]).unwrap();
        // 0.0 -> 1.0 wrong; 1.0 belongs to nobody else; 2.0 -> 2.5, the lone distractor: wrong.
        assert_eq!(nearest(&line, &[0, 1, 0, 2]), Some(0.0));
        // 1.0 lies between 0.0 and 2.0: the tie goes to index 0, whose label is right.
        assert_eq!(nearest(&line.subset(&[0, 1, 2]), &[7, 7, 8]), Some(1.0));
        assert_eq!(nearest(&line.subset(&[2, 1, 0]), &[8, 7, 7]), Some(0.5));
        assert_eq!(nearest(&line, &[0, 1, 2, 3]), None);
        assert_eq!(nearest(&line.subset(&[]), &[]), None);
    }
}
