//! Finds the faces on pictures as a model needs them: a crop is used as it is, faces on photos are cut
//! out in the framing of the model's training pictures.

use std::cell::OnceCell;
use std::path::Path;

use image::RgbImage;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum FaceSearch {
    /// A picture that is a crop already is taken as it is, the faces of all others are cut out. Where
    /// nothing is found, a closer look with lower thresholds decides whether a face fills the picture
    Auto,
    /// Every picture is a photo
    Always,
    /// Every picture is a crop; nothing is searched
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
    /// photo.
    pub faces: Vec<Option<Face>>,
    /// The picture, where it is kept for drawing.
    pub picture: Option<RgbImage>,
}

/// Looks at pictures for one model.
#[derive(Debug)]
pub struct Viewer {
    side: u32,
    framing: Search,
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
        Self { side, framing, keeps_pictures: false }
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
            Some(Framing::None) | None => {
                let template = match card.architecture {
                    Architecture::FaceNet => Template::Facenet,
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
        Ok(Self { side, framing, keeps_pictures: false })
    }
}

impl Viewer {
    /// The faces on a picture in memory, squares of the trunk's input size, the largest first.
    ///
    /// # Errors
    /// What libtorch raises.
    pub fn faces(&self, picture: &RgbImage) -> Result<Vec<RgbImage>> {
        let found = match &self.framing {
            Search::Whole => return Ok(vec![picture::fit(picture, self.side)]),
            Search::Centre(centre) => {
                let square = picture::centre_crop(picture, *centre);
                return Ok(vec![picture::fit(&square, self.side)]);
            }
            Search::Faces(finder) => finder.find(&[picture], self.side)?,
        };
        Ok(found.into_iter().flat_map(|(_, faces)| faces).map(|(_, pixels)| pixels).collect())
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
        let (side, keep) = (self.side, self.keeps_pictures);
        let (search, centre) = match self.framing {
            Search::Whole => (false, None),
            Search::Centre(centre) => (false, Some(centre)),
            Search::Faces(_) => (true, None),
        };
        Box::new(move |path: &Path| {
            let picture = picture::decode(path)?;
            let square = centre.map(|side| picture::centre_crop(&picture, side));
            let fitted = || picture::fit(square.as_ref().unwrap_or(&picture), side);
            let face = (!search).then(fitted);
            let size = picture.dimensions();
            Ok(Decoded { size, picture: (search || keep).then_some(picture), face })
        })
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
                finder.find(&whole.collect::<Vec<_>>(), self.side)?
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
    /// The faces on pictures of any sizes, as squares of `side` pixels.
    fn find(&self, pictures: &[&RgbImage], side: u32) -> Result<Vec<Found>> {
        let Self { detector, crop, auto, device } = self;
        let mut found = detector.detect(pictures)?;
        let mut is_crop = vec![false; pictures.len()];
        if let Some((tolerance, close_up)) = auto {
            let fills = |picture: &RgbImage, face: &Face| {
                cover(crop, picture.dimensions(), face) >= *tolerance
            };
            let missed: Vec<usize> =
                (0..pictures.len()).filter(|&index| found[index].is_empty()).collect();
            let closer: Vec<&RgbImage> = missed.iter().map(|&index| pictures[index]).collect();
            if !missed.is_empty() && close_up.get().is_none() {
                let _ = close_up.set(CloseUp::new(*device)?);
            }
            let closer = close_up.get().map(|close_up| close_up.detect(&closer)).transpose()?;
            for (index, faces) in missed.into_iter().zip(closer.unwrap_or_default()) {
                // With low thresholds much looks like a face; one counts where one is expected.
                found[index].extend(faces.into_iter().find(|face| fills(pictures[index], face)));
            }
            for ((is_crop, picture), faces) in is_crop.iter_mut().zip(pictures).zip(&found) {
                // Two people side by side are a photo, however near.
                *is_crop = similar_faces(faces) == 1
                    && faces.first().is_some_and(|face| fills(picture, face));
            }
        }
        let pictures = pictures.iter().zip(found).zip(is_crop);
        let cut = pictures.map(|((picture, faces), is_crop)| {
            if is_crop {
                return (true, vec![(faces.first().copied(), picture::fit(picture, side))]);
            }
            let part = |face: Face| Some((Some(face), crop.cut(picture, &face)?));
            (false, faces.into_iter().filter_map(part).collect())
        });
        Ok(cut.collect())
    }
}
