//! The weights Visage knows by name, from `pretrained/manifest.toml`; small ones are embedded.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::file::WeightFile;
use super::load;
use super::run::BEST;
use super::tensor_file::TensorFile;
use crate::models::{Architecture, Backbone, KnownWeights, is_below};
use crate::{Error, Result};

/// One entry of the manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What `--weights` calls it.
    pub name: String,
    /// The architecture it fits.
    pub architecture: Architecture,
    /// Its file under `pretrained/`.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Used where `--weights` is not given.
    #[serde(default)]
    pub default: bool,
    /// The input it expects.
    pub input: String,
    /// How pixels are scaled.
    pub normalisation: String,
    /// Its output.
    pub embedding: String,
    /// Terms of use.
    pub licence: String,
    /// How it was made.
    pub made: String,
    /// Threshold and curve for verification.
    #[serde(default)]
    pub verification: Option<Verification>,
}

/// When two embeddings show one person, as measured on pairs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The Euclidean distance below which they do.
    pub threshold: f64,
    /// P(same | d) is 1 / (1 + exp(-(weight d + bias))).
    pub weight: f64,
    /// Bias of that curve.
    pub bias: f64,
    /// The command that measured it.
    pub command: String,
    /// The pairs it was measured on, and what follows from that.
    pub pairs: String,
}

/// Weights of a network that is no trunk, such as the face detector's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its file under `pretrained/`.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Terms of use.
    pub licence: String,
    /// How it was made.
    pub made: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    weights: Vec<Entry>,
    tools: Vec<Tool>,
}

const MANIFEST: &str = include_str!("../../pretrained/manifest.toml");

/// The bytes of the weights that are part of the program.
const EMBEDDED: [(&str, &[u8]); 4] = [
    (
        "openface-nn4-distilled.safetensors",
        include_bytes!("../../pretrained/openface-nn4-distilled.safetensors"),
    ),
    ("dlib-resnet.safetensors", include_bytes!("../../pretrained/dlib-resnet.safetensors")),
    ("strangers.safetensors", include_bytes!("../../pretrained/strangers.safetensors")),
    ("mtcnn.safetensors", include_bytes!("../../pretrained/mtcnn.safetensors")),
];

/// All entries of the manifest.
///
/// # Errors
/// Only if the embedded manifest is malformed, which a test excludes.
pub fn entries() -> Result<Vec<Entry>> {
    Ok(manifest()?.weights)
}

/// The architecture of the weights of that name; `None` for a name that is not in the manifest.
///
/// # Errors
/// As [`entries`].
pub fn architecture(name: &str) -> Result<Option<Architecture>> {
    Ok(entries()?.into_iter().find(|entry| entry.name == name).map(|entry| entry.architecture))
}

fn manifest() -> Result<Manifest> {
    toml::from_str(MANIFEST)
        .map_err(|error| Error::Config(format!("pretrained/manifest.toml: {error}")))
}

/// The embedded tensors of a network that is no trunk.
///
/// # Errors
/// A name the manifest lacks; a program that was built wrongly, which a test excludes.
pub fn tool(name: &str) -> Result<TensorFile> {
    let tools = manifest()?.tools;
    let found = tools.iter().find(|tool| tool.name == name);
    let bytes = checked(name, found.map(|tool| (tool.file.as_str(), tool.sha256.as_str())))?;
    TensorFile::parse(Path::new(name), bytes)
}

/// Where a trunk's weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Random initialisation (`--weights none`).
    Random,
    /// An entry of the manifest.
    Named(String),
    /// A file of the user's.
    File(PathBuf),
}

impl Source {
    /// Reads `--weights NAME|FILE|none`; without the flag, the architecture's default entry. FILE may be
    /// a run folder, which stands for its best model. NAME is one
    /// of the manifest's, or what `visage fetch` calls published weights, or their file name, where they
    /// have been fetched.
    ///
    /// # Errors
    /// Neither a known name nor an existing file: names the value, the known names, and a near miss, or
    /// how to get the file.
    pub fn resolve(flag: Option<&str>, architecture: Architecture) -> Result<Self> {
        let entries = entries()?;
        let Some(value) = flag else {
            let default = entries.iter().find(|e| e.default && e.architecture == architecture);
            return Ok(default.map_or(Self::Random, |entry| Self::Named(entry.name.clone())));
        };
        if value == "none" {
            return Ok(Self::Random);
        }
        if entries.iter().any(|entry| entry.name == value) {
            return Ok(Self::Named(value.to_owned()));
        }
        let path = Path::new(value);
        let run = path.join(BEST);
        if let Some(file) = [path, &run].into_iter().find(|path| path.is_file()) {
            return Ok(Self::File(file.to_owned()));
        }
        if let Some(entry) = entries.iter().find(|entry| entry.file == value) {
            return Ok(Self::Named(entry.name.clone()));
        }
        let downloads = downloads()?;
        if let Some(download) = downloads.iter().find(|one| one.name == value || one.file == value)
        {
            return download.source(value);
        }
        if let Some(known) = published(value) {
            return Err(Error::Config(format!(
                "--weights {value}: is not here; {} publishes it: download it and give its path",
                known.source
            )));
        }
        let names: Vec<_> = entries
            .iter()
            .map(|entry| entry.name.as_str())
            .chain(downloads.iter().map(|download| download.name.as_str()))
            .chain(["none"])
            .collect();
        let near = names
            .iter()
            .filter(|name| strsim::jaro_winkler(name, value) > 0.8)
            .map(|name| format!(" Did you mean {name}?"))
            .next()
            .unwrap_or_default();
        Err(Error::Config(format!(
            "--weights {value}: neither a file nor a name Visage knows ({}).{near}",
            names.join(", ")
        )))
    }

    /// The architecture of these weights, where the manifest or the number of parameters tells it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn architecture(&self) -> Result<Option<Architecture>> {
        match self {
            Self::Random => Ok(None),
            Self::Named(name) => architecture(name),
            Self::File(path) => {
                let file = WeightFile::open(path)?;
                let tensors = file.entries().iter();
                Ok(load::looks_like(tensors.map(|entry| (entry.name.as_str(), entry.count()))))
            }
        }
    }

    /// A short name for reports.
    pub fn describe(&self) -> String {
        match self {
            Self::Random => "random weights".into(),
            Self::Named(name) => format!("{name} (embedded)"),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// The value of `--weights` that gives these weights.
    pub fn flag(&self) -> String {
        match self {
            Self::Random => "none".into(),
            Self::Named(name) => name.clone(),
            Self::File(path) => path.to_string_lossy().into_owned(),
        }
    }

    /// Loads the weights into `backbone`, strictly; returns the report for the log.
    ///
    /// # Errors
    /// An unreadable file, or one that does not fit: the numbers of missing, unused and wrongly shaped
    /// tensors with examples; the backbone is unchanged.
    pub fn load_into(&self, backbone: &Backbone) -> Result<Option<load::LoadReport>> {
        self.load_with(backbone, &load::LoadOptions::default())
    }

    /// As [`Source::load_into`]; keys of the trunk that begin with one of `options.allow_missing` may be
    /// missing from the file, or of another shape, and then keep their values. The file may have keys that begin
    /// with one of `options.extras`; the report names them.
    ///
    /// # Errors
    /// As [`Source::load_into`], or a prefix that no parameter has.
    pub fn load_with(
        &self,
        backbone: &Backbone,
        options: &load::LoadOptions,
    ) -> Result<Option<load::LoadReport>> {
        let load::LoadOptions { extras: asked, allow_missing } = *options;
        let is_known =
            |prefix: &str| backbone.params.iter().any(|param| is_below(&param.name, prefix));
        if let Some(prefix) = allow_missing.iter().find(|prefix| !is_known(prefix)) {
            return Err(Error::Config(format!(
                "--allow-missing {prefix}: no parameter of {} starts with it; its blocks are {}",
                backbone.architecture.name(),
                backbone.params.blocks().join(", ")
            )));
        }
        let file = match self {
            Self::Random => return Ok(None),
            Self::Named(name) => WeightFile::parse(Path::new(name), embedded(name)?)?,
            Self::File(path) => WeightFile::open(path)?,
        };
        let extras = [&extras(backbone), asked].concat();
        let options = load::LoadOptions { extras: &extras, allow_missing };
        let report = load::load_file(&backbone.params, &file, &options)?;
        let tensors = file.entries().iter().map(|entry| (entry.name.as_str(), entry.count()));
        let mut report = strict(backbone, file.path(), report, tensors)?;
        let names = file.entries().iter().map(|entry| entry.name.as_str());
        let left_out: Vec<&str> =
            names.filter(|name| asked.iter().any(|extra| name.starts_with(extra))).collect();
        if !left_out.is_empty() {
            report
                .notes
                .push(format!("left out, as the net has no such layer: {}", left_out.join(", ")));
        }
        Ok(Some(report))
    }
}

/// Published weights that `visage fetch` downloads, as far as `--weights` needs to know them.
#[derive(Deserialize)]
struct Download {
    name: String,
    file: String,
    folder: String,
}

impl Download {
    /// The file, where it has been fetched; `value` is what `--weights` was given.
    fn source(&self, value: &str) -> Result<Source> {
        let path = Path::new(&self.folder).join(&self.file);
        if path.is_file() {
            return Ok(Source::File(path));
        }
        Err(Error::Config(format!(
            "--weights {value}: has not been downloaded; `visage fetch {}` writes {}",
            self.name,
            path.display()
        )))
    }
}

/// A warning for a trunk that starts from random weights although nobody said `none`: how to get pretrained
/// ones. None where there are weights, or none are published.
///
/// # Errors
/// The list of downloads cannot be read.
pub fn untrained(
    weights: Option<&str>,
    source: &Source,
    architecture: Architecture,
) -> Result<Option<String>> {
    if weights.is_some() || *source != Source::Random {
        return Ok(None);
    }
    let (known, name) = (architecture.info().weights, architecture.name());
    let published = downloads()?.into_iter().find(|one| known.iter().any(|k| k.file == one.file));
    Ok(published.map(|Download { name: file, .. }| {
        format!(
            "{name} starts from random weights; `visage fetch {file}`, then --weights {file}, starts from \
             pretrained ones (--weights none if random ones are meant)"
        )
    }))
}

fn downloads() -> Result<Vec<Download>> {
    #[derive(Deserialize)]
    struct Downloads {
        file: Vec<Download>,
    }
    let parsed: Downloads = toml::from_str(include_str!("../../pretrained/downloads.toml"))
        .map_err(|error| Error::Config(format!("pretrained/downloads.toml: {error}")))?;
    Ok(parsed.file)
}

/// The weights that `visage models` lists under this file name.
fn published(file: &str) -> Option<&'static KnownWeights> {
    let known = Architecture::ALL.into_iter().flat_map(|one| one.info().weights);
    known.into_iter().find(|known| known.file == file)
}

/// Loads the trunk's tensors of `file` into `backbone`; a head or gallery beside them is passed over.
///
/// # Errors
/// As [`Source::load_into`].
pub fn load_trunk(backbone: &Backbone, path: &Path, file: &TensorFile) -> Result<load::LoadReport> {
    let report = load::load(&backbone.params, file, &extras(backbone));
    let tensors = file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.numel()));
    strict(backbone, path, report, tensors)
}

/// The keys beside the trunk's that a file may hold: the head and gallery of our model files, and the
/// architecture's own classifier in the files of torchvision and facenet-pytorch.
fn extras(backbone: &Backbone) -> Vec<&'static str> {
    let classifier = backbone.architecture.info().classifier;
    load::BESIDE_TRUNK.into_iter().chain(classifier.iter().copied()).collect()
}

/// A report that something does not fit is an error here, with a guess from the file's `tensors` (key,
/// number of values) at what would.
fn strict<'t>(
    backbone: &Backbone,
    path: &Path,
    report: load::LoadReport,
    tensors: impl Iterator<Item = (&'t str, usize)>,
) -> Result<load::LoadReport> {
    if report.is_strict() {
        return Ok(report);
    }
    let architecture = backbone.architecture;
    let other = load::looks_like(tensors).filter(|&found| found != architecture);
    let hint = other.map(|found| format!("\n  this looks like {}", found.name()));
    let text = format!(
        "does not fit the trunk {}: {report}{}",
        architecture.name(),
        hint.unwrap_or_default()
    );
    Err(Error::weights(path, text))
}

/// The embedded bytes of a manifest entry, checked against its sum.
///
/// # Errors
/// There is none of that name.
pub fn embedded(name: &str) -> Result<&'static [u8]> {
    let entries = entries()?;
    let found = entries.iter().find(|entry| entry.name == name);
    checked(name, found.map(|entry| (entry.file.as_str(), entry.sha256.as_str())))
}

/// The embedded bytes of a file, checked against the sum that the manifest gives beside its name.
fn checked(name: &str, entry: Option<(&str, &str)>) -> Result<&'static [u8]> {
    let found = entry.and_then(|(file, sha256)| {
        EMBEDDED.iter().find(|(embedded, _)| *embedded == file).map(|(_, bytes)| (sha256, *bytes))
    });
    let Some((sha256, bytes)) = found else {
        return Err(Error::Config(format!("the weights {name} are not part of this program")));
    };
    let sum = format!("{:x}", Sha256::digest(bytes));
    if sum != sha256 {
        return Err(Error::weights(name, "sha256 differs from pretrained/manifest.toml"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn every_entry_is_embedded_whole_and_fits_its_architecture() {
        for entry in entries().unwrap() {
            let backbone = Backbone::new(entry.architecture, Device::Cpu);
            let report = Source::Named(entry.name.clone()).load_into(&backbone).unwrap().unwrap();
            assert!(report.is_strict(), "{}: {report}", entry.name);
            assert_eq!(report.matched, backbone.params.iter().count(), "{}", entry.name);
        }
    }

    #[test]
    fn weights_flag_is_a_name_a_file_or_none() {
        let openface = Architecture::OpenFace;
        assert_eq!(Source::resolve(Some("none"), openface).unwrap(), Source::Random);
        let default = Source::resolve(None, openface).unwrap();
        assert_eq!(default, Source::Named("openface-nn4-distilled".into()));
        let error =
            Source::resolve(Some("openface-nn4-distiled"), openface).unwrap_err().to_string();
        assert!(error.contains("Did you mean openface-nn4-distilled?"), "{error}");
    }

    #[test]
    fn the_file_names_of_models_lead_to_fetch_or_to_their_publisher() {
        let said =
            |value| Source::resolve(Some(value), Architecture::Vgg16).unwrap_err().to_string();
        for value in ["vgg16-397923af.pth", "vgg16-imagenet"] {
            let error = said(value);
            assert!(error.contains("`visage fetch vgg16-imagenet`"), "{error}");
            assert!(error.contains("pretrained/vgg16-397923af.pth"), "{error}");
        }
        for known in Architecture::ALL.into_iter().flat_map(|one| one.info().weights) {
            match Source::resolve(Some(known.file), Architecture::OpenFace) {
                Ok(found) => assert_ne!(found, Source::Random),
                Err(error) => assert!(!error.to_string().contains("neither"), "{error}"),
            }
        }
    }

    #[test]
    fn weights_of_another_architecture_are_recognised() {
        for (of, into) in [
            (Architecture::OpenFace, Architecture::FaceNet),
            (Architecture::FaceNet, Architecture::OpenFace),
        ] {
            let tensors = Backbone::new(of, Device::Cpu).params.snapshot().into_iter().collect();
            let file = TensorFile { tensors, ..TensorFile::default() };
            let backbone = Backbone::new(into, Device::Cpu);
            let error = load_trunk(&backbone, Path::new("x.pth"), &file).unwrap_err().to_string();
            assert!(error.ends_with(&format!("this looks like {}", of.name())), "{error}");
            assert!(error.len() < 1500, "{} bytes", error.len());
        }
    }
}
