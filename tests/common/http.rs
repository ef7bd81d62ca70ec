//! `visage serve` under test: the process, and a small client of its own.
#![allow(dead_code)] // not every test file needs all of it

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running server; dropping it kills it.
pub struct Server {
    pub child: Child,
    pub port: u16,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Server {
    /// Starts it in a folder, and waits until it is ready.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::start_cold(folder, arguments);
        let started = Instant::now();
        while server.get("/ready").status != 200 {
            assert!(started.elapsed() < Duration::from_secs(60), "not ready after a minute");
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("the server ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Starts it, and waits until it listens.
    pub fn start_cold(folder: &Path, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut child = Command::new(assert_cmd::cargo::cargo_bin("visage"))
            .current_dir(folder)
            .args(["--device", "cpu", "--threads", "1", "serve", "--port", "0"])
            .args(arguments)
            .stdout(log)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let port = loop {
            let Some(Ok(line)) = lines.next() else { panic!("it does not listen: {seen:?}") };
            match line.strip_prefix("listening on ").and_then(|rest| rest.rsplit_once(':')) {
                Some((_, port)) => break port.parse().unwrap(),
                None => seen.push(line),
            }
        };
        // Whoever writes to a pipe that nobody reads would wait for ever.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request and reads the answer; each has a connection of its own.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: 127.0.0.1:{}\r\n", self.port);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        // A server that refuses may stop reading.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(|| std::io::Error::other("the answer is cut off"))
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    /// Posts one raw picture.
    pub fn post(&self, path: &str, picture: &[u8]) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/octet-stream")], picture)
    }

    /// Posts files as a form.
    pub fn form(&self, path: &str, files: &[&Path]) -> Answer {
        let (kind, body) = form(files);
        self.send("POST", path, &[("Content-Type", &kind)], &body)
    }

    /// Posts JSON.
    pub fn json(&self, path: &str, value: &Value) -> Answer {
        let body = value.to_string();
        self.send("POST", path, &[("Content-Type", "application/json")], body.as_bytes())
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// The body of an answer of that status.
    pub fn value(&self, status: u16) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{}\n{body}", self.head);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// The sentence of a refusal.
    pub fn error(&self, status: u16) -> String {
        self.value(status)["error"].as_str().unwrap().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Content type and body of a form with these files.
pub fn form(files: &[&Path]) -> (String, Vec<u8>) {
    let boundary = "visage-test-boundary";
    let mut body = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend(std::fs::read(file).unwrap());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body)
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body: answer[end + 4..].to_vec() })
}
