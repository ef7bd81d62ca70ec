//! `visage gallery` from the command line, on drawn faces.

#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{ANSWER_KEYS, IDENTITIES, draw, fail, run, text, visage, write_faces};
use serde_json::Value;
use tempfile::TempDir;

/// Six pictures of three of the drawn people are enrolled; `new` holds the others.
fn enrolled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_faces(&folder.path().join("all"));
    let place = |kind: &str, name: &str| folder.path().join(kind).join(name);
    for name in IDENTITIES {
        for kind in ["people", "new"] {
            std::fs::create_dir_all(place(kind, name)).unwrap();
        }
        for picture in 0..8 {
            let kind = if picture < 6 && name != "dirac" { "people" } else { "new" };
            let file = format!("{picture}.png");
            let from = place("all", name).join(&file);
            std::fs::copy(from, place(kind, name).join(&file)).unwrap();
        }
    }
    std::fs::remove_dir(place("people", "dirac")).unwrap();
    enroll(folder.path(), &["--tree", "people"]);
    folder
}

fn enroll(folder: &Path, arguments: &[&str]) -> Value {
    let flags = ["gallery", "enroll", "--detect", "never", "--json"];
    serde_json::from_str(&run(folder, &[&flags, arguments].concat())).unwrap()
}

fn identify(folder: &Path, arguments: &[&str]) -> Vec<Value> {
    let flags = ["gallery", "identify", "--detect", "never", "--json"];
    let lines = run(folder, &[&flags, arguments].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn list(folder: &Path) -> Value {
    serde_json::from_str(&run(folder, &["gallery", "list", "--json"])).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let list = list(folder);
    let people = list["people"].as_array().unwrap().iter();
    people.map(|person| person["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn people_are_enrolled_named_and_forgotten() {
    let folder = enrolled();
    let at = folder.path();
    assert_eq!(names(at), ["ada", "bohr", "curie"]);
    for answer in identify(at, &["new/ada", "new/bohr", "new/curie", "new/dirac"]) {
        let keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
        // Those of `classify`, and the reasons.
        let more = ["neighbours", "crop", "model", "faces"];
        let expected = [&ANSWER_KEYS[..], &more].concat();
        assert_eq!(keys, expected);
        let owner = answer["file"].as_str().unwrap().split('/').nth(1).unwrap();
        match answer["label"].as_str() {
            Some(label) => assert_eq!(label, owner, "{answer}"),
            None => assert_eq!(answer["faces"].as_array().unwrap().len(), 1),
        }
        assert_ne!(answer["nearest"], Value::Null);
        assert_eq!(answer["neighbours"].as_array().unwrap().len(), 3);
    }
    // An enrolled picture itself is as near as can be.
    let own = &identify(at, &["people/bohr/2.png"])[0];
    assert_eq!(own["label"], "bohr");
    assert!(own["distance"].as_f64().unwrap() < 1e-4, "{own}");
    let sentence =
        run(at, &["gallery", "identify", "--detect", "never", "--reasons", "people/bohr/2.png"]);
    assert!(sentence.starts_with("bohr with ") && sentence.contains("at distance 0.000"));

    assert_eq!(run(at, &["gallery", "rename", "bohr", "niels"]), "renamed bohr to niels\n");
    let merged = run(at, &["gallery", "merge", "niels", "curie"]);
    assert_eq!(merged, "6 faces of niels now belong to curie\n");
    assert_eq!(identify(at, &["people/bohr/2.png"])[0]["label"], "curie");
    let shown = run(at, &["gallery", "show", "curie"]);
    assert!(shown.starts_with("curie: 12 faces") && shown.contains("people/bohr/2.png"), "{shown}");
    assert_eq!(run(at, &["gallery", "forget", "curie"]), "forgot curie: 12 faces deleted\n");
    assert_eq!(names(at), ["ada"]);
    let bytes = std::fs::read(at.join("gallery.db")).unwrap();
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"people/ada") && !holds(b"curie") && !holds(b"bohr"));
    assert!(run(at, &["gallery", "check"]).starts_with("sound: 6 faces of 1 person"));
    let output = visage(at, &["gallery", "forget", "curie"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nobody of that name is enrolled in gallery.db"));
}

#[test]
fn pictures_without_one_clear_face_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/detect");
    let (one, row) = (golden.join("one.png"), golden.join("row.png"));
    draw(1, 1, 90).save(folder.path().join("none.png")).unwrap();
    std::fs::write(folder.path().join("broken.png"), "no picture").unwrap();
    let (one, row) = (one.to_str().unwrap(), row.to_str().unwrap());
    let output = visage(
        folder.path(),
        &[
            "gallery",
            "enroll",
            "--name",
            "Ann Lee",
            "--thumbnails",
            one,
            row,
            "none.png",
            "broken.png",
        ],
    );
    let (errors, out) = (text(&output.stderr), text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for part in ["faces of about the same size", "none.png: no face found", "broken.png: "] {
        assert!(errors.contains(part), "{errors}");
    }
    assert!(out.starts_with("enrolled 1 face of 1 person; gallery.db now holds 1 face"), "{out}");
    assert!(out.contains("1.0 % of strangers get a name"), "{out}");
    // The same face on the same photo, and among others.
    let answer: Value =
        serde_json::from_str(&run(folder.path(), &["gallery", "identify", "--json", one])).unwrap();
    assert_eq!(answer["label"], "Ann Lee");
    run(folder.path(), &["gallery", "show", "Ann Lee", "--thumbnails", "small"]);
    let small: Vec<_> = std::fs::read_dir(folder.path().join("small")).unwrap().collect();
    assert_eq!(small.len(), 1);
    let small = image::open(small[0].as_ref().unwrap().path()).unwrap();
    assert_eq!((small.width(), small.height()), (96, 96));
    let output = visage(folder.path(), &["gallery", "enroll", "--name", "Ann Lee", one]);
    assert!(text(&output.stderr).contains("note: enrolled before: 1 face ("));
}

#[test]
fn rejected_and_unknown_faces_are_remembered() {
    let folder = enrolled();
    let at = folder.path();
    let before = &identify(at, &["people/ada/3.png"])[0];
    assert_eq!(before["label"], "ada");
    run(at, &["gallery", "reject", "--detect", "never", "ada", "people/ada/3.png"]);
    // What is said later counts, though the picture is enrolled.
    assert_ne!(identify(at, &["people/ada/3.png"])[0]["nearest"], "ada");
    assert_eq!(identify(at, &["people/ada/0.png"])[0]["label"], "ada");
    run(at, &["gallery", "reject", "--detect", "never", "ada", "new/ada/7.png"]);
    assert_ne!(identify(at, &["new/ada/7.png"])[0]["nearest"], "ada");

    let seen = identify(at, &["--remember-strangers", "new/dirac"]);
    let groups: BTreeSet<i64> =
        seen.iter().filter_map(|answer| answer["faces"][0]["unknown"]["id"].as_i64()).collect();
    assert!(!groups.is_empty() && groups.len() < 8, "{groups:?}");
    let again = identify(at, &["--remember-strangers", "new/dirac/0.png"]);
    let group = again[0]["faces"][0]["unknown"]["id"].to_string();
    let listed = run(at, &["gallery", "list", "--unknown"]);
    assert!(listed.contains(&format!("unknown {group}: ")) && listed.contains("new/dirac/0.png"));
    let promoted = run(at, &["gallery", "promote", &group, "dirac"]);
    assert!(promoted.starts_with(&format!("unknown {group} is now dirac: ")), "{promoted}");
    assert_eq!(identify(at, &["new/dirac/0.png"])[0]["label"], "dirac");
    run(at, &["gallery", "cluster"]);
    run(at, &["gallery", "forget", "--all-unknown"]);
    assert_eq!(run(at, &["gallery", "list", "--unknown"]), "");
    assert!(fail(at, &["gallery", "promote", "99", "eve"]).contains("no unknown person"));
}

#[test]
fn embeddings_go_out_and_come_back() {
    let folder = enrolled();
    let at = folder.path();
    assert!(
        run(at, &["gallery", "export", "--out", "g.npz"])
            .starts_with("wrote 18 embeddings of 3 people")
    );
    assert!(fail(at, &["gallery", "export", "--out", "g.npz"]).contains("--force"));
    run(at, &["gallery", "import", "g.npz", "--db", "two.db"]);
    let mut two: Value =
        serde_json::from_str(&run(at, &["gallery", "list", "--json", "--db", "two.db"])).unwrap();
    let mut one = list(at);
    for gallery in [&mut one, &mut two] {
        assert_eq!(gallery["faces"], 18);
        gallery["trunk"]["source"].take();
    }
    assert_eq!(one, two);
    // And what `embed` writes.
    for file in ["e.csv", "n.npy"] {
        run(
            at,
            &[
                "embed",
                "--detect",
                "never",
                "--backbone",
                "dlib-resnet",
                "people",
                "--out",
                file,
                "--force",
            ],
        );
        let db = format!("{file}.db");
        run(at, &["gallery", "import", file, "--db", &db]);
        let answer = identify(at, &["--db", &db, "people/ada/1.png"]);
        assert_eq!(answer[0]["label"], "ada");
        assert!(answer[0]["distance"].as_f64().unwrap() < 1e-3);
    }
    let again = visage(at, &["gallery", "import", "e.csv", "--db", "e.csv.db"]);
    assert!(text(&again.stderr).contains("enrolled before: 18 faces"), "{}", text(&again.stderr));
    std::fs::write(at.join("bad.csv"), "path,label,e0\na.png,ann,x\n").unwrap();
    assert!(fail(at, &["gallery", "import", "bad.csv"]).contains("row 2: \"x\" is no number"));
    std::fs::write(at.join("short.csv"), "path,label,e0\na.png,ann,1.0\n").unwrap();
    let error = fail(at, &["gallery", "import", "short.csv"]);
    assert!(error.contains("an embedding of length 1, not the gallery's 128"), "{error}");
}

#[test]
fn wrong_use_is_explained() {
    let folder = enrolled();
    let at = folder.path();
    assert!(fail(at, &["gallery", "list", "--db", "no.db"]).contains("there is no such gallery"));
    std::fs::write(at.join("text.db"), "just some text, not a database at all").unwrap();
    assert!(fail(at, &["gallery", "list", "--db", "text.db"]).contains("not a gallery"));
    let other = ["gallery", "identify", "--backbone", "openface", "new/ada"];
    assert!(fail(at, &other).contains("another trunk: dlib-resnet"));
    let random =
        ["gallery", "enroll", "--db", "new.db", "--name", "x", "--backbone", "facenet", "new/ada"];
    let error = fail(at, &random);
    assert!(error.contains("--strangers DIR"), "{error}");
    let strict =
        ["gallery", "enroll", "--name", "x", "--detect", "never", "--fpir", "0.001%", "new/ada"];
    assert!(fail(at, &strict).contains("--fpir"));
    assert_eq!(names(at), ["ada", "bohr", "curie"]);
    // With strangers of its own, any trunk will do.
    let own = [
        "gallery",
        "enroll",
        "--db",
        "new.db",
        "--backbone",
        "openface",
        "--detect",
        "never",
        "--strangers",
        "new",
        "--fpir",
        "80%",
        "--tree",
        "people",
    ];
    let out = run(at, &own);
    assert!(out.contains("people in new)"), "{out}");
}

/// What was confirmed stays, and nothing is half there, whenever the process is killed.
#[test]
#[cfg(unix)]
fn a_killed_enrolment_loses_nothing_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for person in 0..40 {
        let place = at.join(format!("people/p{person}"));
        std::fs::create_dir_all(&place).unwrap();
        (0..3).for_each(|p| draw(person, p, 64).save(place.join(format!("{p}.png"))).unwrap());
    }
    let flags = [
        "--device",
        "cpu",
        "--threads",
        "1",
        "gallery",
        "enroll",
        "--detect",
        "never",
        "--tree",
        "people",
        "--quiet",
    ];
    let mut before = 0;
    for at_ms in [400, 700, 1000, 1300] {
        let program = assert_cmd::cargo::cargo_bin("visage");
        let mut child = std::process::Command::new(program)
            .current_dir(at)
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(at_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        if !at.join("gallery.db").exists() {
            continue;
        }
        assert!(run(at, &["gallery", "check"]).starts_with("sound: "));
        let list = list(at);
        let people = list["people"].as_array().unwrap();
        assert!(people.len() >= before && people.iter().all(|person| person["faces"] == 3));
        before = people.len();
    }
    enroll(at, &["--tree", "people"]);
    assert_eq!(names(at).len(), 40);
    assert_eq!(list(at)["faces"], 120);
}
