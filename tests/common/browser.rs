//! A headless Chromium, driven through the DevTools protocol.
#![allow(clippy::print_stderr)] // a skipped test says so

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The longest wait for an answer, or for the page to become something.
const PATIENCE: Duration = Duration::from_secs(30);

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// One page.
pub struct Browser {
    process: Child,
    input: ChildStdin,
    output: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the browser told unasked, oldest first.
    events: VecDeque<Value>,
    _profile: TempDir,
}

impl Browser {
    /// The browser of this machine, with an empty profile and an empty page; where there is none, says that
    /// the test is skipped.
    pub fn start() -> Option<Self> {
        let Some(name) = NAMES.into_iter().find(|name| {
            Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
        }) else {
            eprintln!("skipped: none of {} is installed (`make browser`)", NAMES.join(", "));
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The pipe of the protocol is file descriptors 3 and 4; the shell makes them of its own.
        let mut process = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1", "sh", name])
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-quic", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync", "--hide-scrollbars"])
            .args(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let mut reader = BufReader::new(process.stdout.take().unwrap());
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let (session, events, calls) = (None, VecDeque::new(), 0);
        let mut browser =
            Self { process, input, output, session, calls, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", target);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).unwrap();
        self.input.flush().unwrap();
        loop {
            let message = self.output.recv_timeout(PATIENCE).unwrap();
            if message["id"] == self.calls {
                assert_eq!(message["error"], Value::Null, "{method}");
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression on the page; of a promise, what it becomes.
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true,
                                "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", parameters);
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].clone()
    }

    pub fn text(&mut self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, condition: &str) {
        let start = Instant::now();
        while self.value(condition) != true {
            if start.elapsed() > PATIENCE {
                let page = self.text("document.body.innerText");
                panic!("this has not become true: {condition}\n{page}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Chooses files in an `<input type=file>`.
    pub fn choose(&mut self, selector: &str, files: &[&Path]) {
        let expression = format!("document.querySelector({})", json!(selector));
        let found = self.call("Runtime.evaluate", json!({"expression": expression}));
        let id = &found["result"]["objectId"];
        self.call("DOM.setFileInputFiles", json!({"files": files, "objectId": id}));
    }

    /// Clicks on the middle of an element, as a mouse does, once it stays where it is and nothing covers it.
    pub fn click(&mut self, element: &str) {
        let place = format!(
            "(async () => {{
               const e = {element};
               e.scrollIntoView({{block: 'center', behavior: 'instant'}});
               const middle = () => {{
                 const r = e.getBoundingClientRect();
                 return [r.x + r.width / 2, r.y + r.height / 2];
               }};
               const before = middle();
               await new Promise((done) => setTimeout(done, 40));
               const place = middle();
               const hit = document.elementFromPoint(...place);
               const isStill = before[0] === place[0] && before[1] === place[1];
               return isStill && e.isConnected && e.contains(hit) ? place : null;
             }})()"
        );
        let start = Instant::now();
        let place = loop {
            let place = self.value(&place);
            if !place.is_null() {
                break place;
            }
            assert!(start.elapsed() < PATIENCE, "this cannot be clicked: {element}");
        };
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Presses a key that types nothing: `Tab` (9), `Escape` (27).
    pub fn press(&mut self, key: &str, code: u8) {
        for kind in ["rawKeyDown", "keyUp"] {
            let event =
                json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Sets the size of the window and the colours that the user prefers: `light` or `dark`.
    pub fn look(&mut self, width: u32, height: u32, colours: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({"name": "prefers-color-scheme", "value": colours});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// Writes a PNG of the whole page.
    pub fn screenshot(&mut self, file: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let png = BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(file, png).unwrap();
    }

    /// The events of these methods so far, oldest first.
    pub fn events<'a>(&'a self, methods: &'a [&str]) -> impl Iterator<Item = &'a Value> {
        let of_these = |event: &&Value| methods.iter().any(|method| event["method"] == *method);
        self.events.iter().filter(of_these).map(|event| &event["params"])
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its children and leaves the profile alone; only if it does not, it is killed.
        let _ = self.input.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.input.flush();
        let start = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.process.kill();
                let _ = self.process.wait();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
