//! The two leading principal components, as the initialisation of t-SNE.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::Embeddings;

/// Standard deviation of the initial positions.
const SPREAD: f64 = 1e-4;
/// Amplitude of the added jitter.
const JITTER: f64 = 1e-6;
/// Subspace iterations; an initialisation needs no more.
const ROUNDS: usize = 40;

/// `[rows * 2]` coordinates on the first two principal components, scaled so that the first has a
/// standard deviation of 1e-4, plus uniform jitter of 1e-6 seeded by `seed`.
pub(super) fn start(embeddings: &Embeddings, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let scores = scores(embeddings);
    let variance =
        scores.iter().map(|score| score[0] * score[0]).sum::<f64>() / scores.len().max(1) as f64;
    let scale = if variance > 0.0 { SPREAD / variance.sqrt() } else { 0.0 };
    let mut place = |score: f64| (score * scale + rng.random_range(-JITTER..JITTER)) as f32;
    scores.iter().flatten().map(|&score| place(score)).collect()
}

/// The coordinates of every row on the two leading principal components.
fn scores(embeddings: &Embeddings) -> Vec<[f64; 2]> {
    let dim = embeddings.dim();
    let mut mean = vec![0.0; dim];
    for row in embeddings.iter() {
        mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value));
    }
    mean.iter_mut().for_each(|mean| *mean /= embeddings.rows() as f64);
    let centred = |row: &[f32], direction: &[f64]| -> f64 {
        let terms = row.iter().zip(&mean).zip(direction);
        terms.map(|((&value, mean), d)| (f64::from(value) - mean) * d).sum()
    };

    // A fixed start without symmetries, so that it is not orthogonal to a component.
    let mut rng = StdRng::seed_from_u64(0);
    let mut directions: [Vec<f64>; 2] =
        std::array::from_fn(|_| (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect());
    orthonormal(&mut directions);
    for _ in 0..ROUNDS {
        let mut next: [Vec<f64>; 2] = std::array::from_fn(|_| vec![0.0; dim]);
        for row in embeddings.iter() {
            for (next, direction) in next.iter_mut().zip(&directions) {
                let score = centred(row, direction);
                for ((next, &value), mean) in next.iter_mut().zip(row).zip(&mean) {
                    *next += score * (f64::from(value) - mean);
                }
            }
        }
        directions = next;
        orthonormal(&mut directions);
    }
    let [first, second] = &directions;
    embeddings.iter().map(|row| [centred(row, first), centred(row, second)]).collect()
}

/// Gram-Schmidt; zero vectors stay zero. The largest component of each is positive, to fix the sign.
fn orthonormal([first, second]: &mut [Vec<f64>; 2]) {
    normalise(first);
    let along: f64 = first.iter().zip(second.iter()).map(|(a, b)| a * b).sum();
    second.iter_mut().zip(first.iter()).for_each(|(b, a)| *b -= along * a);
    normalise(second);
}

fn normalise(direction: &mut [f64]) {
    let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
    let largest = direction.iter().fold(0.0, |a: f64, &b| if b.abs() > a.abs() { b } else { a });
    let scale = if length > 1e-12 { largest.signum() / length } else { 0.0 };
    direction.iter_mut().for_each(|value| *value *= scale);
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn the_longest_axes_come_first() {
        // Column 2 varies most, then column 0; shifted, which PCA must not mind.
        let noise = random(200, 3, 1);
        let values = noise
            .values()
            .chunks(3)
            .flat_map(|row| [row[0] * 3.0 + 100.0, row[1] * 0.1 - 7.0, row[2] * 9.0 + 50.0]);
        let data = Embeddings::new(200, 3, values.collect()).unwrap();
        let scores = scores(&data);
        let mean = |column: usize| {
            data.iter().map(|row| f64::from(row[column])).sum::<f64>() / data.rows() as f64
        };
        let (mean0, mean2) = (mean(0), mean(2));
        for (score, row) in scores.iter().zip(data.iter()) {
            assert!((score[0] - (f64::from(row[2]) - mean2)).abs() < 0.5, "{score:?} of {row:?}");
            assert!((score[1] - (f64::from(row[0]) - mean0)).abs() < 0.8, "{score:?} of {row:?}");
        }
        let variance = |axis: usize| scores.iter().map(|s| s[axis] * s[axis]).sum::<f64>() / 200.0;
        assert!(variance(0) > 4.0 * variance(1));
    }

    #[test]
    fn a_start_is_small_seeded_and_never_all_in_one_place() {
        let data = random(50, 4, 2);
        let places = start(&data, 3);
        assert_eq!(places, start(&data, 3));
        assert_ne!(places, start(&data, 4));
        assert!(places.iter().all(|value| value.abs() < 1e-3));
        for flat in [Embeddings::new(5, 1, vec![2.0; 5]).unwrap(), data.subset(&[0, 0, 0])] {
            let places = start(&flat, 0);
            let pairs = places.as_chunks::<2>().0;
            assert!(pairs.iter().flatten().all(|value| value.is_finite()));
            assert!(pairs[0] != pairs[1] && pairs[1] != pairs[2]);
        }
    }
}
