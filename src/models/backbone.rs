//! A trunk with its input size, normalisation and parameters.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::layers::{Bias, Linear, Mode, Weight, normalize};
use super::{Architecture, Compute, InputSpec, Logits, Params, Trunk};
use crate::{Error, Result};

/// Optional parts of a backbone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Number of classes of the network's own classifier; `None` to leave it out.
    pub classes: Option<i64>,
    /// Size of an additional embedding layer; `None` for the trunk's own embedding.
    pub embedding_dim: Option<i64>,
}

impl BuildOptions {
    /// Upper bound of both, against typing errors.
    const LARGEST: i64 = 1_000_000;

    fn check(&self, architecture: Architecture) -> Result<()> {
        let name = architecture.name();
        for (what, value) in
            [("the number of classes", self.classes), ("--embedding-dim", self.embedding_dim)]
        {
            if let Some(value) = value.filter(|value| !(1..=Self::LARGEST).contains(value)) {
                return Err(Error::Config(format!(
                    "{what} of {name} is {value}: it must be from 1 to {}",
                    Self::LARGEST
                )));
            }
        }
        if self.classes.is_some() && architecture.info().classifier.is_empty() {
            return Err(Error::Config(format!(
                "{name} has no classifier of its own: build it without a number of classes"
            )));
        }
        Ok(())
    }
}

/// Key prefix of the layer of `--embedding-dim`.
pub const EMBEDDING_LAYER: &str = "embedding";

/// A trunk with its input size, normalisation and parameters.
#[derive(Debug)]
pub struct Backbone {
    /// Architecture.
    pub architecture: Architecture,
    /// Input size and normalisation.
    pub input: InputSpec,
    /// Embedding size.
    pub embedding_dim: i64,
    /// Parameters and buffers under PyTorch's keys.
    pub params: Params,
    trunk: Box<dyn Trunk>,
    embedding: Option<Linear>,
    stages: Vec<Stage>,
    device: Device,
    compute: Compute,
}

/// A part of a trunk that is frozen or trained as a whole.
#[derive(Debug)]
pub struct Stage {
    /// Its blocks, the names for `--freeze`.
    pub blocks: Vec<String>,
    /// Its parameters, shared with the trunk.
    parameters: Vec<Tensor>,
}

impl Stage {
    /// First block of the stage.
    pub fn name(&self) -> &str {
        self.blocks.first().map_or("", String::as_str)
    }

    /// Whether no parameter requires a gradient.
    pub fn is_frozen(&self) -> bool {
        !self.parameters.iter().any(Tensor::requires_grad)
    }
}

impl Backbone {
    /// Builds the trunk with random weights (seed them with `tch::manual_seed`).
    pub fn new(architecture: Architecture, device: Device) -> Self {
        Self::assemble(architecture, device, BuildOptions::default())
    }

    /// Like [`Backbone::new`], with a classifier or an embedding layer: `embedding.weight` `[D,
    /// trunk's]` and `embedding.bias`, whose output is L2-normalised. The bias is initialised to zero,
    /// because the layer's input is normalised and PyTorch's default bias would dominate.
    ///
    /// # Errors
    /// The number of classes or the embedding size is out of range, or the network has no classifier.
    pub fn build(
        architecture: Architecture,
        device: Device,
        options: &BuildOptions,
    ) -> Result<Self> {
        options.check(architecture)?;
        Ok(Self::assemble(architecture, device, *options))
    }

    fn assemble(architecture: Architecture, device: Device, options: BuildOptions) -> Self {
        let info = architecture.info();
        let ((trunk, embedding), params) = Params::collect(device, |root| {
            let trunk = architecture.trunk(root, device, options.classes);
            let embedding = options.embedding_dim.map(|outputs| {
                let at = root.sub(EMBEDDING_LAYER);
                Linear::with(&at, info.embedding_dim, outputs, Weight::Default, Bias::Zero)
            });
            (trunk, embedding)
        });
        let mut blocks = trunk.stages();
        blocks.extend(embedding.is_some().then(|| vec![EMBEDDING_LAYER.to_owned()]));
        let stage = |blocks: Vec<String>| {
            let parameters = blocks.iter().flat_map(|block| params.below(block));
            let parameters = parameters.map(|param| param.tensor.shallow_clone()).collect();
            Stage { blocks, parameters }
        };
        let stages = blocks.into_iter().map(stage).collect();
        Self {
            architecture,
            input: info.input.clone(),
            embedding_dim: options.embedding_dim.unwrap_or(info.embedding_dim),
            params,
            trunk,
            embedding,
            stages,
            device,
            compute: Compute::default(),
        }
    }

    /// The stages in order; the embedding layer, if any, is the last.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Number of frozen stages from the input on: their output for a picture does not change.
    pub fn frozen_stages(&self) -> usize {
        self.stages.iter().take_while(|stage| stage.is_frozen()).count()
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Sets the dtype and memory format of the computation. Parameters keep their values and dtype.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn set_compute(&mut self, compute: Compute) -> Result<()> {
        let params: Vec<&Tensor> =
            self.params.iter().filter(|p| p.is_parameter).map(|p| &p.tensor).collect();
        compute.prepare(&params)?;
        self.compute = compute;
        Ok(())
    }

    /// Dtype and memory format of the computation.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Sets the side of the square input.
    ///
    /// # Errors
    /// The architecture does not support it; names the supported sizes.
    pub fn set_input_size(&mut self, side: u32) -> Result<()> {
        let info = self.architecture.info();
        info.input_sizes.check(info.name, side.into(), side.into())?;
        self.input.size = side;
        Ok(())
    }

    /// Checks the input of [`Backbone::embed`].
    ///
    /// # Errors
    /// It is not `[N, 3, H, W]` or `[N, 1, H, W]` of a supported size.
    pub fn check_pictures(&self, pictures: &Tensor) -> Result<()> {
        let info = self.architecture.info();
        match pictures.size()[..] {
            [count, 1 | 3, height, width] if count > 0 => {
                info.input_sizes.check(info.name, height, width)
            }
            ref shape => Err(Error::Config(format!(
                "{} takes pictures [N, 3, H, W] or grey ones [N, 1, H, W], not {shape:?}",
                info.name
            ))),
        }
    }

    /// Pictures `[N, 3, H, W]` (or grey, `[N, 1, H, W]`) in [0, 1] to L2-normalised embeddings `[N,
    /// D]`, float32.
    ///
    /// # Panics
    /// In libtorch, if [`Backbone::check_pictures`] would return an error.
    pub fn embed(&self, pictures: &Tensor, mode: Mode) -> Tensor {
        self.embed_from(0, pictures, mode)
    }

    /// The second half of [`Backbone::embed`]: from the feature maps before stage `first`, as from
    /// [`Backbone::maps`], to embeddings.
    ///
    /// Frozen stages run in evaluation mode, whatever `mode` is.
    pub fn embed_from(&self, first: usize, maps: &Tensor, mode: Mode) -> Tensor {
        let map = self.map_from(first, maps, mode);
        // Normalised in float32.
        let embedding = self.trunk.unit(&self.features(&map, mode));
        let embedding = match &self.embedding {
            Some(layer) => normalize(&layer.forward(&embedding)),
            None => embedding,
        };
        embedding.to_kind(Kind::Float)
    }

    /// The feature maps before stage `end`, without gradient: the output of the frozen stages below it
    /// (the pictures themselves for 0), in evaluation mode.
    pub fn maps(&self, pictures: &Tensor, end: usize, mode: Mode) -> Tensor {
        tch::no_grad(|| self.through(0..end.min(self.trunk_stages()), pictures, mode))
    }

    /// From the feature maps before stage `first` to the trunk's output, `[N, C, H', W']` (or `[N, D]`
    /// if the trunk ends in a vector), the input of pair heads.
    pub fn map_from(&self, first: usize, maps: &Tensor, mode: Mode) -> Tensor {
        self.through(first..self.trunk_stages(), maps, mode)
    }

    /// Shape of the trunk's output for one picture.
    pub fn map_size(&self) -> Vec<i64> {
        let side = i64::from(self.input.size);
        let picture = Tensor::zeros([1, 3, side, side], (Kind::Float, self.device));
        tch::no_grad(|| self.map_from(0, &picture, Mode::EVAL)).size()
    }

    /// The trunk's output to features `[N, D]`, not normalised.
    pub fn features(&self, map: &Tensor, mode: Mode) -> Tensor {
        self.compute.run(self.device, mode, || self.trunk.features(map)).to_kind(Kind::Float)
    }

    /// The trunk's output through its own classifier.
    ///
    /// # Errors
    /// It was built without one.
    pub fn classify(&self, map: &Tensor, mode: Mode) -> Result<Tensor> {
        let classes = self.compute.run(self.device, mode, || self.trunk.classify(map, mode));
        classes.map(|classes| classes.to_kind(Kind::Float)).ok_or_else(|| self.no_classifier())
    }

    /// The stages without the embedding layer.
    fn trunk_stages(&self) -> usize {
        self.stages.len() - usize::from(self.embedding.is_some())
    }

    /// Runs a range of the trunk's own stages.
    fn through(&self, stages: Range<usize>, xs: &Tensor, mode: Mode) -> Tensor {
        self.compute.run(self.device, mode, || {
            stages.fold(xs.shallow_clone(), |xs, number| {
                let rests = self.stages.get(number).is_none_or(Stage::is_frozen);
                let xs = if number == 0 { self.input.normalise(&xs) } else { xs };
                let xs = self.compute.lay_out(&xs);
                self.trunk.run(number, &xs, if rests { Mode::EVAL } else { mode })
            })
        })
    }

    fn no_classifier(&self) -> Error {
        let name = self.architecture.name();
        Error::Config(format!(
            "{name} was built without its classifier: build it with a number of classes"
        ))
    }

    /// Pictures through the network's own classifier: torchvision's `model(x)`, in training with its
    /// auxiliary head.
    ///
    /// # Errors
    /// The input has an unsupported shape, or the classifier was left out.
    pub fn logits(&self, pictures: &Tensor, mode: Mode) -> Result<Logits> {
        self.check_pictures(pictures)?;
        let logits = self.trunk.logits(&self.input.normalise(pictures), mode);
        logits.ok_or_else(|| self.no_classifier())
    }
}
