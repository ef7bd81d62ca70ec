//! Triplets to train on: from strips, from lists of three files, or straight from people's folders.
//!
//! ```text
//! strips.csv     strip,identity,other[,anchor,positive,negative]   (names are for people only)
//! triplets.csv   anchor,positive,negative[,identity,other]         (paths beside the list)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use image::RgbImage;
use rand::RngExt;
use rayon::prelude::*;

use super::disjoint::disjoint;
use super::near_duplicates::{PerceptualHash, groups};
use super::people::{Drawn, People};
use super::picture::{fit, walk};
use super::random::{Purpose, generator};
use super::split::Part;
use super::store::{Fitting, PictureStore};
use super::strips::cut_file;
use crate::words::cell_text;
use crate::{Error, Result};

use super::store::Origin;
pub use super::store::Panel;

/// The list next to strips.
pub const STRIPS: &str = "strips.csv";
/// The list next to triplets cut from strips.
pub const TRIPLETS: &str = "triplets.csv";

/// Anchor, positive and negative.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triplet {
    /// The three pictures.
    pub panels: [Panel; 3],
    /// Whose anchor and positive: an index of [`TripletSet::people`].
    pub identity: usize,
    /// Whose negative, where it is known.
    pub other: Option<usize>,
}

/// Triplets, and the people they show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TripletSet {
    /// The triplets, in the order of their list or of their files' names.
    pub triplets: Vec<Triplet>,
    /// The names of the people, or numbers where there are no names.
    pub people: Vec<String>,
    /// What is remarkable, one sentence each.
    pub notes: Vec<String>,
}

impl TripletSet {
    /// Opens a folder of strips or cut triplets by its list, a list by its name, or a folder of bare
    /// strips. Only bare strips are decoded here: people are then identified by their anchors:
    /// strips with the [same photo](super::near_duplicates) as anchor are of one person.
    ///
    /// # Errors
    /// Names the list, the line and the fix; a folder without strips; a strip that cannot be cut.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Self::read_list(path);
        }
        for name in [STRIPS, TRIPLETS] {
            let list = path.join(name);
            if list.is_file() {
                return Self::read_list(&list);
            }
        }
        Self::bare(path)
    }

    /// The triplets drawn from people's folders.
    pub fn of_people(people: &People, drawn: &[Drawn]) -> Self {
        let triplet = |drawn: &Drawn| Triplet {
            panels: drawn.files.clone().map(|file| Panel { file, third: None }),
            identity: drawn.identity,
            other: Some(drawn.other),
        };
        let triplets = drawn.iter().map(triplet).collect();
        let names = people.people.iter().map(|person| person.name.clone()).collect();
        Self { triplets, people: names, notes: people.notes.clone() }
    }

    fn bare(folder: &Path) -> Result<Self> {
        let files = walk(folder)?;
        if files.is_empty() {
            return Err(Error::Data(format!(
                "{}: no strips; `visage prepare strips` makes them of folders of faces",
                folder.display()
            )));
        }
        let looks: Vec<Result<PerceptualHash>> =
            files.par_iter().map(|file| Ok(PerceptualHash::of(&cut_file(file)?[0]))).collect();
        let looks: Vec<PerceptualHash> = looks.into_iter().collect::<Result<_>>()?;
        let owners = groups(&looks);
        let people = owners.iter().max().map_or(0, |last| last + 1);
        let people = (0..people).map(|number| format!("#{number}")).collect();
        let triplets = files
            .into_iter()
            .zip(owners)
            .map(|(file, identity)| Triplet { panels: thirds(&file), identity, other: None })
            .collect();
        let note = format!(
            "{}: no {STRIPS}, so people are told apart by their anchors; whose the negatives are is \
             not known",
            folder.display()
        );
        Ok(Self { triplets, people, notes: vec![note] })
    }

    fn read_list(list: &Path) -> Result<Self> {
        let content = std::fs::read(list).map_err(|source| Error::io(list, source))?;
        let folder = list.parent().unwrap_or(Path::new("."));
        read_rows(&content, folder)
            .map_err(|what| Error::Data(format!("{}: {what}", list.display())))
    }

    /// Splits by identity: nobody is in both parts, neither as anchor nor as negative. A negative of
    /// the other part, or of unknown identity, is replaced by the positive of another identity of the
    /// same part. Seeded.
    ///
    /// # Errors
    /// Where `val_fraction` is impossible, or there are too few people.
    pub fn split(&self, val_fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let parts = disjoint(self.people.len(), val_fraction, seed)?;
        let mut random = generator(seed, Purpose::Triplets, 1);
        let mut side = |part: Part| {
            let own: Vec<usize> = (0..self.triplets.len())
                .filter(|&index| parts[self.triplets[index].identity] == part)
                .collect();
            let mut triplets: Vec<Triplet> =
                own.iter().map(|&index| self.triplets[index].clone()).collect();
            let mut alone = 0;
            triplets.retain_mut(|triplet| {
                if val_fraction == 0.0 || triplet.other.is_some_and(|other| parts[other] == part) {
                    return true;
                }
                let start = random.random_range(0..own.len());
                let stranger = (0..own.len())
                    .map(|step| &self.triplets[own[(start + step) % own.len()]])
                    .find(|stranger| stranger.identity != triplet.identity);
                alone += usize::from(stranger.is_none());
                stranger.is_some_and(|stranger| {
                    triplet.panels[2] = stranger.panels[1].clone();
                    triplet.other = Some(stranger.identity);
                    true
                })
            });
            let notes = match alone {
                0 => Vec::new(),
                n => vec![format!("{n} triplets left out: nobody else is on their side")],
            };
            Self { triplets, people: self.people.clone(), notes }
        };
        Ok((side(Part::Train), side(Part::Validation)))
    }

    /// The number of triplets.
    pub fn len(&self) -> usize {
        self.triplets.len()
    }

    /// Whether there is no triplet.
    pub fn is_empty(&self) -> bool {
        self.triplets.is_empty()
    }

    /// Every picture once, [`fit`] to one size, and each triplet as three of their numbers. Decoded
    /// on all cores; `progress` is called for each file.
    ///
    /// # Errors
    /// A file that cannot be decoded or, as a strip, not be cut.
    pub fn pictures(
        &self,
        fitting: impl Into<Fitting>,
        progress: &(dyn Fn() + Sync),
    ) -> Result<(PictureStore, Vec<[usize; 3]>)> {
        let fitting = fitting.into();
        let panels = || self.triplets.iter().flat_map(|triplet| &triplet.panels);
        let mut wanted: BTreeMap<&Path, BTreeSet<Option<usize>>> = BTreeMap::new();
        for panel in panels() {
            wanted.entry(&panel.file).or_default().insert(panel.third);
        }
        // Each file with the number of its first picture.
        let mut files = Vec::new();
        let mut number: HashMap<(&Path, Option<usize>), usize> = HashMap::new();
        for (file, thirds) in &wanted {
            files.push((*file, thirds, number.len()));
            for third in thirds {
                number.insert((file, *third), number.len());
            }
        }
        let load = |(file, thirds, first): &(&Path, &BTreeSet<Option<usize>>, usize)| {
            let is_strip = thirds.iter().any(Option::is_some);
            let cut = if is_strip { Some(cut_file(file)?) } else { None };
            let picture = |(at, third): (usize, &Option<usize>)| {
                let fitted = |picture: &RgbImage| {
                    fitting.keeps(first + at).then(|| fit(picture, fitting.side))
                };
                let origin = Origin::Panel(Panel { file: file.to_path_buf(), third: *third });
                match third.and_then(|third| cut.as_ref()?.get(third)) {
                    Some(found) => Ok((origin, fitted(found))),
                    None => origin.decode().map(|picture| (origin, fitted(&picture))),
                }
            };
            let pictures = thirds.iter().enumerate().map(picture).collect();
            progress();
            pictures
        };
        let loaded: Vec<Result<Vec<_>>> = files.par_iter().map(load).collect();
        let loaded = loaded.into_iter().collect::<Result<Vec<_>>>()?;
        let of = |panel: &Panel| number.get(&(panel.file.as_path(), panel.third)).copied();
        let triplets = self.triplets.iter().filter_map(|triplet| {
            let [anchor, positive, negative] = &triplet.panels;
            Some([of(anchor)?, of(positive)?, of(negative)?])
        });
        let store = PictureStore::new(fitting.side, loaded.into_iter().flatten());
        Ok((store, triplets.collect()))
    }

    /// The number of files that [`pictures`](Self::pictures) reads.
    pub fn files(&self) -> usize {
        let panels = self.triplets.iter().flat_map(|triplet| &triplet.panels);
        panels.map(|panel| &panel.file).collect::<BTreeSet<_>>().len()
    }
}

fn thirds(file: &Path) -> [Panel; 3] {
    [0, 1, 2].map(|third| Panel { file: file.to_path_buf(), third: Some(third) })
}

fn read_rows(content: &[u8], folder: &Path) -> Result<TripletSet, String> {
    let mut table = csv::ReaderBuilder::new().flexible(true).from_reader(content);
    let headers = table.headers().map_err(|error| error.to_string())?.clone();
    let column = |name: &str| headers.iter().position(|own| own.trim() == name);
    let strip = column("strip");
    let files = match (strip, column("anchor"), column("positive"), column("negative")) {
        (Some(strip), ..) => vec![strip],
        (None, Some(a), Some(p), Some(n)) => vec![a, p, n],
        _ => {
            let text = "the columns `strip`, or `anchor`, `positive` and `negative`, are needed";
            return Err(format!("line 1: {text}"));
        }
    };
    let (identity, other) = (column("identity"), column("other"));
    let mut numbers: BTreeMap<String, usize> = BTreeMap::new();
    let mut triplets = Vec::new();
    for record in table.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        let path = |&place: &usize| {
            let value = record.get(place).map_or("", cell_text);
            let path = Path::new(value);
            let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
            match inside && !value.is_empty() {
                true => Ok(folder.join(path)),
                false => Err(format!("line {line}: `{value}` is no file below the list's folder")),
            }
        };
        let files: Vec<PathBuf> = files.iter().map(path).collect::<Result<_, _>>()?;
        let panels = match files.as_slice() {
            [a, p, n] => [a, p, n].map(|file| Panel { file: file.clone(), third: None }),
            [strip, ..] => thirds(strip),
            [] => continue,
        };
        let mut number = |place: Option<usize>| {
            let name = place.and_then(|place| record.get(place)).map(cell_text);
            let name = name.filter(|name| !name.is_empty())?;
            let next = numbers.len();
            Some(*numbers.entry(name.to_owned()).or_insert(next))
        };
        // A triplet without a name counts as a separate identity.
        let nobody = format!("line {line}");
        let owner = number(identity);
        let other = number(other);
        let identity = owner.unwrap_or_else(|| {
            let next = numbers.len();
            *numbers.entry(nobody).or_insert(next)
        });
        if other == Some(identity) {
            return Err(format!(
                "line {line}: the negative is of the same person; correct `other`"
            ));
        }
        triplets.push(Triplet { panels, identity, other });
    }
    if triplets.is_empty() {
        return Err("there is no triplet in it".into());
    }
    let mut people = vec![String::new(); numbers.len()];
    for (name, number) in numbers {
        people[number] = name;
    }
    Ok(TripletSet { triplets, people, notes: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::strips::{StripFormat, join};
    use super::super::testing::{face_folder, part};
    use super::*;

    fn scene(seed: u64) -> RgbImage {
        part(seed, 0.0, 0.0, 100.0, 32)
    }

    fn write_strip(path: &Path, seeds: [u64; 3]) {
        let [a, b, c] = seeds.map(scene);
        std::fs::write(path, StripFormat::Png.encode(&join([&a, &b, &c], 32)).unwrap()).unwrap();
    }

    /// Six people, two triplets each, whose negatives are of the next person.
    fn drawn() -> (tempfile::TempDir, TripletSet) {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("a", 3), ("b", 3), ("c", 3), ("d", 3), ("e", 3), ("f", 3)]);
        let people = People::scan(root.path()).unwrap();
        let drawn = people.draw(Some(4), None, 2);
        let set = TripletSet::of_people(&people, &drawn);
        (root, set)
    }

    fn owner(panel: &Panel) -> String {
        panel.file.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn a_split_has_nobody_on_both_sides_and_loses_no_triplet() {
        let (_root, set) = drawn();
        let (train, validation) = set.split(0.34, 4).unwrap();
        assert_eq!((train.len(), validation.len(), set.len()), (16, 8, 24));
        let names = |set: &TripletSet| -> BTreeSet<String> {
            set.triplets.iter().flat_map(|t| t.panels.iter().map(owner)).collect()
        };
        assert!(names(&train).is_disjoint(&names(&validation)));
        for triplet in train.triplets.iter().chain(&validation.triplets) {
            let [anchor, positive, negative] = &triplet.panels;
            assert_eq!(owner(anchor), owner(positive));
            assert_ne!(owner(anchor), owner(negative));
        }
        assert_eq!(set.split(0.34, 4).unwrap(), (train, validation));
        let (all, none) = set.split(0.0, 4).unwrap();
        assert_eq!((&all.triplets, none.len()), (&set.triplets, 0));
    }

    fn shown(set: &TripletSet, index: usize, size: u32) -> [RgbImage; 3] {
        let (pictures, triplets) = set.pictures(size, &|| ()).unwrap();
        triplets[index].map(|number| pictures.get(number).unwrap().into_owned())
    }

    #[test]
    fn bare_strips_are_told_apart_by_their_anchors() {
        let root = tempfile::tempdir().unwrap();
        for (name, seeds) in [
            ("1", [1, 2, 9]),
            ("2", [5, 6, 1]),
            ("3", [1, 3, 5]),
            ("4", [7, 7, 1]),
            ("5", [8, 4, 2]),
        ] {
            write_strip(&root.path().join(format!("{name}.png")), seeds);
        }
        let set = TripletSet::open(root.path()).unwrap();
        let owners: Vec<usize> = set.triplets.iter().map(|triplet| triplet.identity).collect();
        assert_eq!((owners.as_slice(), set.people.len()), ([0, 1, 0, 2, 3].as_slice(), 4));
        assert_eq!(shown(&set, 2, 32), [1, 3, 5].map(scene));
        let (train, validation) = set.split(0.5, 1).unwrap();
        assert_eq!(train.len() + validation.len(), 5);
        for triplet in train.triplets.iter().chain(&validation.triplets) {
            assert!(triplet.other.is_some_and(|other| other != triplet.identity));
        }
        let loaded = shown(&train, 0, 16);
        assert!(loaded.iter().all(|picture| picture.dimensions() == (16, 16)));
    }

    #[test]
    fn lists_name_strips_or_three_files_and_who_is_on_them() {
        let root = tempfile::tempdir().unwrap();
        write_strip(&root.path().join("x.png"), [1, 2, 3]);
        for seed in 1..4 {
            scene(seed).save(root.path().join(format!("{seed}.png"))).unwrap();
        }
        let list = root.path().join(STRIPS);
        std::fs::write(&list, "strip,identity,other\nx.png,ann,bob\nx.png,bob,ann\n").unwrap();
        let strips = TripletSet::open(root.path()).unwrap();
        assert_eq!((strips.people.join(" "), strips.triplets[1].identity), ("ann bob".into(), 1));
        let other = root.path().join("other.csv");
        std::fs::write(&other, "negative,anchor,positive\n3.png,1.png,2.png\n").unwrap();
        let files = TripletSet::open(&other).unwrap();
        assert_eq!((files.people.len(), files.triplets[0].other), (1, None));
        assert_eq!(shown(&files, 0, 32), shown(&strips, 0, 32));
        assert_eq!(shown(&files, 0, 32), [1, 2, 3].map(scene));

        let says = |text: &str, part: &str| {
            std::fs::write(&list, text).unwrap();
            let error = TripletSet::open(root.path()).unwrap_err().to_string();
            assert!(error.contains(STRIPS) && error.contains(part), "{part} in {error}");
        };
        says("strip,identity,other\n../x.png,a,b\n", "line 2: `../x.png`");
        says("strip,identity,other\nx.png,a,a\n", "same person");
        says("strip\n", "no triplet");
        says("a,b\n", "line 1");
    }

    #[test]
    fn every_picture_is_read_once_however_many_triplets_show_it() {
        let (root, set) = drawn();
        let read = std::sync::atomic::AtomicUsize::new(0);
        let step = || {
            read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let (pictures, triplets) = set.pictures(24, &step).unwrap();
        assert_eq!((read.into_inner(), set.files()), (pictures.len(), pictures.len()));
        assert_eq!((pictures.len() <= 18, triplets.len()), (true, 24));
        for (numbers, triplet) in triplets.iter().zip(&set.triplets) {
            for (number, panel) in numbers.iter().zip(&triplet.panels) {
                let wanted = fit(&super::super::picture::decode(&panel.file).unwrap(), 24);
                assert_eq!(*pictures.get(*number).unwrap(), wanted);
            }
        }
        let little = Fitting { side: 24, memory: 5 * 3 * 24 * 24 };
        let (some, same) = set.pictures(little, &|| ()).unwrap();
        let all: Vec<usize> = (0..pictures.len()).collect();
        assert_eq!((some.kept(), &same), (5, &triplets));
        assert_eq!(some.bytes(&all).unwrap(), pictures.bytes(&all).unwrap());
        std::fs::write(root.path().join("a/0.png"), "no picture").unwrap();
        assert!(set.pictures(24, &|| ()).unwrap_err().to_string().contains("0.png"));
    }
}
