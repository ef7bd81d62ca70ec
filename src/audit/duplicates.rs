//! One photo twice: under one name, under two, or in two parts of the split.

use std::collections::{BTreeMap, BTreeSet};

use super::mislabels::LabelScore;
use super::{Finding, FindingKind, Picture, PictureStats, finding};
use crate::data::{Part, near_duplicates};

/// All pairs of near-duplicates and of pictures with equal pixels.
///
/// `step` is called once per picture; see [`near_duplicates::pairs`].
pub fn pairs(stats: &[PictureStats], step: &(dyn Fn() + Sync)) -> Vec<(usize, usize)> {
    let hashes: Vec<_> = stats.iter().map(|stats| &stats.hash).collect();
    let mut pairs = near_duplicates::pairs(&hashes, step);
    let mut first = BTreeMap::new();
    for (index, stats) in stats.iter().enumerate() {
        let original = *first.entry(stats.pixels).or_insert(index);
        if original != index {
            pairs.push((original, index));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Reports near-duplicates; `pairs` are from [`pairs`].
///
/// For each pair with two identities, or in two parts of the split, one picture is reported: the one
/// that agrees less with its label (`scores`, see
/// [`mislabels::score`](super::mislabels::score)), without scores the one whose identity is not the
/// majority's, or the one in validation. Within an identity all but the largest of each group are
/// reported.
pub fn findings(
    pictures: &[Picture],
    stats: &[PictureStats],
    identities: &[String],
    pairs: &[(usize, usize)],
    scores: &[Option<LabelScore>],
) -> Vec<Finding> {
    let margin = |index: usize| Some(scores.get(index)?.as_ref()?.margin);
    let show = Show { pictures, stats, identities };
    let count = pictures.len().min(stats.len());
    let pairs: Vec<_> = pairs.iter().copied().filter(|&(a, b)| a.max(b) < count).collect();
    let groups = near_duplicates::join(count, &pairs);
    let main = majorities(pictures, &groups);
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for &(a, b) in &pairs {
        let (one, two) = (&pictures[a], &pictures[b]);
        // Pictures outside all identities have no label that could differ.
        if one.identity.is_some() && two.identity.is_some() && one.identity != two.identity {
            let first_is_right = match (margin(a), margin(b)) {
                (Some(first), Some(second)) if first != second => first < second,
                _ => one.identity == main[&groups[a]],
            };
            let wrong = if first_is_right { (b, a) } else { (a, b) };
            if seen.insert((FindingKind::TwoNames, wrong.0)) {
                found.push(show.pair(FindingKind::TwoNames, wrong));
            }
        }
        if let (Some(left), Some(right)) = (one.part, two.part)
            && left != right
        {
            let held_back = if left == Part::Validation { (a, b) } else { (b, a) };
            if seen.insert((FindingKind::Leak, held_back.0)) {
                found.push(show.pair(FindingKind::Leak, held_back));
            }
        }
    }
    // Within each identity: the largest is the one to keep.
    let mut by_identity = BTreeMap::<(usize, Option<usize>), Vec<usize>>::new();
    for (index, &group) in groups.iter().enumerate() {
        by_identity.entry((group, pictures[index].identity)).or_default().push(index);
    }
    for group_pictures in by_identity.values() {
        let area =
            |&&index: &&usize| u64::from(stats[index].size.0) * u64::from(stats[index].size.1);
        let Some(&best) = group_pictures.iter().rev().max_by_key(area) else { continue };
        for &copy in group_pictures.iter().filter(|&&copy| copy != best) {
            let twin = group_pictures.iter().find(|&&twin| twin < copy && show.equal(twin, copy));
            found.push(match (twin, show.equal(best, copy)) {
                (_, true) => show.pair(FindingKind::Duplicate, (copy, best)),
                (Some(&twin), _) => show.pair(FindingKind::Duplicate, (copy, twin)),
                (None, _) => show.pair(FindingKind::NearDuplicate, (copy, best)),
            });
        }
    }
    found
}

/// The identity of most pictures in each group; the first of equals.
fn majorities(pictures: &[Picture], groups: &[usize]) -> BTreeMap<usize, Option<usize>> {
    let mut votes = BTreeMap::<usize, BTreeMap<Option<usize>, usize>>::new();
    for (picture, &group) in pictures.iter().zip(groups) {
        *votes.entry(group).or_default().entry(picture.identity).or_default() += 1;
    }
    let most = |votes: BTreeMap<Option<usize>, usize>| {
        votes.into_iter().rev().max_by_key(|&(_, count)| count).and_then(|(identity, _)| identity)
    };
    votes.into_iter().map(|(group, votes)| (group, most(votes))).collect()
}

struct Show<'a> {
    pictures: &'a [Picture],
    stats: &'a [PictureStats],
    identities: &'a [String],
}

impl Show<'_> {
    fn equal(&self, a: usize, b: usize) -> bool {
        self.stats[a].pixels == self.stats[b].pixels
    }

    fn pair(&self, kind: FindingKind, (index, other): (usize, usize)) -> Finding {
        let alike = match () {
            () if self.stats[index].file == self.stats[other].file => "same file",
            () if self.equal(index, other) => "same pixels",
            () => "same photo",
        };
        let (picture, second) = (&self.pictures[index], &self.pictures[other]);
        let place = match kind {
            FindingKind::Leak => format!(", {} and {}", part(picture), part(second)),
            _ => String::new(),
        };
        let what = format!("{alike} as {}{place}", second.name);
        let like = finding::identity(second, self.identities);
        let mut found = Finding::new(kind, None, what).of(picture, self.identities);
        found.other = Some(second.name.clone());
        found.looks_like = like.filter(|_| picture.identity != second.identity);
        found
    }
}

fn part(picture: &Picture) -> &'static str {
    picture.part.map_or("no part", Part::name)
}

#[cfg(test)]
mod tests {
    use image::{RgbImage, imageops};

    use super::*;

    /// A photo that no other seed makes.
    fn photo(seed: u32, side: u32) -> RgbImage {
        let wave = |x: u32, y: u32| {
            let (x, y) = (f64::from(x) / f64::from(side), f64::from(y) / f64::from(side));
            let s = f64::from(seed);
            128.0 + 90.0 * (7.0 * x + s).sin() * ((5.0 + s) * y + 2.0 * x * s).cos()
        };
        RgbImage::from_fn(side, side, |x, y| image::Rgb([wave(x, y) as u8; 3]))
    }

    struct Set(Vec<Picture>, Vec<PictureStats>);

    impl Set {
        fn of(rows: &[(&str, usize, Option<Part>, RgbImage)]) -> Self {
            let picture = |(name, identity, part, _): &(&str, usize, Option<Part>, RgbImage)| {
                Picture { name: (*name).to_owned(), identity: Some(*identity), part: *part }
            };
            let stats = |(name, _, _, picture): &(&str, _, _, RgbImage)| {
                PictureStats::of(name.as_bytes(), picture, picture)
            };
            Self(rows.iter().map(picture).collect(), rows.iter().map(stats).collect())
        }

        fn findings(&self) -> Vec<(FindingKind, String, String)> {
            self.judged(&[])
        }

        fn judged(&self, margins: &[f64]) -> Vec<(FindingKind, String, String)> {
            let pairs = pairs(&self.1, &|| ());
            let names = ["ann", "bob", "cy"].map(str::to_owned);
            let score = |&margin| {
                Some(LabelScore { margin, looks_like: 0, own: Vec::new(), other: Vec::new() })
            };
            let scores: Vec<_> = margins.iter().map(score).collect();
            let found = findings(&self.0, &self.1, &names, &pairs, &scores);
            let short = |f: Finding| (f.kind, f.file.unwrap(), f.other.unwrap());
            found.into_iter().map(short).collect()
        }
    }

    fn wanted(kind: FindingKind, file: &str, other: &str) -> (FindingKind, String, String) {
        (kind, file.to_owned(), other.to_owned())
    }

    #[test]
    fn copies_under_one_name_are_told_beside_the_largest() {
        let small = imageops::resize(&photo(1, 200), 120, 120, imageops::FilterType::Triangle);
        let set = Set::of(&[
            ("a1", 0, None, small),
            ("a2", 0, None, photo(1, 200)),
            ("a3", 0, None, photo(1, 200)),
            ("a4", 0, None, photo(4, 200)),
        ]);
        let near = wanted(FindingKind::NearDuplicate, "a1", "a2");
        assert_eq!(set.findings(), [near, wanted(FindingKind::Duplicate, "a3", "a2")]);
    }

    #[test]
    fn copies_under_two_names_blame_the_stranger_or_the_minority() {
        let set = Set::of(&[
            ("a1", 0, None, photo(1, 100)),
            ("b1", 1, None, photo(1, 100)),
            ("b2", 1, None, photo(1, 100)),
        ]);
        let found = set.findings();
        assert_eq!(found[0], wanted(FindingKind::TwoNames, "a1", "b1"));
        assert_eq!(found[1..], [wanted(FindingKind::Duplicate, "b2", "b1")]);
        let found = set.judged(&[-0.2, 0.1, 0.1]);
        assert_eq!(found[0], wanted(FindingKind::TwoNames, "b1", "a1"));
        assert_eq!(found[1], wanted(FindingKind::TwoNames, "b2", "a1"));
    }

    #[test]
    fn copies_in_two_parts_are_a_leak_and_tell_the_held_back_one() {
        let (train, held) = (Some(Part::Train), Some(Part::Validation));
        let set = Set::of(&[
            ("a1", 0, held, photo(1, 100)),
            ("a2", 0, train, photo(1, 100)),
            ("a3", 0, held, photo(3, 100)),
            ("a4", 0, None, photo(3, 100)),
        ]);
        let found = set.findings();
        assert_eq!(found[0], wanted(FindingKind::Leak, "a1", "a2"));
        assert!(found[1..].iter().all(|(kind, ..)| *kind == FindingKind::Duplicate), "{found:?}");
    }
}
