//! Folders of strips: built from pictures of people, and cut into triplets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::RgbImage;
use rayon::prelude::*;

use super::folder::Progress;
use super::people::{Drawn, People};
use super::picture::{decode, walk};
use super::strips::cut_file;
use super::strips::{StripFormat, is_blank, join};
use super::triplets::{STRIPS, TRIPLETS, TripletSet};
use crate::files::{create_folder, write_atomically};
use crate::words::cell;
use crate::{Error, Result};

/// The list of unusable files.
pub const QUARANTINE: &str = "quarantine.csv";
/// File names of a strip's pictures after cutting.
const NAMES: [&str; 3] = ["anchor", "positive", "negative"];

/// Options for building strips.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Side of each of the three pictures in pixels.
    pub size: u32,
    /// Strips per person; `None` for one per photo.
    pub per_person: Option<usize>,
    /// Maximum number of strips.
    pub limit: Option<usize>,
    /// Random seed.
    pub seed: u64,
    /// File format of the strips.
    pub format: StripFormat,
}

/// Layout of cut strips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum CutLayout {
    /// OUT/STRIP/anchor.png, positive.png, negative.png
    Folders,
    /// OUT/STRIP_anchor.png, STRIP_positive.png, STRIP_negative.png
    Files,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of strips built or cut.
    pub done: usize,
    /// Number of people; `None` if unknown.
    pub people: Option<usize>,
    /// Unusable files and the reasons.
    pub quarantined: Vec<(PathBuf, String)>,
}

/// Samples triplets of `people` and writes them as strips into the new folder `out`, with `strips.csv`
/// and, if pictures are unreadable or blank, `quarantine.csv`.
///
/// Everything is written to a temporary folder, which is renamed at the end.
///
/// # Errors
/// `out` exists or cannot be written, or too few people have readable pictures.
pub fn build(
    mut people: People,
    root: &Path,
    out: &Path,
    options: &BuildOptions,
    progress: Progress,
) -> Result<Summary> {
    refuse_existing(out)?;
    let (drawn, quarantined) = draw_readable(&mut people, options);
    if drawn.is_empty() {
        let first = quarantined.first().map(|(path, why)| format!(" ({}: {why})", path.display()));
        return Err(Error::Data(format!(
            "{}: too few readable pictures for a strip{}",
            root.display(),
            first.unwrap_or_default()
        )));
    }
    let width = drawn.len().to_string().len().max(5);
    let names: Vec<String> = (0..drawn.len())
        .map(|index| format!("{index:0width$}.{}", options.format.ending()))
        .collect();
    let stage = WorkFolder::next_to(out)?;
    let done = AtomicUsize::new(0);
    drawn.par_iter().zip(&names).try_for_each(|(drawn, name)| {
        let pictures: Vec<RgbImage> =
            drawn.files.iter().map(|file| decode(file)).collect::<Result<_>>()?;
        if let [anchor, positive, negative] = pictures.as_slice() {
            let strip = join([anchor, positive, negative], options.size);
            stage.write_picture(Path::new(name), &strip, options.format)?;
        }
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, names.len());
        Ok::<(), Error>(())
    })?;
    let rows = drawn.iter().zip(&names).map(|(drawn, name)| {
        let of = |person: usize| people.people[person].name.clone();
        let [anchor, positive, negative] = drawn.files.each_ref().map(|file| below(root, file));
        [name.clone(), of(drawn.identity), of(drawn.other), anchor, positive, negative]
    });
    let header = ["strip", "identity", "other", "anchor", "positive", "negative"];
    stage.write_list(STRIPS, &header, rows)?;
    stage.write_quarantine(root, &quarantined)?;
    let shown: BTreeSet<usize> = drawn.iter().flat_map(|d| [d.identity, d.other]).collect();
    stage.into_place(out)?;
    Ok(Summary { done: drawn.len(), people: Some(shown.len()), quarantined })
}

/// Samples until every picture is readable, removing the others.
fn draw_readable(
    people: &mut People,
    options: &BuildOptions,
) -> (Vec<Drawn>, Vec<(PathBuf, String)>) {
    let mut fine: BTreeSet<PathBuf> = BTreeSet::new();
    let mut quarantined: BTreeMap<PathBuf, String> = BTreeMap::new();
    loop {
        let drawn = people.draw(options.per_person, options.limit, options.seed);
        let new: BTreeSet<PathBuf> = drawn
            .iter()
            .flat_map(|drawn| drawn.files.iter())
            .filter(|file| !fine.contains(*file))
            .cloned()
            .collect();
        if new.is_empty() {
            return (drawn, quarantined.into_iter().collect());
        }
        let judged: Vec<(PathBuf, Option<String>)> =
            new.into_par_iter().map(|file| (file.clone(), trouble(&file))).collect();
        let mut broken = BTreeSet::new();
        for (file, why) in judged {
            match why {
                None => {
                    fine.insert(file);
                }
                Some(why) => {
                    broken.insert(file.clone());
                    quarantined.insert(file, why);
                }
            }
        }
        people.remove(&broken);
    }
}

/// Why a picture cannot be used; `None` if it can.
fn trouble(file: &Path) -> Option<String> {
    match decode(file) {
        Ok(picture) if is_blank(&picture) => Some("all one colour".into()),
        Ok(_) => None,
        Err(error) => Some(reason(&error)),
    }
}

/// An error's reason without the file name.
fn reason(error: &Error) -> String {
    match error {
        Error::Picture { reason, .. } => reason.clone(),
        Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Cuts the strips below `input` into triplets in the new folder `out`, with `triplets.csv` and, if
/// strips are invalid, `quarantine.csv`. Identities come from `strips.csv` in `input`, if it exists.
///
/// # Errors
/// `out` exists or cannot be written, or `input` has no strip that can be cut.
pub fn cut_folder(
    input: &Path,
    out: &Path,
    layout: CutLayout,
    format: StripFormat,
    limit: Option<usize>,
    progress: Progress,
) -> Result<Summary> {
    refuse_existing(out)?;
    let mut files = walk(input)?;
    files.truncate(limit.unwrap_or(usize::MAX));
    let known = known_people(input)?;
    let stage = WorkFolder::next_to(out)?;
    let done = AtomicUsize::new(0);
    let total = files.len();
    let outcomes: Vec<Result<Result<[String; 3], String>>> = files
        .par_iter()
        .map(|file| {
            let outcome = match cut_file(file) {
                Ok(panels) => {
                    stage.write_triplet(&stem(input, file), &panels, layout, format).map(Ok)
                }
                Err(error) => Ok(Err(reason(&error))),
            };
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            outcome
        })
        .collect();
    let (mut rows, mut quarantined) = (Vec::new(), Vec::new());
    for (file, outcome) in files.into_iter().zip(outcomes) {
        match outcome? {
            Ok([anchor, positive, negative]) => {
                let (identity, other) =
                    known.get(&below(input, &file)).cloned().unwrap_or_default();
                rows.push([anchor, positive, negative, identity, other]);
            }
            Err(why) => quarantined.push((file, why)),
        }
    }
    if rows.is_empty() {
        let first = quarantined.first().map(|(path, why)| format!(": {}: {why}", path.display()));
        return Err(Error::Data(format!(
            "{}: no strip can be cut{}",
            input.display(),
            first.unwrap_or_else(|| "; it has no pictures".into())
        )));
    }
    let (done, named) = (rows.len(), rows.iter().any(|row| !row[3].is_empty()));
    let people: BTreeSet<&String> = rows.iter().flat_map(|row| &row[3..]).collect();
    let people = named.then_some(people.len());
    let header = ["anchor", "positive", "negative", "identity", "other"];
    stage.write_list(TRIPLETS, &header, rows.into_iter())?;
    stage.write_quarantine(input, &quarantined)?;
    stage.into_place(out)?;
    Ok(Summary { done, people, quarantined })
}

/// The identities in `strips.csv`, if any: identity and other by the strip's path.
fn known_people(input: &Path) -> Result<BTreeMap<String, (String, String)>> {
    let list = input.join(STRIPS);
    if !list.is_file() {
        return Ok(BTreeMap::new());
    }
    let set = TripletSet::open(&list)?;
    let named = set.triplets.iter().map(|triplet| {
        let [strip, ..] = &triplet.panels;
        let name = |number: usize| set.people[number].clone();
        let other = triplet.other.map(name).unwrap_or_default();
        (below(input, &strip.file), (name(triplet.identity), other))
    });
    Ok(named.collect())
}

/// Path relative to `root`, with `/` as separator.
fn below(root: &Path, file: &Path) -> String {
    let below = file.strip_prefix(root).unwrap_or(file);
    below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The name of a strip's triplet: its relative path without extension, with `-` for `/`; the extension
/// is kept where two names would be equal.
fn stem(root: &Path, file: &Path) -> String {
    let twins = super::picture::EXTENSIONS.iter().filter(|&&ending| {
        let other = file.with_extension(ending);
        other != file && other.exists()
    });
    let name = match twins.count() {
        0 => below(root, &file.with_extension("")),
        _ => below(root, file).replace('.', "_"),
    };
    name.replace('/', "-")
}

fn refuse_existing(out: &Path) -> Result<()> {
    match out.symlink_metadata() {
        Ok(_) => {
            let text = format!("{}: already exists; give a new folder", out.display());
            Err(Error::Config(text))
        }
        Err(_) => Ok(()),
    }
}

/// A temporary folder next to its target.
struct WorkFolder {
    work: tempfile::TempDir,
    folder: PathBuf,
}

impl WorkFolder {
    fn next_to(out: &Path) -> Result<Self> {
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        create_folder(parent)?;
        let work = tempfile::Builder::new()
            .prefix(".visage-")
            .tempdir_in(parent)
            .map_err(|source| Error::io(parent, source))?;
        let folder = work.path().join("strips");
        create_folder(&folder)?;
        Ok(Self { work, folder })
    }

    fn write_picture(&self, name: &Path, picture: &RgbImage, format: StripFormat) -> Result<()> {
        let path = self.folder.join(name);
        let bytes = format
            .encode(picture)
            .map_err(|reason| Error::Data(format!("{}: {reason}", name.display())))?;
        std::fs::write(&path, bytes).map_err(|source| Error::io(&path, source))
    }

    fn write_triplet(
        &self,
        name: &str,
        panels: &[RgbImage; 3],
        layout: CutLayout,
        format: StripFormat,
    ) -> Result<[String; 3]> {
        if layout == CutLayout::Folders {
            create_folder(&self.folder.join(name))?;
        }
        let paths = NAMES.map(|panel| match layout {
            CutLayout::Folders => format!("{name}/{panel}.{}", format.ending()),
            CutLayout::Files => format!("{name}_{panel}.{}", format.ending()),
        });
        for (path, panel) in paths.iter().zip(panels) {
            self.write_picture(Path::new(path), panel, format)?;
        }
        Ok(paths)
    }

    fn write_list<const N: usize>(
        &self,
        name: &str,
        header: &[&str; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> Result<()> {
        write_atomically(&self.folder.join(name), |out| {
            let mut table = csv::Writer::from_writer(out);
            table.write_record(header)?;
            for row in rows {
                table.write_record(row.each_ref().map(|text| cell(text).into_owned()))?;
            }
            table.flush()
        })
    }

    fn write_quarantine(&self, root: &Path, broken: &[(PathBuf, String)]) -> Result<()> {
        if broken.is_empty() {
            return Ok(());
        }
        let rows = broken.iter().map(|(file, why)| [below(root, file), why.clone()]);
        self.write_list(QUARANTINE, &["file", "reason"], rows)
    }

    fn into_place(self, out: &Path) -> Result<()> {
        refuse_existing(out)?;
        std::fs::rename(&self.folder, out).map_err(|source| Error::io(out, source))?;
        drop(self.work);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::people::tests::passports;
    use super::super::testing::{face_folder, part};
    use super::*;

    const QUIET: Progress = &|_, _| {};

    fn options() -> BuildOptions {
        BuildOptions { size: 24, per_person: None, limit: None, seed: 1, format: StripFormat::Png }
    }

    fn build_in(root: &Path, out: &Path, options: &BuildOptions) -> Result<Summary> {
        build(People::scan(root)?, root, out, options, QUIET)
    }

    #[test]
    fn strips_of_passports_are_built_cut_and_opened_again() {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        passports(root.path());
        let (strips, cuts) = (work.path().join("strips"), work.path().join("cut"));
        let built = build_in(root.path(), &strips, &options()).unwrap();
        assert_eq!((built.done, built.quarantined.len()), (6, 0));
        assert!(built.people.is_some_and(|people| people == 3 || people == 4));
        let list = std::fs::read_to_string(strips.join(STRIPS)).unwrap();
        assert!(list.starts_with("strip,identity,other,anchor,positive,negative\n"));
        assert_eq!(list.matches("cript").count(), 6, "one passport picture a strip");
        assert!(!strips.join(QUARANTINE).exists());
        let opened = TripletSet::open(&strips).unwrap();
        assert_eq!((opened.len(), Some(opened.people.len())), (6, built.people));
        for layout in [CutLayout::Folders, CutLayout::Files] {
            let cut = cut_folder(&strips, &cuts, layout, StripFormat::Png, None, QUIET).unwrap();
            assert_eq!((cut.done, cut.people, cut.quarantined.len()), (6, built.people, 0));
            let again = TripletSet::open(&cuts).unwrap();
            assert_eq!((again.len(), &again.people), (6, &opened.people));
            let shown = |set: &TripletSet| {
                // Strips are cut again where nothing is kept.
                let none = super::super::store::Fitting { side: 24, memory: 0 };
                let (pictures, triplets) = set.pictures(none, &|| ()).unwrap();
                let shown = |number| pictures.get(number).unwrap().into_owned();
                triplets.concat().into_iter().map(shown).collect()
            };
            let (left, right): (Vec<RgbImage>, Vec<RgbImage>) = (shown(&again), shown(&opened));
            assert!(left == right);
            for index in 0..6 {
                assert_eq!(again.triplets[index].identity, opened.triplets[index].identity);
            }
            std::fs::remove_dir_all(&cuts).unwrap();
        }
        assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 1, "rubbish left");
    }

    #[test]
    fn the_seed_decides_and_nothing_is_overwritten() {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        face_folder(root.path(), &[("ann", 4), ("bob", 3)]);
        let list = |name: &str, seed| {
            let out = work.path().join(name);
            build_in(root.path(), &out, &BuildOptions { seed, ..options() }).unwrap();
            std::fs::read_to_string(out.join(STRIPS)).unwrap()
        };
        let one = list("one", 1);
        assert_eq!(one, list("again", 1));
        assert_ne!(one, list("two", 2));
        let error = build_in(root.path(), &work.path().join("one"), &options()).unwrap_err();
        assert!(error.to_string().contains("already exists"), "{error}");
        let strips = work.path().join("one");
        let two = work.path().join("two");
        let cut = cut_folder(&strips, &two, CutLayout::Files, StripFormat::Png, None, QUIET);
        assert!(cut.unwrap_err().to_string().contains("already exists"));
    }

    #[test]
    fn unreadable_and_blank_pictures_are_quarantined_and_not_drawn() {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        face_folder(root.path(), &[("ann", 3), ("bob", 2), ("cid", 2)]);
        std::fs::write(root.path().join("ann/broken.png"), "no").unwrap();
        RgbImage::new(24, 24).save(root.path().join("bob/blank.png")).unwrap();
        let out = work.path().join("strips");
        let built = build_in(root.path(), &out, &options()).unwrap();
        assert_eq!((built.done, built.quarantined.len()), (7, 2));
        let list = std::fs::read_to_string(out.join(QUARANTINE)).unwrap();
        assert!(list.starts_with("file,reason\nann/broken.png,"), "{list}");
        assert!(list.contains("bob/blank.png,all one colour"), "{list}");
        let strips = std::fs::read_to_string(out.join(STRIPS)).unwrap();
        assert!(!strips.contains("broken") && !strips.contains("blank"));
    }

    #[test]
    fn broken_strips_are_quarantined_and_the_others_cut() {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let save = |name: &str, width: u32, height: u32| {
            let strip = part(1, 0.0, 0.0, 100.0, 120);
            let strip = image::imageops::crop_imm(&strip, 0, 0, width, height).to_image();
            strip.save(root.path().join(name)).unwrap();
        };
        save("fine.png", 96, 32);
        save("fine.bmp", 96, 32);
        save("odd.png", 97, 32);
        save("high.png", 60, 120);
        save("tiny.png", 30, 10);
        RgbImage::new(96, 32).save(root.path().join("blank.png")).unwrap();
        std::fs::write(root.path().join("broken.jpg"), "no").unwrap();
        let out = work.path().join("cut");
        let cut =
            cut_folder(root.path(), &out, CutLayout::Folders, StripFormat::Jpeg(95), None, QUIET);
        let cut = cut.unwrap();
        assert_eq!((cut.done, cut.people, cut.quarantined.len()), (2, None, 5));
        assert!(out.join("fine_png/anchor.jpg").is_file());
        assert!(out.join("fine_bmp/negative.jpg").is_file());
        let list = std::fs::read_to_string(out.join(QUARANTINE)).unwrap();
        for name in ["odd.png", "high.png", "tiny.png", "blank.png", "broken.jpg"] {
            assert!(list.contains(name), "{name} in {list}");
        }
        let empty = tempfile::tempdir().unwrap();
        let none = work.path().join("none");
        let error =
            cut_folder(empty.path(), &none, CutLayout::Files, StripFormat::Png, None, QUIET);
        assert!(error.unwrap_err().to_string().contains("it has no picture"));
    }

    #[test]
    fn counts_and_limits_hold() {
        let (root, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        face_folder(root.path(), &[("ann", 3), ("bob", 2)]);
        let with = |name: &str, per_person, limit| {
            let options =
                BuildOptions { per_person, limit, format: StripFormat::Jpeg(80), ..options() };
            build_in(root.path(), &work.path().join(name), &options).unwrap().done
        };
        assert_eq!(with("five", Some(5), None), 10);
        assert_eq!(with("three", Some(5), Some(3)), 3);
        assert!(work.path().join("three/00002.jpg").is_file());
    }
}
