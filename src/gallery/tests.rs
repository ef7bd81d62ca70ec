use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::*;
use crate::eval::Embeddings;
use crate::models::Architecture;
use crate::recognise::{Answer, Identifier, StrangerSource};

const DIM: usize = 32;

/// Draws faces: people far from each other, their faces near.
struct Faces(StdRng);

impl Faces {
    fn new() -> Self {
        Self(StdRng::seed_from_u64(7))
    }

    fn unit(values: Vec<f32>) -> Vec<f32> {
        let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        values.iter().map(|value| value / norm).collect()
    }

    fn person(&mut self) -> Vec<f32> {
        Self::unit((0..DIM).map(|_| self.0.random_range(-1.0..1.0)).collect())
    }

    fn near(&mut self, centre: &[f32], by: f32) -> Vec<f32> {
        Self::unit(centre.iter().map(|at| at + by * self.0.random_range(-1.0..1.0f32)).collect())
    }

    fn of(&mut self, name: &str, centre: &[f32], count: usize) -> Vec<NewFace> {
        (0..count).map(|at| face(&format!("{name}/{at}.png"), self.near(centre, 0.05))).collect()
    }
}

fn face(path: &str, embedding: Vec<f32>) -> NewFace {
    NewFace {
        path: path.into(),
        sha256: format!("sha-{path}"),
        bounds: [1.0, 2.0, 30.0, 40.0],
        detection: Some(0.99),
        sharpness: Some(100.0),
        thumbnail: None,
        embedding,
    }
}

fn trunk() -> GalleryTrunk {
    GalleryTrunk {
        architecture: Architecture::Vgg16,
        fingerprint: "0123456789abcdef".into(),
        dim: DIM,
        source: TrunkSource::default(),
    }
}

fn strangers(faces: &mut Faces, people: usize) -> Strangers {
    let rows: Vec<f32> = (0..people).flat_map(|_| faces.person()).collect();
    let view = Embeddings::new(people, DIM, rows).unwrap();
    Strangers { views: vec![view], people, source: StrangerSource::Folder("others".into()) }
}

/// Three people with four faces each.
fn three(faces: &mut Faces) -> (TempDir, Gallery, Vec<Vec<f32>>) {
    let folder = tempfile::tempdir().unwrap();
    let mut gallery = Gallery::open(&folder.path().join("g.db")).unwrap();
    gallery.use_trunk(trunk(), Some(&strangers(faces, 400))).unwrap();
    let centres: Vec<Vec<f32>> = (0..3).map(|_| faces.person()).collect();
    for (name, centre) in ["ann", "bob", "cid"].iter().zip(&centres) {
        let enrolled = gallery.enrol(name, &faces.of(name, centre, 4)).unwrap();
        assert_eq!((enrolled.added, enrolled.doubts), (4, vec![]));
    }
    (folder, gallery, centres)
}

fn ask(gallery: &Gallery, query: &[f32]) -> Answer {
    let query = Embeddings::new(1, DIM, query.to_vec()).unwrap();
    gallery.identify(&query).unwrap().remove(0)
}

/// The name that is given.
fn named<'a>(gallery: &'a Gallery, query: &[f32]) -> Option<&'a str> {
    let answer = ask(gallery, query);
    answer.is_known.then(|| gallery.name(answer.ranking[0].0))
}

fn again(gallery: Gallery) -> Gallery {
    let path = gallery.path().to_owned();
    drop(gallery);
    Gallery::open_existing(&path).unwrap()
}

#[test]
fn the_enrolled_are_named_and_strangers_are_not() {
    let mut faces = Faces::new();
    let (_folder, gallery, centres) = three(&mut faces);
    for (name, centre) in ["ann", "bob", "cid"].iter().zip(&centres) {
        let query = faces.near(centre, 0.05);
        assert_eq!(named(&gallery, &query), Some(*name));
        let answer = ask(&gallery, &query);
        assert_eq!(answer.reasons.len(), 3);
        assert_eq!(answer.reasons[0].neighbour, answer.neighbour);
        assert!(gallery.picture_of(answer.neighbour).unwrap().starts_with(name));
        assert!(answer.ranking[0].1 > 0.9 && answer.known <= 1.0);
    }
    let threshold = gallery.threshold().unwrap();
    assert!(threshold.fpir.value <= 0.01 && threshold.fpir.people == 400);
    let others: Vec<_> = (0..1000).map(|_| faces.person()).collect();
    let wrong = others.iter().filter(|other| named(&gallery, other).is_some()).count();
    assert!(wrong <= 25, "{wrong} of 1000 strangers are named");
}

#[test]
fn a_reopened_gallery_answers_the_same_and_knows_its_threshold() {
    let mut faces = Faces::new();
    let (_folder, mut gallery, centres) = three(&mut faces);
    gallery.reject("ann", &[face("no.png", faces.near(&centres[0], 0.3))]).unwrap();
    gallery.set_fpir(Some(0.05)).unwrap();
    let queries: Vec<_> = (0..20).map(|at| faces.near(&centres[at % 3], 0.3)).collect();
    let before: Vec<Answer> = queries.iter().map(|query| ask(&gallery, query)).collect();
    let threshold = gallery.threshold().unwrap().clone();
    let gallery = again(gallery);
    let after: Vec<Answer> = queries.iter().map(|query| ask(&gallery, query)).collect();
    assert_eq!(before, after);
    assert_eq!(threshold, *gallery.threshold().unwrap());
    assert_eq!(threshold.fpir.asked, Some(0.05));
    assert!(gallery.check().unwrap().is_empty());
}

#[test]
fn the_limit_is_that_of_a_full_search_whatever_was_done_before() {
    let mut faces = Faces::new();
    let (folder, mut gallery, centres) = three(&mut faces);
    let limit = |gallery: &Gallery| gallery.threshold().unwrap().limit;
    // More people: more chances for a stranger.
    let few = limit(&gallery);
    for at in 0..40 {
        let centre = faces.person();
        let name = format!("person {at}");
        gallery.enrol(&name, &faces.of(&name, &centre, 2)).unwrap();
    }
    assert!(limit(&gallery) < few);
    // Farther faces move a person away from strangers.
    gallery.enrol("ann", &[face("far.png", faces.near(&centres[0], 0.5))]).unwrap();
    gallery.forget("bob").unwrap();
    gallery.merge("person 3", "person 7").unwrap();
    gallery.rename("person 9", "zoe").unwrap();
    assert!(gallery.check().unwrap().is_empty());
    // In one step, in another order.
    let all = gallery.export().unwrap();
    let mut people: Vec<(String, Vec<NewFace>)> = Vec::new();
    for (at, name) in all.names.iter().enumerate().rev() {
        let row = all.values[at * DIM..(at + 1) * DIM].to_vec();
        people.push((name.clone(), vec![face(&all.paths[at], row)]));
    }
    let mut other = Gallery::open(&folder.path().join("other.db")).unwrap();
    other.use_trunk(trunk(), Some(&strangers(&mut Faces::new(), 400))).unwrap();
    other.enrol_all(&people).unwrap();
    assert_eq!(limit(&gallery), limit(&other));
    assert_eq!((gallery.people(), gallery.faces()), (other.people(), other.faces()));
}

#[test]
fn the_forgotten_leave_no_byte() {
    let mut faces = Faces::new();
    let (folder, mut gallery, centres) = three(&mut faces);
    let mut secret = faces.of("Secret Name", &centres[1], 30);
    for face in &mut secret {
        face.thumbnail = Some(b"thumbnail of a secret face".to_vec());
    }
    gallery.enrol("Secret Name", &secret).unwrap();
    gallery.reject("Secret Name", &[face("rejected-secret.png", faces.person())]).unwrap();
    let holds = |needle: &[u8]| {
        let files = std::fs::read_dir(folder.path()).unwrap();
        files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .any(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
    };
    let vectors: Vec<Vec<u8>> = secret.iter().map(|face| to_bytes(&face.embedding)).collect();
    let texts = ["Secret Name", "thumbnail of a secret", "sha-Secret", "rejected-secret"];
    assert!(texts.iter().all(|text| holds(text.as_bytes())));
    assert!(vectors.iter().all(|vector| holds(vector)));
    assert_eq!(gallery.forget("Secret Name").unwrap(), 30);
    assert!(!texts.iter().any(|text| holds(text.as_bytes())));
    // Not even part of a vector.
    assert!(!vectors.iter().any(|vector| holds(&vector[..16]) || holds(&vector[64..80])));
    assert!(holds(b"a person was forgotten"));
    assert!(gallery.check().unwrap().is_empty());
    let error = gallery.forget("bobb").unwrap_err().to_string();
    assert!(error.contains("did you mean bob?"), "{error}");
}

#[test]
fn a_rejected_match_is_not_offered_again() {
    let mut faces = Faces::new();
    let (_folder, mut gallery, centres) = three(&mut faces);
    let twin = faces.near(&centres[0], 0.1);
    assert_eq!(named(&gallery, &twin), Some("ann"));
    gallery.reject("ann", &[face("twin.png", twin.clone())]).unwrap();
    let again = faces.near(&twin, 0.01);
    let answer = ask(&gallery, &again);
    assert!(!answer.is_known && gallery.name(answer.ranking[0].0) != "ann");
    // Her own faces are still hers.
    assert_eq!(named(&gallery, &faces.near(&centres[0], 0.03)), Some("ann"));
}

#[test]
fn faces_that_look_like_others_are_doubted_and_limits_shrink() {
    let mut faces = Faces::new();
    let (_folder, mut gallery, centres) = three(&mut faces);
    let enrolled = gallery.enrol("ann", &faces.of("wrong", &centres[1], 1)).unwrap();
    let doubt = &enrolled.doubts[0];
    assert_eq!((doubt.person.as_str(), doubt.is_same_picture), ("bob", false));
    // The same picture under another name, and again under the same.
    let same = face("cid/0.png", faces.near(&centres[2], 0.02));
    let enrolled = gallery.enrol("bob", std::slice::from_ref(&same)).unwrap();
    assert!(enrolled.doubts.iter().any(|doubt| doubt.is_same_picture && doubt.person == "cid"));
    assert_eq!(gallery.enrol("bob", &[same]).unwrap().again, ["cid/0.png"]);
    let people = gallery.list().unwrap();
    let limit = gallery.threshold().unwrap().limit;
    let ann = people.iter().find(|person| person.name == "ann").unwrap();
    assert!(ann.look_alikes.contains_key("bob") && ann.limit.unwrap() < limit, "{ann:?}");
    assert!(ann.limit.unwrap() >= 0.7 * limit);
}

#[test]
fn two_processes_see_each_other() {
    let mut faces = Faces::new();
    let (_folder, mut one, _) = three(&mut faces);
    let mut two = Gallery::open_existing(one.path()).unwrap();
    let centre = faces.person();
    two.enrol("dan", &faces.of("dan", &centre, 3)).unwrap();
    assert_eq!(named(&one, &centre), None);
    assert!(one.refresh().unwrap() && !one.refresh().unwrap());
    assert_eq!(named(&one, &centre), Some("dan"));
    two.rename("dan", "daniel").unwrap();
    let eve = faces.person();
    one.enrol("eve", &faces.of("eve", &eve, 2)).unwrap();
    assert_eq!(named(&one, &centre), Some("daniel"));
    assert!(one.check().unwrap().is_empty());
}

#[test]
fn what_fails_changes_nothing() {
    let mut faces = Faces::new();
    let (folder, mut gallery, centres) = three(&mut faces);
    let good = faces.of("dan", &centres[0], 1);
    let short = face("short.png", vec![1.0]);
    let broken = face("broken.png", vec![f32::NAN; DIM]);
    for bad in [short, broken] {
        let name = bad.path.clone();
        let error = gallery.enrol("dan", &[good[0].clone(), bad]).unwrap_err().to_string();
        assert!(error.contains(&name), "{error}");
    }
    for name in ["", " ann", "a\nb"] {
        assert!(gallery.enrol(name, &good).is_err());
    }
    assert!(gallery.set_fpir(Some(0.0001)).unwrap_err().to_string().contains("--fpir"));
    assert!(gallery.rename("ann", "bob").unwrap_err().to_string().contains("merge"));
    let other = GalleryTrunk { fingerprint: "fedcba9876543210".into(), ..trunk() };
    let error = gallery.use_trunk(other, None).unwrap_err().to_string();
    assert!(error.contains("another trunk") && error.contains("01234567"), "{error}");
    assert_eq!((gallery.people(), gallery.faces()), (3, 12));
    assert_eq!((again(gallery).people(), 3), (3, 3));
    // Files that are no galleries.
    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, though long enough to be one".repeat(50)).unwrap();
    assert!(Gallery::open(&text).unwrap_err().to_string().contains("not a gallery"));
    let error = Gallery::open_existing(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("no such gallery"), "{error}");
    let new = Gallery::open(&folder.path().join("new.db")).unwrap();
    assert!(new.threshold().is_none() && ask(&new, &[0.5; DIM]).ranking.is_empty());
}

#[test]
fn unknown_people_are_grouped_and_get_names() {
    let mut faces = Faces::new();
    let (_folder, mut gallery, _) = three(&mut faces);
    let (dan, eve) = (faces.person(), faces.person());
    let mut groups = Vec::new();
    for at in 0..4 {
        // Both on one photo.
        let mut photo = [face("", faces.near(&dan, 0.05)), face("", faces.near(&eve, 0.05))];
        photo.iter_mut().for_each(|face| face.sha256 = format!("photo {at}"));
        let seen = gallery.remember(&photo).unwrap();
        assert_eq!(seen[0].is_new, at == 0);
        groups.push((seen[0].group.id, seen[1].group.id));
        // The same photo again adds nothing.
        assert_eq!(gallery.remember(&photo[..1]).unwrap()[0].group.faces, at + 1);
    }
    let (one, two) = groups[0];
    assert!(one != two && groups.iter().all(|group| *group == (one, two)));
    assert_eq!(gallery.cluster().unwrap(), (2, 2));
    let kept: Vec<_> = gallery.unknown().unwrap().iter().map(|group| group.id).collect();
    assert!(kept.contains(&one) && kept.contains(&two));
    assert_eq!(named(&gallery, &dan), None);
    assert_eq!(gallery.promote(one, "dan").unwrap().added, 4);
    assert_eq!(named(&gallery, &faces.near(&dan, 0.05)), Some("dan"));
    assert!(gallery.promote(one, "dan").unwrap_err().to_string().contains("no unknown person"));
    assert_eq!(gallery.forget_unknown(None).unwrap(), 1);
    assert!(gallery.unknown().unwrap().is_empty() && gallery.check().unwrap().is_empty());
}

#[test]
fn faces_of_one_photo_are_never_one_person() {
    let mut faces = Faces::new();
    let (_folder, mut gallery, _) = three(&mut faces);
    let dan = faces.person();
    let mut photo = [face("", faces.near(&dan, 0.01)), face("", faces.near(&dan, 0.01))];
    photo.iter_mut().for_each(|face| face.sha256 = "photo".into());
    let seen = gallery.remember(&photo).unwrap();
    assert_ne!(seen[0].group.id, seen[1].group.id);
    assert_eq!(gallery.cluster().unwrap(), (2, 2));
}
