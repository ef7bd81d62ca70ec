//! Identities with too few or too many pictures.

use super::{Finding, FindingKind};

/// Lower bound of the median that [`findings`] compares with: every identity needs a pair.
const MIN_MEDIAN: f64 = 2.0;

/// Minimum, median and maximum number of pictures per identity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// Minimum.
    pub min: usize,
    /// Median.
    pub median: f64,
    /// Maximum.
    pub max: usize,
}

impl Sizes {
    /// `counts` are pictures per identity; `None` without identities.
    pub fn of(counts: &[usize]) -> Option<Self> {
        let mut sorted = counts.to_vec();
        sorted.sort_unstable();
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: (low as f64 + high as f64) / 2.0, max })
    }
}

/// Identities with fewer than two pictures, and those whose number of pictures differs from the median by
/// more than a factor of `times`. `counts` are readable pictures, in the order of `identities`.
pub fn findings(identities: &[String], counts: &[usize], times: f64) -> Vec<Finding> {
    let Some(Sizes { median, .. }) = Sizes::of(counts) else { return Vec::new() };
    let finding = |(name, &count): (&String, &usize)| {
        let kind = match count as f64 {
            _ if count < 2 => FindingKind::Lonely,
            many if many > times * median.max(MIN_MEDIAN) => FindingKind::Many,
            few if few * times < median => FindingKind::Few,
            _ => return None,
        };
        let what = match kind {
            FindingKind::Lonely if count == 0 => "no readable picture".to_owned(),
            FindingKind::Lonely => "1 picture; its label cannot be checked".to_owned(),
            _ => format!("{count} pictures, the median is {median}"),
        };
        let found = Finding::new(kind, Some(count as f64), what);
        Some(Finding { identity: Some(name.clone()), ..found })
    };
    identities.iter().zip(counts).filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_far_ends_are_named_and_the_rest_is_not() {
        let names: Vec<String> = "abcdefg".chars().map(String::from).collect();
        let found = findings(&names, &[0, 1, 3, 12, 10, 30, 31], 3.0);
        let found: Vec<_> =
            found.iter().map(|f| (f.identity.as_deref().unwrap(), f.kind)).collect();
        let wanted = [
            ("a", FindingKind::Lonely),
            ("b", FindingKind::Lonely),
            ("c", FindingKind::Few),
            ("g", FindingKind::Many),
        ];
        assert_eq!(found, wanted);
        // Where one picture is usual, six are not yet many.
        assert!(
            findings(&names, &[1, 1, 1, 1, 6], 3.0).iter().all(|f| f.kind == FindingKind::Lonely)
        );
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        let of = |counts: &[usize]| Sizes::of(counts).map(|s| (s.min, s.median, s.max));
        assert_eq!(of(&[5, 1, 9]), Some((1, 5.0, 9)));
        assert_eq!(of(&[4, 1, 9, 5]), Some((1, 4.5, 9)));
        assert_eq!(of(&[]), None);
        assert_eq!(findings(&[], &[], 3.0), []);
    }
}
