//! Scans the pictures of an audit: list, decode, detect faces, measure, embed; in memory are one
//! batch of pictures and the results of all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use image::{RgbImage, imageops};
use rayon::prelude::*;

use super::{Picture, PictureStats};
use crate::data::identity_folders::TrainVal;
use crate::data::prefetch::BatchLimits;
use crate::data::split_file::read_parts;
use crate::data::{Dataset, Part, formats, picture};
use crate::detect::{Detector, Face, similar_faces};
use crate::eval::Embeddings;
use crate::models::Backbone;
use crate::progress::Reporter;
use crate::recognise::pipeline::{Framed, Framer, PIXELS, Reader, embed_files};
use crate::words::count;
use crate::{Error, Result};

/// Faces are detected on pictures scaled down to this longer side.
const SEARCHED: u32 = 320;
/// The square around a face, as a multiple of its box's longer side ...
const AROUND: f32 = 1.3;
/// ... is cropped if it is smaller than this fraction of the picture; otherwise the picture is
/// taken for a crop.
const LOOSE: f32 = 0.8;

/// The networks and the crop of an audit.
pub struct Scanner<'a> {
    /// Embeds the pictures.
    pub trunk: &'a Backbone,
    /// Without a detector pictures are used as they are.
    pub detector: Option<&'a Detector>,
    /// Size of the central square to use instead of the face.
    pub crop: Option<u32>,
}

impl Framer for Scanner<'_> {
    type Read = Decoded;
    type Info = PictureStats;

    fn reader(&self) -> Reader<Decoded> {
        let search = self.detector.is_some();
        Box::new(move |path: &Path| Decoded::of(path, search))
    }

    fn limits(&self) -> BatchLimits {
        BatchLimits { files: 16, pixels: PIXELS, waiting: 0 }
    }

    fn frame(&self, pictures: Vec<Decoded>) -> Result<Vec<Framed<PictureStats>>> {
        let searched: Vec<&RgbImage> = pictures.iter().map(Decoded::searched).collect();
        let faces = match self.detector {
            Some(detector) => detector.detect(&searched)?.into_iter().map(Some).collect(),
            None => vec![None; pictures.len()],
        };
        let (crop, side) = (self.crop, self.trunk.input.size);
        let measured = pictures.par_iter().zip(faces).map(|(decoded, faces)| {
            let cut = cropped(decoded, faces.as_deref(), crop);
            let seen = cut.as_ref().unwrap_or(&decoded.whole);
            let mut stats = PictureStats::of(&decoded.content, &decoded.whole, seen);
            stats.faces = faces.as_deref().map(similar_faces);
            Framed { info: stats, faces: vec![picture::fit(seen, side)], pixels: 0 }
        });
        Ok(measured.collect())
    }
}

/// The files of a data set.
pub struct Files {
    paths: Vec<PathBuf>,
    pictures: Vec<Picture>,
    identities: Vec<String>,
    unreadable: Vec<(Picture, String)>,
    notes: Vec<String>,
}

/// The results for a data set. Pictures, stats and embeddings have the same order.
pub struct Scan {
    /// The names of the identities, sorted.
    pub identities: Vec<String>,
    /// The readable pictures.
    pub pictures: Vec<Picture>,
    /// Measurements of each.
    pub stats: Vec<PictureStats>,
    /// The embedding of each.
    pub embeddings: Embeddings,
    /// Unreadable pictures and the reasons.
    pub unreadable: Vec<(Picture, String)>,
    /// Remarks about the folder, one sentence each.
    pub notes: Vec<String>,
}

/// Lists the pictures below `root` with their identity and their part of the split.
///
/// # Errors
/// There is no picture, or the split file cannot be read or names none of them.
pub fn list(root: &Path, split: Option<&Path>) -> Result<Files> {
    if let Some(dataset) = formats::open_packed(root)? {
        return list_packed(root, dataset.as_ref(), split);
    }
    let fail = |what: &str| Err(Error::Data(format!("{}: {what}", root.display())));
    if !root.is_dir() {
        return fail(if root.exists() { "is not a folder" } else { "does not exist" });
    }
    let walk = picture::walk_on(root);
    if walk.pictures.is_empty() && walk.troubles.is_empty() {
        return fail("contains no pictures");
    }
    let mut notes = Vec::from_iter(walk.note(root));
    let (mut paths, troubles) = (walk.pictures, walk.troubles);
    let layout = TrainVal::find(root);
    let mut names = match &layout {
        None => folders(root)?,
        Some(layout) => {
            notes.push(layout.note(root));
            let test = layout.test.as_ref().map(|test| root.join(test));
            paths.retain(|path| !test.as_ref().is_some_and(|test| path.starts_with(test)));
            let parts = [&layout.train, &layout.validation].map(|part| folders(&root.join(part)));
            let [train, validation] = parts;
            BTreeSet::from_iter(train?.into_iter().chain(validation?)).into_iter().collect()
        }
    };
    let relative = |path: &Path| {
        let parts = path.strip_prefix(root).unwrap_or(path).iter();
        parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
    };
    if !paths.iter().any(|path| relative(path).contains('/')) {
        names.clear();
    }
    let mut parts = split.map(read_parts).transpose()?;
    let mut known = 0;
    let mut place = |path: &Path| {
        let name = relative(path);
        let (of_layout, below) = match (&layout, name.split_once('/')) {
            (Some(layout), Some((part, below))) if *part == layout.train => {
                (Some(Part::Train), below)
            }
            (Some(_), Some((_, below))) => (Some(Part::Validation), below),
            _ => (None, name.as_str()),
        };
        let owner = below.split_once('/').map(|(owner, _)| owner);
        let identity =
            owner.and_then(|owner| names.binary_search_by(|n| n.as_str().cmp(owner)).ok());
        let part = parts.as_mut().and_then(|parts| parts.remove(&name));
        known += usize::from(part.is_some());
        Picture { identity, part: part.or(of_layout), name }
    };
    let pictures: Vec<Picture> = paths.iter().map(|path| place(path)).collect();
    let trouble = |error: Error| match error {
        Error::Io { path, source } => (place(&path), source.to_string()),
        other => (place(root), other.to_string()),
    };
    let unreadable: Vec<_> = troubles.into_iter().map(trouble).collect();
    let loose = pictures.iter().filter(|picture| picture.identity.is_none()).count();
    if loose > 0 && !names.is_empty() {
        let which = count(loose, "picture");
        notes.push(format!("{which} directly in {}: ignored by training", root.display()));
    }
    if let (Some(parts), Some(file)) = (parts, split) {
        notes.extend(compare(file, root, parts.len(), known, pictures.len())?);
    }
    Ok(Files { paths, pictures, identities: names, unreadable, notes })
}

/// Lists the pictures of a data set that is one file.
fn list_packed(root: &Path, dataset: &dyn Dataset, split: Option<&Path>) -> Result<Files> {
    let mut parts = split.map(read_parts).transpose()?;
    let (mut paths, mut pictures, mut known) = (Vec::new(), Vec::new(), 0);
    for record in (0..dataset.len()).filter_map(|number| dataset.record(number)) {
        let below = record.path.strip_prefix(dataset.root()).unwrap_or(&record.path);
        let below: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        let name = below.join("/");
        let part = parts.as_mut().and_then(|parts| parts.remove(&name));
        known += usize::from(part.is_some());
        pictures.push(Picture { identity: Some(record.identity), part, name });
        paths.push(record.path);
    }
    let mut notes = dataset.notes().to_vec();
    if let (Some(parts), Some(file)) = (parts, split) {
        notes.extend(compare(file, root, parts.len(), known, pictures.len())?);
    }
    let identities = dataset.identities().to_vec();
    Ok(Files { paths, pictures, identities, unreadable: Vec::new(), notes })
}

/// A note if a split file and a data set do not have the same pictures: `gone` are only in the file,
/// `known` of `all` are in both.
fn compare(
    file: &Path,
    root: &Path,
    gone: usize,
    known: usize,
    all: usize,
) -> Result<Option<String>> {
    if known == 0 {
        let text = format!("{}: names none of the pictures in {}", file.display(), root.display());
        return Err(Error::Data(text));
    }
    let (old, new) = (count(gone, "picture"), count(all - known.min(all), "picture"));
    let note = || {
        let file = file.display();
        format!("{file}: {old} of it missing from the folder, {new} not in it")
    };
    Ok((gone > 0 || known < all).then(note))
}

/// The sub-folders, sorted, without hidden ones.
fn folders(root: &Path) -> Result<Vec<String>> {
    let fail = |source| Error::io(root, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A decoded picture, its file's content, and a smaller copy for face detection with its scale.
pub struct Decoded {
    content: Vec<u8>,
    whole: RgbImage,
    small: Option<(RgbImage, f32)>,
}

impl Decoded {
    fn of(path: &Path, search: bool) -> Result<Self> {
        let content = picture::read(path)?;
        let whole = picture::decode_bytes(path, &content)?;
        let longest = whole.width().max(whole.height());
        let small = (search && longest > SEARCHED).then(|| {
            let scale = SEARCHED as f32 / longest as f32;
            let side = |pixels: u32| ((pixels as f32 * scale) as u32).max(1);
            (picture::resize(&whole, side(whole.width()), side(whole.height())), scale)
        });
        Ok(Self { content, whole, small })
    }

    fn searched(&self) -> &RgbImage {
        self.small.as_ref().map_or(&self.whole, |(small, _)| small)
    }

    fn scale(&self) -> f32 {
        self.small.as_ref().map_or(1.0, |(_, scale)| *scale)
    }
}

/// Scans all files, with a progress bar.
///
/// # Errors
/// An error from libtorch; a file that cannot be decoded is not an error here.
pub fn scan(scanner: &Scanner, files: Files, say: &Reporter) -> Result<Scan> {
    let Files { paths, pictures: places, identities, unreadable, notes } = files;
    let mut scan = Scan {
        identities,
        pictures: Vec::new(),
        stats: Vec::with_capacity(paths.len()),
        embeddings: Embeddings::new(0, scanner.trunk.embedding_dim as usize, Vec::new())?,
        unreadable,
        notes,
    };
    let mut values = Vec::with_capacity(paths.len() * scanner.trunk.embedding_dim as usize);
    let bar = say.progress("pictures", paths.len() as u64, "pictures");
    let step = |count: usize| bar.inc(count as u64);
    let mut places = places.into_iter();
    embed_files(scanner.trunk, scanner, &paths, step, |_, seen| {
        let Some(place) = places.next() else { return Ok(()) };
        match seen {
            Ok((stats, rows)) => {
                scan.pictures.push(place);
                scan.stats.push(stats);
                values.extend_from_slice(rows.values());
            }
            Err(Error::Picture { reason, .. }) => scan.unreadable.push((place, reason)),
            Err(Error::Io { source, .. }) => scan.unreadable.push((place, source.to_string())),
            Err(other) => return Err(other),
        }
        Ok(())
    })?;
    if values.iter().any(|value| !value.is_finite()) {
        let text = "the trunk returns embeddings that are not finite: its weights are broken";
        return Err(Error::Data(text.into()));
    }
    bar.finish();
    scan.embeddings =
        Embeddings::new(scan.pictures.len(), scanner.trunk.embedding_dim as usize, values)?;
    Ok(scan)
}

/// The part of a picture to check, if it is not the whole: the central square, or the square around
/// the face on a loose photo.
fn cropped(decoded: &Decoded, faces: Option<&[Face]>, crop: Option<u32>) -> Option<RgbImage> {
    let whole = &decoded.whole;
    if let Some(side) = crop {
        return Some(picture::centre_crop(whole, side));
    }
    let face = main_face(faces?, decoded.searched())?;
    let [x1, y1, x2, y2] = face.bounds.map(|edge| edge / decoded.scale());
    let side = AROUND * (x2 - x1).max(y2 - y1);
    let shorter = whole.width().min(whole.height());
    if !(side >= 1.0 && side < LOOSE * shorter as f32) {
        return None;
    }
    let side = side as u32;
    let start =
        |middle: f32, room: u32| (middle - side as f32 / 2.0).clamp(0.0, room as f32) as u32;
    let left = start((x1 + x2) / 2.0, whole.width() - side);
    let top = start((y1 + y2) / 2.0, whole.height() - side);
    Some(imageops::crop_imm(whole, left, top, side, side).to_image())
}

/// The main face of a picture: large and near the centre.
fn main_face<'f>(faces: &'f [Face], picture: &RgbImage) -> Option<&'f Face> {
    let weight = |face: &Face| face.prominence(picture.dimensions());
    faces.iter().max_by(|a, b| weight(a).total_cmp(&weight(b)))
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn face(bounds: [f32; 4]) -> Face {
        Face { bounds, probability: 1.0, landmarks: [[0.0; 2]; 5] }
    }

    /// A picture whose pixels tell their places.
    fn decoded(width: u32, height: u32) -> Decoded {
        let whole = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 0]));
        Decoded { content: Vec::new(), whole, small: None }
    }

    #[test]
    fn the_face_is_cut_out_of_a_loose_photo_and_a_crop_stays_whole() {
        let photo = decoded(200, 100);
        let cut = cropped(&photo, Some(&[face([140.0, 30.0, 170.0, 70.0])]), None).unwrap();
        // 1.3 times 40 pixels around (155, 50).
        assert_eq!(cut.dimensions(), (52, 52));
        assert_eq!(cut.get_pixel(0, 0).0, [129, 24, 0]);
        let corner = cropped(&photo, Some(&[face([-9.0, -9.0, 31.0, 31.0])]), None).unwrap();
        assert_eq!(corner.get_pixel(0, 0).0, [0, 0, 0]);
        assert!(cropped(&photo, Some(&[face([60.0, 5.0, 140.0, 95.0])]), None).is_none());
        assert!(cropped(&photo, Some(&[]), None).is_none());
        assert!(cropped(&photo, None, None).is_none());
        let centre = cropped(&photo, Some(&[face([140.0, 30.0, 170.0, 70.0])]), Some(60)).unwrap();
        assert_eq!((centre.dimensions(), centre.get_pixel(0, 0).0), ((60, 60), [70, 20, 0]));
    }

    #[test]
    fn a_search_on_a_smaller_copy_is_scaled_back() {
        let mut photo = decoded(200, 200);
        photo.small = Some((RgbImage::new(100, 100), 0.5));
        let cut = cropped(&photo, Some(&[face([40.0, 40.0, 60.0, 60.0])]), None).unwrap();
        assert_eq!((cut.dimensions(), cut.get_pixel(0, 0).0), ((52, 52), [74, 74, 0]));
    }

    #[test]
    fn the_middle_counts() {
        let picture = RgbImage::new(200, 200);
        let faces = [face([0.0, 0.0, 62.0, 62.0]), face([70.0, 70.0, 130.0, 130.0])];
        assert_eq!(main_face(&faces, &picture), Some(&faces[1]));
    }
}
