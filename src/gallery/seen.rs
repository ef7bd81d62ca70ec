//! The faces that were found on a picture, as a gallery takes them.

use std::path::Path;

use super::{Gallery, NewFace, Sighting};
use crate::data::picture;
use crate::detect::align::face_with_margin;
use crate::detect::{Face, sharpness, similar_faces};
use crate::eval::Embeddings;
use crate::recognise::View;
use crate::recognise::reply::{Answered, Seen, bounds};
use crate::{Error, Result};

/// The side of a thumbnail in pixels; sharpness is measured at this size, too.
const THUMBNAIL: u32 = 96;
/// The margin around the box of a face on it, in its pixels.
const MARGIN: f32 = 16.0;

/// The one face on a picture, with the SHA-256 of its file; sharpness and thumbnail need the picture in
/// `view`.
///
/// # Errors
/// There is no face, or there are several of about the same size; `sha256` fails.
pub fn one_face(
    path: &Path,
    sha256: impl FnOnce() -> Result<String>,
    view: &View,
    rows: &Embeddings,
    thumbnails: bool,
) -> Result<NewFace> {
    let fail = |what: String| Err(Error::Data(format!("{}: {what}", path.display())));
    let found: Vec<Face> = view.faces.iter().flatten().copied().collect();
    if rows.rows() == 0 {
        return fail("no face found; with --detect never the picture is used as it is".into());
    }
    let rivals = similar_faces(&found);
    if rivals > 1 {
        return fail(format!("{rivals} faces of about the same size; cut out the one to enrol"));
    }
    let face = view.faces.first().copied().flatten();
    let bounds = bounds(face.as_ref(), view.size);
    let crop = view.picture.as_ref().map(|picture| match face {
        Some(_) => face_with_margin(picture, bounds, THUMBNAIL, MARGIN),
        None => picture::fit(picture, THUMBNAIL),
    });
    let thumbnail = match &crop {
        Some(crop) if thumbnails => {
            let mut png = std::io::Cursor::new(Vec::new());
            crop.write_to(&mut png, image::ImageFormat::Png)
                .map_err(|error| Error::Data(format!("{}: {error}", path.display())))?;
            Some(png.into_inner())
        }
        _ => None,
    };
    Ok(NewFace {
        path: path.to_string_lossy().into_owned(),
        sha256: sha256()?,
        bounds,
        detection: face.map(|face| face.probability),
        sharpness: crop.as_ref().map(sharpness),
        thumbnail,
        embedding: rows.row(0).to_vec(),
    })
}

impl Gallery {
    /// Remembers the faces of a picture that got no name, and notes in `faces` as whom.
    ///
    /// # Errors
    /// The file cannot be written; `sha256` fails.
    pub fn remember_strangers(
        &mut self,
        path: &Path,
        sha256: impl FnOnce() -> Result<String>,
        view: &View,
        rows: &Embeddings,
        faces: &mut [Answered],
    ) -> Result<()> {
        let unknown: Vec<usize> =
            (0..faces.len()).filter(|&face| !faces[face].answer.is_known).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let sha256 = sha256()?;
        let new = unknown.iter().map(|&at| NewFace {
            path: path.to_string_lossy().into_owned(),
            sha256: sha256.clone(),
            bounds: bounds(faces[at].face.as_ref(), view.size),
            detection: faces[at].face.map(|face| face.probability),
            sharpness: None,
            thumbnail: None,
            embedding: rows.row(at).to_vec(),
        });
        let sightings = self.remember(&new.collect::<Vec<_>>())?;
        for (at, Sighting { group, is_new }) in unknown.into_iter().zip(sightings) {
            let (pictures, first_seen) = (group.faces, group.first_seen);
            faces[at].seen = Some(Seen { id: group.id, pictures, first_seen, is_new });
        }
        Ok(())
    }
}
