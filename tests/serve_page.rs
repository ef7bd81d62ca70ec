//! The page of `visage serve`, used by a headless Chromium as a person uses it.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used)] // a test may panic

#[path = "common/browser.rs"]
mod browser;
mod common;
#[path = "common/http.rs"]
mod http;

use std::path::{Path, PathBuf};

use browser::Browser;
use common::run;
use http::Server;
use serde_json::{Value, json};

/// A drawn photo: `one.png` shows one face, `row.png` four, of which three look like that one, `none.png`
/// nobody.
fn photo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/detect").join(name)
}

/// The gallery holds the face of `one.png`.
fn gallery(folder: &Path) {
    let one = photo("one.png");
    run(folder, &["gallery", "enroll", "--name", "Ann Lee", one.to_str().unwrap()]);
}

fn address(server: &Server) -> String {
    format!("http://127.0.0.1:{}", server.port)
}

/// Waits until the n-th photo on the page has been looked at, and gives what the page says about it.
fn looked_at(page: &mut Browser, photo: usize) -> String {
    let article = format!("document.querySelectorAll('article')[{photo}]");
    page.wait(&format!(
        "{article} && !{article}.hasAttribute('aria-busy') && !{article}.innerText.includes('Looking for faces')"
    ));
    page.text(&format!("{article}.innerText"))
}

/// No script failed, nothing was logged, and no other host was asked.
fn is_quiet(page: &Browser, address: &str) {
    let told = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
    let told: Vec<&Value> = page.events(&told).collect();
    assert!(told.is_empty(), "{told:?}");
    let mut own = 0;
    for request in page.events(&["Network.requestWillBeSent"]) {
        let url = request["request"]["url"].as_str().unwrap();
        if url.starts_with("blob:") || url.starts_with("data:") {
            continue;
        }
        assert!(url.starts_with(&format!("{address}/")), "{url}");
        own += 1;
    }
    assert!(own >= 4, "{own} requests");
}

#[test]
fn faces_are_named_enrolled_rejected_and_forgotten() {
    let Some(mut page) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    gallery(folder.path());
    let server = Server::start(folder.path(), &[]);
    page.look(1280, 900, "light");
    page.open(&address(&server));
    page.wait("document.getElementById('people').innerText.includes('Ann Lee')");
    assert!(
        page.text("document.getElementById('facts').innerText").starts_with("1 person, 1 face.")
    );

    // A photo of her, one of four people, and one of nobody.
    let photos = [photo("one.png"), photo("row.png"), photo("none.png")];
    page.choose("#files", &photos.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let one = looked_at(&mut page, 0);
    assert!(one.contains("1 face: Ann Lee") && one.contains("probable, distance 0.000"), "{one}");
    let row = looked_at(&mut page, 1);
    let unnamed = "4 faces: Ann Lee, UNKNOWN, Ann Lee, Ann Lee";
    assert!(row.contains(unnamed) && row.contains("Most like Ann Lee"), "{row}");
    assert!(looked_at(&mut page, 2).contains("no face found"));

    // Each box lies on its face, in pixels of the photo.
    let boxes = page.value(
        "[...document.querySelectorAll('article')[1].querySelectorAll('.box')].map((box) => {
           const [b, i] = [box, box.parentNode.querySelector('img')].map((e) => e.getBoundingClientRect());
           const scale = i.width / 400;
           return [b.left - i.left, b.top - i.top, b.right - i.left, b.bottom - i.top].map((v) => v / scale); })",
    );
    let golden: Value =
        serde_json::from_slice(&std::fs::read(photo("detect.json")).unwrap()).unwrap();
    let golden = golden["row"]["faces"].as_array().unwrap();
    assert_eq!(boxes.as_array().unwrap().len(), golden.len());
    for (shown, face) in boxes.as_array().unwrap().iter().zip(golden) {
        for (value, wanted) in shown.as_array().unwrap().iter().zip(face["box"].as_array().unwrap())
        {
            let (value, wanted) = (value.as_f64().unwrap(), wanted.as_f64().unwrap());
            assert!((value - wanted).abs() < 1.5, "{boxes}: {face}");
        }
    }

    // The reasons come with the keyboard, and go with Escape.
    page.press("Tab", 9);
    page.value("document.querySelector('.box').focus({focusVisible: true})");
    let tip = "getComputedStyle(document.querySelector('.tip')).display";
    assert_eq!(page.text(tip), "block");
    let reasons = page.text("document.querySelector('.tip').innerText");
    assert!(reasons.contains("Ann Lee, distance 0.000"), "{reasons}");
    page.press("Escape", 27);
    assert_eq!(page.text(tip), "none");

    // A name is typed once, and one click enrols the face; a name is text, whatever it holds.
    let name = "Bob <b>& Co</b>/é";
    let form = "document.querySelectorAll('article')[1].querySelectorAll('.face')[1].querySelector('form')";
    page.click(&format!("{form}.querySelector('input')"));
    page.type_text(name);
    page.click(&format!("{form}.querySelector('button')"));
    page.wait("document.getElementById('facts').innerText.startsWith('2 people, 2 faces.')");
    page.wait("document.activeElement.className === 'face'");
    let row = looked_at(&mut page, 1);
    assert!(row.contains(&format!("Face 2: {name}")), "{row}");
    assert!(row.contains(&format!("{name}: 1 face enrolled.")), "{row}");
    assert_eq!(page.value("document.querySelectorAll('article b, #people b').length"), 0);

    // "Not Bob": the face has no name any more.
    let wrong = "[...document.querySelectorAll('article button')].find((b) => b.innerText.startsWith('Not Bob'))";
    page.click(wrong);
    page.wait("document.querySelectorAll('article')[1].innerText.includes('is not named')");
    // The focus moves to the face after the last redraw.
    page.wait("document.activeElement.classList.contains('face')");
    assert!(looked_at(&mut page, 1).contains(unnamed));

    // Forgetting asks first.
    let forget = "[...document.querySelectorAll('#people button')].find((b) => b.ariaLabel.startsWith('Forget Bob'))";
    page.click(forget);
    page.wait("document.getElementById('ask').open");
    let question = page.text("document.getElementById('ask').innerText");
    assert!(question.contains("This cannot be undone."), "{question}");
    assert_eq!(page.text("document.activeElement.id"), "ask-no");
    page.press("Escape", 27);
    page.wait("!document.getElementById('ask').open");
    assert!(page.text("document.getElementById('people').innerText").contains("Bob"));
    // Asked again before the page has been told of the last answer, which must not answer this question.
    page.click(forget);
    page.value(&format!("document.getElementById('ask').close(); {forget}.click()"));
    page.click("document.getElementById('ask-yes')");
    page.wait("document.getElementById('facts').innerText.startsWith('1 person, 1 face.')");
    page.wait("document.getElementById('status').innerText.includes('1 face deleted')");

    // Faces that are kept are grouped, and one click names them.
    page.click("document.getElementById('remember')");
    page.choose("#files", &[photos[1].as_path()]);
    let row = looked_at(&mut page, 3);
    assert!(row.contains("Kept as unknown"), "{row}");
    page.wait("document.querySelectorAll('#unknown form').length === 1");
    page.click("document.querySelector('#unknown input')");
    page.type_text("Carla");
    page.click("document.querySelector('#unknown form button')");
    page.wait("document.querySelectorAll('#unknown form').length === 0");
    page.wait("document.getElementById('people').innerText.includes('Carla')");
    page.wait("document.querySelectorAll('article')[3].innerText.includes('Carla')");

    // The filter.
    page.click("document.getElementById('filter')");
    page.type_text("carl");
    assert_eq!(page.value("document.querySelectorAll('#people li').length"), 1);
    is_quiet(&page, &address(&server));
}

#[test]
fn the_keyboard_reaches_everything_in_every_look() {
    let Some(mut page) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    gallery(folder.path());
    let server = Server::start(folder.path(), &[]);
    // VISAGE_SCREENSHOTS keeps the pictures, for whoever wants to look at them.
    let kept = std::env::var_os("VISAGE_SCREENSHOTS").map(PathBuf::from);
    let shots = kept.as_deref().unwrap_or(folder.path());
    page.look(1280, 900, "light");
    page.open(&address(&server));
    page.wait("document.getElementById('people').innerText.includes('Ann Lee')");
    let photos = [photo("one.png"), photo("row.png")];
    page.choose("#files", &[photos[0].as_path(), photos[1].as_path()]);
    looked_at(&mut page, 1);
    page.value("document.getElementById('enrol').parentNode.open = true");

    // Every control that is shown, in the order of the page.
    let all = page.value(
        "window.all = [...document.querySelectorAll('a[href], button, input, summary')]
           .filter((e) => e.checkVisibility()); all.length",
    );
    page.value("document.activeElement.blur()");
    let mut reached = Vec::new();
    for _ in 0..all.as_u64().unwrap() {
        page.press("Tab", 9);
        reached.push(page.value("all.indexOf(document.activeElement)").as_i64().unwrap());
        let outlined = "(() => { const e = document.activeElement; const s = getComputedStyle(
            e.id === 'files' ? e.nextElementSibling : e); return s.outlineStyle !== 'none'; })()";
        assert_eq!(page.value(outlined), true, "{}", page.text("document.activeElement.outerHTML"));
    }
    let expected: Vec<i64> = (0..all.as_i64().unwrap()).collect();
    assert_eq!(reached, expected);
    // Every one of them has a name for a screen reader.
    let tree = page.call("Accessibility.getFullAXTree", json!({}));
    let mut controls = 0;
    for node in tree["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let is_control =
            ["button", "textbox", "searchbox", "combobox", "checkbox", "image"].contains(&role);
        if is_control && node["ignored"] == false {
            assert_ne!(node["name"]["value"].as_str().unwrap_or_default(), "", "{node}");
            controls += 1;
        }
    }
    assert!(controls >= 15, "{controls} controls");

    for (name, width, height, colours) in
        [("light", 1280, 900, "light"), ("dark", 1280, 900, "dark"), ("narrow", 360, 740, "light")]
    {
        page.look(width, height, colours);
        assert_eq!(page.value("document.documentElement.scrollWidth"), width, "{name}");
        page.screenshot(&shots.join(format!("{name}.png")));
        let ground = page.text("getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground == "rgb(20, 23, 27)", colours == "dark", "{ground}");
    }
    let size = |name: &str| image::image_dimensions(shots.join(format!("{name}.png"))).unwrap();
    assert_eq!((size("light").0, size("dark").0, size("narrow").0), (1280, 1280, 360));
    is_quiet(&page, &address(&server));
}

#[test]
fn a_key_is_asked_for_and_kept_in_the_tab() {
    let Some(mut page) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    gallery(folder.path());
    let key = run(folder.path(), &["serve", "--new-key", "identify", "--key-file", "keys"]);
    let server = Server::start(folder.path(), &["--key-file", "keys"]);
    page.open(&address(&server));
    page.wait("document.getElementById('key').open");
    assert!(page.text("document.getElementById('key-text').innerText").contains("a key is needed"));
    assert_eq!(page.value("document.querySelectorAll('#people li').length"), 0);
    page.type_text(key.trim());
    page.click("document.querySelector('#key-form button.main')");
    page.wait("document.getElementById('people').innerText.includes('Ann Lee')");
    let kept = "[localStorage.length, document.cookie, sessionStorage.length]";
    assert_eq!(page.value(kept), json!([0, "", 1]));
    // This key may not forget: the page says what the server says.
    page.click("document.querySelector('#people button')");
    page.click("document.getElementById('ask-yes')");
    page.wait("document.getElementById('people-note').innerText.includes('role')");
    assert!(page.text("document.getElementById('people').innerText").contains("Ann Lee"));
    // Who forgets the key sees no names any more.
    page.wait("document.getElementById('key').open");
    page.click("document.getElementById('key-drop')");
    page.wait("document.getElementById('key')?.open && sessionStorage.length === 0");
    assert_eq!(page.value("document.body.innerText.includes('Ann Lee')"), false);
}
