//! Whole photos in a training set: the main face on each is found once, before the first epoch.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use tch::Device;

use crate::data::dataset::{Dataset, Record};
use crate::data::picture::decode_bytes;
use crate::data::prefetch::read_files;
use crate::detect::{Crop, DetectOptions, Face, Framing};
use crate::progress::Reporter;
use crate::recognise::pipeline::Framer;
use crate::recognise::{FaceSearch, Located, ModelCard, Viewer};
use crate::words::{count, enumerate, people};
use crate::{Error, Result};

/// Maximum number of pictures that tell whether a set shows whole photos.
const SAMPLE: usize = 40;
/// It does if these shares of them look like photos and show a face. Few crops, one in two hundred of a
/// loose set, look like photos; of LFW's photos 97 % do.
const PHOTOS: f64 = 0.1;
const FACES: f64 = 0.5;

/// The same pictures, of which only the face on each photo is used, cut out as the trunk needs it; and
/// how it is framed. Photos without a face are left out. `None` and the same data set where pictures are
/// used as they are.
///
/// With [`FaceSearch::Auto`] a sample decides whether the data set shows whole photos; then those are
/// searched that `classify` would search.
///
/// # Errors
/// Fewer than two people have a face. An error from libtorch.
pub fn cut_faces(
    dataset: Arc<dyn Dataset>,
    trunk: &ModelCard,
    detect: FaceSearch,
    device: Device,
    say: &Reporter,
) -> Result<(Arc<dyn Dataset>, Option<Framing>)> {
    let viewer = Viewer::new(trunk, detect, DetectOptions::default(), device)?;
    let Some(crop) = viewer.crop().filter(|_| dataset.identities().len() > 1) else {
        return Ok((dataset, None));
    };
    let all = dataset.len();
    if detect == FaceSearch::Auto {
        let sample: Vec<usize> = spread(all, SAMPLE).collect();
        let seen = locate(&viewer, &dataset, &sample, "sample", say)?;
        if !shows_photos(&seen, say) {
            return Ok((dataset, None));
        }
    }
    let numbers: Vec<usize> = (0..all).collect();
    let located = locate(&viewer, &dataset, &numbers, "faces", say)?;
    let main = MainFaces::new(dataset, located, crop)?;
    main.report(say);
    Ok((Arc::new(main), viewer.faces_framing()))
}

/// Whether enough pictures of a sample look like photos.
fn shows_photos(sample: &[Option<Located>], say: &Reporter) -> bool {
    let share = |which: fn(&Located) -> bool| {
        let found = sample.iter().flatten().filter(|located| which(located)).count();
        (found, found as f64 / sample.len().max(1) as f64)
    };
    let (photos, of_photos) = share(|located| matches!(located, Located::Face(_)));
    let (_, of_faces) = share(|located| *located != Located::Nowhere);
    let are_photos = of_photos > PHOTOS && of_faces >= FACES;
    if photos > 1 && !are_photos {
        say.line(&format!(
            "note: {photos} of {} looked at could be whole photos: too few of them for a search, so all \
             are used as they are; --detect always cuts the face out of each",
            count(sample.len(), "picture")
        ));
    }
    are_photos
}

/// Where the main face of some pictures of a data set is; `None` for what cannot be read.
fn locate(
    viewer: &Viewer,
    dataset: &Arc<dyn Dataset>,
    numbers: &[usize],
    title: &str,
    say: &Reporter,
) -> Result<Vec<Option<Located>>> {
    let record = |&number: &usize| Some((dataset.record(number)?.path, number));
    let of_path: HashMap<PathBuf, usize> = numbers.iter().filter_map(record).collect();
    let paths: Vec<PathBuf> = numbers.iter().filter_map(record).map(|(path, _)| path).collect();
    let source = dataset.clone();
    let read = move |path: &Path| decode_bytes(path, &source.content(of_path[path])?);
    let bar = say.progress(title, numbers.len() as u64, "pictures");
    let mut located = Vec::with_capacity(numbers.len());
    for (batch, pictures) in read_files(&paths, viewer.limits(), read)? {
        let readable: Vec<&RgbImage> = pictures.iter().flatten().collect();
        let mut places = viewer.locate(&readable)?.into_iter();
        located.extend(pictures.iter().map(|picture| picture.as_ref().ok().and(places.next())));
        bar.inc(batch.len() as u64);
    }
    bar.finish();
    Ok(located)
}

/// A data set of the main faces on the pictures of another one.
#[derive(Debug)]
struct MainFaces {
    photos: Arc<dyn Dataset>,
    /// The numbers of the pictures with a face.
    used: Vec<usize>,
    /// The face of each of them; `None` for a picture that is used as it is.
    faces: Vec<Option<Face>>,
    crop: Crop,
    /// Number of pictures that were searched and are used as they are.
    whole: usize,
    /// Pictures without a face.
    left_out: Vec<PathBuf>,
}

impl MainFaces {
    /// Of the place of the face on each picture. What cannot be read stays, for its own message.
    fn new(photos: Arc<dyn Dataset>, located: Vec<Option<Located>>, crop: Crop) -> Result<Self> {
        let (mut used, mut faces, mut left) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut whole, mut left_out) = (0, Vec::new());
        for (number, place) in located.into_iter().enumerate() {
            let Some(record) = photos.record(number) else { break };
            whole += usize::from(place == Some(Located::Whole));
            let face = match place {
                Some(Located::Nowhere) => {
                    left_out.push(record.path);
                    continue;
                }
                Some(Located::Face(face)) => Some(face),
                Some(Located::Whole) | None => None,
            };
            left.insert(record.identity);
            used.push(number);
            faces.push(face);
        }
        if left.len() < 2 {
            return Err(Error::Data(format!(
                "{}: a face is found on pictures of {} only; telling faces apart needs two or more \
                 (with --detect never, pictures are used as they are)",
                photos.root().display(),
                people(left.len())
            )));
        }
        Ok(Self { photos, used, faces, crop, whole, left_out })
    }

    fn report(&self, say: &Reporter) {
        let all = self.photos.len();
        let cut = self.faces.iter().flatten().count();
        say.line(&format!(
            "faces: cut out of {cut} of {}, {} used as they are (with --detect never, all are)",
            count(all, "picture"),
            self.whole
        ));
        if !self.left_out.is_empty() {
            let names: Vec<_> = self.left_out.iter().map(|path| path.to_string_lossy()).collect();
            let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
            say.warn(&format!(
                "no face found on {} of {}: left out of training and validation ({}); with \
                 --detect never, pictures are used as they are",
                names.len(),
                count(all, "picture"),
                enumerate(&names)
            ));
        }
    }
}

impl Dataset for MainFaces {
    fn root(&self) -> &Path {
        self.photos.root()
    }

    fn identities(&self) -> &[String] {
        self.photos.identities()
    }

    fn len(&self) -> usize {
        self.used.len()
    }

    fn record(&self, number: usize) -> Option<Record> {
        self.photos.record(*self.used.get(number)?)
    }

    fn notes(&self) -> &[String] {
        self.photos.notes()
    }

    fn content(&self, number: usize) -> Result<Cow<'_, [u8]>> {
        self.photos.content(self.used.get(number).copied().unwrap_or(usize::MAX))
    }

    fn part(&self, number: usize, picture: RgbImage) -> RgbImage {
        let face = self.faces.get(number).and_then(Option::as_ref);
        face.and_then(|face| self.crop.cut(&picture, face)).unwrap_or(picture)
    }
}

/// At most `most` of the numbers below `all`, evenly spaced.
pub fn spread(all: usize, most: usize) -> impl Iterator<Item = usize> {
    let some = all.min(most);
    (0..some).map(move |k| k * all / some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FaceFolder;
    use crate::data::dataset::FileList;
    use crate::data::store::Fitting;
    use crate::detect::Template;

    const FACE: Face = Face {
        bounds: [20.0, 20.0, 60.0, 60.0],
        probability: 1.0,
        landmarks: [[30.0, 32.0], [50.0, 32.0], [40.0, 42.0], [32.0, 50.0], [48.0, 50.0]],
    };

    #[test]
    fn a_sample_is_spread_evenly_and_never_twice() {
        assert_eq!(spread(3, 200).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(spread(0, 4).count(), 0);
    }

    #[test]
    fn a_few_loose_crops_are_no_photos_and_drawings_are_none() {
        let decide = |photos: usize, crops: usize, without: usize| {
            let parts = [
                vec![Some(Located::Face(FACE)); photos],
                vec![Some(Located::Whole); crops],
                vec![Some(Located::Nowhere); without],
            ];
            shows_photos(&parts.concat(), &Reporter::hidden())
        };
        assert!(decide(38, 1, 1) && decide(5, 35, 0) && decide(20, 0, 20));
        assert!(!decide(4, 36, 0) && !decide(0, 40, 0) && !decide(19, 0, 21) && !decide(0, 0, 0));
    }

    /// Three pictures of two people each.
    fn photos(root: &Path) -> Arc<dyn Dataset> {
        let mut records = Vec::new();
        for number in 0..6_u8 {
            let path = root.join(format!("{number}.png"));
            let shade = |x, y| image::Rgb([(3 * x) as u8, (2 * y) as u8, 40 * number]);
            RgbImage::from_fn(80, 90, shade).save(&path).unwrap();
            records.push(Record { path, identity: usize::from(number / 3), part: None });
        }
        let identities = ["ada", "bohr"].map(String::from).to_vec();
        Arc::new(FileList { root: root.into(), identities, records, notes: Vec::new() })
    }

    #[test]
    fn faces_are_cut_out_and_cut_out_again_where_they_are_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let inner = photos(root.path());
        let crop = Crop::new(Template::Openface, Some(24), 0.0).unwrap();
        let mut located = vec![Some(Located::Face(FACE)); 6];
        (located[1], located[4]) = (Some(Located::Nowhere), Some(Located::Whole));
        let main = MainFaces::new(inner.clone(), located, crop).unwrap();
        assert_eq!(main.left_out, [root.path().join("1.png")]);
        let dataset: Arc<dyn Dataset> = Arc::new(main);
        let plain = FaceFolder::decode(&inner, true, 24, &|_, _| {}).unwrap();
        let open = |memory| {
            let fitting = Fitting { side: 24, memory };
            FaceFolder::decode(&dataset, true, fitting, &|_, _| {}).unwrap()
        };
        let (kept, again) = (open(1 << 20), open(0));
        assert_eq!((kept.fitted.kept(), again.fitted.kept()), (5, 0));
        assert_eq!((kept.sizes(), kept.digest(1)), (vec![2, 3], plain.digest(2)));
        for (row, number) in [0, 2, 3, 4, 5].into_iter().enumerate() {
            let whole = plain.fitted.get(number).unwrap();
            assert_eq!(kept.fitted.get(row).unwrap(), again.fitted.get(row).unwrap());
            assert_eq!(kept.fitted.get(row).unwrap() == whole, number == 4);
        }
    }

    #[test]
    fn one_person_with_a_face_is_not_enough() {
        let root = tempfile::tempdir().unwrap();
        let mut located = vec![Some(Located::Nowhere); 6];
        located[0] = Some(Located::Face(FACE));
        let crop = Crop::new(Template::Openface, Some(24), 0.0).unwrap();
        let error = MainFaces::new(photos(root.path()), located, crop).unwrap_err().to_string();
        assert!(error.contains("of 1 person only") && error.contains("--detect never"), "{error}");
    }
}
