//! Finds the faces on pictures as a model needs them: a crop is used as it is, faces on photos are cut
//! out in the framing of the model's training pictures.

use std::cell::OnceCell;
use std::path::Path;

use image::RgbImage;
use serde::{Deserialize, Serialize};
use tch::Device;

use super::embedder::BATCH;
use super::model_file::ModelCard;
use super::pipeline::{Framed, Framer, PIXELS, Reader};
use crate::Result;
use crate::data::picture;
use crate::data::prefetch::BatchLimits;
use crate::detect::framing::cover;
use crate::detect::{
    CloseUp, Crop, DetectOptions, Detector, Face, Framing, Template, similar_faces,
};
use crate::models::Architecture;

/// When pictures are searched for faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum FaceSearch {
    /// Use face crops as they are, crop the faces from photos; where no face is found, search again
    /// with lower thresholds for one that fills the picture
    Auto,
    /// Treat every picture as a photo
    Always,
    /// Use every picture as it is
    Never,
}

/// What is known of a picture besides its embeddings.
#[derive(Debug, Clone)]
pub struct View {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// The picture was used as it is.
    pub is_crop: bool,
    /// Its faces, the largest first: one of a crop (none where it was not searched), perhaps none of a
    /// photo. None, too, where [`Faces::MainOrWhole`] took the whole picture.
    pub faces: Vec<Option<Face>>,
    /// The picture, where it is kept for drawing.
    pub picture: Option<RgbImage>,
}

/// Which faces of a searched picture are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faces {
    /// All of them.
    All,
    /// The one of the greatest [`Face::prominence`], if there is one.
    Main,
    /// The main one, or the whole picture where no face was found.
    MainOrWhole,
}

/// Where the main face of a picture is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Located {
    /// It fills the picture, or the picture is not searched.
    Whole,
    /// On a photo.
    Face(Face),
    /// No face is found.
    Nowhere,
}

/// Looks at pictures for one model.
#[derive(Debug)]
pub struct Viewer {
    side: u32,
    framing: Search,
    /// Which faces are used.
    pub wanted: Faces,
    /// Pictures are kept for drawing.
    pub keeps_pictures: bool,
}

/// Which part of a picture is a face.
#[derive(Debug)]
enum Search {
    /// The whole picture.
    Whole,
    /// The central square of this many pixels.
    Centre(u32),
    /// What a detector finds.
    Faces(Box<FaceFinder>),
}

#[derive(Debug)]
struct FaceFinder {
    detector: Detector,
    crop: Crop,
    /// Pictures may be crops: the cover from which on they are, and the second search, which few
    /// pictures need and none pays for before.
    auto: Option<(f64, OnceCell<CloseUp>)>,
    device: Device,
}

impl Viewer {
    /// Pictures as they are, or their central squares of `centre` pixels; resized to `side`.
    pub fn whole(side: u32, centre: Option<u32>) -> Self {
        let framing = centre.map_or(Search::Whole, Search::Centre);
        Self { side, framing, wanted: Faces::All, keeps_pictures: false }
    }

    /// For the model of that card, with the detector's options; the detector is loaded only where
    /// pictures are searched.
    ///
    /// Faces are cut out as in the model's training pictures. A model that does not know how those
    /// held a face uses its trunk's own [`Template`]; where they showed no faces, `auto` searches for
    /// none.
    ///
    /// # Errors
    /// Impossible options.
    pub fn new(
        card: &ModelCard,
        when: FaceSearch,
        options: DetectOptions,
        device: Device,
    ) -> Result<Self> {
        let side = card.input.size;
        options.validate()?;
        if when == FaceSearch::Never
            || (when == FaceSearch::Auto && card.framing == Some(Framing::None))
        {
            return Ok(Self::whole(side, None));
        }
        let (crop, tolerance) = match card.framing {
            Some(Framing::Face { landmarks, tolerance }) => (Crop::at(&landmarks, side), tolerance),
            Some(Framing::Box) => {
                (Crop::new(Template::Facenet, Some(side), 0.0)?, Framing::TOLERANCE)
            }
            Some(Framing::None) | None => {
                let template = match card.architecture {
                    Architecture::FaceNet => Template::Facenet,
                    Architecture::DlibResnet => Template::Dlib,
                    Architecture::IResNet18
                    | Architecture::IResNet34
                    | Architecture::IResNet50
                    | Architecture::IResNet100
                    | Architecture::MobileFaceNet => Template::Arcface,
                    _ => Template::Openface,
                };
                (Crop::new(template, Some(side), 0.0)?, Framing::TOLERANCE)
            }
        };
        let auto = match when {
            FaceSearch::Auto => Some((tolerance, OnceCell::new())),
            FaceSearch::Always | FaceSearch::Never => None,
        };
        let detector = Detector::new(device, options)?;
        let framing = Search::Faces(Box::new(FaceFinder { detector, crop, auto, device }));
        Ok(Self { side, framing, wanted: Faces::All, keeps_pictures: false })
    }

    /// The side of the faces in pixels.
    pub fn side(&self) -> u32 {
        self.side
    }

    /// The faces on a picture in memory, squares of the trunk's input size, the largest first.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn faces(&self, picture: &RgbImage) -> Result<Vec<RgbImage>> {
        let found = match &self.framing {
            Search::Whole => return Ok(vec![picture::fit(picture, self.side)]),
            Search::Centre(centre) => {
                let square = picture::centre_crop(picture, *centre);
                return Ok(vec![picture::fit(&square, self.side)]);
            }
            Search::Faces(finder) => finder.find(&[picture], self.side, self.wanted)?,
        };
        Ok(found.into_iter().flat_map(|(_, faces)| faces).map(|(_, pixels)| pixels).collect())
    }

    /// A face that another viewer found on a picture, in this one's framing; the whole picture if there
    /// is none or it fills the picture. `None` if its landmarks coincide.
    pub fn same_face(&self, picture: &RgbImage, face: Option<&Face>) -> Option<RgbImage> {
        match (&self.framing, face) {
            (Search::Faces(finder), Some(face)) => match finder.fills(picture, face) {
                true => Some(picture::fit(picture, self.side)),
                false => finder.crop.cut(picture, face),
            },
            (Search::Centre(centre), _) => {
                Some(picture::fit(&picture::centre_crop(picture, *centre), self.side))
            }
            (Search::Whole | Search::Faces(_), _) => Some(picture::fit(picture, self.side)),
        }
    }

    /// What this viewer needs of a decoded picture, made on any thread; for [`Framer::frame`].
    pub fn preparer(&self) -> impl Fn(RgbImage) -> Decoded + Send + Sync + use<> {
        let (side, keep) = (self.side, self.keeps_pictures);
        let (search, centre) = match self.framing {
            Search::Whole => (false, None),
            Search::Centre(centre) => (false, Some(centre)),
            Search::Faces(_) => (true, None),
        };
        move |picture: RgbImage| {
            let square = centre.map(|side| picture::centre_crop(&picture, side));
            let fitted = || picture::fit(square.as_ref().unwrap_or(&picture), side);
            let face = (!search).then(fitted);
            let size = picture.dimensions();
            Decoded { size, picture: (search || keep).then_some(picture), face }
        }
    }

    /// Where the main face of each picture is.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn locate(&self, pictures: &[&RgbImage]) -> Result<Vec<Located>> {
        let Search::Faces(finder) = &self.framing else {
            return Ok(vec![Located::Whole; pictures.len()]);
        };
        let place = |(picture, (is_crop, faces)): (&&RgbImage, (bool, Vec<Face>))| {
            let cut = |face: Face| finder.crop.region(&face);
            let main = Faces::Main.select(faces, picture.dimensions(), cut, Default::default);
            match main.first() {
                _ if is_crop => Located::Whole,
                Some(&(Some(face), _)) => Located::Face(face),
                _ => Located::Nowhere,
            }
        };
        Ok(pictures.iter().zip(finder.search(pictures)?).map(place).collect())
    }

    /// How faces are cut out; `None` where pictures are not searched.
    pub fn crop(&self) -> Option<Crop> {
        match &self.framing {
            Search::Faces(finder) => Some(finder.crop),
            Search::Whole | Search::Centre(_) => None,
        }
    }

    /// How the faces are cut out, for the card of a model that was trained on them; `None` where
    /// pictures are used whole.
    pub fn faces_framing(&self) -> Option<Framing> {
        let Search::Faces(finder) = &self.framing else { return None };
        let tolerance =
            finder.auto.as_ref().map_or(Framing::TOLERANCE, |(tolerance, _)| *tolerance);
        Some(match finder.crop.places() {
            Some(landmarks) => Framing::Face { landmarks, tolerance },
            None => Framing::Box,
        })
    }
}

impl Faces {
    /// Cuts out the faces that are used, of a picture of that size; `whole` is the picture itself.
    fn select<T>(
        self,
        mut faces: Vec<Face>,
        size: (u32, u32),
        cut: impl Fn(Face) -> Option<T>,
        whole: impl FnOnce() -> T,
    ) -> Vec<(Option<Face>, T)> {
        let most = match self {
            Self::All => usize::MAX,
            Self::Main | Self::MainOrWhole => {
                let weight = |face: &Face| face.prominence(size);
                faces.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
                1
            }
        };
        let part = |face| Some((Some(face), cut(face)?));
        let mut parts: Vec<_> = faces.into_iter().filter_map(part).take(most).collect();
        if parts.is_empty() && self == Self::MainOrWhole {
            parts.push((None, whole()));
        }
        parts
    }
}

/// A decoded picture.
#[derive(Debug)]
pub struct Decoded {
    size: (u32, u32),
    /// The whole picture, where it is searched or kept.
    picture: Option<RgbImage>,
    /// The face, where no search is needed.
    face: Option<RgbImage>,
}

impl Framer for Viewer {
    type Read = Decoded;
    type Info = View;

    fn reader(&self) -> Reader<Decoded> {
        let prepare = self.preparer();
        Box::new(move |path: &Path| picture::decode(path).map(&prepare))
    }

    fn limits(&self) -> BatchLimits {
        match self.framing {
            // No batch waits: one is searched while the next is decoded.
            Search::Faces(_) => BatchLimits { files: 16, pixels: PIXELS, waiting: 0 },
            Search::Whole | Search::Centre(_) => {
                BatchLimits { files: BATCH, pixels: PIXELS, waiting: 2 }
            }
        }
    }

    fn frame(&self, pictures: Vec<Decoded>) -> Result<Vec<Framed<View>>> {
        let found = match &self.framing {
            Search::Faces(finder) => {
                let whole = pictures.iter().filter_map(|decoded| decoded.picture.as_ref());
                finder.find(&whole.collect::<Vec<_>>(), self.side, self.wanted)?
            }
            Search::Whole | Search::Centre(_) => Vec::new(),
        };
        let mut found = found.into_iter();
        let framed = pictures.into_iter().map(|Decoded { size, picture, face }| {
            let (is_crop, parts) = match face {
                Some(face) => (true, vec![(None, face)]),
                None => found.next().unwrap_or_default(),
            };
            let picture = picture.filter(|_| self.keeps_pictures);
            let pixels = picture.as_ref().map_or(0, |_| u64::from(size.0) * u64::from(size.1));
            let (places, faces) = parts.into_iter().unzip();
            Framed { info: View { size, is_crop, faces: places, picture }, faces, pixels }
        });
        Ok(framed.collect())
    }
}

/// The faces of a picture, where each was found and its pixels, and whether the picture is a crop.
type Found = (bool, Vec<(Option<Face>, RgbImage)>);

impl FaceFinder {
    /// The picture may be a crop, and this face fills it as one.
    fn fills(&self, picture: &RgbImage, face: &Face) -> bool {
        let is_covered =
            |(tolerance, _): &(f64, _)| cover(&self.crop, picture.dimensions(), face) >= *tolerance;
        self.auto.as_ref().is_some_and(is_covered)
    }

    /// The faces on pictures of any sizes, the largest first, and whether each picture is a crop.
    fn search(&self, pictures: &[&RgbImage]) -> Result<Vec<(bool, Vec<Face>)>> {
        let Self { detector, auto, device, .. } = self;
        let mut found = detector.detect(pictures)?;
        let mut is_crop = vec![false; pictures.len()];
        if let Some((_, close_up)) = auto {
            let missed: Vec<usize> =
                (0..pictures.len()).filter(|&index| found[index].is_empty()).collect();
            let closer: Vec<&RgbImage> = missed.iter().map(|&index| pictures[index]).collect();
            if !missed.is_empty() && close_up.get().is_none() {
                let _ = close_up.set(CloseUp::new(*device)?);
            }
            let closer = close_up.get().map(|close_up| close_up.detect(&closer)).transpose()?;
            for (index, faces) in missed.into_iter().zip(closer.unwrap_or_default()) {
                // With low thresholds much looks like a face; one counts where one is expected.
                found[index]
                    .extend(faces.into_iter().find(|face| self.fills(pictures[index], face)));
            }
            for ((is_crop, picture), faces) in is_crop.iter_mut().zip(pictures).zip(&found) {
                // Two people side by side are a photo, however near.
                *is_crop = similar_faces(faces) == 1
                    && faces.first().is_some_and(|face| self.fills(picture, face));
            }
        }
        Ok(is_crop.into_iter().zip(found).collect())
    }

    /// The wanted faces on pictures of any sizes, as squares of `side` pixels.
    fn find(&self, pictures: &[&RgbImage], side: u32, wanted: Faces) -> Result<Vec<Found>> {
        let crop = &self.crop;
        let cut = pictures.iter().zip(self.search(pictures)?).map(|(picture, (is_crop, faces))| {
            if is_crop {
                return (true, vec![(faces.first().copied(), picture::fit(picture, side))]);
            }
            let whole = || picture::fit(picture, side);
            (
                false,
                wanted.select(faces, picture.dimensions(), |face| crop.cut(picture, &face), whole),
            )
        });
        Ok(cut.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model_file::ModelKind;
    use super::*;
    use crate::models::{Backbone, BuildOptions};

    #[test]
    fn a_card_tells_how_faces_were_cut_out() {
        let options = BuildOptions::default();
        let trunk = Backbone::build(Architecture::OpenFace, Device::Cpu, &options).unwrap();
        for architecture in [Architecture::OpenFace, Architecture::FaceNet] {
            let mut card = ModelCard::new(ModelKind::Trunk, &trunk, String::new());
            card.architecture = architecture;
            let viewer = |card: &ModelCard| {
                let options = DetectOptions::default();
                Viewer::new(card, FaceSearch::Auto, options, Device::Cpu).unwrap()
            };
            let before = viewer(&card);
            card.framing = before.faces_framing();
            assert_eq!(card.framing == Some(Framing::Box), architecture == Architecture::FaceNet);
            let after = viewer(&card);
            assert_eq!(after.faces_framing(), card.framing);
            let face = Face { bounds: [9.0, 8.0, 70.0, 90.0], probability: 1.0, landmarks: EYES };
            let photo = RgbImage::from_fn(120, 120, |x, y| image::Rgb([x as u8, y as u8, 7]));
            assert_eq!(before.same_face(&photo, Some(&face)), after.same_face(&photo, Some(&face)));
        }
    }

    const EYES: [[f32; 2]; 5] =
        [[30.0, 40.0], [60.0, 40.0], [45.0, 55.0], [33.0, 70.0], [57.0, 70.0]];

    #[test]
    fn the_main_face_is_large_and_central() {
        let face = |x: f32, y: f32, side: f32| {
            let bounds = [x, y, x + side, y + side];
            Face { bounds, probability: 1.0, landmarks: [[0.0; 2]; 5] }
        };
        // At the edge and larger; in the middle; in the middle and small.
        let faces = [face(-10.0, 0.0, 60.0), face(75.0, 70.0, 50.0), face(95.0, 95.0, 10.0)];
        let shade = |face: Face| faces.iter().position(|other| *other == face);
        let cut = |face| Some(RgbImage::from_pixel(1, 1, image::Rgb([shade(face)? as u8; 3])));
        let select = |wanted: Faces, faces: &[Face]| {
            wanted.select(faces.to_vec(), (200, 200), cut, || RgbImage::new(8, 8))
        };
        let sizes = |wanted, faces| {
            let parts = select(wanted, faces);
            parts.iter().map(|part| (part.0.is_some(), part.1.dimensions())).collect::<Vec<_>>()
        };
        assert_eq!(select(Faces::All, &faces).len(), 3);
        assert_eq!(sizes(Faces::Main, &faces), [(true, (1, 1))]);
        assert_eq!(sizes(Faces::Main, &[]), []);
        assert_eq!(sizes(Faces::MainOrWhole, &[]), [(false, (8, 8))]);
        assert_eq!(select(Faces::Main, &faces)[0].1.get_pixel(0, 0).0, [1; 3]);
    }
}
