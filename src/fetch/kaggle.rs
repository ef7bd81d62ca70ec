//! Kaggle: download URLs and credentials.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::http::{Failure, is_loopback};
use crate::{Error, Result};

/// The service's URL.
pub const SERVICE: &str = "https://www.kaggle.com/api/v1";
/// Environment variable with another URL, for tests.
pub const SERVICE_VARIABLE: &str = "VISAGE_KAGGLE_URL";
/// How to get credentials.
const HOW: &str = "on kaggle.com, in Settings, under API, create a token; then set KAGGLE_USERNAME \
                   and KAGGLE_KEY, or put the kaggle.json it gives you into ~/.kaggle and run \
                   chmod 600 ~/.kaggle/kaggle.json";

/// User name and key. Neither `Debug` nor errors show the key.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Credentials {
    username: String,
    key: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads them as Kaggle's own tools do: from KAGGLE_USERNAME and KAGGLE_KEY, or from `kaggle.json`
    /// in KAGGLE_CONFIG_DIR or `~/.kaggle`.
    ///
    /// # Errors
    /// There are none, or the file is invalid or readable by others.
    pub fn find() -> Result<Self> {
        Self::find_in(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn find_in(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name| variable(name).map(|value| value.to_string_lossy().trim().to_owned());
        match (text("KAGGLE_USERNAME"), text("KAGGLE_KEY")) {
            (Some(username), Some(key)) => return Self { username, key }.checked("KAGGLE_KEY"),
            (Some(_), None) => {
                return Err(Error::Config("KAGGLE_USERNAME is set and KAGGLE_KEY is not".into()));
            }
            (None, Some(_)) => {
                return Err(Error::Config("KAGGLE_KEY is set and KAGGLE_USERNAME is not".into()));
            }
            (None, None) => {}
        }
        let folder = variable("KAGGLE_CONFIG_DIR")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".kaggle")));
        let file = folder.map(|folder| folder.join("kaggle.json")).filter(|file| file.exists());
        match file {
            Some(file) => Self::read(&file),
            None => Err(Error::Config(format!("Kaggle asks who you are: {HOW}"))),
        }
    }

    fn read(file: &Path) -> Result<Self> {
        let open = std::fs::File::open(file).map_err(|source| Error::io(file, source))?;
        refuse_readable(file, &open)?;
        let text = std::io::read_to_string(open).map_err(|source| Error::io(file, source))?;
        // The parser's message could quote the key.
        let credentials: Self = serde_json::from_str(&text).map_err(|_| {
            let text = format!("{}: is not the kaggle.json of a token; {HOW}", file.display());
            Error::Config(text)
        })?;
        credentials.checked(&file.display().to_string())
    }

    /// Refuses invalid characters.
    fn checked(self, from: &str) -> Result<Self> {
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if plain(&self.username) && plain(&self.key) && !self.username.contains(':') {
            return Ok(self);
        }
        Err(Error::Config(format!("{from}: no credentials of Kaggle; {HOW}")))
    }

    /// The `Authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.key)))
    }
}

/// Refuses a credentials file that others can read.
#[cfg(unix)]
fn refuse_readable(path: &Path, file: &std::fs::File) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().map_err(|source| Error::io(path, source))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{}: other users may open it (mode {:03o}), and it holds your key; run chmod 600 {}",
        path.display(),
        mode & 0o777,
        path.display()
    )))
}

#[cfg(not(unix))]
fn refuse_readable(_: &Path, _: &std::fs::File) -> Result<()> {
    Ok(())
}

/// The URL of the archive of OWNER/NAME at `service`.
///
/// # Errors
/// The service is not encrypted and not on this machine.
pub fn address(service: &str, name: &str) -> Result<String> {
    let here = is_loopback(service);
    if service.starts_with("https://") || (here && service.starts_with("http://")) {
        return Ok(format!("{}/datasets/download/{name}", service.trim_end_matches('/')));
    }
    let text =
        format!("{SERVICE_VARIABLE} {service}: must begin with https://, to keep the key secret");
    Err(Error::Config(text))
}

/// What the user can do about a refused request.
pub(super) fn advice(failure: &Failure, name: &str) -> String {
    match failure.status {
        Some(401) => format!("the credentials are refused: {HOW}"),
        Some(403) => format!(
            "open https://www.kaggle.com/datasets/{name} in a browser, sign in and accept its terms, \
             then fetch again (or the key is an old one: {HOW})"
        ),
        Some(404) => format!("https://www.kaggle.com/datasets/{name} has moved or is gone"),
        _ => failure.advice(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Result<Credentials> {
        Credentials::find_in(|name| {
            variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_environment_comes_before_the_file_and_the_key_is_never_shown() {
        let found = find(&[("KAGGLE_USERNAME", "ann"), ("KAGGLE_KEY", "s3cret"), ("HOME", "/no")]);
        let found = found.unwrap();
        // printf 'ann:s3cret' | base64
        assert_eq!(found.header(), "Basic YW5uOnMzY3JldA==");
        assert!(!format!("{found:?}").contains("s3cret"));
        let half = find(&[("KAGGLE_USERNAME", "ann")]).unwrap_err().to_string();
        assert!(half.contains("KAGGLE_KEY is not"), "{half}");
        let none = find(&[("HOME", "/nowhere")]).unwrap_err().to_string();
        assert!(none.contains("create a token"), "{none}");
        let odd = find(&[("KAGGLE_USERNAME", "ann"), ("KAGGLE_KEY", "s3\ncret")]).unwrap_err();
        assert!(!odd.to_string().contains("cret;") && odd.to_string().contains("KAGGLE_KEY"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".kaggle/kaggle.json");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        let home = home.path().to_str().unwrap();
        let write = |text: &str, mode| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            find(&[("HOME", home)])
        };
        let token = r#"{"username": "ann", "key": "s3cret"}"#;
        assert_eq!(write(token, 0o600).unwrap().header(), "Basic YW5uOnMzY3JldA==");
        assert!(write(token, 0o400).is_ok());
        for mode in [0o644, 0o640, 0o604, 0o660] {
            let error = write(token, mode).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && !error.contains("s3cret"), "{error}");
        }
        for text in ["", "{}", r#"{"username": "ann", "key": "s3cret""#, r#"{"key": 5}"#] {
            let error = write(text, 0o600).unwrap_err().to_string();
            assert!(error.contains("kaggle.json") && !error.contains("s3cret"), "{error}");
        }
        let folder = Path::new(home).join(".kaggle");
        write(token, 0o600).unwrap();
        assert!(find(&[("KAGGLE_CONFIG_DIR", folder.to_str().unwrap())]).is_ok());
    }

    #[test]
    fn the_key_goes_over_encrypted_lines_or_stays_at_home() {
        let wanted = "https://www.kaggle.com/api/v1/datasets/download/a/b";
        assert_eq!(address(SERVICE, "a/b").unwrap(), wanted);
        assert!(address("http://127.0.0.1:8080", "a/b").is_ok());
        for service in ["http://kaggle.com", "http://localhost.evil.org", "ftp://localhost", ""] {
            assert!(address(service, "a/b").is_err(), "{service}");
        }
    }
}
