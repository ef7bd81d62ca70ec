//! Faces that sit with somebody else's: probable mislabels.
//!
//! A picture's distance to an identity is the mean of the distances to its three nearest pictures
//! there, the picture itself left out. The margin is the distance to its own identity less the one to
//! the nearest other identity: above 0, somebody else's pictures are nearer.
//!
//! Copies have no say: those of the judged picture are left out on both sides, and of pictures that
//! are copies of each other the nearest alone counts. So of one photo under two names the wrong one
//! is found. An identity needs two different photos to be looked like, and one besides the judged
//! picture to be judged by: a lone picture is not judged.
//!
//! A margin above the threshold is a probable mislabel where three other photos of the identity say
//! so, and a doubt where there are fewer: two photos that do not look alike leave open which of them is
//! wrong, or whether any is. From 60 % of the threshold on, three photos make a doubt.
//!
//! The threshold was measured with the embedded OpenFace trunk. A few pictures were moved to
//! another name, and `visage audit` was asked: how many of them are mislabels (or one photo under two
//! names), how many are that or doubted, and how many of the other pictures are called so.
//!
//! | data | moved | found | found or doubted | others |
//! |---|---|---|---|---|
//! | 218 pictures of 5 actors | 5 x 10 | 68 % | 88 % | 0.0 % |
//! | 1,815 pictures of the 298 people of LFW with 5 or more | 2 x 45 | 96 % | 99 % | 0.7 % |
//!
//! The more identities there are, the nearer the nearest stranger: with thousands, raise it.

use rayon::prelude::*;

use super::{Finding, Kind, Picture, finding};
use crate::eval::Embeddings;
use crate::eval::distance::euclidean;

/// From this margin on a picture is probably mislabelled.
pub const MISLABEL: f64 = 0.25;
/// The share of [`MISLABEL`] from which on a name is doubted.
const DOUBT: f64 = 0.6;
/// So many nearest pictures speak for an identity ...
const VOICES: usize = 3;
/// ... and of another identity than the picture's own there are so many at least.
const WITNESSES: usize = 2;

/// How a picture sits among the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The distance to its own identity less the one to the nearest other.
    pub margin: f64,
    /// The nearest other identity.
    pub looks_like: usize,
    /// The nearest pictures of its own identity, without copies.
    pub own: Vec<usize>,
    /// The nearest pictures of the other one.
    pub other: Vec<usize>,
}

/// Judges every picture by all others; none where there is nothing to judge it by.
///
/// `labels` are identities below `identities`, and `groups` the near-duplicates, as
/// [`groups`](crate::data::near_duplicates::groups) counts them; both run in step with the rows.
pub fn judge(
    embeddings: &Embeddings,
    labels: &[Option<usize>],
    groups: &[usize],
    identities: usize,
    step: &(dyn Fn() + Sync),
) -> Vec<Option<Judgement>> {
    let rows = embeddings.rows().min(labels.len()).min(groups.len());
    (0..rows)
        .into_par_iter()
        .map(|picture| {
            step();
            one(picture, embeddings, labels, groups, identities)
        })
        .collect()
}

fn one(
    picture: usize,
    embeddings: &Embeddings,
    labels: &[Option<usize>],
    groups: &[usize],
    identities: usize,
) -> Option<Judgement> {
    let own = labels[picture].filter(|&own| own < identities)?;
    let row = embeddings.row(picture);
    let mut others: Vec<(f32, usize)> = (0..labels.len().min(groups.len()))
        .filter(|&other| groups[other] != groups[picture] && labels[other].is_some())
        .map(|other| (euclidean(row, embeddings.row(other)), other))
        .collect();
    others.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut voices: Vec<Vec<(f32, usize)>> = vec![Vec::new(); identities];
    for (distance, other) in others {
        let Some(voices) = labels[other].and_then(|label| voices.get_mut(label)) else { continue };
        let is_copy = voices.iter().any(|&(_, known)| groups[known] == groups[other]);
        if voices.len() < VOICES && !is_copy {
            voices.push((distance, other));
        }
    }
    let mean = |voices: &[(f32, usize)]| {
        voices.iter().map(|&(distance, _)| f64::from(distance)).sum::<f64>() / voices.len() as f64
    };
    let nearest = voices
        .iter()
        .enumerate()
        .filter(|(label, voices)| *label != own && voices.len() >= WITNESSES)
        .map(|(label, voices)| (mean(voices), label))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let (distance, looks_like) = nearest.filter(|_| !voices[own].is_empty())?;
    let names = |voices: &[(f32, usize)]| voices.iter().map(|&(_, other)| other).collect();
    Some(Judgement {
        margin: mean(&voices[own]) - distance,
        looks_like,
        own: names(&voices[own]),
        other: names(&voices[looks_like]),
    })
}

/// The pictures whose margin reaches `threshold`, and those that come near to it.
pub fn findings(
    judgements: &[Option<Judgement>],
    pictures: &[Picture],
    identities: &[String],
    threshold: f64,
) -> Vec<Finding> {
    let names = |list: &[usize]| {
        list.iter().filter_map(|&index| Some(pictures.get(index)?.name.clone())).collect()
    };
    let judged = judgements.iter().zip(pictures);
    judged
        .filter_map(|(judgement, picture)| Some((judgement.as_ref()?, picture)))
        .filter_map(|(judgement, picture)| {
            let sure = judgement.own.len() >= VOICES;
            let kind = match judgement.margin / threshold {
                share if share >= 1.0 && sure => Kind::Mislabel,
                share if share >= 1.0 || (share >= DOUBT && sure) => Kind::Doubtful,
                _ => return None,
            };
            let looks_like = identities.get(judgement.looks_like).cloned().unwrap_or_default();
            let own = finding::identity(picture, identities).unwrap_or_default();
            let margin = judgement.margin;
            let what = format!("nearer to {looks_like} than to {own} by {margin:.2}");
            let found = Finding::new(kind, Some(margin), what).of(picture, identities);
            let nearest = [names(&judgement.own), names(&judgement.other)];
            Some(Finding { looks_like: Some(looks_like), nearest, ..found })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on the unit circle, at these degrees.
    fn circle(degrees: &[f32]) -> Embeddings {
        let values = degrees.iter().flat_map(|angle| {
            let (sin, cos) = angle.to_radians().sin_cos();
            [cos, sin]
        });
        Embeddings::new(degrees.len(), 2, values.collect()).unwrap()
    }

    fn names(labels: &[usize]) -> Vec<Picture> {
        let one = |(k, &label): (usize, &usize)| Picture {
            name: format!("{k}.png"),
            identity: Some(label),
            part: None,
        };
        labels.iter().enumerate().map(one).collect()
    }

    fn judged(degrees: &[f32], labels: &[usize], groups: &[usize]) -> Vec<Option<Judgement>> {
        let labels: Vec<_> = labels.iter().copied().map(Some).collect();
        judge(&circle(degrees), &labels, groups, 3, &|| ())
    }

    #[test]
    fn a_face_among_others_is_found_with_its_likeness_and_margin() {
        let degrees = [0.0, 2.0, 4.0, 60.0, 62.0, 64.0, 61.0];
        let labels = [0, 0, 0, 1, 1, 1, 0];
        let groups: Vec<usize> = (0..7).collect();
        let all = judged(&degrees, &labels, &groups);
        let found = findings(&all, &names(&labels), &["ann".into(), "bob".into()], MISLABEL);
        let [found] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found.kind, found.file.as_deref()), (Kind::Mislabel, Some("6.png")));
        assert_eq!(found.looks_like.as_deref(), Some("bob"));
        // Chords: 2 sin(angle / 2).
        let chord = |degrees: f64| 2.0 * (degrees.to_radians() / 2.0).sin();
        let own = (chord(61.0) + chord(59.0) + chord(57.0)) / 3.0;
        let other = (chord(1.0) + chord(1.0) + chord(3.0)) / 3.0;
        assert!((all[6].as_ref().unwrap().margin - (own - other)).abs() < 1e-4);
        assert_eq!(found.nearest[0], ["2.png", "1.png", "0.png"]);
        assert!(found.nearest[1].contains(&"4.png".to_owned()));
    }

    #[test]
    fn few_photos_and_small_margins_make_a_doubt_only() {
        let kinds = |degrees: &[f32], labels: &[usize]| {
            let groups: Vec<usize> = (0..labels.len()).collect();
            let all = judged(degrees, labels, &groups);
            let found = findings(&all, &names(labels), &["ann".into(), "bob".into()], MISLABEL);
            found.iter().map(|f| (f.kind, f.file.clone().unwrap())).collect::<Vec<_>>()
        };
        // Two other photos of ann's.
        let two = kinds(&[0.0, 2.0, 60.0, 62.0, 64.0, 61.0], &[0, 0, 1, 1, 1, 0]);
        assert_eq!(two, [(Kind::Doubtful, "5.png".to_owned())]);
        // Three, but the picture lies just beyond the middle between the two.
        let near = kinds(&[0.0, 1.0, 2.0, 60.0, 61.0, 62.0, 36.0], &[0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(near, [(Kind::Doubtful, "6.png".to_owned())]);
        let right = kinds(&[0.0, 1.0, 2.0, 60.0, 61.0, 62.0, 32.0], &[0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(right, []);
    }

    #[test]
    fn copies_do_not_vouch_for_each_other() {
        let degrees = [0.0, 2.0, 4.0, 60.0, 62.0, 64.0, 61.0, 61.0];
        let labels = [0, 0, 0, 1, 1, 1, 0, 0];
        // Without the group, the copy makes the wrong name look right.
        let alone: Vec<usize> = (0..8).collect();
        let fooled = judged(&degrees, &labels, &alone)[6].as_ref().unwrap().margin;
        let copies = [0, 1, 2, 3, 4, 5, 6, 6];
        let all = judged(&degrees, &labels, &copies);
        for judgement in &all[6..] {
            let judgement = judgement.as_ref().unwrap();
            assert!(judgement.margin > fooled + 0.2, "{judgement:?}");
            assert_eq!((judgement.looks_like, &judgement.own[..]), (1, &[2, 1, 0][..]));
        }
        // Three copies are one witness, which is too few to be looked like.
        let copies = [0, 1, 2, 3, 3, 3, 6, 7];
        assert_eq!(judged(&degrees, &labels, &copies), vec![None; 8]);
    }

    #[test]
    fn who_has_no_other_picture_is_not_judged() {
        let degrees = [0.0, 2.0, 4.0, 60.0, 62.0, 120.0];
        let labels = [0, 0, 0, 1, 1, 2];
        let all = judged(&degrees, &labels, &[0, 1, 2, 3, 4, 5]);
        assert_eq!(all.iter().filter(|one| one.is_none()).count(), 1);
        assert!(all[5].is_none());
        let flat = judge(&circle(&degrees), &[None; 6], &[0, 1, 2, 3, 4, 5], 0, &|| ());
        assert_eq!(flat, vec![None; 6]);
    }
}
