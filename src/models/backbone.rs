//! A trunk with all that belongs to it.

use tch::{Device, Kind, Tensor};

use super::layers::{Bias, Linear, Mode, Weight, normalize};
use super::{Architecture, InputSpec, Logits, Params, Trunk};
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
    device: Device,
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
                let at = root.sub("embedding");
                Linear::with(&at, info.embedding_dim, outputs, Weight::Default, Bias::Zero)
            });
            (trunk, embedding)
        });
        Self {
            architecture,
            input: info.input.clone(),
            embedding_dim: options.embedding_dim.unwrap_or(info.embedding_dim),
            params,
            trunk,
            embedding,
            device,
        }
    }

    /// The device its tensors live on.
    pub fn device(&self) -> Device {
        self.device
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
        let features = self.trunk.forward(&self.input.normalise(pictures), mode);
        match &self.embedding {
            None => features.to_kind(Kind::Float),
            Some(layer) => normalize(&layer.forward(&features)),
        }
    }

    /// The same pictures through the network's own classifier: what torchvision's `model(x)` gives,
    /// with its auxiliary head in training.
    ///
    /// # Errors
    /// Pictures that do not fit, or a backbone built without its classifier.
    pub fn logits(&self, pictures: &Tensor, mode: Mode) -> Result<Logits> {
        self.check_pictures(pictures)?;
        self.trunk.logits(&self.input.normalise(pictures), mode).ok_or_else(|| {
            Error::Config(format!(
                "{} was built without its classifier: build it with a number of classes",
                self.architecture.name()
            ))
        })
    }
}
