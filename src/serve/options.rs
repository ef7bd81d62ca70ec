//! The options of the server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, Result};

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen at.
    pub host: IpAddr,
    /// Port; 0 picks a free one.
    pub port: u16,
    /// The keys of those who may use it; `None` allows everything, on a loopback address only.
    pub key_file: Option<PathBuf>,
    /// The certificate chain and its private key, PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Pictures that are waiting or being computed at one time; at least 1.
    pub queue: usize,
    /// Pictures that are computed together; at least 1.
    pub batch: usize,
    /// The time that a request may take once it has arrived.
    pub deadline: Duration,
    /// Bytes of the largest request.
    pub max_upload: usize,
    /// Small pictures of enrolled faces are kept in the gallery.
    pub thumbnails: bool,
}

impl Options {
    /// Checks what can be checked before anything is loaded.
    ///
    /// # Errors
    /// An address that others can reach, without keys.
    pub fn validate(&self) -> Result<()> {
        if self.key_file.is_none() && !self.host.is_loopback() {
            return Err(Error::Config(format!(
                "--host {}: others can reach this address, so that keys are needed: `visage serve \
                 --new-key admin --key-file FILE` makes one; then give --key-file FILE",
                self.host
            )));
        }
        Ok(())
    }
}
