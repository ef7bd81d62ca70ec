//! t-SNE.
//!
//! van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 2008; Barnes-Hut approximation: van
//! der Maaten, "Accelerating t-SNE using Tree-Based Algorithms", JMLR 2014.

use bhtsne::{Neighbor, tSNE};

use super::distance::euclidean;
use super::{Embeddings, knn, pca};
use crate::{Error, Result};

/// Maximum number of pictures for exact forces; beyond it Barnes-Hut.
const EXACT_UP_TO: usize = 1000;
/// Barnes-Hut accuracy; 0 is exact.
const THETA: f32 = 0.5;

/// Settings of t-SNE.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TsneOptions {
    /// Perplexity: the effective number of neighbours; at most (pictures - 1) / 3.
    pub perplexity: f64,
    /// Iterations; early exaggeration in the first quarter, at most 250.
    pub iterations: usize,
    /// Seed of the initial jitter.
    pub seed: u64,
}

impl Default for TsneOptions {
    fn default() -> Self {
        Self { perplexity: 30.0, iterations: 1000, seed: 0 }
    }
}

/// The 2-D map of the embeddings: one `[x, y]` per row, centred at the origin.
///
/// Initialised with PCA (plus seeded jitter) and computed on one thread, so that the same input gives
/// the same map. `progress` is called with (steps done, total steps) after every step.
///
/// # Errors
/// Fewer than 4 embeddings, a perplexity below 1 or NaN, or no iterations.
pub fn tsne(
    embeddings: &Embeddings,
    options: &TsneOptions,
    mut progress: impl FnMut(usize, usize) + Send,
) -> Result<Vec<[f32; 2]>> {
    let rows = embeddings.rows();
    if rows < 4 {
        return Err(Error::Data(format!("t-SNE needs at least 4 pictures, there are {rows}")));
    }
    if options.perplexity.is_nan() || options.perplexity < 1.0 || options.iterations == 0 {
        return Err(Error::Config(format!(
            "t-SNE: a perplexity of {} over {} iterations makes no map; perplexity must be 1 or \
             more (5 to 50 is usual), iterations at least 1 (1000 is usual)",
            options.perplexity, options.iterations
        )));
    }
    let perplexity = options.perplexity.min((rows - 1) as f64 / 3.0);
    let start = pca::start(embeddings, options.seed);
    // At three times the perplexity a Gaussian is close to zero.
    let neighbours =
        (rows > EXACT_UP_TO).then(|| knn::neighbours(embeddings, (3.0 * perplexity) as usize));
    let samples: Vec<&[f32]> = embeddings.iter().collect();
    let exaggerated = (options.iterations / 4).min(250);

    // The crate's sums depend on the order of threads, so that several would not be reproducible.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| Error::Config(format!("t-SNE cannot start its thread: {error}")))?;
    let flat = pool.install(|| {
        let mut map = tSNE::<f32, &[f32], 2>::new(&samples);
        map.perplexity(perplexity as f32)
            .epochs(options.iterations)
            .stop_lying_epoch(exaggerated)
            .momentum_switch_epoch(exaggerated)
            .initial_embedding(start)
            .epoch_callback(|epoch, _| progress(epoch + 1, options.iterations));
        match &neighbours {
            None => map.exact(|a, b| euclidean(a, b)),
            Some(lists) => map.barnes_hut_with_neighbors(THETA, &table(lists)),
        };
        map.embedding()
    });
    Ok(flat.as_chunks::<2>().0.to_vec())
}

fn table(lists: &[Vec<(usize, f32)>]) -> Vec<Vec<Neighbor<f32>>> {
    let row = |list: &Vec<(usize, f32)>| {
        list.iter().map(|&(index, distance)| Neighbor { index, distance }).collect()
    };
    lists.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    /// `groups` well-parted groups of `each` points in 8 dimensions, one after the other.
    fn groups(groups: usize, each: usize) -> Embeddings {
        let noise = random(groups * each, 8, 5);
        let values = noise.values().iter().enumerate().map(|(at, value)| {
            let (row, column) = (at / 8, at % 8);
            value * 0.3 + if column == row / each { 4.0 } else { 0.0 }
        });
        Embeddings::new(groups * each, 8, values.collect()).unwrap()
    }

    fn in_own_group(map: &[[f32; 2]], each: usize) -> usize {
        let flat = Embeddings::new(map.len(), 2, map.concat()).unwrap();
        let lists = knn::neighbours(&flat, 1);
        lists.iter().enumerate().filter(|(i, list)| list[0].0 / each == i / each).count()
    }

    #[test]
    fn groups_stay_together_exactly_and_with_barnes_hut() {
        let options = TsneOptions { iterations: 250, ..TsneOptions::default() };
        let few = tsne(&groups(4, 25), &options, |_, _| ()).unwrap();
        assert_eq!(in_own_group(&few, 25), 100);
        let options = TsneOptions { iterations: 100, ..options };
        let many = tsne(&groups(4, 260), &options, |_, _| ()).unwrap();
        assert!(in_own_group(&many, 260) >= 1035);
    }

    #[test]
    fn the_same_input_gives_the_same_map_on_any_number_of_threads() {
        let options = TsneOptions { iterations: 40, ..TsneOptions::default() };
        for data in [groups(3, 20), groups(4, 260)] {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| tsne(&data, &options, |_, _| ()).unwrap())
            };
            let map = run(1);
            assert_eq!(map, run(4));
            let other = TsneOptions { seed: 1, ..options };
            assert_ne!(map, tsne(&data, &other, |_, _| ()).unwrap());
        }
    }

    #[test]
    fn tiny_and_coinciding_sets_give_finite_maps() {
        let options = TsneOptions { iterations: 60, ..TsneOptions::default() };
        let same = Embeddings::new(6, 3, vec![1.0; 18]).unwrap();
        for data in [random(4, 3, 1), random(5, 1, 2), same] {
            let map = tsne(&data, &options, |_, _| ()).unwrap();
            assert_eq!(map.len(), data.rows());
            assert!(map.iter().flatten().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn progress_is_reported_and_impossible_maps_are_refused() {
        let mut steps = Vec::new();
        let options = TsneOptions { iterations: 3, ..TsneOptions::default() };
        tsne(&random(5, 2, 1), &options, |done, all| steps.push((done, all))).unwrap();
        assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
        let few = tsne(&random(3, 2, 1), &options, |_, _| ()).unwrap_err().to_string();
        assert!(few.contains("at least 4") && few.contains("there are 3"), "{few}");
        for perplexity in [f64::NAN, 0.0] {
            let options = TsneOptions { perplexity, ..options };
            assert!(tsne(&random(5, 2, 1), &options, |_, _| ()).is_err());
        }
        let options = TsneOptions { iterations: 0, ..options };
        assert!(tsne(&random(5, 2, 1), &options, |_, _| ()).is_err());
    }
}
