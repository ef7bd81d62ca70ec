//! Who may do what: keys with roles, of which a file holds the SHA-256.
//!
//! One line for each key: the role, and the digest in hexadecimal. Lines that start with `#` say nothing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{Error, Result, files};

/// How keys start, so that one that leaked is known as one.
const PREFIX: &str = "visage_";
/// What a new file starts with.
const HEADER: &str = "# Keys of `visage serve`: role and SHA-256. --new-key adds one; a deleted line is \
                      forgotten by the next start or POST /reload.\n";

/// What a key allows; each role allows what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Role {
    /// Name, compare, detect and embed faces, and see who is enrolled
    Identify,
    /// Enrol people and remember strangers, too
    Enrol,
    /// Forget people and read the files again, too
    Admin,
}

impl Role {
    const ALL: [(Self, &str); 3] =
        [(Self::Identify, "identify"), (Self::Enrol, "enrol"), (Self::Admin, "admin")];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(role, _)| role == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(role, _)| *role).ok_or(())
    }
}

/// The keys of a file.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    keys: Vec<(Role, [u8; 32])>,
}

impl KeyFile {
    /// Reads a file of keys.
    ///
    /// # Errors
    /// It cannot be read, a line is none, or there are no keys.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = parse(line).ok_or_else(|| {
                Error::Config(format!(
                    "--key-file {}: line {} is not a role (identify, enrol or admin) and a SHA-256",
                    path.display(),
                    number + 1
                ))
            })?;
            keys.push(key);
        }
        match keys.is_empty() {
            true => Err(Error::Config(format!(
                "--key-file {}: there are no keys in it; `visage serve --new-key ROLE --key-file \
                 FILE` makes one",
                path.display()
            ))),
            false => Ok(Self { path: path.to_owned(), keys }),
        }
    }

    /// The keys as they are in the file now.
    ///
    /// # Errors
    /// As [`KeyFile::read`].
    pub fn again(&self) -> Result<Self> {
        Self::read(&self.path)
    }

    /// The role of a key; `None` if it is not one of these. The time it takes tells nothing about the keys.
    pub fn role(&self, key: &[u8]) -> Option<Role> {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for (role, own) in &self.keys {
            if bool::from(own.ct_eq(&digest)) {
                found = found.max(Some(*role));
            }
        }
        found
    }

    /// Adds a new key of that role to a file, which only its owner can read, and returns the key.
    ///
    /// # Errors
    /// The file cannot be read or written, or has other lines than keys.
    pub fn add(path: &Path, role: Role) -> Result<String> {
        let mut text = match path.exists() {
            true => {
                // Broken lines are found before the file is written.
                Self::read(path)?;
                std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?
            }
            false => HEADER.to_owned(),
        };
        let mut secret = [0; 32];
        SysRng.try_fill_bytes(&mut secret).map_err(|error| {
            Error::Config(format!("the system gives no random numbers for a key: {error}"))
        })?;
        let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("{role} {}\n", hex::encode(Sha256::digest(&key)));
        files::write_private(path, text.as_bytes())?;
        Ok(key)
    }
}

fn parse(line: &str) -> Option<(Role, [u8; 32])> {
    let (role, digest) = line.split_once(char::is_whitespace)?;
    let digest = hex::decode(digest.trim()).ok()?;
    Some((role.parse().ok()?, digest.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_digests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let (one, two) = (
            KeyFile::add(&path, Role::Identify).unwrap(),
            KeyFile::add(&path, Role::Admin).unwrap(),
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&one) && !text.contains(&two) && one != two);
        let keys = KeyFile::read(&path).unwrap();
        assert_eq!(keys.role(one.as_bytes()), Some(Role::Identify));
        assert_eq!(keys.role(two.as_bytes()), Some(Role::Admin));
        assert_eq!(keys.role(&one.as_bytes()[1..]), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(Role::Identify < Role::Enrol && Role::Enrol < Role::Admin);
    }

    #[test]
    fn broken_files_are_named_with_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, format!("# one\nadmin {}\nking 00\n", "ab".repeat(32))).unwrap();
        let error = KeyFile::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
        let before = std::fs::read(&path).unwrap();
        assert!(KeyFile::add(&path, Role::Admin).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&path, "# nothing\n").unwrap();
        assert!(KeyFile::read(&path).unwrap_err().to_string().contains("no keys"));
    }
}
