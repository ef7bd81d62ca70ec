//! A trunk with all that belongs to it.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::layers::{Bias, Linear, Mode, Weight, normalize};
use super::{Architecture, Compute, InputSpec, Logits, Params, Trunk};
use crate::{Error, Result};

/// What is built beside the trunk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// The classifier the network was published with, for so many classes; none leaves it out.
    pub classes: Option<i64>,
    /// An embedding layer on top of the trunk, with so many outputs; none leaves the trunk's own.
    pub embedding_dim: Option<i64>,
}

impl BuildOptions {
    /// More classes, or a longer embedding, is a slip and not a wish.
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

/// The key prefix of the layer that `--embedding-dim` puts on top of a trunk.
pub const EMBEDDING_LAYER: &str = "embedding";

/// A trunk with all that belongs to it.
#[derive(Debug)]
pub struct Backbone {
    /// Which architecture it is.
    pub architecture: Architecture,
    /// Its input size and normalisation.
    pub input: InputSpec,
    /// The length of its embeddings.
    pub embedding_dim: i64,
    /// Its tensors under PyTorch's keys.
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
    /// Its blocks, as `--freeze` names them.
    pub blocks: Vec<String>,
    /// Its parameters, shared with the trunk.
    parameters: Vec<Tensor>,
}

impl Stage {
    /// The stage's first block.
    pub fn name(&self) -> &str {
        self.blocks.first().map_or("", String::as_str)
    }

    /// No parameter of it asks for a gradient.
    pub fn is_frozen(&self) -> bool {
        !self.parameters.iter().any(Tensor::requires_grad)
    }
}

impl Backbone {
    /// Builds the trunk alone with random weights (seed them with `tch::manual_seed`).
    pub fn new(architecture: Architecture, device: Device) -> Self {
        Self::assemble(architecture, device, BuildOptions::default())
    }

    /// The same with a classifier or an embedding layer: `embedding.weight` `[D, trunk's]` and
    /// `embedding.bias`, whose output is scaled to length one. The bias starts at zero, because the
    /// layer's input has length one and PyTorch's default bias would outweigh it.
    ///
    /// # Errors
    /// A number of classes or outputs that cannot be, or classes for a network without a classifier.
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

    /// The stages in the order they run; the embedding layer, where there is one, is the last.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// How many stages from the pictures on are frozen: their output for a picture never changes.
    pub fn frozen_stages(&self) -> usize {
        self.stages.iter().take_while(|stage| stage.is_frozen()).count()
    }

    /// The device its tensors live on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Chooses in which numbers and layout it computes from now on. Its parameters keep their values
    /// and their kind.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn set_compute(&mut self, compute: Compute) -> Result<()> {
        let params: Vec<&Tensor> =
            self.params.iter().filter(|p| p.is_parameter).map(|p| &p.tensor).collect();
        compute.prepare(&params)?;
        self.compute = compute;
        Ok(())
    }

    /// In which numbers and layout it computes.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Chooses another side for the square input.
    ///
    /// # Errors
    /// The architecture cannot take it: names the sizes it can.
    pub fn set_input_size(&mut self, side: u32) -> Result<()> {
        let info = self.architecture.info();
        info.input_sizes.check(info.name, side.into(), side.into())?;
        self.input.size = side;
        Ok(())
    }

    /// Whether [`Backbone::embed`] can take the tensor.
    ///
    /// # Errors
    /// It is not `[N, 3, H, W]` or `[N, 1, H, W]` of a size that the architecture can take.
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

    /// Pictures `[N, 3, H, W]` (or grey, `[N, 1, H, W]`) in [0, 1] to embeddings `[N, D]` of length
    /// one, float32.
    ///
    /// # Panics
    /// In libtorch, where [`Backbone::check_pictures`] would have refused the tensor.
    pub fn embed(&self, pictures: &Tensor, mode: Mode) -> Tensor {
        self.embed_from(0, pictures, mode)
    }

    /// The second half of [`Backbone::embed`]: from the maps in front of stage `first`, as
    /// [`Backbone::maps`] gives them, to embeddings.
    ///
    /// A frozen stage rests: no dropout and running statistics, whatever `mode` says.
    pub fn embed_from(&self, first: usize, maps: &Tensor, mode: Mode) -> Tensor {
        let map = self.map_from(first, maps, mode);
        // What has length one is scaled to it in float32.
        let embedding = self.trunk.unit(&self.features(&map, mode));
        let embedding = match &self.embedding {
            Some(layer) => normalize(&layer.forward(&embedding)),
            None => embedding,
        };
        embedding.to_kind(Kind::Float)
    }

    /// What pictures have become in front of stage `end` of the trunk, without a gradient: for the
    /// frozen stages below it (0 gives the pictures themselves), which rest whatever `mode` says.
    pub fn maps(&self, pictures: &Tensor, end: usize, mode: Mode) -> Tensor {
        tch::no_grad(|| self.through(0..end.min(self.trunk_stages()), pictures, mode))
    }

    /// From the maps in front of stage `first` to the trunk's map, `[N, C, H', W']` (or `[N, D]`
    /// where the trunk ends in a vector): what heads of their own are put on.
    pub fn map_from(&self, first: usize, maps: &Tensor, mode: Mode) -> Tensor {
        self.through(first..self.trunk_stages(), maps, mode)
    }

    /// The shape of the trunk's map of one picture.
    pub fn map_size(&self) -> Vec<i64> {
        let side = i64::from(self.input.size);
        let picture = Tensor::zeros([1, 3, side, side], (Kind::Float, self.device));
        tch::no_grad(|| self.map_from(0, &picture, Mode::EVAL)).size()
    }

    /// The trunk's map to features `[N, D]` that are not scaled to length one.
    pub fn features(&self, map: &Tensor, mode: Mode) -> Tensor {
        self.compute.run(self.device, mode, || self.trunk.features(map)).to_kind(Kind::Float)
    }

    /// The trunk's map through the classifier it was built with.
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

    /// Through some of the trunk's own stages.
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

    /// The same pictures through the network's own classifier: what torchvision's `model(x)` gives,
    /// with its auxiliary head in training.
    ///
    /// # Errors
    /// Pictures that do not fit, or a backbone built without its classifier.
    pub fn logits(&self, pictures: &Tensor, mode: Mode) -> Result<Logits> {
        self.check_pictures(pictures)?;
        let logits = self.trunk.logits(&self.input.normalise(pictures), mode);
        logits.ok_or_else(|| self.no_classifier())
    }
}
