//! `visage serve`: what it answers, whom it refuses, and what is left of it when it is killed.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

mod common;
#[path = "common/http.rs"]
mod http;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{draw, fail, run, text, visage};
use http::{Server, form};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/detect").join(name)
}

/// A drawn face as a PNG in memory.
fn drawn(identity: u32, picture: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    draw(identity, picture, 96).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// Numbers may differ in the last digits: a picture may be computed together with others.
fn assert_alike(a: &Value, b: &Value) {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| assert_alike(a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{a:?} {b:?}");
            a.values().zip(b.values()).for_each(|(a, b)| assert_alike(a, b));
        }
        (a, b) => assert_eq!(a, b),
    }
}

#[test]
fn answers_are_those_of_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for name in ["one.png", "row.png"] {
        std::fs::copy(golden(name), at.join(name)).unwrap();
    }
    let (one, row) = (at.join("one.png"), at.join("row.png"));
    draw(1, 1, 90).save(at.join("none.png")).unwrap();
    let server = Server::start(at, &["--thumbnails"]);

    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert_eq!(server.get("/health").value(200)["status"], "alive");
    assert_eq!(server.get("/openapi.json").value(200)["openapi"], "3.1.0");
    assert!(server.get("/nowhere").error(404).contains("openapi"));
    assert!(server.get("/identify").error(405).contains("method"));

    // Nobody is enrolled yet.
    let empty = server.post("/identify", &std::fs::read(&one).unwrap()).value(200);
    assert_eq!((&empty["label"], empty["faces"].as_array().unwrap().len()), (&Value::Null, 1));

    let enrolled = server.form("/people/Ann%20Lee", &[&one]).value(200);
    assert_eq!((&enrolled["enrolled"], &enrolled["total_people"]), (&json!(1), &json!(1)));
    let again = server.form("/people/Ann%20Lee", &[&one]).value(200);
    assert_eq!((&again["enrolled"], &again["already"]), (&json!(0), &json!(["one.png"])));
    let several = server.form("/people/Bob", &[&row]);
    assert!(several.error(422).contains("faces of about the same size"));
    assert!(server.form("/people/Bob", &[&at.join("none.png")]).error(422).contains("no face"));
    assert!(server.post("/people/Bob", b"no picture").error(400).contains("PNG"));
    assert!(server.form("/people/%20", &[&one]).error(400).contains("a name has letters"));
    // In a batch the good ones are enrolled.
    let part = server.form("/people/Ann%20Lee", &[&row, &at.join("none.png"), &one]).value(200);
    assert_eq!(part["left_out"].as_array().unwrap().len(), 2);

    // The same as the command's, picture by picture.
    for name in ["one.png", "row.png", "none.png"] {
        let command = run(at, &["gallery", "identify", "--json", "--top", "3", name]);
        let command: Value = serde_json::from_str(&command).unwrap();
        let reply = server.form("/identify?top=3", &[&at.join(name)]).value(200);
        assert_alike(&reply, &command);
        let command: Value = serde_json::from_str(&run(at, &["detect", "--json", name])).unwrap();
        assert_alike(&server.form("/detect", &[&at.join(name)]).value(200), &command);
    }
    let batch = server.form("/identify", &[&one, &row, &at.join("none.png")]).value(200);
    let pictures = batch["pictures"].as_array().unwrap();
    assert_eq!(pictures.len(), 3);
    assert_eq!(pictures[0]["label"], "Ann Lee");
    let content = BASE64_STANDARD.encode(std::fs::read(&one).unwrap());
    let single = server.json("/identify", &json!({ "image": content })).value(200);
    assert_eq!((&single["label"], &single["file"]), (&json!("Ann Lee"), &json!("picture 1")));
    let broken = BASE64_STANDARD.encode("no picture");
    let listed = server.json("/identify", &json!({ "images": [content, broken] })).value(200);
    assert_eq!(listed["pictures"][0]["label"], "Ann Lee");
    assert!(listed["pictures"][1]["error"].as_str().unwrap().contains("cannot be read"));

    let output =
        visage(at, &["verify", "--json", "--backbone", "dlib-resnet", "one.png", "row.png"]);
    let command: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    let reply = server.form("/verify", &[&one, &row]).value(200);
    for key in ["same", "distance", "threshold", "probability", "a", "b"] {
        assert_alike(&reply[key], &command[key]);
    }
    assert!(server.form("/verify", &[&one]).error(400).contains("two pictures"));
    let pair = json!({ "image2": content, "image1": content });
    assert_eq!(server.json("/verify", &pair).value(200)["same"], true);

    let embedded = server.form("/embed", &[&row]).value(200);
    assert_eq!(embedded["trunk"]["architecture"], "dlib-resnet");
    let faces = embedded["faces"].as_array().unwrap();
    assert_eq!(faces.len(), pictures[1]["faces"].as_array().unwrap().len());
    assert_eq!(faces[0]["embedding"].as_array().unwrap().len(), 128);

    // Strangers are remembered, promoted, rejected and forgotten.
    let seen = server.form("/identify?remember=true", &[&row]).value(200);
    let ids: Vec<i64> = seen["faces"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["unknown"]["id"].as_i64())
        .collect();
    assert!(!ids.is_empty(), "{seen}");
    let unknown = server.get("/unknown").value(200);
    assert_eq!(unknown["unknown"].as_array().unwrap().len(), ids.len());
    let path = format!("/unknown/{}", ids[0]);
    assert_eq!(server.json(&path, &json!({ "name": "Cleo" })).value(200)["enrolled"], 1);
    assert!(
        server.json(&path, &json!({ "name": "Cleo" })).error(404).contains("no unknown person")
    );
    assert!(server.json(&path, &json!({ "nom": "Cleo" })).error(400).contains("name"));
    assert!(server.delete("/unknown/none").error(404).contains("numbers"));
    if let Some(other) = ids.get(1) {
        assert_eq!(server.delete(&format!("/unknown/{other}")).value(200)["forgotten"], 1);
    }
    let list = server.get("/people").value(200);
    let command: Value = serde_json::from_str(&run(at, &["gallery", "list", "--json"])).unwrap();
    assert_eq!(list["people"], command["people"]);
    let names: Vec<&str> = list["people"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Ann Lee", "Cleo"]);

    // What another process changes is seen by the next request.
    run(at, &["gallery", "rename", "Ann Lee", "Ann Li"]);
    assert_eq!(server.form("/identify", &[&one]).value(200)["label"], "Ann Li");
    assert_eq!(server.form("/people/Ann%20Li/reject", &[&one]).value(200)["rejected"], 1);
    assert_eq!(server.form("/identify", &[&one]).value(200)["label"], Value::Null);
    assert!(server.form("/people/Nobody/reject", &[&one]).error(404).contains("Nobody"));
    assert_eq!(server.delete("/people/Cleo").value(200)["forgotten"], 1);
    assert!(server.delete("/people/Cleo").error(404).contains("nobody of that name"));
    let bytes = std::fs::read(at.join("gallery.db")).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"Cleo"));
    assert_eq!(server.send("POST", "/reload", &[], b"").value(200)["people"], 1);

    let metrics = text(&server.get("/metrics").body);
    for part in [
        "visage_requests_total{method=\"POST\",route=\"/identify\",status=\"200\"}",
        "visage_request_duration_seconds_count{route=\"/identify\"}",
        "visage_people 1",
        "visage_queue_pictures 0",
    ] {
        assert!(metrics.contains(part), "{metrics}");
    }
    // The log has routes, not names.
    let log = std::fs::read_to_string(at.join("log")).unwrap();
    assert!(log.contains(" POST /people/{name} 200 "), "{log}");
    assert!(!log.contains("Ann") && !log.contains("one.png"), "{log}");
}

#[test]
fn keys_decide_who_may_do_what() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let new =
        |role: &str| run(at, &["serve", "--new-key", role, "--key-file", "keys"]).trim().to_owned();
    let keys = ["identify", "enrol", "admin"].map(new);
    let error = fail(at, &["serve", "--host", "0.0.0.0", "--port", "0"]);
    assert!(error.contains("--new-key admin --key-file FILE"), "{error}");
    let server = Server::start(at, &["--detect", "never", "--key-file", "keys", "--log", "json"]);
    let face = drawn(1, 1);
    let send = |method: &str, path: &str, key: Option<&str>, body: &[u8]| {
        let bearer = format!("Bearer {}", key.unwrap_or_default());
        let headers = [("Content-Type", "image/png"), ("Authorization", bearer.as_str())];
        server.send(method, path, &headers[..1 + usize::from(key.is_some())], body).status
    };
    for path in ["/", "/health", "/ready", "/openapi.json"] {
        assert_eq!(send("GET", path, None, b""), 200);
    }
    // By request: what each role is answered, without a key first.
    for (method, path, body, wanted) in [
        ("GET", "/people", &b""[..], [401, 200, 200, 200]),
        ("GET", "/metrics", b"", [401, 200, 200, 200]),
        ("POST", "/identify", &face, [401, 200, 200, 200]),
        ("POST", "/identify?remember=true", &face, [401, 403, 200, 200]),
        ("POST", "/people/ada", &face, [401, 403, 200, 200]),
        ("POST", "/people/ada/reject", &face, [401, 403, 200, 200]),
        ("POST", "/reload", b"", [401, 403, 403, 200]),
        ("DELETE", "/people/ada", b"", [401, 403, 403, 200]),
    ] {
        assert_eq!(send(method, path, None, body), wanted[0], "{method} {path}");
        assert_eq!(send(method, path, Some("wrong"), body), 401, "{method} {path}");
        for (key, status) in keys.iter().zip(&wanted[1..]) {
            assert_eq!(send(method, path, Some(key), body), *status, "{method} {path}");
        }
    }
    let other = server.send("GET", "/people", &[("X-API-Key", &keys[0])], b"");
    assert_eq!(other.status, 200);
    // Keys are gone once their lines are, and the file is read again.
    let lines = std::fs::read_to_string(at.join("keys")).unwrap();
    let kept: Vec<&str> = lines.lines().filter(|line| !line.starts_with("identify")).collect();
    std::fs::write(at.join("keys"), kept.join("\n")).unwrap();
    assert_eq!(send("POST", "/reload", Some(&keys[2]), b""), 200);
    assert_eq!(send("GET", "/people", Some(&keys[0]), b""), 401);
    let log = std::fs::read_to_string(at.join("log")).unwrap();
    let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        entries.iter().any(|entry| entry["route"] == "/people/{name}" && entry["status"] == 403)
    );
    assert!(!log.contains("ada") && !log.contains(&keys[2]));
}

#[test]
fn without_keys_only_this_machine_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--detect", "never"]);
    let status = |headers: &[(&str, &str)]| server.send("GET", "/people", headers, b"").status;
    let own = format!("http://127.0.0.1:{}", server.port);
    assert_eq!(status(&[("Host", "localhost:1234")]), 200);
    assert_eq!(status(&[("Host", "[::1]")]), 200);
    assert_eq!(status(&[("Origin", &own)]), 200);
    // A name that somebody made to point here, and the page of another site.
    assert_eq!(status(&[("Host", "evil.example")]), 403);
    assert_eq!(status(&[("Host", "")]), 403);
    assert_eq!(status(&[("Origin", "https://evil.example")]), 403);
    assert_eq!(status(&[("Origin", "null")]), 403);
}

/// A small PNG that holds more pixels than are decoded.
fn bomb() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = 60_000u32.to_be_bytes();
    let head = [&side[..], &side[..], &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in [(b"IHDR", &head[..]), (b"IDAT", &[0x78, 0x9c, 0x03, 0x00]), (b"IEND", &[])]
    {
        let chunk = [&kind[..], data].concat();
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc32fast::hash(&chunk).to_be_bytes());
    }
    png
}

#[test]
fn broken_and_excessive_requests_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(folder.path(), &["--detect", "never", "--max-upload", "1", "--queue", "4"]);
    let face = drawn(0, 0);
    let typed =
        |kind: &str, body: &[u8]| server.send("POST", "/identify", &[("Content-Type", kind)], body);
    assert_eq!(typed("image/png", &face).status, 200);
    assert!(typed("image/png", b"").error(400).contains("empty"));
    assert!(typed("image/png", &face[..40]).error(400).contains("cannot be read"));
    assert!(typed("text/plain", &face).error(415).contains("multipart/form-data"));
    assert!(typed("application/x-www-form-urlencoded", &face).error(415).contains("file"));
    assert!(typed("multipart/form-data", &face).error(400).contains("boundary"));
    assert!(typed("multipart/form-data; boundary=x", &face).error(400).contains("form"));
    assert!(typed("application/json", b"{\"image\": 3}").error(400).contains("base64"));
    assert!(typed("application/json", b"[]").error(400).contains("JSON"));
    assert!(typed("image/png", &bomb()).error(413).contains("60000x60000"));
    assert!(typed("image/png", &vec![0; 3_000_000]).error(413).contains("1000000 bytes"));
    let zipped = [("Content-Type", "image/png"), ("Content-Encoding", "gzip")];
    assert_eq!(server.send("POST", "/identify", &zipped, &face).status, 415);
    let files: Vec<PathBuf> = (0..5)
        .map(|picture| {
            let path = folder.path().join(format!("{picture}.png"));
            std::fs::write(&path, drawn(1, picture)).unwrap();
            path
        })
        .collect();
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    assert!(server.form("/identify", &paths).error(413).contains("at most 4"));
    let (kind, body) = form(&paths[..1]);
    let named = String::from_utf8_lossy(&body).contains("name=\"file\"");
    assert!(named);
    let other = body.windows(11).position(|window| window == b"name=\"file\"").unwrap();
    let mut wrong = body.clone();
    wrong[other + 6..other + 10].copy_from_slice(b"foto");
    assert!(typed(&kind, &wrong).error(400).contains("foto"));
    // Cut off anywhere: an answer, never a hang or a crash.
    for end in (0..body.len()).step_by(body.len() / 20) {
        let status = typed(&kind, &body[..end]).status;
        assert!(status == 400, "{end}: {status}");
    }
    for query in ["top=0", "top=x", "remember=perhaps", "nothing=1"] {
        assert_eq!(server.post(&format!("/identify?{query}"), &face).status, 400, "{query}");
    }
    let mut garbage = server.connect();
    garbage.write_all(b"\x16\x03\x01 nonsense\r\n\r\n").unwrap();
    let _ = garbage.read_to_end(&mut Vec::new());
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn slow_and_many_clients_do_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &["--detect", "never"]);
    let mut slow = server.connect();
    let head = "POST /identify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n\
                Content-Length: 1000\r\n\r\nabc";
    slow.write_all(head.as_bytes()).unwrap();
    let mut half = server.connect();
    half.write_all(b"GET /health HTTP/1.1\r\nHo").unwrap();
    let idle: Vec<_> = (0..300).map(|_| server.connect()).collect();
    let started = Instant::now();
    assert_eq!(server.post("/identify", &drawn(0, 0)).status, 200);
    assert!(started.elapsed() < Duration::from_secs(5));
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(25));
    drop(idle);
}

#[test]
fn a_full_queue_says_so_and_late_requests_are_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--queue", "2", "--batch", "1", "--deadline", "1", "--max-upload", "50"];
    let server = Server::start(folder.path(), &arguments);
    let mut png = std::io::Cursor::new(Vec::new());
    draw(1, 1, 2600).write_to(&mut png, image::ImageFormat::Bmp).unwrap();
    let picture = png.into_inner();
    let statuses = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let answer = server.post("/identify", &picture);
                if answer.status == 503 {
                    assert_eq!(answer.header("retry-after"), Some("1"));
                }
                statuses.lock().unwrap().push(answer.status);
            });
        }
    });
    let statuses = statuses.into_inner().unwrap();
    assert!(statuses.contains(&503), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 503, 504].contains(status)), "{statuses:?}");
    // It recovers.
    let started = Instant::now();
    while server.post("/identify", &drawn(0, 0)).status != 200 {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(unix)]
#[test]
fn whoever_was_confirmed_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let server = Server::start(at, &["--detect", "never"]);
    let confirmed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..3u32 {
            let (server, confirmed) = (&server, &confirmed);
            scope.spawn(move || {
                for number in 0.. {
                    let (name, face) = (format!("p{worker}-{number}"), drawn(number, worker));
                    let headers = [("Content-Type", "image/png")];
                    match server.try_send("POST", &format!("/people/{name}"), &headers, &face) {
                        Ok(answer) if answer.status == 200 => confirmed.lock().unwrap().push(name),
                        Ok(answer) => panic!("{answer:?}"),
                        Err(_) => return, // killed
                    }
                }
            });
        }
        let started = Instant::now();
        while confirmed.lock().unwrap().len() < 20 {
            assert!(started.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        server.signal("-KILL");
    });
    let list: Value = serde_json::from_str(&run(at, &["gallery", "list", "--json"])).unwrap();
    let names: Vec<&str> = list["people"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    for name in confirmed.into_inner().unwrap() {
        assert!(names.contains(&name.as_str()), "{name} was confirmed and is gone");
    }
    assert!(run(at, &["gallery", "check"]).starts_with("sound: "));
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_after_the_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[]);
    let idle = server.connect();
    let mut kept = server.connect();
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(kept.read(&mut [0; 4096]).unwrap() > 0);
    let picture = std::fs::read(golden("row.png")).unwrap();
    std::thread::scope(|scope| {
        let pending = scope.spawn(|| server.post("/identify", &picture).status);
        std::thread::sleep(Duration::from_millis(50));
        server.signal("-TERM");
        assert_eq!(pending.join().unwrap(), 200);
    });
    let started = Instant::now();
    let status = server.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(10));
    drop(idle);
    assert!(server.try_send("GET", "/health", &[], b"").is_err());
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let server = Server::start_cold(at, &["--detect", "never"]);
    let port = server.port.to_string();
    let error = fail(at, &["serve", "--port", &port]);
    assert!(error.contains("another program listens there"), "{error}");
    std::fs::write(at.join("no.pem"), "nothing").unwrap();
    let error = fail(at, &["serve", "--port", "0", "--tls-cert", "no.pem", "--tls-key", "no.pem"]);
    assert!(error.contains("--tls-cert no.pem"), "{error}");
    std::fs::write(at.join("no.db"), "no database, but long enough to look like one of some kind")
        .unwrap();
    let error = fail(at, &["serve", "--port", "0", "--db", "no.db"]);
    assert!(error.contains("no.db: not a gallery of Visage"), "{error}");
}

/// The output of a program; none, and a word about it, where it is not installed or fails.
fn output_of(folder: &Path, program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).current_dir(folder).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Some(text(&output.stdout)),
        other => {
            eprintln!("{program}: {other:?}");
            None
        }
    }
}

#[test]
fn connections_can_be_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let certificate = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem \
                       -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost";
    let arguments: Vec<&str> = certificate.split_whitespace().collect();
    if output_of(at, "openssl", &arguments).is_none()
        || output_of(at, "curl", &["--version"]).is_none()
    {
        eprintln!("skipped: needs openssl and curl");
        return;
    }
    let flags = ["--detect", "never", "--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let server = Server::start_cold(at, &flags);
    let url = format!("https://localhost:{}/health", server.port);
    let resolve = format!("localhost:{}:127.0.0.1", server.port);
    let arguments = ["-sS", "--cacert", "cert.pem", "--resolve", &resolve, &url];
    assert_eq!(output_of(at, "curl", &arguments).unwrap(), "{\"status\":\"alive\"}");
    // Whoever does not speak TLS learns nothing and harms nobody.
    let mut plain = server.connect();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(5).any(|window| window == b"alive"));
    assert!(output_of(at, "curl", &arguments).is_some());
}
