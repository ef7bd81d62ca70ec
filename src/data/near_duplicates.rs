//! Near-duplicates: the same photo recompressed, resized, mirrored or cropped.
//!
//! Face sets from the web have many, and one photo in both parts of a split makes validation too
//! optimistic. Two steps: the perceptual hash of each picture's centre is compared with the hashes of
//! the other's crops (all pairs), and candidates are aligned and kept if they correlate. An index of the
//! hashes would not help: of 264 bits as many as 52 may differ, and then bands short enough to agree are
//! in every other hash. The hash alone is not enough: portraits of one person in one pose are as similar
//! as two crops of one photo.
//!
//! The thresholds were chosen on real faces. Of 218 web pictures of five actors, all 81 pairs that
//! exhaustive alignment and inspection found are detected, two mirrored ones as well, and one pair of
//! different photos. A crop of 90 % of a photo's side is found in 98 of 100 positions, of 85 % in 85,
//! of 75 % in 40. Frames of a burst are detected, too: as validation pictures they are worth no more
//! than copies.

use std::array;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashMap;

use image::imageops::{self, FilterType};
use image::{GrayImage, RgbImage};
use image_hasher::{HashAlg, Hasher, HasherConfig};
use rayon::prelude::*;

use super::align::{SIDE, Square, Thumbnail, correlation};
use super::picture::fit;
use crate::native::hamming;

/// Gradients along both axes of a 12x12 picture: 2 * 12 * 11 bits.
const SLOPES: u32 = 22;
/// Candidates differ in at most this many of the 264 bits.
const CANDIDATE_BITS: u32 = 52;
/// Minimum correlation of near-duplicates.
const SAME_PHOTO: f64 = 0.97;
/// Template of the hash: the centre of a picture, relative to its side.
const MIDDLE: f32 = 0.85;
/// Crops of the other picture, relative to its side,
const CROPS: [f32; 5] = [0.95, 0.85, 0.75, 0.66, 0.58];
/// at its centre and shifted towards its eight neighbours by this fraction of the free space.
const SHIFTS: [f32; 3] = [0.0, -0.6, 0.6];
/// Template of the alignment: the face without its surroundings, which change most.
const CORE: f32 = 0.6;

/// Number of crops of a picture.
const CROP_COUNT: usize = CROPS.len() * SHIFTS.len() * SHIFTS.len();
/// Pictures whose crops are compared with the same centres, and centres compared with them: both stay in
/// the processor's caches.
const PICTURES: usize = 8;
const CENTRES: usize = 2048;

type Hash = hamming::Code;

/// Hashes and grey thumbnail of a picture, 6 kB.
#[derive(Debug, Clone)]
pub struct PerceptualHash {
    /// Its centre, and mirrored.
    centres: [Hash; 2],
    /// Those of [`crops`], then copies of the last.
    crops: hamming::Block,
    thumbnail: [u8; SIDE * SIDE],
}

impl PerceptualHash {
    /// The hash of a picture of any size.
    pub fn of(picture: &RgbImage) -> Self {
        let grey = imageops::grayscale(&fit(picture, SIDE as u32));
        let hasher = HasherConfig::new()
            .hash_alg(HashAlg::DoubleGradient)
            .hash_size(SLOPES, SLOPES)
            .resize_filter(FilterType::Triangle)
            .to_hasher();
        let middle = cut(&grey, middle());
        let hashes: Vec<Hash> = crops().map(|square| hash(&hasher, &cut(&grey, square))).collect();
        let lane = |word: usize, lane: usize| hashes[lane.min(CROP_COUNT - 1)][word];
        Self {
            centres: [hash(&hasher, &middle), hash(&hasher, &imageops::flip_horizontal(&middle))],
            crops: array::from_fn(|word| array::from_fn(|l| lane(word, l))),
            thumbnail: thumbnail(&grey),
        }
    }

    /// Whether two pictures are the same photo.
    pub fn same_photo(&self, other: &Self) -> bool {
        self.thumbnail == other.thumbnail
            || (0..2).any(|mirrored| {
                self.found_in(mirrored == 1, other) || other.found_in(mirrored == 1, self)
            })
    }

    /// Whether this picture's centre, or its mirror image, is found in `other`.
    fn found_in(&self, mirrored: bool, other: &Self) -> bool {
        let centre = &self.centres[usize::from(mirrored)];
        let distance = |crop: usize| -> u32 {
            centre.iter().zip(&other.crops).map(|(a, b)| (a ^ b[crop]).count_ones()).sum()
        };
        // Among equals the first crop is taken; their order is fixed.
        let nearest = crops().enumerate().map(|(crop, square)| (distance(crop), square));
        let nearest = nearest.filter(|&(bits, _)| bits <= CANDIDATE_BITS).min_by_key(|near| near.0);
        nearest.is_some_and(|(_, square)| {
            let thumbnail = floats(&self.thumbnail);
            let template = if mirrored { mirror(&thumbnail) } else { thumbnail };
            agreement(&template, &floats(&other.thumbnail), square) >= SAME_PHOTO
        })
    }
}

/// The group number of each picture. Near-duplicates, directly or through others, share a group, also
/// across identities. Groups are numbered from 0 in the order of their first picture.
///
/// Compares all pairs, see [`pairs`].
pub fn groups(looks: &[PerceptualHash]) -> Vec<usize> {
    join(looks.len(), &pairs(looks, &|| ()))
}

/// All pairs of near-duplicates, smaller index first, sorted. `step` is called once per picture, from
/// several threads.
pub fn pairs<L: Borrow<PerceptualHash> + Sync>(
    looks: &[L],
    step: &(dyn Fn() + Sync),
) -> Vec<(usize, usize)> {
    let centres: Vec<Hash> = looks.iter().flat_map(|look| look.borrow().centres).collect();
    let found_in = |(tile, pictures): (usize, &[L])| {
        let (mut near, mut pairs) = (Vec::new(), Vec::new());
        for (block, codes) in centres.chunks(CENTRES).enumerate() {
            for (number, picture) in pictures.iter().enumerate() {
                let (b, other) = (tile * PICTURES + number, picture.borrow());
                near.clear();
                hamming::near(codes, &other.crops, u64::from(CANDIDATE_BITS), &mut near);
                for centre in near.iter().map(|near| block * CENTRES + near) {
                    let (a, mirrored) = (centre / 2, centre % 2 == 1);
                    if a != b && looks[a].borrow().found_in(mirrored, other) {
                        pairs.push((a.min(b), a.max(b)));
                    }
                }
            }
        }
        pictures.iter().for_each(|_| step());
        pairs
    };
    let mut pairs: Vec<_> =
        looks.par_chunks(PICTURES).enumerate().flat_map_iter(found_in).collect();
    // Flat pictures do not correlate; equal ones are still duplicates.
    let mut equal = HashMap::<&[u8], Vec<usize>>::new();
    for (b, look) in looks.iter().enumerate() {
        let others = equal.entry(&look.borrow().thumbnail).or_default();
        pairs.extend(others.iter().map(|&a| (a, b)));
        others.push(b);
    }
    pairs.par_sort_unstable();
    pairs.dedup();
    pairs
}

/// The group number of each of `count` items, given the connected pairs; numbered as in [`groups`].
///
/// # Panics
/// When an index of a pair is out of range.
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

/// The square of relative size `size` of the grey picture, shifted by (dx, dy) in [-1, 1] of the free
/// space.
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

/// The correlation of one picture's core with the other, starting at `crop`.
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

/// Slightly blurred, because sharpening and compression differ between copies.
fn thumbnail(grey: &GrayImage) -> [u8; SIDE * SIDE] {
    let blur = [0.0625, 0.125, 0.0625, 0.125, 0.25, 0.125, 0.0625, 0.125, 0.0625];
    let blurred = imageops::filter3x3(grey, &blur);
    array::from_fn(|pixel| blurred.as_raw()[pixel])
}

fn floats(thumbnail: &[u8]) -> Vec<f32> {
    thumbnail.iter().copied().map(f32::from).collect()
}

fn mirror(thumbnail: &Thumbnail) -> Vec<f32> {
    thumbnail.chunks(SIDE).flat_map(|row| row.iter().rev().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
    fn all_pairs_at_once_are_those_of_two_at_a_time() {
        // More pictures than one tile, more centres than one block.
        let photos: Vec<RgbImage> = (0..CENTRES as u64 / 2 + 20)
            .map(|k| match k % 5 {
                0 => imageops::flip_horizontal(&scene(k / 40)),
                1 => RgbImage::from_pixel(40, 40, image::Rgb([(k / 7 % 200) as u8; 3])),
                _ => fit(&scene(k / 40), 40 + (k % 40) as u32),
            })
            .collect();
        let looks: Vec<PerceptualHash> = photos.par_iter().map(PerceptualHash::of).collect();
        let steps = AtomicUsize::new(0);
        let all = pairs(&looks, &|| {
            steps.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(steps.into_inner(), looks.len());
        for a in (0..looks.len()).step_by(53) {
            let wanted = (0..looks.len()).filter(|&b| b != a && looks[a].same_photo(&looks[b]));
            let wanted: Vec<_> = wanted.map(|b| (a.min(b), a.max(b))).collect();
            let mut found: Vec<_> = all.iter().copied().filter(|p| p.0 == a || p.1 == a).collect();
            found.sort_by_key(|&(one, two)| one + two);
            assert_eq!(found, wanted, "{a}");
            assert!(!wanted.is_empty(), "{a}");
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
