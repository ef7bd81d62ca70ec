//! Split into training and validation pictures.

use rand::seq::SliceRandom;

use super::FaceFolder;
pub use super::dataset::Part;
use super::disjoint::disjoint;
use super::random::{Purpose, generator};
use crate::words::{enumerate, identities};
use crate::{Error, Result};

/// Minimum number of training pictures per identity, for a positive pair.
const MIN_TRAINING: usize = 2;

/// The part of every picture of a [`FaceFolder`], in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// One part per picture.
    pub parts: Vec<Part>,
    /// Remarks about the split, one sentence each.
    pub notes: Vec<String>,
}

/// Pictures that must be in one part, and how many of them each identity has.
struct Inseparable {
    pictures: Vec<usize>,
    shares: Vec<(usize, usize)>,
}

impl Split {
    /// A random split: `val_fraction` of each identity's pictures, rounded, are for validation.
    ///
    /// Near-duplicates (`groups` from [`near_duplicates::groups`](super::near_duplicates::groups)) stay
    /// in one part. Of an identity with n pictures
    ///
    /// - n = 1: for validation, as a negative, unless its group is used for training;
    /// - n = 2: both for training, since one alone has no positive;
    /// - n > 2: at least 2 for training and at least 1 for validation, if the groups allow it.
    ///
    /// With `val_fraction` 0 all but single pictures are for training. The same folder, groups,
    /// fraction and seed give the same split.
    ///
    /// # Errors
    /// `val_fraction` is not in [0, 1).
    pub fn stratified(
        folder: &FaceFolder,
        groups: &[usize],
        val_fraction: f64,
        seed: u64,
    ) -> Result<Self> {
        if !(0.0..1.0).contains(&val_fraction) {
            let text = format!("--val-fraction {val_fraction}: must be at least 0 and below 1");
            return Err(Error::Config(text));
        }
        let (labels, sizes) = (folder.labels(), folder.sizes());
        if groups.len() != labels.len() {
            let text = format!("{} group numbers for {} pictures", groups.len(), labels.len());
            return Err(Error::Data(text));
        }
        let parts = draw(&labels, &sizes, groups, val_fraction, seed);
        let mut split = Self { parts, notes: Vec::new() };
        if val_fraction > 0.0 {
            split.note_missing(folder, &sizes);
        }
        Ok(split)
    }

    /// The split that the data set itself assigns, if it does.
    pub fn official(folder: &FaceFolder) -> Option<Self> {
        let parts = folder.parts.clone()?;
        let notes = vec!["the split is the data set's own; --val-fraction is not used".into()];
        Some(Self { parts, notes })
    }

    /// A split between people: no identity is in both parts.
    ///
    /// # Errors
    /// As for [`disjoint`].
    pub fn between_people(folder: &FaceFolder, val_fraction: f64, seed: u64) -> Result<Self> {
        let people = disjoint(folder.identities.len(), val_fraction, seed)?;
        let parts = folder.pictures.iter().map(|face| people[face.identity]).collect();
        Ok(Self { parts, notes: Vec::new() })
    }

    /// The pictures of one part, in order.
    pub fn indices(&self, part: Part) -> Vec<usize> {
        (0..self.parts.len()).filter(|&picture| self.parts[picture] == part).collect()
    }

    /// Number of pictures in one part.
    pub fn count(&self, part: Part) -> usize {
        self.parts.iter().filter(|&&other| other == part).count()
    }

    /// Adds a remark about identities without validation pictures.
    fn note_missing(&mut self, folder: &FaceFolder, sizes: &[usize]) {
        let mut held_back = vec![0; sizes.len()];
        for (face, part) in folder.pictures.iter().zip(&self.parts) {
            held_back[face.identity] += usize::from(*part == Part::Validation);
        }
        let missing: Vec<&str> = (0..sizes.len())
            .filter(|&identity| sizes[identity] > 1 && held_back[identity] == 0)
            .map(|identity| folder.identities[identity].as_str())
            .collect();
        if !missing.is_empty() {
            self.notes.push(format!(
                "{} without validation pictures (two pictures, or near-duplicates of each other): {}",
                identities(missing.len()),
                enumerate(&missing)
            ));
        }
    }
}

fn draw(
    labels: &[usize],
    sizes: &[usize],
    groups: &[usize],
    val_fraction: f64,
    seed: u64,
) -> Vec<Part> {
    let mut parts = vec![Part::Train; labels.len()];
    if val_fraction == 0.0 {
        for (part, &label) in parts.iter_mut().zip(labels) {
            // A single picture has no positive and can only be a negative.
            if sizes[label] == 1 {
                *part = Part::Validation;
            }
        }
        return parts;
    }
    let mut units = units(labels, groups);
    units.shuffle(&mut generator(seed, Purpose::Split, 0));
    // Identities with one picture do not constrain a group.
    let mut room: Vec<usize> = sizes.iter().map(|&size| wanted(size, val_fraction)).collect();
    let mut held_back = vec![0; sizes.len()];
    let mut hold_back = |unit: &Inseparable, room: &mut [usize], held_back: &mut [usize]| {
        for &picture in &unit.pictures {
            parts[picture] = Part::Validation;
        }
        for &(identity, share) in &unit.shares {
            room[identity] = room[identity].saturating_sub(share);
            held_back[identity] += share;
        }
    };
    // First fill each identity's fraction without exceeding it,
    units.retain(|unit| {
        let fits = unit.shares.iter().all(|&(id, share)| sizes[id] == 1 || share <= room[id]);
        if fits {
            hold_back(unit, &mut room, &mut held_back);
        }
        !fits
    });
    // then give identities without validation pictures their smallest group, if possible.
    units.sort_by_key(|unit| unit.pictures.len());
    for unit in &units {
        let needed = unit.shares.iter().any(|&(id, _)| room[id] > 0 && held_back[id] == 0);
        let spared = unit.shares.iter().all(|&(id, share)| {
            sizes[id] == 1 || held_back[id] + share + MIN_TRAINING <= sizes[id]
        });
        if needed && spared {
            hold_back(unit, &mut room, &mut held_back);
        }
    }
    parts
}

/// Number of an identity's pictures for validation.
fn wanted(size: usize, val_fraction: f64) -> usize {
    let most = size.saturating_sub(MIN_TRAINING);
    ((size as f64 * val_fraction).round() as usize).max(1).min(most)
}

/// One unit per group, in the order of group numbers.
fn units(labels: &[usize], groups: &[usize]) -> Vec<Inseparable> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&picture| (groups[picture], labels[picture], picture));
    order
        .chunk_by(|&a, &b| groups[a] == groups[b])
        .map(|pictures| Inseparable {
            pictures: pictures.to_vec(),
            shares: pictures
                .chunk_by(|&a, &b| labels[a] == labels[b])
                .map(|own| (labels[own[0]], own.len()))
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes_of(labels: &[usize]) -> Vec<usize> {
        let mut sizes = vec![0; labels.iter().max().map_or(0, |last| last + 1)];
        labels.iter().for_each(|&label| sizes[label] += 1);
        sizes
    }

    /// Labels of identities with these numbers of pictures.
    fn labels(sizes: &[usize]) -> Vec<usize> {
        sizes
            .iter()
            .enumerate()
            .flat_map(|(label, &size)| std::iter::repeat_n(label, size))
            .collect()
    }

    fn held_back(labels: &[usize], parts: &[Part]) -> Vec<usize> {
        let mut counts = vec![0; sizes_of(labels).len()];
        for (&label, &part) in labels.iter().zip(parts) {
            counts[label] += usize::from(part == Part::Validation);
        }
        counts
    }

    #[test]
    fn each_identity_gives_its_share_and_small_ones_follow_the_rules() {
        let labels = labels(&[1, 2, 3, 4, 10, 20, 45]);
        let alone: Vec<usize> = (0..labels.len()).collect();
        let split =
            |fraction| held_back(&labels, &draw(&labels, &sizes_of(&labels), &alone, fraction, 7));
        assert_eq!(split(0.2), [1, 0, 1, 1, 2, 4, 9]);
        assert_eq!(split(0.0), [1, 0, 0, 0, 0, 0, 0], "the lone picture can only be a negative");
        assert_eq!(split(0.99), [1, 0, 1, 2, 8, 18, 43]);
    }

    #[test]
    fn torchvisions_layout_is_the_split() {
        let root = tempfile::tempdir().unwrap();
        let people = [("train/ann", 2), ("val/ann", 1), ("train/bob", 2), ("val/cy", 1)];
        super::super::testing::face_folder(root.path(), &people);
        let folder = FaceFolder::open(root.path(), true, 8, &|_, _| {}).unwrap();
        let split = Split::official(&folder).unwrap();
        let (train, validation) = (Part::Train, Part::Validation);
        assert_eq!(split.parts, [train, train, validation, train, train, validation]);
        let plain = FaceFolder::open(&root.path().join("train"), true, 8, &|_, _| {}).unwrap();
        assert!(Split::official(&plain).is_none());
    }

    #[test]
    fn the_seed_decides() {
        let labels = labels(&[20, 20]);
        let alone: Vec<usize> = (0..labels.len()).collect();
        let split = |seed| draw(&labels, &[20, 20], &alone, 0.25, seed);
        assert_eq!(split(1), split(1));
        assert_ne!(split(1), split(2));
    }

    #[test]
    fn large_groups_are_held_back_only_where_nothing_smaller_is_there() {
        // One identity of two groups: three pictures, and four. Its share is one.
        let labels = [0; 7];
        for seed in 0..20 {
            let parts = draw(&labels, &[7], &[0, 0, 0, 1, 1, 1, 1], 0.2, seed);
            let (train, validation) = (Part::Train, Part::Validation);
            assert_eq!(parts, [validation, validation, validation, train, train, train, train]);
        }
        // One group only: all is trained on.
        assert_eq!(held_back(&[0; 5], &draw(&[0; 5], &[5], &[0; 5], 0.2, 0)), [0]);
    }

    proptest! {
        #[test]
        fn groups_stay_whole_and_training_keeps_two(
            pictures in prop::collection::vec((0usize..6, 0usize..25), 1..80),
            fraction in 0.01f64..0.99,
            seed: u64,
        ) {
            let (labels, groups): (Vec<usize>, Vec<usize>) = pictures.into_iter().unzip();
            let sizes = sizes_of(&labels);
            let parts = draw(&labels, &sizes, &groups, fraction, seed);
            for a in 0..groups.len() {
                for b in 0..a {
                    prop_assert!(groups[a] != groups[b] || parts[a] == parts[b]);
                }
            }
            for (&size, held_back) in sizes.iter().zip(held_back(&labels, &parts)) {
                prop_assert!(size < 2 || size - held_back >= MIN_TRAINING);
            }
        }
    }
}
