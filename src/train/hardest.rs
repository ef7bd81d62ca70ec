//! The hardest triplets of an epoch as a picture: shows which identities a trunk confuses.

use image::RgbImage;

use super::scoring::Labelled;
use crate::data::folder::FaceFolder;
use crate::eval::distance;
use crate::figures::{Triplet, strip};

/// Rows of the picture.
const ROWS: usize = 8;
/// Side of its pictures in pixels.
const SIDE: u32 = 192;

/// The hardest triplets of `part`, whose rows are the pictures `pictures` of `folder`: anchor,
/// farthest positive, nearest negative, with their distances. None where there is no triplet.
pub fn picture(part: &Labelled, pictures: &[usize], folder: &FaceFolder) -> Option<RgbImage> {
    let mut found = hardest(part);
    found.truncate(ROWS);
    // A picture that is gone by now is an error where it is trained on, not here.
    let picture = |row: usize| folder.fitted.get(*pictures.get(row)?).ok();
    let shown = |triplet: &Hardest| {
        Some([picture(triplet.anchor)?, picture(triplet.positive)?, picture(triplet.negative)?])
    };
    let found: Vec<_> =
        found.into_iter().filter_map(|triplet| Some((shown(&triplet)?, triplet))).collect();
    let rows: Vec<_> = found
        .iter()
        .filter_map(|(shown, triplet)| {
            let (anchor, negative) = (triplet.anchor, triplet.negative);
            let name = |row: usize| folder.identities.get(*part.labels.get(row)?).cloned();
            Some(Triplet {
                pictures: shown.each_ref().map(|picture| &**picture),
                captions: [
                    name(anchor)?,
                    format!("{:.2}", triplet.to_positive),
                    format!("{:.2} {}", triplet.to_negative, name(negative)?),
                ],
            })
        })
        .collect();
    (!rows.is_empty()).then(|| strip(&rows, SIDE))
}

/// An anchor with its farthest positive and nearest negative.
struct Hardest {
    anchor: usize,
    positive: usize,
    negative: usize,
    to_positive: f32,
    to_negative: f32,
}

/// The hardest triplet of every anchor that has one, hardest first; O(N²) time, O(N) memory.
fn hardest(part: &Labelled) -> Vec<Hardest> {
    let rows = part.labels.len();
    let mut found: Vec<_> = (0..rows)
        .filter_map(|anchor| {
            let mut farthest: Option<(f32, usize)> = None;
            let mut nearest: Option<(f32, usize)> = None;
            for other in (0..rows).filter(|&other| other != anchor) {
                let to =
                    distance::euclidean(part.embeddings.row(anchor), part.embeddings.row(other));
                if part.labels[other] == part.labels[anchor] {
                    if farthest.is_none_or(|(most, _)| to > most) {
                        farthest = Some((to, other));
                    }
                } else if nearest.is_none_or(|(least, _)| to < least) {
                    nearest = Some((to, other));
                }
            }
            let ((to_positive, positive), (to_negative, negative)) = (farthest?, nearest?);
            Some(Hardest { anchor, positive, negative, to_positive, to_negative })
        })
        .collect();
    let slack = |triplet: &Hardest| triplet.to_negative - triplet.to_positive;
    found.sort_by(|a, b| slack(a).total_cmp(&slack(b)).then(a.anchor.cmp(&b.anchor)));
    found
}
