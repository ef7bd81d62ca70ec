//! The decoded pictures of a data set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::dataset::{Dataset, Part, missing};
use super::formats;
use super::identity_folders::has_folders;
use super::near_duplicates::PerceptualHash;
use super::picture::{decode_bytes, fit};
use super::store::{Fitting, Origin, PictureStore};
use crate::words::{count, enumerate, identities};
use crate::{Error, Result};

/// Progress callback (pictures done, total); called from several threads.
pub type Progress<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// A picture file and its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Face {
    /// Path of the file: the data folder joined with the relative path.
    pub path: PathBuf,
    /// Index into [`FaceFolder::identities`].
    pub identity: usize,
}

/// The pictures of a data set, decoded in one pass.
///
/// Sorted by identity, then by path. All vectors with one entry per picture have this order.
#[derive(Debug)]
pub struct FaceFolder {
    /// The data folder.
    pub root: PathBuf,
    /// Sorted names of the sub-folders with readable pictures: the classes.
    pub identities: Vec<String>,
    /// The readable pictures.
    pub pictures: Vec<Face>,
    /// The part of each picture, where the data set assigns them.
    pub parts: Option<Vec<Part>>,
    /// Each picture [`fit`] to one size.
    pub fitted: PictureStore,
    /// Perceptual hashes, for finding [near-duplicates](super::near_duplicates).
    pub looks: Vec<PerceptualHash>,
    /// SHA-256 of each file.
    pub digests: Vec<[u8; 32]>,
    /// Unreadable pictures and the reasons.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Remarks about the folder, one sentence each.
    pub notes: Vec<String>,
}

/// What is kept of a picture file.
struct Loaded {
    /// Where it is stored.
    fitted: Option<RgbImage>,
    look: PerceptualHash,
    digest: [u8; 32],
}

impl FaceFolder {
    /// Reads a data set for training: at least two identities.
    ///
    /// Unreadable pictures are listed in [`unreadable`](Self::unreadable) and left out, or an error
    /// with `strict`.
    ///
    /// # Errors
    /// The folder is missing or has another layout, fewer than two identities have readable pictures,
    /// or a picture is unreadable with `strict`.
    pub fn open(
        root: &Path,
        strict: bool,
        fitting: impl Into<Fitting>,
        progress: Progress,
    ) -> Result<Self> {
        Self::scan(root, strict, fitting, progress)?.with_two_identities()
    }

    /// The same pictures, if there are at least two identities.
    ///
    /// # Errors
    /// There is only one identity.
    pub fn with_two_identities(self) -> Result<Self> {
        let root = &self.root;
        if let [only] = self.identities.as_slice() {
            let hint = if has_folders(&root.join(only)) {
                format!(
                    "; if the identities are one level deeper, use {}",
                    root.join(only).display()
                )
            } else {
                String::new()
            };
            let text = format!(
                "{}: only one identity ({only}) has pictures; telling faces apart needs two or \
                 more{hint}",
                root.display()
            );
            return Err(Error::Data(text));
        }
        Ok(self)
    }

    /// Like [`open`](Self::open), for one identity or more.
    ///
    /// # Errors
    /// As for `open`, with at least one identity.
    pub fn scan(
        root: &Path,
        strict: bool,
        fitting: impl Into<Fitting>,
        progress: Progress,
    ) -> Result<Self> {
        Self::decode(&formats::open(root)?, strict, fitting, progress)
    }

    /// Decodes all pictures of a data set.
    ///
    /// # Errors
    /// As for [`scan`](Self::scan).
    pub fn decode(
        dataset: &Arc<dyn Dataset>,
        strict: bool,
        fitting: impl Into<Fitting>,
        progress: Progress,
    ) -> Result<Self> {
        let fitting = fitting.into();
        let (all, done) = (dataset.len(), AtomicUsize::new(0));
        let loaded: Vec<Result<Loaded>> = (0..all)
            .into_par_iter()
            .map(|number| {
                let side = fitting.keeps(number).then_some(fitting.side);
                let loaded = load(dataset.as_ref(), number, side);
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                loaded
            })
            .collect();
        let records = || (0..all).filter_map(|number| dataset.record(number));

        let mut folder = Self {
            root: dataset.root().to_path_buf(),
            identities: Vec::new(),
            pictures: Vec::new(),
            parts: records().all(|record| record.part.is_some()).then(Vec::new),
            fitted: PictureStore::default(),
            looks: Vec::new(),
            digests: Vec::new(),
            unreadable: Vec::new(),
            notes: dataset.notes().to_vec(),
        };
        let mut stored = Vec::new();
        let mut last_owner = None;
        for ((number, record), loaded) in records().enumerate().zip(loaded) {
            match loaded {
                Ok(Loaded { fitted, look, digest }) => {
                    if last_owner != Some(record.identity) {
                        last_owner = Some(record.identity);
                        folder.identities.push(dataset.identities()[record.identity].clone());
                    }
                    let identity = folder.identities.len() - 1;
                    stored.push((Origin::Record(dataset.clone(), number), fitted));
                    folder.pictures.push(Face { path: record.path, identity });
                    if let (Some(parts), Some(part)) = (&mut folder.parts, record.part) {
                        parts.push(part);
                    }
                    folder.looks.push(look);
                    folder.digests.push(digest);
                }
                Err(Error::Picture { reason, .. }) => {
                    folder.unreadable.push((record.path, reason));
                }
                Err(Error::Io { source, .. }) => {
                    folder.unreadable.push((record.path, source.to_string()));
                }
                Err(other) => return Err(other),
            }
        }
        folder.fitted = PictureStore::new(fitting.side, stored);
        folder.judge(strict)?;
        Ok(folder)
    }

    fn judge(&mut self, strict: bool) -> Result<()> {
        let root = self.root.display();
        if strict && !self.unreadable.is_empty() {
            let lines =
                self.unreadable.iter().map(|(path, why)| format!("\n  {}: {why}", path.display()));
            let text = format!(
                "{root}: {} cannot be read (leave --strict out to skip them):{}",
                count(self.unreadable.len(), "picture"),
                lines.collect::<String>()
            );
            return Err(Error::Data(text));
        }
        if self.pictures.is_empty() {
            let text =
                format!("{root}: none of its {} pictures can be read", self.unreadable.len());
            return Err(Error::Data(text));
        }
        let lonely: Vec<&str> = self
            .sizes()
            .into_iter()
            .zip(&self.identities)
            .filter(|(pictures, _)| *pictures == 1)
            .map(|(_, name)| name.as_str())
            .collect();
        if !lonely.is_empty() {
            let (which, names) = (identities(lonely.len()), enumerate(&lonely));
            let text = format!(
                "{which} with one picture only: used for validation negatives only ({names})"
            );
            self.notes.push(text);
        }
        Ok(())
    }

    /// SHA-256 of a picture's file, in hexadecimal; empty if there is no such picture.
    pub fn digest(&self, picture: usize) -> String {
        let digest = self.digests.get(picture);
        digest.map(hex::encode).unwrap_or_default()
    }

    /// Number of pictures per identity.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = vec![0; self.identities.len()];
        for face in &self.pictures {
            sizes[face.identity] += 1;
        }
        sizes
    }

    /// The identity of each picture.
    pub fn labels(&self) -> Vec<usize> {
        self.pictures.iter().map(|face| face.identity).collect()
    }

    /// Path relative to the data folder, with `/` as separator on every system.
    pub fn relative(&self, path: &Path) -> String {
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
        parts.join("/")
    }

    /// SHA-256, in hexadecimal, of all paths and contents: see [`fingerprint`].
    pub fn fingerprint(&self) -> String {
        let names = self.pictures.iter().map(|face| self.relative(&face.path));
        fingerprint(names.zip(self.digests.iter().copied()))
    }
}

/// The fingerprint of a data set: SHA-256, in hexadecimal, over the sorted (path, content) pairs, each
/// as relative path, a zero byte, and the 32 bytes of the content's SHA-256.
pub fn fingerprint(files: impl Iterator<Item = (String, [u8; 32])>) -> String {
    let mut files: Vec<_> = files.collect();
    files.sort();
    let mut hasher = Sha256::new();
    for (path, digest) in files {
        hasher.update(path.as_bytes());
        hasher.update([0]);
        hasher.update(digest);
    }
    hex::encode(hasher.finalize())
}

/// Reads a picture; fits its part to `side` where one is given.
fn load(dataset: &dyn Dataset, number: usize, side: Option<u32>) -> Result<Loaded> {
    let record = dataset.record(number).ok_or_else(|| missing(dataset.root(), number))?;
    let content = dataset.content(number)?;
    let picture = decode_bytes(&record.path, &content)?;
    Ok(Loaded {
        look: PerceptualHash::of(&picture),
        fitted: side.map(|side| fit(&dataset.part(number, picture), side)),
        digest: Sha256::digest(&content).into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::super::testing::face_folder;
    use super::*;

    fn open(root: &Path, strict: bool) -> Result<FaceFolder> {
        FaceFolder::open(root, strict, 24, &|_, _| {})
    }

    #[test]
    fn identities_and_pictures_are_sorted_and_run_in_step() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("zoe", 2), ("Ann", 3), ("bob/2020", 1), ("bob", 1)]);
        let seen = AtomicUsize::new(0);
        let folder = FaceFolder::open(root.path(), true, 16, &|done, total| {
            assert_eq!(total, 7);
            seen.fetch_max(done, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(seen.into_inner(), 7);
        assert_eq!(folder.identities, ["Ann", "bob", "zoe"]);
        let names: Vec<_> =
            folder.pictures.iter().map(|face| folder.relative(&face.path)).collect();
        let wanted = [
            "Ann/0.png",
            "Ann/1.png",
            "Ann/2.png",
            "bob/0.png",
            "bob/2020/0.png",
            "zoe/0.png",
            "zoe/1.png",
        ];
        assert_eq!(names, wanted);
        assert_eq!((folder.labels(), folder.sizes()), (vec![0, 0, 0, 1, 1, 2, 2], vec![3, 2, 2]));
        for (number, face) in folder.pictures.iter().enumerate() {
            let fitted = folder.fitted.get(number).unwrap();
            assert_eq!(*fitted, fit(&super::super::picture::decode(&face.path).unwrap(), 16));
        }
        assert_eq!((folder.looks.len(), folder.digests.len()), (7, 7));
        assert!(folder.notes.is_empty(), "{:?}", folder.notes);
    }

    #[test]
    fn torchvisions_layout_is_one_data_set() {
        let root = tempfile::tempdir().unwrap();
        face_folder(
            root.path(),
            &[("train/ann", 2), ("train/bob", 2), ("Val/ann", 1), ("test/ann", 3)],
        );
        let folder = open(root.path(), true).unwrap();
        assert_eq!(folder.identities, ["ann", "bob"]);
        use Part::{Train, Validation};
        assert_eq!(folder.sizes(), [3, 2]);
        assert_eq!(folder.parts.unwrap(), [Validation, Train, Train, Train, Train]);
        let note = "train/ and Val/ hold the identities; test/ is left out";
        assert!(folder.notes[0].ends_with(note), "{:?}", folder.notes);

        // Somebody beside them: these are names of people.
        face_folder(root.path(), &[("zoe", 2)]);
        let folder = open(root.path(), true).unwrap();
        assert_eq!(folder.identities, ["Val", "test", "train", "zoe"]);
        assert_eq!(folder.parts, None);
    }

    #[test]
    fn what_is_odd_is_noted_and_what_is_unreadable_is_skipped() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 2), ("bob", 1), ("cut", 0), ("eve", 0)]);
        write(root.path().join("cut/broken.png"), "no").unwrap();
        write(root.path().join("ann/broken.jpg"), "").unwrap();
        write(root.path().join("loose.png"), "").unwrap();
        create_dir_all(root.path().join(".cache")).unwrap();
        let folder = open(root.path(), false).unwrap();
        assert_eq!(folder.identities, ["ann", "bob"]);
        assert_eq!(folder.labels(), [0, 0, 1]);
        let unreadable: Vec<_> =
            folder.unreadable.iter().map(|(path, _)| folder.relative(path)).collect();
        assert_eq!(unreadable, ["ann/broken.jpg", "cut/broken.png"]);
        let notes = folder.notes.join("\n");
        for part in [
            "1 folder without pictures ignored: eve",
            "1 picture directly in",
            "1 identity with one picture only: used for validation negatives only (bob)",
        ] {
            assert!(notes.contains(part), "{part} in\n{notes}");
        }
        let error = open(root.path(), true).unwrap_err().to_string();
        assert!(
            error.contains("2 pictures cannot be read")
                && error.contains("broken.jpg: the file is empty"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_of_another_layout_is_explained() {
        let root = tempfile::tempdir().unwrap();
        let says = |path: &Path, part: &str| {
            let error = open(path, false).unwrap_err().to_string();
            assert!(error.contains(part), "{part} in {error}");
        };
        says(&root.path().join("gone"), "does not exist; expected one folder per identity");
        says(root.path(), "it is empty");
        create_dir_all(root.path().join("ann")).unwrap();
        says(root.path(), "no picture in its 1 folder");
        write(root.path().join("loose.png"), "").unwrap();
        says(root.path(), "1 picture directly in it");
        says(&root.path().join("loose.png"), "is not a folder");
        write(root.path().join("ann/broken.png"), "").unwrap();
        says(root.path(), "pictures can be read");
        face_folder(root.path(), &[("ann/chris", 2), ("ann/mark", 2)]);
        says(root.path(), "one level deeper, use");
        assert_eq!(FaceFolder::scan(root.path(), false, 8, &|_, _| {}).unwrap().pictures.len(), 4);
    }

    #[test]
    fn the_fingerprint_knows_names_and_contents_and_nothing_else() {
        // By hand, in Python: sha256(b"a/1" + b"\0" + bytes(32) + b"b/2" + b"\0" + b"\1" * 32)
        let files = [("b/2".to_string(), [1; 32]), ("a/1".to_string(), [0; 32])];
        let known = "9ceafc72e277e75622332c71a0c8ad33fa5b3eab027b6de658773c803130c984";
        assert_eq!(fingerprint(files.into_iter()), known);

        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [&one, &two] {
            face_folder(root.path(), &[("ann", 2), ("bob", 2)]);
        }
        let print = |root: &Path| open(root, true).unwrap().fingerprint();
        assert_eq!(print(one.path()), print(two.path()));
        let (before, file) = (print(two.path()), two.path().join("ann/1.png"));
        std::fs::rename(&file, two.path().join("ann/2.png")).unwrap();
        assert_ne!(print(two.path()), before);
    }
}
