//! A split by identity, to evaluate on unseen people.

use rand::seq::SliceRandom;

use super::Part;
use super::random::{Purpose, generator};
use crate::{Error, Result};

/// The part of each of `count` people; `val_fraction` of them, rounded, are for validation.
///
/// With four or more people each part has at least two (one alone makes no different pair). With
/// `val_fraction` 0 all are for training. The same count, fraction and seed give the same split.
///
/// # Errors
/// `val_fraction` is not in [0, 1), or there are too few people.
pub fn disjoint(count: usize, val_fraction: f64, seed: u64) -> Result<Vec<Part>> {
    if !(0.0..1.0).contains(&val_fraction) {
        let text = format!("--val-fraction {val_fraction}: must be at least 0 and below 1");
        return Err(Error::Config(text));
    }
    let mut parts = vec![Part::Train; count];
    if val_fraction == 0.0 {
        return Ok(parts);
    }
    if count < 4 {
        return Err(Error::Data(format!(
            "a split between people needs four of them, two on each side; this data has {count}: \
             add people or give --val-fraction 0"
        )));
    }
    let held_back = ((count as f64 * val_fraction).round() as usize).clamp(2, count - 2);
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut generator(seed, Purpose::People, 0));
    for &person in &order[..held_back] {
        parts[person] = Part::Validation;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_back(parts: &[Part]) -> usize {
        parts.iter().filter(|&&part| part == Part::Validation).count()
    }

    #[test]
    fn the_share_is_rounded_and_leaves_two_on_each_side() {
        for (count, fraction, wanted) in
            [(100, 0.2, 20), (10, 0.25, 3), (4, 0.01, 2), (4, 0.99, 2), (9, 0.0, 0), (0, 0.0, 0)]
        {
            let parts = disjoint(count, fraction, 3).unwrap();
            assert_eq!((parts.len(), held_back(&parts)), (count, wanted), "{count} {fraction}");
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(disjoint(50, 0.3, 1).unwrap(), disjoint(50, 0.3, 1).unwrap());
        assert_ne!(disjoint(50, 0.3, 1).unwrap(), disjoint(50, 0.3, 2).unwrap());
    }

    #[test]
    fn impossible_settings_are_refused() {
        for fraction in [-0.1, 1.0, f64::NAN] {
            let error = disjoint(9, fraction, 0).unwrap_err().to_string();
            assert!(error.contains("--val-fraction"), "{error}");
        }
        assert!(disjoint(3, 0.5, 0).unwrap_err().to_string().contains("this data has 3"));
    }
}
