//! HTTP downloads that can be resumed: partial files, `Range` with `If-Range`, retries.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, Response, Uri, header};
use ureq::{Agent, Body};

use crate::files::write_atomically;

/// Maximum number of redirects.
const MAX_REDIRECTS: usize = 10;
/// Maximum size of a download, against servers that never stop.
const MAX_BYTES: u64 = 256 << 30;
/// Maximum number of restarts from the beginning.
const MAX_ATTEMPTS: u32 = 50;

/// Timeouts and retries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts without progress before giving up.
    pub attempts: u32,
    /// Delay after the first failed attempt; doubled each time.
    pub pause: Duration,
    /// Maximum `Retry-After`.
    pub wait: Duration,
    /// Timeout of an idle connection.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 4,
            pause: Duration::from_secs(1),
            wait: Duration::from_secs(60),
            idle: Duration::from_secs(60),
        }
    }
}

/// Why a download failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status, if the server answered.
    pub status: Option<u16>,
    /// The host that failed, after redirects.
    pub host: String,
    /// The problem, without the URL (which may contain a secret).
    pub text: String,
}

impl Failure {
    /// What the user can do.
    pub(super) fn advice(&self) -> String {
        match self.status {
            Some(401 | 403) => "the server asks for an account".into(),
            Some(404 | 410) => "the file has moved or is gone".into(),
            Some(429) => "too many requests: wait a while, then fetch again".into(),
            Some(500..=599) => "server error: try again later".into(),
            _ => "check the network and fetch again".into(),
        }
    }
}

/// Progress callback: bytes so far and, if known, total bytes.
pub type Progress<'a> = &'a dyn Fn(u64, Option<u64>);

/// Metadata of a partial file, stored next to it.
#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
struct PartialFile {
    url: String,
    /// Strong ETag or Last-Modified date for `If-Range`.
    validator: Option<String>,
    total: Option<u64>,
}

/// A failed attempt.
enum Trouble {
    /// Not worth another attempt.
    Final(Failure),
    /// May be temporary; with the server's `Retry-After`.
    Passing(Failure, Option<Duration>),
}

/// Downloads `url` to the file `part`, and resumes an earlier download.
///
/// `authorization` is only sent to the host of `url`: redirects to other hosts go without it, and
/// redirects from https to http are refused.
///
/// # Errors
/// See [`Failure`]. The partial file is kept if the server can resume.
pub fn download(
    url: &str,
    authorization: Option<&str>,
    part: &Path,
    patience: Patience,
    progress: Progress,
) -> Result<(), Failure> {
    let mut config = Agent::config_builder();
    if is_loopback(url) {
        config = config.proxy(None); // a proxy's own loopback is another machine's
    }
    let agent: Agent = config
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("visage/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(patience.idle))
        .timeout_recv_response(Some(patience.idle))
        .timeout_per_read(Some(patience.idle))
        .build()
        .into();
    let download = Download { agent, url, authorization, part, progress };
    let (mut idle, mut attempt) = (0, 0);
    loop {
        attempt += 1;
        let before = length(part);
        let (failure, asked) = match download.attempt() {
            Ok(()) => return Ok(()),
            Err(Trouble::Final(failure)) => return Err(failure),
            Err(Trouble::Passing(failure, asked)) => (failure, asked),
        };
        // Bytes received count as progress if the next attempt can resume after them.
        let moved = length(part) > before && download.state().validator.is_some();
        idle = if moved { 1 } else { idle + 1 };
        if idle >= patience.attempts || attempt >= MAX_ATTEMPTS {
            return Err(failure);
        }
        let pause = asked.unwrap_or_else(|| patience.pause.saturating_mul(1 << (idle - 1).min(6)));
        if pause > patience.wait {
            let text = format!("{}; it asks to wait {} s", failure.text, pause.as_secs());
            return Err(Failure { text, ..failure });
        }
        std::thread::sleep(pause);
    }
}

/// Removes a partial file and its metadata.
pub fn forget(part: &Path) {
    // A missing file is fine; other errors show up when it is written.
    let _ = std::fs::remove_file(part);
    let _ = std::fs::remove_file(state_file(part));
}

struct Download<'a> {
    agent: Agent,
    url: &'a str,
    authorization: Option<&'a str>,
    part: &'a Path,
    progress: Progress<'a>,
}

impl Download<'_> {
    /// The metadata of the partial file; empty if it belongs to another URL.
    fn state(&self) -> PartialFile {
        let text = std::fs::read(state_file(self.part)).unwrap_or_default();
        let state: PartialFile = serde_json::from_slice(&text).unwrap_or_default();
        if state.url == self.url { state } else { PartialFile::default() }
    }

    fn attempt(&self) -> Result<(), Trouble> {
        let known = self.state();
        let here = length(self.part);
        let offset = if known.validator.is_some() { here } else { 0 };
        if offset > 0 && known.total == Some(offset) {
            return Ok(()); // the cut came after the last byte
        }
        let range = known.validator.as_deref().filter(|_| offset > 0);
        let (response, host) = self.follow(range.map(|validator| (offset, validator)))?;
        let status = response.status().as_u16();
        let fail = |text: String| Failure { status: Some(status), host: host.clone(), text };
        let headers = response.headers();
        let (offset, total) = match status {
            206 if offset > 0 => match content_range(headers) {
                Some((start, total)) if start == offset && agree(total, known.total) => {
                    (offset, total.or(known.total))
                }
                _ => {
                    forget(self.part);
                    let text = "continued at another place than asked for".into();
                    return Err(Trouble::Passing(fail(text), None));
                }
            },
            200 => (0, text_header(headers, header::CONTENT_LENGTH).and_then(|n| n.parse().ok())),
            _ => return Err(self.refusal(status, headers, fail)),
        };
        if text_header(headers, header::CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with("text/html"))
        {
            let text = "sent a web page in place of the file".into();
            return Err(Trouble::Final(fail(text)));
        }
        if total.is_some_and(|total| total > MAX_BYTES) {
            let text = format!("announces more than {} GB", MAX_BYTES >> 30);
            return Err(Trouble::Final(fail(text)));
        }
        if offset == 0 {
            let state =
                PartialFile { url: self.url.to_owned(), validator: validator(headers), total };
            self.begin(&state).map_err(|text| Trouble::Final(fail(text)))?;
        }
        self.receive(response.into_body(), offset, total, fail)
    }

    /// Truncates the partial file and stores the metadata of the new content.
    fn begin(&self, state: &PartialFile) -> Result<(), String> {
        forget(self.part);
        let text = serde_json::to_vec(state).map_err(|error| error.to_string())?;
        write_atomically(&state_file(self.part), |out| out.write_all(&text))
            .map_err(|error| error.to_string())
    }

    /// Appends the body to the partial file.
    fn receive(
        &self,
        mut body: Body,
        offset: u64,
        total: Option<u64>,
        fail: impl Fn(String) -> Failure,
    ) -> Result<(), Trouble> {
        let disk = |error: std::io::Error| {
            Trouble::Final(fail(format!("cannot be stored in {}: {error}", self.part.display())))
        };
        let mut file = File::options().create(true).append(true).open(self.part).map_err(disk)?;
        let mut reader = body.as_reader();
        let mut buffer = vec![0; 1 << 16];
        let mut here = offset;
        (self.progress)(here, total);
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    file.sync_all().map_err(disk)?;
                    return Err(Trouble::Passing(
                        fail(cut_short(here, total, &error.to_string())),
                        None,
                    ));
                }
            };
            here += read as u64;
            if here > total.unwrap_or(MAX_BYTES) {
                forget(self.part);
                return Err(Trouble::Final(fail("sends more than it announced".into())));
            }
            file.write_all(&buffer[..read]).map_err(disk)?;
            (self.progress)(here, total);
        }
        file.sync_all().map_err(disk)?;
        match total {
            Some(total) if here < total => {
                let text = cut_short(here, Some(total), "the connection was closed");
                Err(Trouble::Passing(fail(text), None))
            }
            _ => Ok(()),
        }
    }

    /// What another status than success means for the next attempt.
    fn refusal(
        &self,
        status: u16,
        headers: &HeaderMap,
        fail: impl Fn(String) -> Failure,
    ) -> Trouble {
        let name = ureq::http::StatusCode::from_u16(status).ok();
        let name = name.and_then(|status| status.canonical_reason()).unwrap_or("an unknown status");
        let failure = fail(format!("answers {status} ({name})"));
        let asked = text_header(headers, header::RETRY_AFTER);
        let asked = asked.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        match status {
            416 => {
                forget(self.part); // the file is another one now, and shorter
                Trouble::Passing(failure, None)
            }
            408 | 425 | 429 | 500..=599 => Trouble::Passing(failure, asked),
            _ => Trouble::Final(failure),
        }
    }

    /// Sends the request and follows redirects; returns the response and its host.
    fn follow(&self, range: Option<(u64, &str)>) -> Result<(Response<Body>, String), Trouble> {
        let mut url = self.url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let here = host(&url);
            let fail = |text: String| Failure { status: None, host: here.clone(), text };
            let mut request = self.agent.get(&url);
            if let Some(value) = self.authorization.filter(|_| same_origin(&url, self.url)) {
                request = request.header(header::AUTHORIZATION, value);
            }
            if let Some((offset, validator)) = range {
                request = request
                    .header(header::RANGE, format!("bytes={offset}-"))
                    .header(header::IF_RANGE, validator);
            }
            let response = match request.call() {
                Ok(response) => response,
                Err(error) => {
                    let failure = fail(format!("cannot be reached: {}", describe(&error)));
                    return Err(match error {
                        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Trouble::Final(failure),
                        _ => Trouble::Passing(failure, None),
                    });
                }
            };
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, here));
            }
            let place = text_header(response.headers(), header::LOCATION);
            url = place
                .and_then(|place| resolve(&url, place))
                .ok_or_else(|| Trouble::Final(fail("redirects to nowhere that is safe".into())))?;
        }
        let text = format!("redirects more than {MAX_REDIRECTS} times");
        Err(Trouble::Final(Failure { status: None, host: host(&url), text }))
    }
}

/// An error of the client without the URL, which may contain a secret.
fn describe(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "its address is malformed".into(),
        ureq::Error::HostNotFound => "no such host; check the network".into(),
        ureq::Error::Timeout(_) => "it does not answer".into(),
        other => other.to_string(),
    }
}

fn cut_short(here: u64, total: Option<u64>, why: &str) -> String {
    match total {
        Some(total) => format!("was cut off after {here} of {total} bytes ({why})"),
        None => format!("was cut off after {here} bytes ({why})"),
    }
}

fn agree(a: Option<u64>, b: Option<u64>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a == b)
}

/// Length of a file; 0 if it does not exist.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

fn state_file(part: &Path) -> PathBuf {
    part.with_extension("state.json")
}

fn text_header(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The validator for `If-Range`: a strong ETag, or the date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let strong = text_header(headers, header::ETAG).filter(|tag| tag.starts_with('"'));
    strong.or_else(|| text_header(headers, header::LAST_MODIFIED)).map(str::to_owned)
}

/// `bytes 100-199/200` as start and total.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = text_header(headers, header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}

/// Host and port of a URL.
pub(super) fn host(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    let authority = uri
        .as_ref()
        .and_then(Uri::authority)
        .map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default().to_owned());
    authority.unwrap_or_else(|| "an address without a host".into())
}

/// Whether a URL is on this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    uri.as_ref()
        .and_then(Uri::host)
        .is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"))
}

/// Whether two URLs have the same scheme, host and port.
fn same_origin(a: &str, b: &str) -> bool {
    let origin = |url: &str| -> Option<(String, String, u16)> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_owned();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// The target of a redirect from `from`; `None` if it is no HTTP URL or drops encryption.
fn resolve(from: &str, place: &str) -> Option<String> {
    let base: Uri = from.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let place = place.split('#').next().unwrap_or_default();
    let to = if place.contains("://") {
        place.to_owned()
    } else if place.starts_with("//") {
        format!("{scheme}:{place}")
    } else if place.starts_with('/') {
        format!("{scheme}://{authority}{place}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{place}")
    };
    let uri: Uri = to.parse().ok()?;
    let safe = match uri.scheme_str()? {
        "https" => true,
        "http" => scheme == "http",
        _ => false,
    };
    (safe && uri.host().is_some()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_unsafe_ones_refused() {
        let from = "https://a.org/x/y?z=1";
        for (place, to) in [
            ("https://b.org/q", Some("https://b.org/q")),
            ("//b.org/q", Some("https://b.org/q")),
            ("/q?r=/s", Some("https://a.org/q?r=/s")),
            ("q#part", Some("https://a.org/x/q")),
            ("http://a.org/q", None),
            ("file:///etc/passwd", None),
            ("ftp://a.org/q", None),
        ] {
            assert_eq!(resolve(from, place).as_deref(), to, "{place}");
        }
        assert_eq!(resolve("http://a.org", "q").as_deref(), Some("http://a.org/q"));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let a = "https://A.org/x";
        assert!(same_origin(a, "https://a.org:443/y"));
        for other in ["http://a.org/x", "https://a.org:8443/x", "https://b.a.org/x", "nonsense"] {
            assert!(!same_origin(a, other), "{other}");
        }
        assert_eq!(host("https://user:secret@a.org:99/x?token=1"), "a.org:99");
    }

    #[test]
    fn ranges_and_validators_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(validator(&headers), None);
        headers.insert(header::LAST_MODIFIED, "yesterday".parse().unwrap());
        headers.insert(header::ETAG, "W/\"weak\"".parse().unwrap());
        assert_eq!(validator(&headers).unwrap(), "yesterday");
        headers.insert(header::ETAG, "\"strong\"".parse().unwrap());
        assert_eq!(validator(&headers).unwrap(), "\"strong\"");
        for (text, range) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes */10", None),
            ("5-9/10", None),
        ] {
            headers.insert(header::CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(content_range(&headers), range, "{text}");
        }
    }
}
