//! Flags of `serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, value_parser};

use super::{GalleryFaces, GalleryThreshold};
use crate::serve::LogFormat;
use crate::serve::keys::Role;

/// Flags of `serve`.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Server",
    mut_arg("model", |model| model.help("Model file or run folder of the trunk of a new gallery \
        [default: the pretrained dlib-resnet], or where a gallery's trunk is now, if it was moved")),
    mut_arg("detect", |detect| detect.help(
        "When to run the face detector: auto uses a picture as it is if a face fills it, and crops \
         the faces from all others")),
    after_help = "The page is at /, the description of all routes at /openapi.json. For example:\n  \
        visage serve --db gallery.db\n  curl -F file=@photo.jpg http://127.0.0.1:8080/identify\n  \
        visage serve --new-key identify --key-file keys\n  \
        visage serve --db gallery.db --host 0.0.0.0 --key-file keys --tls-cert c.pem --tls-key k.pem"
)]
pub struct Serve {
    /// Address to listen on; any but a loopback one needs --key-file
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port; 0 picks a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    pub port: u16,
    /// PEM file of the certificate chain: the server speaks HTTPS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The log on standard output, one line per request
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
    /// File of the keys that requests must have, as `Authorization: Bearer KEY` or `X-API-Key: KEY`
    #[arg(long, value_name = "FILE", help_heading = "Keys")]
    pub key_file: Option<PathBuf>,
    /// Create a key of this role, print it once, add its SHA-256 to --key-file; exit
    #[arg(long, value_enum, value_name = "ROLE", requires = "key_file", help_heading = "Keys")]
    pub new_key: Option<Role>,
    /// Maximum number of pictures waiting or being computed; further requests are answered with 503 and Retry-After
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Limits",
        value_parser = value_parser!(u16).range(1..=4096))]
    pub queue: u16,
    /// Pictures that are computed together, if so many wait
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Limits",
        value_parser = value_parser!(u16).range(1..=256))]
    pub batch: u16,
    /// Seconds that a request may take once it has arrived (504)
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Limits",
        value_parser = value_parser!(u16).range(1..=3600))]
    pub deadline: u16,
    /// Megabytes of the largest request (413)
    #[arg(long, value_name = "MB", default_value_t = 20, help_heading = "Limits",
        value_parser = value_parser!(u16).range(1..=2048))]
    pub max_upload: u16,
    /// Keep a small picture of each face that is enrolled in the gallery
    #[arg(long, help_heading = "Gallery")]
    pub thumbnails: bool,
    /// The threshold.
    #[command(flatten)]
    pub threshold: GalleryThreshold,
    /// The gallery, and how faces are found and embedded.
    #[command(flatten)]
    pub faces: GalleryFaces,
}
