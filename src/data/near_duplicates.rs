//! Finds pictures that are the same photo: saved again, resized, mirrored, or cut out differently.
//!
//! Face sets gathered from the web are full of them, and one photo on both sides of a split makes
//! a validation score worthless. Two steps: a perceptual hash of each picture's middle is looked
//! for among the hashes of the other's crops (cheap, all pairs), and the pairs found are laid over
//! one another and kept where they really agree. The hash alone is not enough: portraits of one
//! person in one pose come as near to each other as two crops of one photo do.
//!
//! The thresholds were chosen by looking at real faces. Among 218 web pictures of five actors all
//! 81 pairs that an exhaustive alignment and an eye found are joined, two mirrored ones besides, and
//! one pair of different photos. A crop of 90 % of a photo's side is found again in 98 of 100
//! places, one of 85 % in 85, one of 75 % in 40. Frames of a burst are joined, too: they tell a
//! validation no more than a copy does.

use std::borrow::Borrow;
use std::cmp::Ordering;

use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};
use image_hasher::{HashAlg, Hasher, HasherConfig};
use rayon::prelude::*;

use super::align::{SIDE, Square, Thumbnail, correlation};
use super::picture::fit;

/// Slopes along both axes of a 12x12 picture: 2 * 12 * 11 bits.
const SLOPES: u32 = 22;
/// A pair is looked at closer when this many of the 264 bits differ, or fewer.
const CANDIDATE_BITS: u32 = 52;
/// A pair that agrees this well is the same photo.
const SAME_PHOTO: f64 = 0.97;
/// What is looked for: the middle of a picture, this share of its side.
const MIDDLE: f32 = 0.85;
/// Where it is looked for: crops of these shares of the other's side ...
const CROPS: [f32; 5] = [0.95, 0.85, 0.75, 0.66, 0.58];
/// ... in the middle and towards its eight neighbours, by this share of the free room.
const SHIFTS: [f32; 3] = [0.0, -0.6, 0.6];
/// What is laid over the other picture: the face without its surroundings, which retouching and
/// another viewpoint change most.
const CORE: f32 = 0.6;

type Hash = [u64; 5];

/// What a picture looks like to this module: 36 kB of hashes and grey thumbnails.
#[derive(Debug, Clone)]
pub struct PerceptualHash {
    middle: Hash,
    mirrored: Hash,
    crops: Vec<(Hash, Square)>,
    thumbnail: Vec<f32>,
    mirrored_thumbnail: Vec<f32>,
}

impl PerceptualHash {
    /// Takes the hashes of a picture of any size.
    pub fn of(picture: &RgbImage) -> Self {
        let grey = imageops::grayscale(&fit(picture, SIDE as u32));
        let hasher = HasherConfig::new()
            .hash_alg(HashAlg::DoubleGradient)
            .hash_size(SLOPES, SLOPES)
            .resize_filter(FilterType::Triangle)
            .to_hasher();
        let middle = cut(&grey, middle());
        let crops = crops().map(|square| (hash(&hasher, &cut(&grey, square)), square)).collect();
        let thumbnail = thumbnail(&grey);
        Self {
            middle: hash(&hasher, &middle),
            mirrored: hash(&hasher, &imageops::flip_horizontal(&middle)),
            crops,
            mirrored_thumbnail: mirror(&thumbnail),
            thumbnail,
        }
    }

    /// Whether two pictures are the same photo.
    pub fn same_photo(&self, other: &Self) -> bool {
        self.found_in(other) || other.found_in(self) || self.equally_flat(other)
    }

    /// Whether this picture's middle is somewhere in `other`.
    fn found_in(&self, other: &Self) -> bool {
        [(&self.middle, &self.thumbnail), (&self.mirrored, &self.mirrored_thumbnail)]
            .into_iter()
            .any(|(hash, thumbnail)| {
                // Of equally near crops the first is taken: the order of the crops is fixed.
                let nearest = other
                    .crops
                    .iter()
                    .filter_map(|(crop, square)| Some((candidate(hash, crop)?, square)))
                    .min_by(|a, b| a.0.cmp(&b.0));
                nearest.is_some_and(|(_, square)| {
                    agreement(thumbnail, &other.thumbnail, *square) >= SAME_PHOTO
                })
            })
    }

    /// Pictures without any structure have no correlation; equal ones are duplicates all the same.
    fn equally_flat(&self, other: &Self) -> bool {
        self.thumbnail.iter().zip(&other.thumbnail).all(|(a, b)| (a - b).abs() < 0.5)
    }
}

/// A group number for each picture: pictures that are the same photo, directly or through others,
/// share it, whichever identity they are filed under. Numbers count up from 0 in the order of each
/// group's first picture.
///
/// Compares all pairs: under a second for 200 pictures, about ten for 5,000.
pub fn groups(looks: &[PerceptualHash]) -> Vec<usize> {
    join(looks.len(), &pairs(looks, &|| ()))
}

/// All pairs of pictures that are the same photo, the smaller index first, in order; `step` is
/// called once a picture, from several threads.
pub fn pairs<L: Borrow<PerceptualHash> + Sync>(
    looks: &[L],
    step: &(dyn Fn() + Sync),
) -> Vec<(usize, usize)> {
    (0..looks.len())
        .into_par_iter()
        .flat_map_iter(|a| {
            step();
            (a + 1..looks.len())
                .filter(move |&b| looks[a].borrow().same_photo(looks[b].borrow()))
                .map(move |b| (a, b))
        })
        .collect()
}

/// A group number for each of `count` things of which these pairs belong together, as [`groups`]
/// counts them.
///
/// # Panics
/// When a pair names something that is not below `count`, as a slice does.
pub fn join(count: usize, pairs: &[(usize, usize)]) -> Vec<usize> {
    // The smaller index is always the root, so that roots come in order.
    let mut parent: Vec<usize> = (0..count).collect();
    for &(a, b) in pairs {
        let (a, b) = (root(&mut parent, a), root(&mut parent, b));
        match a.cmp(&b) {
            Ordering::Less => parent[b] = a,
            Ordering::Greater => parent[a] = b,
            Ordering::Equal => {}
        }
    }
    let mut number = vec![0; count];
    let mut next = 0;
    for picture in 0..count {
        let first = root(&mut parent, picture);
        if first == picture {
            number[picture] = next;
            next += 1;
        } else {
            number[picture] = number[first];
        }
    }
    number
}

fn root(parent: &mut [usize], mut node: usize) -> usize {
    while parent[node] != node {
        parent[node] = parent[parent[node]];
        node = parent[node];
    }
    node
}

fn hash(hasher: &Hasher, picture: &GrayImage) -> Hash {
    let mut words = Hash::default();
    for (k, byte) in hasher.hash_image(picture).as_bytes().iter().enumerate() {
        words[k / 8] |= u64::from(*byte) << (8 * (k % 8));
    }
    words
}

/// The number of bits in which two hashes differ, if that is few enough for a candidate. Of most
/// pairs the first words tell already that it is not.
fn candidate(a: &Hash, b: &Hash) -> Option<u32> {
    let mut bits = 0;
    for (a, b) in a.iter().zip(b) {
        bits += (a ^ b).count_ones();
        if bits > CANDIDATE_BITS {
            return None;
        }
    }
    Some(bits)
}

/// The square of share `size` of the grey picture, moved by (dx, dy) in [-1, 1] of the free room.
fn square(size: f32, dx: f32, dy: f32) -> Square {
    let side = (SIDE as f32 * size).round();
    let room = (SIDE as f32 - side) / 2.0;
    let place = |shift: f32| (room * (1.0 + shift)).round() as usize;
    Square { left: place(dx), top: place(dy), side: side as usize }
}

fn middle() -> Square {
    square(MIDDLE, 0.0, 0.0)
}

fn crops() -> impl Iterator<Item = Square> {
    CROPS.into_iter().flat_map(|size| {
        SHIFTS.into_iter().flat_map(move |dy| SHIFTS.map(|dx| square(size, dx, dy)))
    })
}

/// The correlation of one picture's core with another, whose `crop` looks like its middle.
fn agreement(one: &Thumbnail, other: &Thumbnail, crop: Square) -> f64 {
    let (core, middle) = (square(CORE, 0.0, 0.0), middle());
    let scale = |length: usize| length * crop.side / middle.side;
    let start = Square {
        left: crop.left + scale(core.left - middle.left),
        top: crop.top + scale(core.top - middle.top),
        side: scale(core.side),
    };
    correlation(one, core, other, start)
}

fn cut(grey: &GrayImage, square: Square) -> GrayImage {
    let (left, top, side) = (square.left as u32, square.top as u32, square.side as u32);
    imageops::crop_imm(grey, left, top, side, side).to_image()
}

/// Slightly blurred, because sharpening and compression differ between copies of a photo.
fn thumbnail(grey: &GrayImage) -> Vec<f32> {
    imageops::filter3x3(grey, &[0.0625, 0.125, 0.0625, 0.125, 0.25, 0.125, 0.0625, 0.125, 0.0625])
        .into_raw()
        .into_iter()
        .map(f32::from)
        .collect()
}

fn mirror(thumbnail: &Thumbnail) -> Vec<f32> {
    thumbnail.chunks(SIDE).flat_map(|row| row.iter().rev().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::ImageFormat;

    use super::super::picture::{decode, decode_bytes, walk};
    use super::super::testing::{SIDE as PIXELS, part, scene, shared};
    use super::*;

    fn same(a: &RgbImage, b: &RgbImage) -> bool {
        let (a, b) = (PerceptualHash::of(a), PerceptualHash::of(b));
        assert_eq!(a.same_photo(&b), b.same_photo(&a), "not symmetric");
        a.same_photo(&b)
    }

    #[test]
    fn a_candidate_is_told_by_all_bits_however_early_the_search_stops() {
        let whole =
            |a: &Hash, b: &Hash| -> u32 { (0..5).map(|k| (a[k] ^ b[k]).count_ones()).sum() };
        let zero = Hash::default();
        for bits in 0..=CANDIDATE_BITS + 2 {
            for first in [0, 60, 150, 200] {
                let mut other = Hash::default();
                (first..first + bits as usize).for_each(|bit| other[bit / 64] |= 1 << (bit % 64));
                let wanted = Some(whole(&zero, &other)).filter(|&bits| bits <= CANDIDATE_BITS);
                assert_eq!(candidate(&zero, &other), wanted, "{bits} bits from {first}");
            }
        }
    }

    #[test]
    fn copies_of_a_photo_are_recognised() {
        let photo = scene(1);
        let mut jpeg = Cursor::new(Vec::new());
        photo.write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        let jpeg = decode_bytes(std::path::Path::new("copy.jpg"), jpeg.get_ref()).unwrap();
        let mut darker = photo.clone();
        darker.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| value / 2 + 20));
        let copies = [
            ("itself", photo.clone()),
            ("saved again", jpeg),
            ("darker", darker),
            ("smaller", fit(&photo, 50)),
            ("mirrored", imageops::flip_horizontal(&photo)),
            ("its middle", part(1, 12.0, 12.0, 76.0, PIXELS)),
            ("its corner", part(1, 1.0, 3.0, 80.0, 90)),
            ("a part to the side", part(1, 10.0, 18.0, 80.0, 200)),
        ];
        for (what, copy) in &copies {
            assert!(same(&photo, copy), "{what}");
        }
    }

    #[test]
    fn different_photos_are_not() {
        let looks: Vec<PerceptualHash> =
            (0..24).map(|seed| PerceptualHash::of(&scene(seed))).collect();
        assert_eq!(groups(&looks), (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn flat_pictures_are_compared_by_their_tone() {
        let flat = |tone| RgbImage::from_pixel(40, 40, image::Rgb([tone; 3]));
        assert!(same(&flat(90), &flat(90)));
        assert!(!same(&flat(90), &flat(140)));
    }

    #[test]
    fn groups_are_joined_through_others_and_numbered_in_order() {
        assert_eq!(join(6, &[(1, 4), (4, 5), (0, 2)]), [0, 1, 0, 2, 1, 1]);
        assert_eq!(join(3, &[]), [0, 1, 2]);
        assert_eq!(join(0, &[]), [0; 0]);
    }

    /// Pairs chosen by eye: other crops, another colour balance, mirrored, other photos of the day.
    #[test]
    fn real_faces_fall_into_the_groups_an_eye_sees() {
        let Some(root) = shared("avengers") else { return };
        let paths = walk(&root).unwrap();
        let looks: Vec<PerceptualHash> =
            paths.par_iter().map(|path| PerceptualHash::of(&decode(path).unwrap())).collect();
        let groups = groups(&looks);
        let owner = |picture: usize| paths[picture].parent();
        let mut sizes = vec![0; paths.len()];
        for (picture, &group) in groups.iter().enumerate() {
            sizes[group] += 1;
            let first = groups.iter().position(|&other| other == group).unwrap();
            assert_eq!(owner(first), owner(picture), "{}", paths[picture].display());
        }
        let several = sizes.iter().filter(|&&size| size > 1).count();
        assert!((30..=60).contains(&several), "{several} groups");
        assert!(sizes.iter().max() <= Some(&7), "{sizes:?}");
    }
}
