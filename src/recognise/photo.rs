//! From any picture to the fitted faces that a model names: a crop as it is, the faces of a photo cut
//! out as the model knows faces.

use std::cell::OnceCell;

use image::RgbImage;
use tch::Device;

use super::model_file::ModelCard;
use crate::Result;
use crate::data::picture;
use crate::detect::framing::cover;
use crate::detect::{
    CloseUp, Crop, DetectOptions, Detector, Face, Framing, Template, similar_faces,
};
use crate::models::Architecture;

/// When pictures are searched for faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FaceSearch {
    /// A picture that is a crop already is taken as it is, the faces of all others are cut out. Where
    /// nothing is found, a closer look with lower thresholds decides whether a face fills the picture
    Auto,
    /// Every picture is a photo
    Always,
    /// Every picture is a crop; nothing is searched
    Never,
}

/// A face as a model takes it.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it was found; none in a crop that was not searched.
    pub face: Option<Face>,
    /// Its pixels, a square of the model's input size.
    pub pixels: RgbImage,
}

/// What there is on a picture.
#[derive(Debug, Clone)]
pub struct View {
    /// The picture is taken as it is.
    pub is_crop: bool,
    /// Its faces, the largest first; one of a crop, perhaps none of a photo.
    pub parts: Vec<Part>,
}

/// Looks at pictures for one model.
#[derive(Debug)]
pub struct Viewer {
    side: u32,
    search: Option<Search>,
}

#[derive(Debug)]
struct Search {
    detector: Detector,
    crop: Crop,
    /// Pictures may be crops: the cover from which on they are, and the second search, which few
    /// pictures need and none pays for before.
    auto: Option<(f64, OnceCell<CloseUp>)>,
    device: Device,
}

impl Viewer {
    /// For the model of that card, with the detector's options; the detector is loaded only where
    /// pictures are searched.
    ///
    /// Faces are cut out as in the model's training pictures. A model that does not know how those
    /// held a face is given its trunk's own [`Template`]; where they showed no faces, `auto` searches
    /// for none.
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
            return Ok(Self { side, search: None });
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
        Ok(Self { side, search: Some(Search { detector, crop, auto, device }) })
    }

    /// What there is on pictures of any sizes.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn view(&self, pictures: &[&RgbImage]) -> Result<Vec<View>> {
        let whole = |picture: &RgbImage, face: Option<Face>| View {
            is_crop: true,
            parts: vec![Part { face, pixels: picture::fit(picture, self.side) }],
        };
        let Some(Search { detector, crop, auto, device }) = &self.search else {
            return Ok(pictures.iter().map(|picture| whole(picture, None)).collect());
        };
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
                // Looked at so closely much is a face; it counts where one is to be expected.
                found[index].extend(faces.into_iter().find(|face| fills(pictures[index], face)));
            }
            for ((is_crop, picture), faces) in is_crop.iter_mut().zip(pictures).zip(&found) {
                // Two people side by side are a photo, however near.
                *is_crop = similar_faces(faces) == 1
                    && faces.first().is_some_and(|face| fills(picture, face));
            }
        }
        let views = pictures.iter().zip(found).zip(is_crop);
        Ok(views
            .map(|((picture, faces), is_crop)| {
                if is_crop {
                    return whole(picture, faces.first().copied());
                }
                let part =
                    |face: Face| Some(Part { face: Some(face), pixels: crop.cut(picture, &face)? });
                View { is_crop, parts: faces.into_iter().filter_map(part).collect() }
            })
            .collect())
    }
}
