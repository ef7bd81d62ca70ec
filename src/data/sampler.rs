//! Batches of P identities with K pictures each, so that every anchor has positives and negatives.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::seq::SliceRandom;

use super::random::{Purpose, generator};
use crate::{Error, Result};

/// Draws the batches of an epoch: P identities x K pictures (Hermans et al. 2017, section 2).
///
/// An identity's pictures are shuffled and divided into chunks of K; the last chunk is filled up with
/// others of its pictures, and only an identity with fewer than K repeats some within a chunk. A batch
/// has one chunk per identity, so an epoch has each picture about once; of an identity with more
/// chunks than there are batches, each epoch uses a different part.
#[derive(Debug, Clone)]
pub struct PkSampler {
    /// The pictures of each usable identity.
    members: Vec<Vec<usize>>,
    p: usize,
    k: usize,
    seed: u64,
    /// What was changed about the settings, one sentence each.
    pub notes: Vec<String>,
}

impl PkSampler {
    /// A sampler of pictures 0 to `labels.len() - 1`, whose identities are `labels`.
    ///
    /// Identities with one picture have no positive pair and are never drawn. `p` is lowered to the
    /// number of usable identities, with a note.
    ///
    /// # Errors
    /// Where `p` or `k` is below 2, or fewer than two identities have two pictures.
    pub fn new(labels: &[usize], p: usize, k: usize, seed: u64) -> Result<Self> {
        for (flag, value) in [("--identities-per-batch", p), ("--pictures-per-identity", k)] {
            if value < 2 {
                return Err(Error::Config(format!("{flag} {value}: must be at least 2")));
            }
        }
        let count = labels.iter().max().map_or(0, |&last| last + 1);
        let mut members = vec![Vec::new(); count];
        for (picture, &label) in labels.iter().enumerate() {
            members[label].push(picture);
        }
        members.retain(|pictures| pictures.len() >= 2);
        let usable = members.len();
        if usable < 2 {
            return Err(Error::Data(format!(
                "triplets need at least two identities with two training pictures each; this data \
                 has {usable}: add pictures or lower --val-fraction"
            )));
        }
        let mut notes = Vec::new();
        if p > usable {
            notes.push(format!(
                "--identities-per-batch {p} lowered to {usable}: no more identities have two \
                 training pictures"
            ));
        }
        Ok(Self { members, p: p.min(usable), k, seed, notes })
    }

    /// The same sampler without the pictures that are `gone`.
    ///
    /// # Errors
    /// Fewer than two identities with two pictures are left.
    pub fn without(&self, gone: impl Fn(usize) -> bool) -> Result<Self> {
        let left =
            |own: &Vec<usize>| own.iter().copied().filter(|&picture| !gone(picture)).collect();
        let mut members: Vec<Vec<usize>> = self.members.iter().map(left).collect();
        members.retain(|pictures| pictures.len() >= 2);
        match members.len() {
            0 | 1 => Err(Error::Data(
                "fewer than two identities have two training pictures that can be read".into(),
            )),
            usable => Ok(Self { members, p: self.p.min(usable), ..self.clone() }),
        }
    }

    /// Pictures per batch, P x K.
    pub fn batch_size(&self) -> usize {
        self.p * self.k
    }

    /// The number of batches in every epoch.
    pub fn batches(&self) -> usize {
        let chunks: usize = self.members.iter().map(|own| own.len().div_ceil(self.k)).sum();
        chunks.div_ceil(self.p)
    }

    /// The batches of an epoch: picture numbers, the K of one identity next to each other.
    ///
    /// Depends on the seed and `epoch` only, so that a resumed run has the same batches.
    pub fn epoch(&self, epoch: usize) -> Vec<Vec<usize>> {
        let mut random = generator(self.seed, Purpose::Sampler, epoch as u64);
        let mut chunks: Vec<Vec<Vec<usize>>> =
            self.members.iter().map(|own| draw_chunks(own, self.k, &mut random)).collect();
        let mut order: Vec<usize> = (0..chunks.len()).collect();
        let mut batches = Vec::with_capacity(self.batches());
        for _ in 0..self.batches() {
            // Those with most chunks left first, so that P identities remain for the last batches;
            // the sort is stable, so equals are in random order.
            order.shuffle(&mut random);
            order.sort_by_key(|&identity| std::cmp::Reverse(chunks[identity].len()));
            let mut batch = Vec::with_capacity(self.batch_size());
            for &identity in &order[..self.p] {
                let own = &self.members[identity];
                let chunk =
                    chunks[identity].pop().or_else(|| draw_chunks(own, self.k, &mut random).pop());
                batch.extend(chunk.unwrap_or_default());
            }
            batches.push(batch);
        }
        batches
    }
}

/// Shuffles an identity's pictures and divides them into chunks of `k`, each picture at least once.
fn draw_chunks(pictures: &[usize], k: usize, random: &mut impl Rng) -> Vec<Vec<usize>> {
    let mut shuffled = pictures.to_vec();
    shuffled.shuffle(random);
    let mut chunks: Vec<Vec<usize>> = shuffled.chunks(k).map(<[usize]>::to_vec).collect();
    if let Some(last) = chunks.last_mut() {
        // Fill up with pictures of the other chunks, then with all of them, repeatedly.
        let length = last.len();
        let others = shuffled[..shuffled.len() - length].to_vec();
        last.extend(
            others.iter().chain(shuffled.iter().cycle().skip(others.len())).take(k - length),
        );
    }
    // Chunks are taken from the end; the filled-up one should not always be first.
    chunks.shuffle(random);
    chunks
}

/// All pictures in `part` of some people, drawn until there are `limit` pictures; with the same `seed` the
/// same people of another part, as far as they go. `labels` are those of all pictures.
pub fn some_people(part: &[usize], labels: &[usize], limit: usize, seed: u64) -> Vec<usize> {
    let mut people: Vec<_> = labels.iter().collect::<BTreeSet<_>>().into_iter().collect();
    people.shuffle(&mut generator(seed, Purpose::Scored, 0));
    let mut of_person: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &picture in part {
        of_person.entry(labels[picture]).or_default().push(picture);
    }
    let mut drawn = Vec::new();
    for pictures in people.into_iter().filter_map(|person| of_person.remove(person)) {
        if drawn.len() >= limit {
            break;
        }
        drawn.extend(pictures);
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_people_are_drawn_whole_and_the_same_in_every_part() {
        let labels = labels(&[4; 50]);
        let part = |is_in: fn(usize) -> bool| (0..200).filter(|&n| is_in(n)).collect::<Vec<_>>();
        let (train, validation) = (part(|n| n % 4 < 3), part(|n| n % 4 == 3));
        let people =
            |pictures: &[usize]| -> BTreeSet<_> { pictures.iter().map(|&n| labels[n]).collect() };
        let drawn = some_people(&train, &labels, 25, 1);
        assert_eq!((drawn.len(), people(&drawn).len()), (27, 9));
        let other = some_people(&validation, &labels, 25, 1);
        assert_eq!(other.len(), 25);
        assert!(people(&drawn).is_subset(&people(&other)));
        assert_ne!(drawn, some_people(&train, &labels, 25, 2));
        assert_eq!(some_people(&train, &labels, 1000, 1).len(), 150);
    }

    #[test]
    fn pictures_that_are_gone_are_never_drawn() {
        let sampler = PkSampler::new(&labels(&[3, 2, 4]), 3, 2, 7).unwrap();
        let left = sampler.without(|picture| [0, 3].contains(&picture)).unwrap();
        let drawn: BTreeSet<_> = left.epoch(1).concat().into_iter().collect();
        // 4 was the second picture of its identity.
        assert_eq!(Vec::from_iter(drawn), [1, 2, 5, 6, 7, 8]);
        assert_eq!(left.batch_size(), 4);
        assert!(left.without(|picture| picture > 2).is_err());
    }

    fn labels(sizes: &[usize]) -> Vec<usize> {
        sizes
            .iter()
            .enumerate()
            .flat_map(|(label, &size)| std::iter::repeat_n(label, size))
            .collect()
    }

    /// How often each picture was drawn, having checked that every batch is P x K.
    fn drawn(labels: &[usize], p: usize, k: usize, batches: &[Vec<usize>]) -> Vec<usize> {
        let mut counts = vec![0; labels.len()];
        for batch in batches {
            assert_eq!(batch.len(), p * k);
            let mut owners: Vec<usize> = batch.chunks(k).map(|chunk| labels[chunk[0]]).collect();
            for chunk in batch.chunks(k) {
                assert!(chunk.iter().all(|&picture| labels[picture] == labels[chunk[0]]));
                let mut distinct = chunk.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                let own = labels.iter().filter(|&&label| label == labels[chunk[0]]).count();
                assert_eq!(distinct.len(), own.min(k), "repeats before it must");
            }
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(owners.len(), p, "an identity twice in a batch");
            batch.iter().for_each(|&picture| counts[picture] += 1);
        }
        counts
    }

    #[test]
    fn an_epoch_of_even_identities_shows_each_picture_once() {
        let labels = labels(&[8; 6]);
        let sampler = PkSampler::new(&labels, 3, 4, 1).unwrap();
        let batches = sampler.epoch(0);
        assert_eq!(batches.len(), sampler.batches());
        assert_eq!(drawn(&labels, 3, 4, &batches), vec![1; 48]);
    }

    #[test]
    fn uneven_identities_are_shown_about_once_and_all_in_time() {
        let labels = labels(&[39, 42, 55, 3, 1, 2]);
        let sampler = PkSampler::new(&labels, 3, 4, 5).unwrap();
        let mut total = vec![0; labels.len()];
        for epoch in 0..20 {
            let counts = drawn(&labels, 3, 4, &sampler.epoch(epoch));
            total.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        let single = 39 + 42 + 55 + 3;
        assert_eq!(total[single], 0);
        total.remove(single);
        assert!(total[..136].iter().all(|&count| (14..=30).contains(&count)), "{total:?}");
        assert!(total[136..].iter().all(|&count| count >= 20), "{total:?}");
    }

    #[test]
    fn epochs_depend_on_seed_and_number_only() {
        let labels = labels(&[7, 9, 4]);
        let one = PkSampler::new(&labels, 2, 3, 11).unwrap();
        let resumed = PkSampler::new(&labels, 2, 3, 11).unwrap();
        let other = PkSampler::new(&labels, 2, 3, 12).unwrap();
        let _ = (one.epoch(0), one.epoch(1));
        assert_eq!(one.epoch(2), resumed.epoch(2));
        assert_ne!(one.epoch(1), one.epoch(2));
        assert_ne!(one.epoch(2), other.epoch(2));
    }

    #[test]
    fn impossible_settings_are_refused_and_large_ones_lowered() {
        let says = |labels: &[usize], p, k, part: &str| {
            let error = PkSampler::new(labels, p, k, 0).unwrap_err().to_string();
            assert!(error.contains(part), "{part} in {error}");
        };
        says(&[0, 0, 1, 1], 1, 2, "--identities-per-batch 1");
        says(&[0, 0, 1, 1], 2, 1, "--pictures-per-identity 1");
        says(&[0, 0, 1], 2, 2, "this data has 1");
        says(&[], 2, 2, "this data has 0");
        let sampler = PkSampler::new(&[0, 0, 1, 1, 2], 8, 4, 0).unwrap();
        assert!(sampler.notes[0].contains("8 lowered to 2"), "{:?}", sampler.notes);
        assert_eq!(sampler.batch_size(), 8);
    }
}
