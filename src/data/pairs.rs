//! Pairs for training: half same, half different, sampled every epoch.

use rand::Rng;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::random::{Purpose, generator};
use crate::verdict::Verdict;
use crate::{Error, Result};

/// A labelled pair of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// A picture number.
    pub a: usize,
    /// Another picture number.
    pub b: usize,
    /// Whether they show the same person.
    pub label: Verdict,
}

/// Samples the pairs of an epoch, half of them [`Same`](Verdict::Same).
///
/// - Same: the shuffled pictures of an identity are paired; the last of an odd number is paired with
///   one of the others. Identities with one picture have no such pair.
/// - Different: the pictures are shuffled and paired, and pairs of one identity swap a picture with
///   another pair. If one identity has more than half of all pictures, those of others are repeated.
///
/// The sampler has the pictures of one part only, so that no pair crosses the split.
#[derive(Debug, Clone)]
pub struct PairSampler {
    /// The pictures of each identity, not empty.
    members: Vec<Vec<usize>>,
    /// The identity, as an index into `members`, of each picture number.
    owner: Vec<usize>,
    /// Number of pairs of each label per epoch.
    half: usize,
    seed: u64,
}

impl PairSampler {
    /// A sampler of `pictures`, such as the training part, with identities `labels[picture]`. An epoch
    /// has as many pairs as there are pictures, rounded up to even.
    ///
    /// # Errors
    /// A picture has no label, no identity has two of the pictures, or all have one identity.
    pub fn new(labels: &[usize], pictures: &[usize], seed: u64) -> Result<Self> {
        let mut pictures = pictures.to_vec();
        pictures.sort_unstable();
        pictures.dedup();
        if let Some(last) = pictures.last().filter(|&&last| last >= labels.len()) {
            let text = format!("picture {last} has no label: there are {} labels", labels.len());
            return Err(Error::Data(text));
        }
        let mut by_label = std::collections::BTreeMap::<usize, Vec<usize>>::new();
        for &picture in &pictures {
            by_label.entry(labels[picture]).or_default().push(picture);
        }
        let members: Vec<Vec<usize>> = by_label.into_values().collect();
        let couples = members.iter().filter(|own| own.len() >= 2).count();
        if members.len() < 2 || couples == 0 {
            return Err(Error::Data(format!(
                "pairs need at least two identities, one of them with two pictures; this part of \
                 the data has {} and {couples}: add pictures or change --val-fraction",
                members.len()
            )));
        }
        let mut owner = vec![0; labels.len()];
        for (identity, own) in members.iter().enumerate() {
            own.iter().for_each(|&picture| owner[picture] = identity);
        }
        let half = pictures.len().div_ceil(2);
        Ok(Self { members, owner, half, seed })
    }

    /// Sets the number of pairs per epoch, rounded up to even.
    ///
    /// # Errors
    /// It is 0.
    pub fn pairs(mut self, pairs: usize) -> Result<Self> {
        if pairs == 0 {
            return Err(Error::Config("--pairs 0: an epoch needs at least one pair".into()));
        }
        self.half = pairs.div_ceil(2);
        Ok(self)
    }

    /// The same sampler without the pictures that are `gone`, with as many pairs per epoch.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn without(&self, gone: impl Fn(usize) -> bool) -> Result<Self> {
        let left: Vec<_> = self.pictures().into_iter().filter(|&picture| !gone(picture)).collect();
        Ok(Self { half: self.half, ..Self::new(&self.owner, &left, self.seed)? })
    }

    /// The pictures that pairs are drawn from, in ascending order.
    pub fn pictures(&self) -> Vec<usize> {
        let mut pictures = self.members.concat();
        pictures.sort_unstable();
        pictures
    }

    /// Number of pairs per epoch, even.
    pub fn count(&self) -> usize {
        2 * self.half
    }

    /// The pairs of an epoch, shuffled. Depends on the seed and `epoch` only.
    pub fn epoch(&self, epoch: usize) -> Vec<Pair> {
        let mut random = generator(self.seed, Purpose::Pairs, epoch as u64);
        let mut pairs = self.same(&mut random);
        pairs.extend(self.different(&mut random));
        pairs.shuffle(&mut random);
        pairs
    }

    /// Like [`epoch`](Self::epoch), with hard negatives: the second picture of each different pair is
    /// the nearest to the first among the sampled one and `candidates` others, by `distance` (larger
    /// means farther; NaN is farthest).
    ///
    /// Hard pictures occur more often than easy ones; with 0 candidates it is `epoch`.
    pub fn epoch_hard(
        &self,
        epoch: usize,
        candidates: usize,
        mut distance: impl FnMut(usize, usize) -> f32,
    ) -> Vec<Pair> {
        let mut pairs = self.epoch(epoch);
        let mut random = generator(self.seed, Purpose::Pairs, epoch as u64 | 1 << 63);
        let pictures = self.members.concat();
        for pair in pairs.iter_mut().filter(|pair| pair.label == Verdict::Different) {
            let mut far = |b: usize| {
                let d = distance(pair.a, b);
                if d.is_nan() { f32::INFINITY } else { d }
            };
            let mut nearest = (far(pair.b), pair.b);
            for _ in 0..candidates {
                let other = pictures[random.random_range(0..pictures.len())];
                if self.owner[other] != self.owner[pair.a] {
                    let d = far(other);
                    if d < nearest.0 {
                        nearest = (d, other);
                    }
                }
            }
            pair.b = nearest.1;
        }
        pairs
    }

    fn same(&self, random: &mut impl Rng) -> Vec<Pair> {
        let with_pairs: Vec<&Vec<usize>> =
            self.members.iter().filter(|own| own.len() >= 2).collect();
        let in_pairs = |own: &Vec<usize>, random: &mut _| -> Vec<[usize; 2]> {
            let mut shuffled = own.clone();
            shuffled.shuffle(random);
            if shuffled.len() % 2 == 1 {
                shuffled.push(shuffled[0]);
            }
            shuffled.as_chunks::<2>().0.to_vec()
        };
        let drawn = self.in_turn(&with_pairs, self.half, in_pairs, random);
        drawn.into_iter().map(|[a, b]| Pair { a, b, label: Verdict::Same }).collect()
    }

    fn different(&self, random: &mut impl Rng) -> Vec<Pair> {
        let all: Vec<&Vec<usize>> = self.members.iter().collect();
        let shuffled = |own: &Vec<usize>, random: &mut _| {
            let mut shuffled = own.clone();
            shuffled.shuffle(random);
            shuffled
        };
        let mut slots = self.in_turn(&all, 2 * self.half, shuffled, random);
        slots.shuffle(random);
        self.separate_identities(&mut slots, random);
        slots
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&[a, b]| Pair { a, b, label: Verdict::Different })
            .collect()
    }

    /// `wanted` items, taken by `draw` from each identity in rounds. Within a round the items of each
    /// identity are spread evenly, so that an incomplete round takes an equal share from all.
    fn in_turn<T: Clone, R: Rng>(
        &self,
        from: &[&Vec<usize>],
        wanted: usize,
        draw: impl Fn(&Vec<usize>, &mut R) -> Vec<T>,
        random: &mut R,
    ) -> Vec<T> {
        let mut taken = Vec::with_capacity(wanted);
        while taken.len() < wanted && !from.is_empty() {
            let mut round: Vec<(f64, T)> = Vec::new();
            for own in from {
                let given = draw(own, random);
                let step = 1.0 / given.len().max(1) as f64;
                let start: f64 = random.random::<f64>() * step;
                let placed = given.into_iter().enumerate();
                round.extend(placed.map(|(k, thing)| (start + k as f64 * step, thing)));
            }
            round.sort_by(|a, b| a.0.total_cmp(&b.0));
            let room = wanted - taken.len();
            taken.extend(round.into_iter().take(room).map(|(_, thing)| thing));
        }
        taken
    }

    /// Swaps pictures between the pairs (0, 1), (2, 3), ... until no pair has one identity; if that is
    /// impossible, a picture of another identity is repeated.
    fn separate_identities(&self, slots: &mut [usize], random: &mut impl Rng) {
        let couples = slots.len() / 2;
        let owner = |picture: usize| self.owner[picture];
        for couple in 0..couples {
            let (a, b) = (slots[2 * couple], slots[2 * couple + 1]);
            if owner(a) != owner(b) {
                continue;
            }
            let start = random.random_range(0..couples);
            let partner = (0..couples).map(|step| (start + step) % couples).find(|&other| {
                let (c, d) = (slots[2 * other], slots[2 * other + 1]);
                owner(c) != owner(a) && owner(d) != owner(a)
            });
            match partner {
                Some(other) => slots.swap(2 * couple + 1, 2 * other + 1),
                None => {
                    let others: usize = self.members.len() - 1;
                    let mut identity = random.random_range(0..others);
                    identity += usize::from(identity >= owner(a));
                    let own = &self.members[identity];
                    slots[2 * couple + 1] = own[random.random_range(0..own.len())];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(sizes: &[usize]) -> Vec<usize> {
        let of = |(label, &size): (usize, &usize)| std::iter::repeat_n(label, size);
        sizes.iter().enumerate().flat_map(of).collect()
    }

    fn all(labels: &[usize], seed: u64) -> PairSampler {
        PairSampler::new(labels, &(0..labels.len()).collect::<Vec<_>>(), seed).unwrap()
    }

    /// How often each picture is in a same and in a different pair, having checked every label.
    fn uses(labels: &[usize], pairs: &[Pair]) -> Vec<[usize; 2]> {
        let mut uses = vec![[0; 2]; labels.len()];
        for pair in pairs {
            assert_ne!(pair.a, pair.b, "a picture with itself");
            assert_eq!(pair.label, Verdict::of(labels[pair.a], labels[pair.b]));
            for picture in [pair.a, pair.b] {
                uses[picture][usize::from(pair.label == Verdict::Different)] += 1;
            }
        }
        uses
    }

    fn same(pairs: &[Pair]) -> usize {
        pairs.iter().filter(|pair| pair.label.is_same()).count()
    }

    #[test]
    fn an_epoch_of_even_identities_shows_each_picture_once_in_either_kind() {
        let labels = labels(&[4, 6, 2, 8]);
        for epoch in 0..20 {
            let pairs = all(&labels, 3).epoch(epoch);
            assert_eq!((pairs.len(), same(&pairs)), (20, 10));
            assert_eq!(uses(&labels, &pairs), vec![[1, 1]; 20]);
        }
    }

    #[test]
    fn odd_single_and_dominant_identities_are_used_about_evenly() {
        // Single pictures make no same pair; one identity has more than half of all.
        let labels = labels(&[31, 5, 3, 1, 1, 2]);
        let sampler = all(&labels, 9);
        let mut total = vec![[0; 2]; labels.len()];
        for epoch in 0..50 {
            let pairs = sampler.epoch(epoch);
            assert_eq!((pairs.len(), same(&pairs)), (44, 22));
            for (sum, use_) in total.iter_mut().zip(uses(&labels, &pairs)) {
                sum[0] += use_[0];
                sum[1] += use_[1];
            }
        }
        for (picture, [together, apart]) in total.iter().enumerate() {
            let single = matches!(labels[picture], 3 | 4);
            assert_eq!(*together == 0, single, "{picture}");
            assert!(single || (35..=85).contains(together), "{picture}: {together}");
            assert!(*apart >= 25, "{picture}: {apart}");
        }
    }

    #[test]
    fn a_short_epoch_takes_the_same_share_of_all() {
        let labels = labels(&[80, 20]);
        let pairs = all(&labels, 4).pairs(50).unwrap().epoch(2);
        let large = pairs.iter().filter(|p| p.label.is_same() && labels[p.a] == 0).count();
        assert_eq!((pairs.len(), large), (50, 20));
    }

    #[test]
    fn only_the_part_that_was_given_is_drawn_from() {
        let labels = labels(&[6, 6, 6]);
        let train: Vec<usize> = (0..18).filter(|picture| picture % 3 != 0).collect();
        let sampler = PairSampler::new(&labels, &train, 5).unwrap();
        assert_eq!(sampler.pictures(), train);
        for epoch in 0..10 {
            for pair in sampler.epoch_hard(epoch, 4, |a, b| a.abs_diff(b) as f32) {
                assert!(pair.a % 3 != 0 && pair.b % 3 != 0);
            }
        }
    }

    #[test]
    fn seed_and_epoch_decide_and_nothing_else() {
        let labels = labels(&[7, 9, 4]);
        let (one, resumed, other) = (all(&labels, 1), all(&labels, 1), all(&labels, 2));
        let _ = (one.epoch(0), one.epoch(1));
        assert_eq!(one.epoch(2), resumed.epoch(2));
        assert_ne!(one.epoch(1), one.epoch(2));
        assert_ne!(one.epoch(2), other.epoch(2));
        let hard = |sampler: &PairSampler| sampler.epoch_hard(2, 5, |a, b| (a * b % 7) as f32);
        assert_eq!(hard(&one), hard(&resumed));
    }

    #[test]
    fn hard_negatives_are_nearer_and_never_not_a_number() {
        let labels = labels(&[10, 10, 10]);
        let sampler = all(&labels, 6);
        let distance = |a: usize, b: usize| a.abs_diff(b) as f32;
        let mean = |pairs: &[Pair]| {
            let apart: Vec<f32> = pairs
                .iter()
                .filter(|pair| !pair.label.is_same())
                .map(|pair| distance(pair.a, pair.b))
                .collect();
            apart.iter().sum::<f32>() / apart.len() as f32
        };
        let (easy, hard) = (sampler.epoch(0), sampler.epoch_hard(0, 20, distance));
        uses(&labels, &hard);
        assert!(mean(&hard) < 0.7 * mean(&easy), "{} and {}", mean(&hard), mean(&easy));
        assert_eq!(sampler.epoch_hard(0, 0, distance), easy);
        assert_eq!(sampler.epoch_hard(0, 9, |_, _| f32::NAN), easy);
    }

    #[test]
    fn impossible_parts_are_refused() {
        let says = |labels: &[usize], pictures: &[usize], part: &str| {
            let error = PairSampler::new(labels, pictures, 0).unwrap_err().to_string();
            assert!(error.contains(part), "{part} in {error}");
        };
        says(&[0, 0], &[0, 1], "has 1 and 1");
        says(&[0, 1, 2], &[0, 1, 2], "has 3 and 0");
        says(&[], &[], "has 0 and 0");
        says(&[0, 0, 1], &[0, 1, 5], "picture 5 has no label");
        assert!(all(&[0, 0, 1], 0).pairs(0).is_err());
    }
}
