//! Export of models to TorchScript and ONNX.
//!
//! Both have the same graph: pictures float32 `[N, 3, H, W]` in [0, 1] to L2-normalised `embedding`
//! `[N, D]` and, for a classifier, `logits` `[N, classes]`. The graph includes the normalisation and
//! the calibrated temperature: `softmax(logits)` gives calibrated probabilities. Classes, sizes and
//! settings are stored as JSON. N is dynamic; H and W are the model's input size.

mod graph;
mod onnx;
mod onnx_ops;
mod torchscript;

use std::path::Path;

use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::models::{Backbone, Compute, Mode};
use crate::native::trace::{Trace, TracedState};
use crate::recognise::{ModelCard, Recogniser};
use crate::weights::HEAD;
use crate::{Error, Result};

pub use onnx::{BatchSize, METADATA};
pub use torchscript::EXTRA_FILE;

/// Export formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum ExportFormat {
    /// A TorchScript archive, for `torch.jit.load` in Python and C++
    #[cfg_attr(feature = "cli", value(name = "torchscript"))]
    TorchScript,
    /// An ONNX file, for ONNX Runtime and others
    Onnx,
}

impl ExportFormat {
    /// The format of a file extension.
    ///
    /// # Errors
    /// The extension is not `.pt`, `.torchscript` or `.onnx`.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        match ending.to_ascii_lowercase().as_str() {
            "pt" | "torchscript" => Ok(Self::TorchScript),
            "onnx" => Ok(Self::Onnx),
            _ => Err(Error::Config(format!(
                "{}: cannot tell the format to write; end the name in .pt, .torchscript or .onnx, \
                 or give --format (weights alone are written by `visage weights convert`)",
                path.display()
            ))),
        }
    }
}

/// Input of an exported graph.
pub const INPUT: &str = "pictures";
/// Outputs, in order; the second only for classifiers.
pub const OUTPUTS: [&str; 2] = ["embedding", "logits"];

/// Batch size for tracing; with 1, errors in the batch dimension would not be noticed.
const EXAMPLE: i64 = 2;

/// A model for export.
#[derive(Debug)]
pub struct Export {
    backbone: Backbone,
    head: Option<Head>,
    card: Option<ModelCard>,
}

/// The linear layer of a classifier.
#[derive(Debug)]
struct Head {
    weight: Tensor,
    bias: Tensor,
    temperature: f64,
}

impl Export {
    /// A trunk on the CPU in evaluation mode, frozen.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn trunk(mut backbone: Backbone) -> Result<Self> {
        backbone.params.freeze_all();
        // The memory format chosen for this machine is not exported.
        backbone.set_compute(Compute::default())?;
        Ok(Self { backbone, head: None, card: None })
    }

    /// A model file's trunk and, if it has one, classifier.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn model(model: Recogniser) -> Result<Self> {
        let head = model.classifier().ok().map(|classifier| Head {
            weight: classifier.head.weight.shallow_clone(),
            bias: classifier.head.bias.shallow_clone(),
            temperature: classifier.calibration.temperature,
        });
        Ok(Self { head, card: Some(model.card), ..Self::trunk(model.backbone)? })
    }

    /// Its outputs, as `(name, columns)`.
    pub fn outputs(&self) -> Vec<(&'static str, i64)> {
        let classes = self.head.as_ref().map(|head| head.bias.numel() as i64);
        let columns = [Some(self.backbone.embedding_dim), classes];
        OUTPUTS.into_iter().zip(columns).filter_map(|(name, n)| Some((name, n?))).collect()
    }

    /// Shape of its input without the batch: channels, height, width.
    pub fn picture(&self) -> [i64; 3] {
        [3, self.backbone.input.size.into(), self.backbone.input.size.into()]
    }

    /// Metadata of the exported file.
    pub fn metadata(&self) -> serde_json::Value {
        let mut about = json!({
            "visage": env!("CARGO_PKG_VERSION"),
            "architecture": self.backbone.architecture.name(),
            "input": {
                "name": INPUT, "shape": ["N", 3, self.backbone.input.size, self.backbone.input.size],
                "range": [0, 1], "channels": "RGB",
                "normalisation": "inside the graph", "mean": self.backbone.input.mean,
                "std": self.backbone.input.std,
            },
            "embedding": { "length": self.backbone.embedding_dim, "norm": 1 },
        });
        if let Some(card) = &self.card {
            about["weights"] = json!(card.weights);
            about["epoch"] = json!(card.epoch);
            about["metrics"] = json!(card.metrics);
        }
        if let (Some(head), Some(card)) = (&self.head, &self.card) {
            about["classes"] = json!(card.classes);
            about["temperature"] = json!({ "value": head.temperature, "applied": true });
        }
        about
    }

    /// Runs the network and returns the outputs, in order.
    ///
    /// # Errors
    /// Pictures that are not `[N, 3, H, W]`, or an error from libtorch.
    pub fn forward(&self, pictures: &Tensor) -> Result<Vec<Tensor>> {
        self.backbone.check_pictures(pictures)?;
        tch::no_grad(|| {
            let embedding = self.backbone.embed(pictures, Mode::EVAL);
            let Some(Head { weight, bias, temperature }) = &self.head else {
                return Ok(vec![embedding]);
            };
            let logits = embedding.f_linear(weight, Some(bias))?.f_div_scalar(*temperature)?;
            Ok(vec![embedding, logits])
        })
    }

    /// Pictures with different values, for running a network.
    fn example(&self, count: i64) -> Tensor {
        let [channels, height, width] = self.picture();
        let numel = count * channels * height * width;
        let ramp = Tensor::arange(numel, (Kind::Float, Device::Cpu));
        // Fractional parts of multiples of the golden ratio are evenly distributed over [0, 1).
        (ramp * 0.618_034).frac().view([count, channels, height, width])
    }

    /// Traces the network.
    fn trace(&self) -> Result<Trace> {
        if self.backbone.device() != Device::Cpu {
            return Err(Error::Device("a model is exported from the CPU: use --device cpu".into()));
        }
        let params = self.backbone.params.iter().map(|param| TracedState {
            name: param.name.clone(),
            tensor: param.tensor.shallow_clone(),
            is_parameter: param.is_parameter,
        });
        let mut state: Vec<_> = params.collect();
        if let Some(head) = &self.head {
            let parts = [("weight", &head.weight), ("bias", &head.bias)];
            state.extend(parts.map(|(name, tensor)| TracedState {
                name: format!("{HEAD}{name}"),
                tensor: tensor.shallow_clone(),
                is_parameter: true,
            }));
        }
        let outputs = self.outputs().len();
        Trace::record(&state, &self.example(EXAMPLE), outputs, |xs| self.forward(xs))
    }
}
