//! `visage audit` as a user runs it: planted faults are found, told and shown.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{IDENTITIES, draw, fail, text, visage, write_faces};
use image::imageops;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;

/// Drawn faces with one of each fault; the identities' own pictures are not the test's matter.
fn plant(root: &Path) {
    write_faces(root);
    std::fs::write(root.join("ada/broken.png"), "not a picture").unwrap();
    std::fs::copy(root.join("ada/3.png"), root.join("bohr/copy.png")).unwrap();
    std::fs::copy(root.join("curie/4.png"), root.join("curie/again.png")).unwrap();
    draw(1, 20, 40).save(root.join("bohr/tiny <i>'\"&.png")).unwrap();
    let grey = image::DynamicImage::ImageRgb8(draw(2, 21, 130)).to_luma8();
    grey.save(root.join("curie/grey.png")).unwrap();
    let soft = imageops::blur(&draw(0, 22, 130), 12.0);
    soft.save(root.join("ada/soft.png")).unwrap();
    let mut dark = draw(3, 23, 130);
    dark.pixels_mut().for_each(|pixel| pixel.0 = pixel.0.map(|value| value / 12));
    dark.save(root.join("dirac/dark.png")).unwrap();
    let wide = imageops::resize(&draw(3, 24, 130), 390, 130, imageops::FilterType::Triangle);
    wide.save(root.join("dirac/wide.png")).unwrap();
    std::fs::create_dir(root.join("euler")).unwrap();
    draw(9, 25, 130).save(root.join("euler/1.png")).unwrap();
}

/// What was planted: the kind, and the file or identity.
const PLANTED: [(&str, &str); 9] = [
    ("unreadable", "ada/broken.png"),
    ("two-names", "bohr/copy.png"),
    ("duplicate", "curie/again.png"),
    ("tiny", "bohr/tiny <i>'\"&.png"),
    ("grey", "curie/grey.png"),
    ("blurred", "ada/soft.png"),
    ("dark", "dirac/dark.png"),
    ("elongated", "dirac/wide.png"),
    ("lonely", "euler"),
];

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

/// (kind, file or identity) of every finding.
fn findings(report: &Value) -> Vec<(String, String)> {
    let subject = |finding: &Value| {
        let subject = finding["file"].as_str().or(finding["identity"].as_str());
        (finding["kind"].as_str().unwrap().to_owned(), subject.unwrap().to_owned())
    };
    report["findings"].as_array().unwrap().iter().map(subject).collect()
}

#[test]
fn planted_faults_are_told_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    plant(&root.join("faces"));
    let arguments =
        ["audit", "faces", "--json", "--csv", "out/audit.csv", "--html", "out/audit.html"];
    let output = visage(root, &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!((&report["pictures"], &report["identities"]), (&41.into(), &5.into()));
    let found = findings(&report);
    for (kind, subject) in PLANTED {
        assert!(found.contains(&(kind.into(), subject.into())), "{kind} {subject}: {found:?}");
        assert!(report["counts"][kind].as_u64() >= Some(1));
    }
    for key in ["kind", "severity", "file", "other", "identity", "looks_like", "value", "fix"] {
        for finding in report["findings"].as_array().unwrap() {
            assert!(finding.get(key).is_some(), "{key}: {finding}");
            assert!(!finding["fix"].as_str().unwrap().is_empty());
        }
    }
    let names = report["findings"].as_array().unwrap();
    let names = names.iter().find(|finding| finding["kind"] == "two-names").unwrap();
    assert_eq!((&names["other"], &names["looks_like"]), (&"ada/3.png".into(), &"ada".into()));

    let mut table = csv::Reader::from_path(root.join("out/audit.csv")).unwrap();
    let rows: Vec<_> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), found.len());
    for (row, (kind, subject)) in rows.iter().zip(&found) {
        let name = if row[2].is_empty() { &row[4] } else { &row[2] };
        assert_eq!((&row[1], name), (kind.as_str(), subject.as_str()));
    }

    let output = visage(root, &["audit", "faces", "--top", "3", "--no-detect"]);
    let lines = text(&output.stdout);
    assert!(lines.starts_with("faces: 41 pictures of 5 identities (min 1, median 10"), "{lines}");
    assert!(
        lines.contains("\nhigh     unreadable             1  replace or delete the file"),
        "{lines}"
    );
    assert!(lines.contains("\nthe worst 3 of "), "{lines}");
    let wanted = "\nhigh     two-names       bohr/copy.png: same file as ada/3.png\n";
    assert!(lines.contains(wanted), "{lines}");
    in_a_browser(root, &root.join("out/audit.html"));
}

/// The page has every planted finding, and every picture in it is one.
fn in_a_browser(root: &Path, page: &Path) {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = names.into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    }) else {
        eprintln!("skipped: the page in a browser; none of {} is installed", names.join(", "));
        return;
    };
    // The page itself runs no script; this copy of it counts its pictures.
    let script = "<script>addEventListener('load', () => { const all = [...document.images]; \
                  const good = all.filter(i => i.complete && i.naturalWidth > 0); \
                  document.body.dataset.pictures = good.length + ' of ' + all.length; });</script>";
    let html = std::fs::read_to_string(page).unwrap();
    assert!(!html.contains("<script") && !html.contains("http:") && !html.contains("https:"));
    let copy = root.join("checked.html");
    std::fs::write(&copy, html.replace("</body>", &format!("{script}</body>"))).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", root.join("browser").display()))
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", copy.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let counted = dom.split("data-pictures=\"").nth(1).and_then(|rest| rest.split('"').next());
    let images = html.matches("<img ").count();
    assert!(images >= 10, "{images} pictures");
    assert_eq!(counted, Some(format!("{images} of {images}").as_str()), "{dom:.300}");
    for (kind, subject) in PLANTED {
        let section = dom.split(&format!("<section id=\"{kind}\">")).nth(1);
        let section = section.and_then(|rest| rest.split("</section>").next()).unwrap_or_default();
        // As the browser writes text back; a line may break behind a folder.
        let shown = subject.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(section.replace("<wbr>", "").contains(&shown), "{shown} in {section:.900}");
    }
}

#[test]
fn a_split_is_searched_for_leaks_and_a_flat_folder_for_copies() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write_faces(&root.join("faces"));
    std::fs::copy(root.join("faces/ada/3.png"), root.join("faces/ada/copy.png")).unwrap();
    let mut rows = "path,identity,part\n".to_owned();
    for name in IDENTITIES {
        for picture in 0..8 {
            let part = if picture == 3 { "validation" } else { "train" };
            rows += &format!("{name}/{picture}.png,{name},{part}\n");
        }
    }
    rows += "ada/copy.png,ada,train\nada/gone.png,ada,train\n";
    std::fs::write(root.join("split.csv"), rows).unwrap();
    let quick = ["audit", "faces", "--no-detect", "--margin", "3", "--json"];
    let output = visage(root, &[&quick[..], &["--split", "split.csv"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report = json(&output);
    assert!(findings(&report).contains(&("leak".into(), "ada/3.png".into())), "{report}");
    assert!(report["notes"].to_string().contains("1 picture of it missing"), "{report}");

    // The same of folders that come split.
    for (from, to) in [("ada/3.png", "val/ada"), ("ada", "train/ada"), ("bohr", "train/bohr")] {
        let to = root.join("split").join(to);
        std::fs::create_dir_all(&to).unwrap();
        let from = root.join("faces").join(from);
        let files = match from.is_dir() {
            true => std::fs::read_dir(&from).unwrap().map(|file| file.unwrap().path()).collect(),
            false => vec![from],
        };
        files
            .iter()
            .for_each(|file| _ = std::fs::copy(file, to.join(file.file_name().unwrap())).unwrap());
    }
    let output = visage(root, &["audit", "split", "--no-detect", "--margin", "3", "--json"]);
    let report = json(&output);
    assert_eq!((output.status.code(), &report["identities"]), (Some(1), &2.into()), "{report}");
    assert!(report["counts"]["leak"].as_u64() >= Some(1), "{report}");

    // Without the split nothing is serious.
    let output = visage(root, &quick);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(report["counts"]["duplicate"], 1);

    let output = visage(root, &["audit", "faces/ada", "--no-detect", "--json"]);
    let report = json(&output);
    assert_eq!((output.status.code(), &report["identities"]), (Some(0), &0.into()));
    assert!(findings(&report).contains(&("duplicate".into(), "copy.png".into())), "{report}");
}

#[test]
fn misuse_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir(root.join("empty")).unwrap();
    draw(1, 1, 40).save(root.join("face.png")).unwrap();
    std::fs::write(root.join("split.csv"), "path,identity,part\nx/y.png,x,train\n").unwrap();
    for (arguments, part) in [
        (vec!["gone"], "gone: does not exist"),
        (vec!["face.png"], "face.png: is not a folder"),
        (vec!["empty"], "empty: contains no pictures"),
        (vec![".", "--split", "split.csv"], "split.csv: names none of the pictures"),
        (vec![".", "--split", "none.csv"], "none.csv"),
        (vec![".", "--margin", "0"], "--margin 0: must be a number above 0"),
        (vec![".", "--max-aspect", "0.5"], "--max-aspect 0.5: must be a number of at least 1"),
        (vec![".", "--top", "few"], "expected a number or `all`"),
    ] {
        let errors = fail(root, &[&["audit"], &arguments[..]].concat());
        assert!(errors.contains(part), "{part} in {errors}");
    }
}

/// Real faces moved to a wrong folder are found, and few others are accused.
#[test]
fn real_faces_under_a_wrong_name_are_found() {
    let faces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/avengers");
    if !faces.is_dir() {
        eprintln!("skipped: {} is missing", faces.display());
        return;
    }
    let (mut planted, mut found, mut accused) = (0, 0, 0);
    for seed in 0..2 {
        let folder = tempfile::tempdir().unwrap();
        let moved = mislabelled(&faces, &folder.path().join("faces"), 8, seed);
        let output = visage(folder.path(), &["audit", "faces", "--no-detect", "--json"]);
        let serious = ["mislabel", "two-names"];
        let all = findings(&json(&output));
        let mut blamed: Vec<_> =
            all.into_iter().filter(|(kind, _)| serious.contains(&kind.as_str())).collect();
        blamed.sort_by(|a, b| a.1.cmp(&b.1));
        blamed.dedup_by(|a, b| a.1 == b.1);
        planted += moved.len();
        found += blamed.iter().filter(|(_, file)| moved.contains(file)).count();
        accused += blamed.iter().filter(|(_, file)| !moved.contains(file)).count();
    }
    eprintln!("{found} of {planted} found, {accused} others accused");
    assert!(10 * found >= 7 * planted, "{found} of {planted} found");
    assert!(10 * accused <= planted, "{accused} accused wrongly");
}

/// Links the faces into a new folder, `count` of them below another name; their new places.
fn mislabelled(faces: &Path, root: &Path, count: usize, seed: u64) -> Vec<String> {
    let list = |folder: &Path| {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let people = list(faces);
    let mut files: Vec<(usize, PathBuf)> = people
        .iter()
        .enumerate()
        .flat_map(|(owner, folder)| list(folder).into_iter().map(move |file| (owner, file)))
        .collect();
    files.shuffle(&mut StdRng::seed_from_u64(seed));
    let mut moved = Vec::new();
    for (index, (owner, file)) in files.iter().enumerate() {
        let wrong = index < count;
        let person = &people[if wrong { (owner + 1 + index % 4) % people.len() } else { *owner }];
        let (person, name) = (person.file_name().unwrap(), file.file_name().unwrap());
        std::fs::create_dir_all(root.join(person)).unwrap();
        std::fs::copy(file, root.join(person).join(name)).unwrap();
        if wrong {
            moved.push(format!("{}/{}", person.to_str().unwrap(), name.to_str().unwrap()));
        }
    }
    moved
}
