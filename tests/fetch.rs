//! Downloads from a server on this machine that cuts, lies, redirects and refuses; and `visage
//! fetch` as a user runs it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use visage::fetch::http::{Failure, download};
use visage::fetch::{FetchOptions, Item, Origin, Patience, Shape, fetch};

/// The request line and the headers, names in lower case.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The N of `Range: bytes=N-`.
    fn offset(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes="));
        range.and_then(|range| range.strip_suffix('-')).map_or(0, |start| start.parse().unwrap())
    }
}

/// The raw bytes of an answer, after which the connection is held for a while, and closed.
struct Reply(Vec<u8>, Duration);

fn reply(head: &str, body: &[u8]) -> Reply {
    let mut bytes = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    Reply(bytes, Duration::ZERO)
}

/// A whole file with its length and tag.
fn whole(body: &[u8]) -> Reply {
    reply(&format!("200 OK\r\nContent-Length: {}\r\nETag: \"v1\"", body.len()), body)
}

/// The first `sent` bytes of a file, announced as a whole.
fn cut(body: &[u8], sent: usize) -> Reply {
    let head = format!("200 OK\r\nContent-Length: {}\r\nETag: \"v1\"", body.len());
    reply(&head, &body[..sent])
}

/// The rest of a file from `start` on, cut after `sent` bytes.
fn rest(body: &[u8], start: usize, sent: usize) -> Reply {
    let (last, total) = (body.len() - 1, body.len());
    let head = format!(
        "206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{last}/{total}",
        total - start
    );
    reply(&head, &body[start..][..sent])
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers the requests with what `answer` makes of their number (from 0) and themselves.
    fn start(answer: impl Fn(usize, &Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let Some(line) = lines.next() else { continue };
                let headers = lines
                    .take_while(|line| !line.is_empty())
                    .filter_map(|line| {
                        let (name, value) = line.split_once(':')?;
                        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
                    })
                    .collect();
                let request = Request { line, headers };
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                let Reply(bytes, hold) = answer(number, &request);
                let _ = stream.write_all(&bytes);
                std::thread::sleep(hold);
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Bytes that are no archive and repeat nowhere.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32)
        .flat_map(|k| k.wrapping_mul(2_654_435_761).to_le_bytes())
        .take(count)
        .collect()
}

const INSTANT: Patience = Patience {
    attempts: 3,
    pause: Duration::ZERO,
    wait: Duration::from_secs(5),
    idle: Duration::from_secs(5),
};

/// Downloads `url` into `folder`; the outcome and what is in the part file.
fn bring(url: &str, folder: &Path) -> (Result<(), Failure>, Vec<u8>) {
    let part = folder.join("part");
    let outcome = download(url, None, &part, INSTANT, &|_, _| {});
    (outcome, std::fs::read(part).unwrap_or_default())
}

fn fresh(url: &str) -> (Result<(), Failure>, Vec<u8>) {
    bring(url, tempfile::tempdir().unwrap().path())
}

#[test]
fn a_download_goes_on_behind_every_cut() {
    let body = bytes(200_000);
    let content = body.clone();
    let server = Server::start(move |number, request| match number {
        0 => cut(&content, 70_000),
        // Four more cuts: more than the attempts without progress, which these are not.
        1..=4 => rest(&content, request.offset(), 20_000),
        _ => rest(&content, request.offset(), content.len() - request.offset()),
    });
    let progress = Mutex::new(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part");
    let told = |here, total| progress.lock().unwrap().push((here, total));
    download(&server.url, None, &part, INSTANT, &told).unwrap();
    assert_eq!(std::fs::read(&part).unwrap(), body);
    assert_eq!(progress.lock().unwrap().last(), Some(&(200_000, Some(200_000))));
    let requests = server.requests();
    let asked: Vec<usize> = requests.iter().map(Request::offset).collect();
    assert_eq!(asked, [0, 70_000, 90_000, 110_000, 130_000, 150_000]);
    assert!(requests[1..].iter().all(|request| request.header("if-range") == Some("\"v1\"")));
}

#[test]
fn a_later_call_goes_on_from_the_part_file_and_only_of_the_same_address() {
    let body = bytes(50_000);
    let content = body.clone();
    let server = Server::start(move |number, request| match (number, request.offset()) {
        (0, _) => cut(&content, 30_000),
        (1..=3, start) => rest(&content, start, 0),
        (_, 0) => whole(&content),
        (_, start) => rest(&content, start, content.len() - start),
    });
    let folder = tempfile::tempdir().unwrap();
    let (outcome, part) = bring(&server.url, folder.path());
    assert!(outcome.unwrap_err().text.contains("cut off after 30000 of 50000 bytes"));
    assert_eq!(part.len(), 30_000);
    let before = server.requests().len();
    let (outcome, part) = bring(&server.url, folder.path());
    assert_eq!((outcome, part), (Ok(()), body.clone()));
    assert_eq!(server.requests()[before].offset(), 30_000);
    // Whole already: not a byte is asked for again.
    let before = server.requests().len();
    bring(&server.url, folder.path()).0.unwrap();
    assert_eq!(server.requests().len(), before);
    let (outcome, part) = bring(&format!("{}/other", server.url), folder.path());
    assert_eq!((outcome, part), (Ok(()), body));
    assert_eq!(server.requests()[before].offset(), 0);
}

#[test]
fn a_file_that_changed_or_a_server_without_ranges_begins_anew() {
    let (old, new) = (bytes(40_000), vec![7; 30_000]);
    for way in ["whole", "elsewhere", "unsatisfiable", "no tag"] {
        let (first, second) = (old.clone(), new.clone());
        let server = Server::start(move |number, request| match (number, way) {
            (0, "no tag") => reply("200 OK\r\nContent-Length: 40000", &first[..10_000]),
            (0, _) => cut(&first, 10_000),
            (1, "elsewhere") => rest(&second, 5_000, 25_000),
            (1, "unsatisfiable") => reply("416 Range Not Satisfiable\r\nContent-Length: 0", b""),
            (_, _) => {
                assert!(way != "no tag" || request.header("range").is_none());
                whole(&second)
            }
        });
        assert_eq!(fresh(&server.url), (Ok(()), new.clone()), "{way}");
    }
}

#[test]
fn lies_about_the_length_are_found_out() {
    let body = bytes(10_000);
    let content = body.clone();
    // Promises more than it ever sends.
    let server = Server::start(move |_, request| match request.offset() {
        0 => reply("200 OK\r\nContent-Length: 12000\r\nETag: \"v1\"", &content),
        start => {
            let range = format!("Content-Range: bytes {start}-11999/12000");
            reply(&format!("206 Partial Content\r\nContent-Length: 2000\r\n{range}"), b"")
        }
    });
    let (outcome, _) = fresh(&server.url);
    assert!(outcome.unwrap_err().text.contains("cut off after 10000 of 12000 bytes"));
    // Claims a size that no disk holds.
    let server = Server::start(|_, _| reply("200 OK\r\nContent-Length: 999999999999999", b"x"));
    let (outcome, part) = fresh(&server.url);
    assert!(outcome.unwrap_err().text.contains("announces more than"));
    assert!(part.is_empty());
    // Says nothing about it, in chunks, and stops in the middle; then whole.
    let server = Server::start(|number, _| {
        let end = if number == 0 { "" } else { "0\r\n\r\n" };
        let chunks = format!("5\r\nhello\r\n{end}");
        reply("200 OK\r\nTransfer-Encoding: chunked", chunks.as_bytes())
    });
    assert_eq!(fresh(&server.url), (Ok(()), b"hello".to_vec()));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_silent_server_is_given_up() {
    let server = Server::start(|_, _| {
        let Reply(bytes, _) = cut(&bytes(1000), 10);
        Reply(bytes, Duration::from_secs(3))
    });
    let folder = tempfile::tempdir().unwrap();
    let patience = Patience { attempts: 1, idle: Duration::from_millis(300), ..INSTANT };
    let started = Instant::now();
    let part = folder.path().join("part");
    let failure = download(&server.url, None, &part, patience, &|_, _| {}).unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(2500));
    assert!(failure.text.contains("cut off after 10 of 1000 bytes"), "{failure:?}");
}

#[test]
fn credentials_never_go_to_another_host() {
    let storage = Server::start(|_, _| whole(b"archive"));
    let target = format!("{}/signed?token=1", storage.url);
    let service = Server::start(move |number, _| match number {
        0 => reply("302 Found\r\nLocation: /moved\r\nContent-Length: 0", b""),
        _ => reply(&format!("302 Found\r\nLocation: {target}\r\nContent-Length: 0"), b""),
    });
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part");
    download(&service.url, Some("Basic c2VjcmV0"), &part, INSTANT, &|_, _| {}).unwrap();
    assert_eq!(std::fs::read(part).unwrap(), b"archive");
    let own = service.requests();
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|request| request.header("authorization") == Some("Basic c2VjcmV0")));
    assert!(own[1].line.starts_with("GET /moved "));
    let other = storage.requests();
    assert!(other[0].line.contains("/signed?token=1"));
    assert_eq!(other[0].header("authorization"), None);
}

#[test]
fn circles_and_unsafe_redirects_end() {
    for (location, text) in [
        ("/again", "redirects more than 10 times"),
        ("file:///etc/passwd", "redirects to nowhere that is safe"),
    ] {
        let answer = move |_: usize, _: &Request| {
            reply(&format!("302 Found\r\nLocation: {location}\r\nContent-Length: 0"), b"")
        };
        let failure = fresh(&Server::start(answer).url).0.unwrap_err();
        assert_eq!(failure.text, text);
    }
}

#[test]
fn passing_troubles_are_retried_and_final_ones_are_not() {
    for (status, requests) in [(401, 1), (403, 1), (404, 1), (410, 1), (429, 3), (500, 3), (503, 3)]
    {
        let answer =
            move |_: usize, _: &Request| reply(&format!("{status} No\r\nContent-Length: 0"), b"");
        let server = Server::start(answer);
        let failure = fresh(&server.url).0.unwrap_err();
        assert_eq!(failure.status, Some(status));
        assert!(failure.text.contains(&format!("answers {status}")), "{failure:?}");
        assert!(server.url.ends_with(&failure.host), "{failure:?}");
        assert_eq!(server.requests().len(), requests, "{status}");
    }
    let server = Server::start(|number, _| match number {
        0 => reply("429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0", b""),
        1 => reply("503 Busy\r\nContent-Length: 0", b""),
        _ => whole(b"at last"),
    });
    let started = Instant::now();
    assert_eq!(fresh(&server.url), (Ok(()), b"at last".to_vec()));
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    // A longer wait than anybody sits through is said and not slept.
    let server =
        Server::start(|_, _| reply("429 No\r\nRetry-After: 3600\r\nContent-Length: 0", b""));
    let failure = fresh(&server.url).0.unwrap_err();
    assert!(failure.text.contains("asks to wait 3600 s"), "{failure:?}");
    assert_eq!(server.requests().len(), 1);
    let page = |_: usize, _: &Request| {
        reply("200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6", b"<html>")
    };
    let failure = fresh(&Server::start(page).url).0.unwrap_err();
    assert!(failure.text.contains("a web page in place of the file"));
}

/// sha256(b"weights"), by Python's hashlib.
const WEIGHTS: &str = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c";

fn single(urls: &[String], sha256: Option<&str>) -> Item {
    Item {
        name: "thing".into(),
        title: "The Thing".into(),
        place: "thing.bin".into(),
        origins: urls.iter().cloned().map(Origin::Url).collect(),
        shape: Shape::File,
        sha256: sha256.map(str::to_owned),
        source: "its publisher".into(),
        terms: "none".into(),
        how: "ask".into(),
    }
}

fn fetch_to(item: &Item, to: &Path) -> visage::Result<visage::fetch::Fetched> {
    let options = FetchOptions {
        to,
        from: &[],
        kaggle: "https://127.0.0.1:1",
        patience: INSTANT,
        say: &|_| {},
        progress: &|_, _| {},
    };
    fetch(item, &options)
}

#[test]
fn mirrors_take_over_and_the_sum_decides() {
    let gone = Server::start(|_, _| reply("404 Not Found\r\nContent-Length: 0", b""));
    let fine = Server::start(|_, _| whole(b"weights"));
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("deep/thing.bin");
    let urls = [gone.url.clone(), fine.url.clone()];
    let fetched = fetch_to(&single(&urls, Some(&WEIGHTS[..8])), &to).unwrap();
    assert_eq!((fetched.sha256.as_deref(), fetched.checked), (Some(WEIGHTS), true));
    assert_eq!(std::fs::read(&to).unwrap(), b"weights");
    assert_eq!(std::fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "rubbish left");
    let error = fetch_to(&single(&urls, None), &to).unwrap_err().to_string();
    assert!(error.contains("already exists"), "{error}");

    let other = folder.path().join("other.bin");
    let error = fetch_to(&single(&urls, Some("00000000")), &other).unwrap_err().to_string();
    assert!(error.contains(WEIGHTS) && error.contains("the manifest has 00000000"), "{error}");
    let fetched = fetch_to(&single(&urls, None), &other).unwrap();
    assert_eq!((fetched.sha256.as_deref(), fetched.checked), (Some(WEIGHTS), false));

    let last = folder.path().join("last.bin");
    let error = fetch_to(&single(&urls[..1], None), &last).unwrap_err().to_string();
    let host = gone.url.strip_prefix("http://").unwrap();
    for part in ["The Thing", host, "404 (Not Found)", "moved or is gone", "--from FILE"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(!last.exists());
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "a failed fetch left something");
}

// The command from here on.

fn visage(folder: &Path, server: Option<&Server>, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("visage").unwrap();
    for name in ["KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"] {
        command.env_remove(name);
    }
    command.current_dir(folder).env("HOME", folder).env("VISAGE_RETRY_PAUSE_MS", "0");
    if let Some(server) = server {
        command.env("VISAGE_KAGGLE_URL", &server.url);
    }
    command.arg("fetch").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(folder: &Path, server: Option<&Server>, arguments: &[&str]) -> (String, String) {
    let output = visage(folder, server, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn fail(folder: &Path, server: Option<&Server>, arguments: &[&str]) -> String {
    let output = visage(folder, server, arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty() && !errors.contains("panicked"), "{errors}");
    errors
}

/// A zip archive as Kaggle has it: the pictures in a folder of their own.
fn archive(path: &Path, names: &[&str]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for name in names {
        archive.start_file(*name, zip::write::FileOptions::default()).unwrap();
        archive.write_all(name.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn token(home: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let file = home.join(".kaggle/kaggle.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, r#"{"username":"ann","key":"s3cret"}"#).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
}

const PICTURES: [&str; 2] =
    ["cropped_images/chris_evans/1.png", "cropped_images/mark_ruffalo/1.png"];

#[test]
fn a_data_set_comes_from_kaggle_once_its_terms_are_agreed_to() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let content = archive(&root.join("made.zip"), &PICTURES);
    let server = Server::start(move |number, request| match number {
        0 => cut(&content, 100),
        1 => rest(&content, request.offset(), content.len() - request.offset()),
        _ => whole(&content),
    });
    token(root, 0o600);
    let errors = fail(root, Some(&server), &["avengers"]);
    assert!(errors.contains("terms: pictures of public persons"), "{errors}");
    assert!(errors.contains("--accept-licence"), "{errors}");
    assert!(server.requests().is_empty() && !root.join("data").exists());

    let (out, errors) = run(root, Some(&server), &["avengers", "--accept-licence"]);
    assert!(
        out.starts_with("Avengers face recognition: 2 files in data/avengers, SHA-256 "),
        "{out}"
    );
    assert!(errors.contains("source: https://www.kaggle.com"), "{errors}");
    assert!(!errors.contains("s3cret"));
    let picture = root.join("data/avengers/mark_ruffalo/1.png");
    assert_eq!(std::fs::read_to_string(picture).unwrap(), PICTURES[1]);
    let requests = server.requests();
    assert!(requests[0].line.starts_with("GET /datasets/download/rawatjitesh/avengers-face"));
    // printf 'ann:s3cret' | base64
    assert_eq!(requests[0].header("authorization"), Some("Basic YW5uOnMzY3JldA=="));
    assert_eq!(requests[1].offset(), 100);
    assert!(!root.join("data/.fetch-avengers").exists());

    let errors = fail(root, Some(&server), &["avengers"]);
    assert!(errors.contains("data/avengers: already exists"), "{errors}");
    assert!(!errors.contains("terms:"), "the terms a second time: {errors}");
    run(root, Some(&server), &["avengers", "--to", "elsewhere/faces"]);
    assert!(root.join("elsewhere/faces/chris_evans/1.png").is_file());
}

#[test]
fn refusals_name_the_data_set_the_host_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let accept = ["avengers", "--accept-licence"];
    let errors = fail(root, None, &accept);
    assert!(errors.contains("create a token"), "{errors}");
    token(root, 0o644);
    let errors = fail(root, None, &accept);
    assert!(errors.contains("chmod 600") && !errors.contains("s3cret"), "{errors}");
    token(root, 0o600);
    for (status, parts) in [
        (401, ["401 (Unauthorized)", "create a token"]),
        (403, ["403 (Forbidden)", "accept its terms"]),
        (404, ["404 (Not Found)", "has moved or is gone"]),
        (429, ["429 (Too Many Requests)", "wait a while"]),
    ] {
        let server =
            Server::start(move |_, _| reply(&format!("{status} No\r\nContent-Length: 0"), b""));
        let errors = fail(root, Some(&server), &accept);
        let host = server.url.strip_prefix("http://").unwrap();
        for part in parts.into_iter().chain(["Avengers face recognition", host, "--from FILE"]) {
            assert!(errors.contains(part), "{part} in {errors}");
        }
        assert!(!errors.contains("s3cret") && !errors.contains("YW5uOnMzY3JldA"), "{errors}");
        assert!(
            !root.join("data/avengers").exists() && !root.join("data/.fetch-avengers").exists()
        );
    }
}

#[test]
fn a_malicious_archive_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let content = archive(&root.join("made.zip"), &["fine.png", "../../evil.png"]);
    token(root, 0o600);
    let server = Server::start(move |_, _| whole(&content));
    let errors = fail(root, Some(&server), &["avengers", "--accept-licence"]);
    assert!(errors.contains("`../../evil.png` leads out of the folder"), "{errors}");
    assert!(!root.join("evil.png").exists());
    let left: Vec<_> = std::fs::read_dir(root.join("data")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}"); // .accepted
}

#[test]
fn local_archives_and_files_are_taken_in_place_of_a_download() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    archive(&root.join("pictures.zip"), &["img_align_celeba/000001.jpg"]);
    std::fs::write(root.join("identity_CelebA.txt"), "000001.jpg 1\n").unwrap();
    let errors = fail(root, None, &["celeba"]);
    assert!(errors.contains("--from img_align_celeba.zip"), "{errors}");
    let from = ["celeba", "--from", "pictures.zip", "--from", "identity_CelebA.txt"];
    let (out, _) = run(root, None, &from);
    assert_eq!(out, "CelebA, aligned and cropped: 2 files in data/celeba\n");
    assert!(root.join("data/celeba/img_align_celeba/000001.jpg").is_file());
    assert!(root.join("data/celeba/identity_CelebA.txt").is_file());
    let errors = fail(root, None, &["lfw-pairs", "--from", "identity_CelebA.txt"]);
    assert!(errors.contains("SHA-256") && errors.contains("ea42330c"), "{errors}");
    let errors = fail(root, None, &["lfw", "--from", "gone.tgz"]);
    assert!(errors.contains("gone.tgz"), "{errors}");
}

#[test]
fn names_are_listed_known_and_suggested() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (out, _) = run(root, None, &["--list"]);
    for name in ["avengers", "orl", "lfw", "celeba", "lfw-pairs", "openface-nn4-distilled"] {
        assert!(out.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} in {out}");
    }
    let (out, _) = run(root, None, &["openface-nn4-distilled"]);
    assert!(out.contains("part of the program"), "{out}");
    let errors = fail(root, None, &["avengrs", "--accept-licence"]);
    assert!(errors.contains("Did you mean avengers?"), "{errors}");
    fail(root, None, &[]);
}

#[test]
fn the_real_list_of_pairs_has_the_sum_of_the_manifest() {
    let list =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/lfw-pairsDevTrain.txt");
    if !list.is_file() {
        eprintln!("skipped: no {}", list.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let list = list.to_str().unwrap();
    let (out, _) = run(folder.path(), None, &["lfw-pairs-dev-train", "--from", list]);
    assert!(out.contains("as in the manifest"), "{out}");
}
