//! The main face of each of many pictures, kept in memory in the framings of several models.

use std::path::PathBuf;

use image::RgbImage;

use super::pipeline::{Framed, Framer};
use super::viewer::Viewer;
use crate::data::prefetch::read_files;
use crate::data::store::PictureStore;
use crate::{Error, Result};

/// Faces cut from pictures.
#[derive(Debug)]
pub struct FaceCuts {
    /// The pictures that gave a face, in the given order.
    pub files: Vec<PathBuf>,
    /// Their faces in the framing of each viewer.
    pub stores: Vec<PictureStore>,
    /// Number of pictures without a face.
    pub faceless: usize,
    /// Number of pictures that were used as they are, though they were searched and had no face.
    pub whole: usize,
    /// Why other pictures are missing.
    pub unreadable: Vec<Error>,
}

impl FaceCuts {
    /// Reads the pictures. The first viewer finds the faces, the `others` cut the same ones. `done` is
    /// told the number of pictures that were read.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn read(
        files: &[PathBuf],
        mut viewer: Viewer,
        others: &[Viewer],
        done: impl Fn(usize),
    ) -> Result<Self> {
        viewer.keeps_pictures = true;
        let mut faces: Vec<Vec<RgbImage>> = vec![Vec::new(); 1 + others.len()];
        let (mut kept, mut unreadable, mut faceless, mut whole) = (Vec::new(), Vec::new(), 0, 0);
        for (paths, read) in read_files(files, viewer.limits(), viewer.reader())? {
            let count = paths.len();
            let (mut names, mut pictures) = (Vec::new(), Vec::new());
            for (path, picture) in paths.into_iter().zip(read) {
                match picture {
                    Ok(picture) => {
                        names.push(path);
                        pictures.push(picture);
                    }
                    Err(error) => unreadable.push(error),
                }
            }
            for (path, Framed { info, faces: own, .. }) in
                names.into_iter().zip(viewer.frame(pictures)?)
            {
                let face = info.faces.first().copied().flatten();
                let cuts = own.into_iter().next().zip(info.picture).and_then(|(own, picture)| {
                    let same = others.iter().map(|other| other.same_face(&picture, face.as_ref()));
                    [Some(own)].into_iter().chain(same).collect::<Option<Vec<_>>>()
                });
                match cuts {
                    Some(cuts) => {
                        whole += usize::from(face.is_none() && !info.is_crop);
                        kept.push(path);
                        faces.iter_mut().zip(cuts).for_each(|(faces, cut)| faces.push(cut));
                    }
                    None => faceless += 1,
                }
            }
            done(count);
        }
        let sides = [&viewer].into_iter().chain(others).map(Viewer::side);
        let stores = faces.into_iter().zip(sides);
        let stores = stores.map(|(faces, side)| PictureStore::of(&faces, side)).collect();
        Ok(Self { files: kept, stores, faceless, whole, unreadable })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::Device;

    use super::*;
    use crate::data::picture;
    use crate::detect::DetectOptions;
    use crate::models::{Architecture, Backbone};
    use crate::recognise::{FaceSearch, ModelCard, ModelKind};

    #[test]
    fn each_model_gets_the_face_as_its_own_viewer_cuts_it() {
        let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/detect/one.png");
        let viewer = |architecture| {
            let trunk = Backbone::new(architecture, Device::Cpu);
            let card = ModelCard::new(ModelKind::Trunk, &trunk, String::new());
            let options = DetectOptions::default();
            Viewer::new(&card, FaceSearch::Always, options, Device::Cpu).unwrap()
        };
        let (teacher, student) = (Architecture::DlibResnet, Architecture::OpenFace);
        let files = [photo.clone(), "no such file.png".into()];
        let cuts = FaceCuts::read(&files, viewer(teacher), &[viewer(student)], |_| ()).unwrap();
        assert_eq!((cuts.files.as_slice(), cuts.faceless, cuts.whole), (&files[..1], 0, 0));
        assert_eq!(cuts.unreadable.len(), 1);
        let photo = picture::decode(&photo).unwrap();
        for (store, architecture) in cuts.stores.iter().zip([teacher, student]) {
            let alone = viewer(architecture).faces(&photo).unwrap();
            assert_eq!(*store.get(0).unwrap(), alone[0], "{architecture:?}");
        }
        assert_ne!(cuts.stores[0].side(), cuts.stores[1].side());
    }
}
