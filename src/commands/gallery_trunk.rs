//! What the `gallery` commands share: the gallery's trunk, and the one face on each picture.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::context::Context;
use super::detection;
use super::inputs::embed;
use super::strangers::embed_strangers;
use super::trunk::{self, EMBEDDERS, Loaded};
use crate::cli::{GalleryFaces, GalleryThreshold, TrunkChoice};
use crate::detect::DetectOptions;
use crate::gallery::{Gallery, GalleryTrunk, NewFace, TrunkSource, one_face};
use crate::models::Backbone;
use crate::recognise::{FaceSearch, Viewer};
use crate::weights::Source;
use crate::{Error, Result};

/// The trunk of a gallery, ready to embed.
pub struct Embedding {
    pub backbone: Backbone,
    pub viewer: Viewer,
    pub trunk: GalleryTrunk,
}

/// Loads the trunk of the flags, or else the gallery's, or for a new one the default.
///
/// # Errors
/// It cannot be loaded. Whether it is the gallery's own is for [`Gallery::use_trunk`] to say.
pub fn load_trunk(
    context: &Context,
    gallery: &Gallery,
    choice: &TrunkChoice,
) -> Result<(Loaded, TrunkSource)> {
    let choice = match (choice.is_default(), gallery.trunk()) {
        (false, _) => choice.clone(),
        (true, None) => choice.pretrained(trunk::DEFAULT),
        (true, Some(own)) => TrunkChoice {
            model: own.source.model.as_ref().map(PathBuf::from),
            backbone: own.source.model.is_none().then_some(own.architecture),
            weights: own.source.weights.clone(),
            allow_missing: own.source.allow_missing.clone(),
            input_size: own.source.input_size,
        },
    };
    let loaded = trunk::open(context, &choice, EMBEDDERS)?;
    // A file is found again from any folder.
    let absolute = |path: &Path| {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
    };
    let TrunkChoice { allow_missing, input_size, .. } = choice;
    let source = match &loaded {
        Loaded::Model { path, .. } | Loaded::Pairs { path, .. } => {
            TrunkSource { model: Some(absolute(path)), ..TrunkSource::default() }
        }
        Loaded::Bare(built) => {
            let weights = match &built.source {
                Source::File(path) => absolute(path),
                known => known.flag(),
            };
            TrunkSource { model: None, weights: Some(weights), allow_missing, input_size }
        }
    };
    Ok((loaded, source))
}

/// The trunk and what finds the faces for it.
///
/// # Errors
/// As [`load_trunk`], or impossible options of the detector.
pub fn embedding(
    context: &Context,
    gallery: &Gallery,
    choice: &TrunkChoice,
    detect: FaceSearch,
    options: DetectOptions,
) -> Result<Embedding> {
    let (loaded, source) = load_trunk(context, gallery, choice)?;
    let viewer = Viewer::new(&loaded.card(), detect, options, context.device()?)?;
    let backbone = loaded.into_trunk()?.backbone;
    let trunk = GalleryTrunk::of(&backbone, source)?;
    Ok(Embedding { backbone, viewer, trunk })
}

/// Opens a gallery that there is, with its trunk, for the faces on pictures.
///
/// # Errors
/// There is none, nobody is enrolled, or the trunk is not its own or cannot be loaded.
pub fn open(context: &Context, flags: &GalleryFaces) -> Result<(Gallery, Embedding)> {
    let mut gallery = Gallery::open_existing(&flags.db.db)?;
    if gallery.trunk().is_none() {
        let text = format!("--db {}: nobody is enrolled", flags.db.db.display());
        return Err(Error::Config(text));
    }
    let parts = of_flags(context, &gallery, flags)?;
    gallery.use_trunk(parts.trunk.clone(), None)?;
    Ok((gallery, parts))
}

/// [`embedding`] as the flags say.
///
/// # Errors
/// As [`embedding`].
pub fn of_flags(context: &Context, gallery: &Gallery, flags: &GalleryFaces) -> Result<Embedding> {
    let GalleryFaces { face, detector, trunk, .. } = flags;
    embedding(context, gallery, trunk, face.detect, detection::options(detector)?)
}

/// Gives a gallery its trunk, and the threshold's flags.
///
/// # Errors
/// It has another trunk, or the rate cannot be promised.
pub fn set_up(
    context: &Context,
    gallery: &mut Gallery,
    flags: &GalleryThreshold,
    parts: &Embedding,
) -> anyhow::Result<()> {
    let Embedding { backbone, viewer, trunk } = parts;
    let strangers = match &flags.strangers {
        Some(folder) => {
            let names: Vec<String> =
                gallery.list()?.into_iter().map(|person| person.name).collect();
            Some(embed_strangers(backbone, viewer, folder, &names, &context.say)?)
        }
        None => None,
    };
    gallery.use_trunk(trunk.clone(), strangers.as_ref())?;
    if let Some(percent) = flags.fpir {
        gallery.set_fpir(Some(percent / 100.0))?;
    }
    Ok(())
}

/// Embeds the one face on each of `files`; `each` learns why there is none, or that there are several.
///
/// # Errors
/// What `each` or libtorch raises.
pub fn single_faces(
    context: &Context,
    parts: Embedding,
    files: &[PathBuf],
    thumbnails: bool,
    mut each: impl FnMut(&Path, Result<NewFace>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Embedding { backbone, mut viewer, .. } = parts;
    viewer.keeps_pictures = true;
    embed(&backbone, &viewer, files, &context.say, |path, seen| {
        let face =
            seen.and_then(|(view, rows)| one_face(path, || sha256(path), &view, &rows, thumbnails));
        each(path, face)
    })
}

/// SHA-256 of a file, hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let content = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    Ok(hex::encode(Sha256::digest(content)))
}
