//! Builds a trunk and loads its initial weights.

use tch::Device;

use super::Source;
use super::load::LoadOptions;
use crate::Result;
use crate::models::{Architecture, Backbone, BuildOptions, Compute, EMBEDDING_LAYER};

/// A trunk to build from a weight file.
pub struct Bare<'a> {
    /// Its architecture.
    pub architecture: Architecture,
    /// A name, a file or `none`; by default the architecture's pretrained weights.
    pub weights: Option<&'a str>,
    /// Key prefixes that the weights may lack.
    pub allow_missing: &'a [String],
    /// Outputs of an additional embedding layer.
    pub embedding_dim: Option<i64>,
    /// The side of its input in pixels; by default the architecture's.
    pub input_size: Option<u32>,
}

/// A built trunk, the source of its weights, and a summary line.
pub struct Built {
    /// The trunk.
    pub backbone: Backbone,
    /// Where its weights are from.
    pub source: Source,
    /// Architecture, size, weights.
    pub line: String,
}

impl Bare<'_> {
    /// The architecture with its pretrained weights, or random ones where Visage has none.
    pub fn pretrained(architecture: Architecture) -> Self {
        let (weights, embedding_dim, input_size) = (None, None, None);
        Self { architecture, weights, allow_missing: &[], embedding_dim, input_size }
    }

    /// Builds the trunk and loads its weights. Random ones follow `tch::manual_seed`.
    ///
    /// # Errors
    /// Weights that do not exist or do not fit, or an impossible input size.
    pub fn build(&self, device: Device) -> Result<Built> {
        let options = BuildOptions { embedding_dim: self.embedding_dim, ..BuildOptions::default() };
        let mut backbone = Backbone::build(self.architecture, device, &options)?;
        if let Some(side) = self.input_size {
            backbone.set_input_size(side)?;
        }
        // Most files do not have the layer of --embedding-dim.
        let mut allow_missing = self.allow_missing.to_vec();
        allow_missing.extend(self.embedding_dim.map(|_| EMBEDDING_LAYER.to_owned()));
        let options = LoadOptions { extras: &[], allow_missing: &allow_missing };
        let (source, line) = load_into(&backbone, self.weights, &options)?;
        backbone.set_compute(Compute::fast(None))?;
        Ok(Built { backbone, source, line })
    }
}

/// Loads weights (a name, a file or `none`; by default the pretrained ones) into a trunk; returns
/// their source and a summary line.
///
/// # Errors
/// Weights that do not exist or do not fit.
pub fn load_into(
    backbone: &Backbone,
    weights: Option<&str>,
    options: &LoadOptions,
) -> Result<(Source, String)> {
    let source = Source::resolve(weights, backbone.architecture)?;
    let report = source.load_with(backbone, options)?;
    let line = format!(
        "{}, {:.1} M parameters, {}{}",
        backbone.architecture.name(),
        backbone.params.parameter_count() as f64 / 1e6,
        source.describe(),
        report.map(|report| format!(": {report}")).unwrap_or_default(),
    );
    Ok((source, line))
}
