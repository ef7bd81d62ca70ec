//! People and their pictures, for sampling triplets: passport folders, or any face folder.
//!
//! A triplet is an anchor, a positive (the same person) and a negative (another person). In passport
//! folders, `trainset/*/user/*`, each folder with pictures is a person: the picture with `script` in
//! its name is the passport picture and the anchor, the others are photos. In a face folder, one
//! sub-folder per identity, every picture can be an anchor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::seq::SliceRandom;

use super::picture::{owner, walk};
use super::random::{Purpose, generator};
use crate::words::{count, enumerate};
use crate::{Error, Result};

/// Part of the names of passport pictures.
const PASSPORT: &str = "script";
/// The folder of people in passport sets.
const TRAINSET: &str = "trainset";

/// A person and their pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Name of the folder, or its path relative to the root if names repeat.
    pub name: String,
    /// Possible anchors: the passport pictures, or all.
    pub anchors: Vec<PathBuf>,
    /// Possible positives, and negatives for others: the photos, or all.
    pub photos: Vec<PathBuf>,
}

/// The layout of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A passport picture and photos in each folder.
    Passports,
    /// One sub-folder per identity.
    Faces,
}

/// The people of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct People {
    /// People with an anchor and another photo, and people who can only be negatives, sorted by name.
    pub people: Vec<Person>,
    /// The layout found.
    pub layout: Layout,
    /// Remarks, one sentence each.
    pub notes: Vec<String>,
}

impl People {
    /// Reads passport folders if any picture has `script` in its name, otherwise a face folder.
    ///
    /// # Errors
    /// The folder cannot be read, or there are too few people.
    pub fn scan(root: &Path) -> Result<Self> {
        let pictures = walk(root)?;
        let layout = match pictures.iter().any(|path| is_passport(path)) {
            true => Layout::Passports,
            false => Layout::Faces,
        };
        let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut loose = 0;
        for picture in pictures {
            let folder = picture.parent().unwrap_or(root);
            if folder == root {
                loose += 1;
                continue;
            }
            let name = match layout {
                Layout::Passports => passport_name(root, folder),
                Layout::Faces => owner(root, &picture),
            };
            by_name.entry(name).or_default().push(picture);
        }
        let mut people = Self { people: Vec::new(), layout, notes: Vec::new() };
        if loose > 0 {
            let which = count(loose, "picture");
            people.notes.push(format!(
                "{which} directly in {} ignored: not in a folder of a person",
                root.display()
            ));
        }
        people.sort_out(by_name);
        if people.usable().next().is_none() || people.people.len() < 2 {
            let why = people.notes.iter().map(|note| format!("; {note}")).collect::<String>();
            return Err(Error::Data(format!(
                "{}: triplets need a person with two pictures and somebody else, and it has {}{why}; expected \
                 trainset/*/user/* with one picture named *script* in each, or one folder per \
                 identity",
                root.display(),
                people.people.len()
            )));
        }
        Ok(people)
    }

    /// Keeps the people with pictures for triplets, and adds remarks about the others.
    fn sort_out(&mut self, by_name: BTreeMap<String, Vec<PathBuf>>) {
        let (mut without_passport, mut alone) = (Vec::new(), Vec::new());
        for (name, pictures) in by_name {
            let (anchors, photos) = match self.layout {
                Layout::Faces => (pictures.clone(), pictures),
                Layout::Passports => pictures.into_iter().partition(|path| is_passport(path)),
            };
            let person = Person { name, anchors, photos };
            if person.anchors.is_empty() {
                without_passport.push(person.name.clone());
            } else if !person.is_usable() {
                alone.push(person.name.clone());
            }
            if !person.photos.is_empty() {
                self.people.push(person);
            }
        }
        for (names, what) in [
            (without_passport, "without a picture named *script*"),
            (alone, "without a second picture of the same person"),
        ] {
            if !names.is_empty() {
                let shown: Vec<&str> = names.iter().map(String::as_str).collect();
                let which = count(names.len(), "folder");
                self.notes.push(format!(
                    "{which} {what}: used only as negatives ({})",
                    enumerate(&shown)
                ));
            }
        }
    }

    /// Samples triplets: `per_person` of each person, or one for each photo. Anchors, photos and the
    /// people of negatives occur about equally often; `limit` keeps that many, one person after the
    /// other. Seeded.
    pub fn draw(&self, per_person: Option<usize>, limit: Option<usize>, seed: u64) -> Vec<Drawn> {
        if self.people.len() < 2 {
            return Vec::new();
        }
        let mut random = generator(seed, Purpose::Triplets, 0);
        let mut order: Vec<usize> = self.usable().collect();
        order.shuffle(&mut random);
        let longest = per_person
            .unwrap_or_else(|| self.people.iter().map(|p| p.photos.len()).max().unwrap_or(0));
        let mut decks: Vec<[Deck; 3]> = self
            .people
            .iter()
            .map(|p| {
                [Deck::new(p.anchors.len()), Deck::new(p.photos.len()), Deck::new(p.photos.len())]
            })
            .collect();
        let mut others = Deck::new(self.people.len());
        let mut drawn = Vec::new();
        for turn in 0..longest {
            for &identity in &order {
                if limit.is_some_and(|limit| drawn.len() >= limit) {
                    return drawn;
                }
                let person = &self.people[identity];
                if per_person.is_none() && turn >= person.photos.len() {
                    continue;
                }
                let [anchors, photos, _] = &mut decks[identity];
                let positive = &person.photos[photos.next(&mut random)];
                // At a reshuffle the same picture can come twice in a row.
                let anchor = (0..3)
                    .map(|_| &person.anchors[anchors.next(&mut random)])
                    .find(|&anchor| anchor != positive);
                let other = (0..3).map(|_| others.next(&mut random)).find(|&o| o != identity);
                let (Some(anchor), Some(other)) = (anchor, other) else { continue };
                let negative = decks[other][2].next(&mut random);
                let negative = &self.people[other].photos[negative];
                let files = [anchor, positive, negative].map(Clone::clone);
                drawn.push(Drawn { files, identity, other });
            }
        }
        drawn
    }

    /// Removes pictures, and people without enough pictures.
    pub fn remove(&mut self, broken: &BTreeSet<PathBuf>) {
        for person in &mut self.people {
            person.anchors.retain(|path| !broken.contains(path));
            person.photos.retain(|path| !broken.contains(path));
        }
        self.people.retain(|person| !person.photos.is_empty());
    }

    /// People who can be anchors.
    pub fn usable(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.people.len()).filter(|&index| self.people[index].is_usable())
    }
}

impl Person {
    /// Whether there is an anchor and, for each anchor, another photo.
    fn is_usable(&self) -> bool {
        match (self.anchors.as_slice(), self.photos.as_slice()) {
            ([], _) | (_, []) => false,
            ([anchor], [photo]) => anchor != photo,
            _ => true,
        }
    }
}

/// A triplet of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Anchor, positive, negative.
    pub files: [PathBuf; 3],
    /// The person of anchor and positive: an index into [`People::people`].
    pub identity: usize,
    /// The person of the negative.
    pub other: usize,
}

/// The numbers below `count` in random order, reshuffled after each pass.
struct Deck {
    count: usize,
    left: Vec<usize>,
}

impl Deck {
    fn new(count: usize) -> Self {
        Self { count, left: Vec::new() }
    }

    fn next(&mut self, random: &mut impl rand::Rng) -> usize {
        if self.left.is_empty() {
            self.left = (0..self.count).collect();
        }
        // Fisher-Yates shuffle, one step per draw.
        match self.left.len() {
            0 => 0,
            len => self.left.swap_remove(random.random_range(0..len)),
        }
    }
}

fn is_passport(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    stem.contains(PASSPORT)
}

/// Path of a passport folder relative to the root or its `trainset`, joined by `-`.
fn passport_name(root: &Path, folder: &Path) -> String {
    let below = folder.strip_prefix(root).unwrap_or(folder);
    let below = below.strip_prefix(TRAINSET).unwrap_or(below);
    let parts: Vec<_> =
        below.iter().map(|part| part.to_string_lossy()).filter(|part| part != "user").collect();
    parts.join("-")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing::{face_folder, part};
    use super::*;

    /// `root/trainset/GROUP/user/...`: three people with passport and two photos, and odd ones.
    pub(in crate::data) fn passports(root: &Path) {
        let names = [
            "trainset/001/user/a/001_Script.png",
            "trainset/001/user/a/p1.png",
            "trainset/001/user/a/p2.png",
            "trainset/001/user/b/script_b.png",
            "trainset/001/user/b/p1.png",
            "trainset/001/user/b/p2.png",
            "trainset/002/user/script.png",
            "trainset/002/user/p1.png",
            "trainset/002/user/p2.png",
            "trainset/003/user/script.png",
            "trainset/004/user/p1.png",
        ];
        for (seed, name) in (0..).zip(names) {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            part(seed, 0.0, 0.0, 100.0, 24).save(path).unwrap();
        }
    }

    #[test]
    fn passport_folders_are_people_at_either_depth() {
        let root = tempfile::tempdir().unwrap();
        passports(root.path());
        for start in [root.path().to_path_buf(), root.path().join("trainset")] {
            let people = People::scan(&start).unwrap();
            assert_eq!(people.layout, Layout::Passports);
            let names: Vec<&str> = people.people.iter().map(|p| p.name.as_str()).collect();
            assert_eq!(names, ["001-a", "001-b", "002", "004"]);
            assert_eq!(people.usable().collect::<Vec<_>>(), [0, 1, 2]);
            for person in &people.people[..3] {
                assert_eq!((person.anchors.len(), person.photos.len()), (1, 2));
            }
            let notes = people.notes.join("\n");
            assert!(
                notes.contains("without a picture named *script*: used only as negatives (004)"),
                "{notes}"
            );
            assert!(notes.contains("without a second picture of the same person"), "{notes}");
        }
    }

    #[test]
    fn drawn_triplets_hold_two_pictures_of_one_person_and_all_take_turns() {
        let root = tempfile::tempdir().unwrap();
        passports(root.path());
        let faces = tempfile::tempdir().unwrap();
        face_folder(faces.path(), &[("ann", 4), ("bob", 2), ("cid", 3), ("lone", 1)]);
        for (root, photos) in [(root.path(), 6), (faces.path(), 9)] {
            let people = People::scan(root).unwrap();
            let drawn = people.draw(None, None, 5);
            assert_eq!(drawn.len(), photos);
            for Drawn { files: [anchor, positive, negative], identity, other } in &drawn {
                let (own, others) = (&people.people[*identity], &people.people[*other]);
                assert!(own.is_usable());
                assert!(own.anchors.contains(anchor) && own.photos.contains(positive));
                assert!(others.photos.contains(negative) && identity != other);
                assert_ne!(anchor, positive);
            }
            let positives: BTreeSet<&PathBuf> = drawn.iter().map(|d| &d.files[1]).collect();
            assert_eq!(positives.len(), photos, "a photo came twice");
            assert_eq!(people.draw(None, None, 5), drawn);
            assert_ne!(people.draw(None, None, 6), drawn);
            let lone = |d: &Drawn| !people.people[d.other].is_usable();
            assert!(drawn.iter().any(lone), "who has one picture makes a negative");
            assert_eq!(people.draw(Some(7), None, 5).len(), 21);
            let three = people.draw(Some(7), Some(3), 5);
            let who: BTreeSet<usize> = three.iter().map(|d| d.identity).collect();
            assert_eq!((three.len(), who.len()), (3, 3));
        }
    }

    #[test]
    fn broken_pictures_go_and_take_those_who_need_them() {
        let faces = tempfile::tempdir().unwrap();
        face_folder(faces.path(), &[("ann", 3), ("bob", 2), ("cid", 2)]);
        let mut people = People::scan(faces.path()).unwrap();
        let broken = ["ann/0.png", "bob/1.png"].map(|name| faces.path().join(name));
        people.remove(&BTreeSet::from(broken));
        let left: Vec<(&str, usize)> =
            people.people.iter().map(|p| (p.name.as_str(), p.photos.len())).collect();
        assert_eq!(left, [("ann", 2), ("bob", 1), ("cid", 2)]);
        assert_eq!(people.usable().count(), 2);
    }

    #[test]
    fn folders_without_people_are_explained() {
        let root = tempfile::tempdir().unwrap();
        face_folder(root.path(), &[("ann", 1), ("bob", 1)]);
        let error = People::scan(root.path()).unwrap_err().to_string();
        assert!(
            error.contains("it has 2") && error.contains("only as negatives (ann, bob)"),
            "{error}"
        );
        assert!(People::scan(&root.path().join("gone")).unwrap_err().to_string().contains("gone"));
    }
}
