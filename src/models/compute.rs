//! Dtype and memory format of a network's computation.

use tch::{Device, Tensor};

use super::Mode;
use crate::Result;
use crate::native::{self, Half};

/// How a network computes; the default is float32 in the contiguous format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compute {
    half: Option<Half>,
    channels_last: bool,
    everywhere: bool,
}

impl Compute {
    /// Convolutions and matrix products in 16 bits (`None`: float32), in the channels_last format.
    /// Evaluation mode stays float32.
    pub fn fast(half: Option<Half>) -> Self {
        Self { half, channels_last: true, everywhere: false }
    }

    /// Evaluation mode in 16 bits, too: faster embeddings.
    pub fn everywhere(half: Option<Half>) -> Self {
        Self { everywhere: true, ..Self::fast(half) }
    }

    /// The 16-bit dtype, if any.
    pub fn half(self) -> Option<Half> {
        self.half
    }

    /// Whether small gradients underflow, so that the loss must be scaled.
    pub fn scales_loss(self) -> bool {
        self.half == Some(Half::Float16)
    }

    /// Converts weights to the memory format; their values do not change.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn prepare(self, params: &[&Tensor]) -> Result<()> {
        native::set_channels_last(params, self.channels_last)
    }

    /// Converts a feature map to the memory format.
    pub fn lay_out(self, map: &Tensor) -> Tensor {
        match self.channels_last {
            // Only lack of memory can fail here, and the next layer would report it.
            true => native::channels_last(map).unwrap_or_else(|_| map.shallow_clone()),
            false => map.shallow_clone(),
        }
    }

    /// Runs a part of the network in this dtype.
    pub fn run<T>(self, device: Device, mode: Mode, body: impl FnOnce() -> T) -> T {
        match self.half {
            Some(kind) if self.everywhere || mode != Mode::EVAL => {
                native::with_autocast(device, kind, body)
            }
            _ => body(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Architecture, Backbone};
    use tch::Kind;

    /// Fine-tuning with running statistics; nothing here drops anything.
    const TUNING: Mode = Mode { dropout: true, batch_statistics: false };

    fn pictures() -> Tensor {
        let values = Tensor::arange(2 * 3 * 96 * 96, (Kind::Float, Device::Cpu));
        ((values * 0.37).sin() * 0.5 + 0.5).view([2, 3, 96, 96])
    }

    /// The layout changes nothing but the order of sums; 16 bits change the third digit.
    #[test]
    fn every_way_of_computing_gives_the_same_embedding() {
        tch::manual_seed(5);
        let mut trunk = Backbone::new(Architecture::OpenFace, Device::Cpu);
        let plain = trunk.embed(&pictures(), Mode::EVAL);
        for (half, bound) in
            [(None, 1e-5), (Some(Half::BFloat16), 0.05), (Some(Half::Float16), 0.01)]
        {
            trunk.set_compute(Compute::fast(half)).unwrap();
            let other = trunk.embed(&pictures(), TUNING);
            assert_eq!(other.kind(), Kind::Float);
            let apart = (&plain - other).abs().max().double_value(&[]);
            assert!(apart < bound, "{half:?}: {apart}");
            assert!(half.is_none() || apart > 3e-5, "{half:?} did not take place: {apart}");
            let measured = trunk.embed(&pictures(), Mode::EVAL);
            assert!((&plain - measured).abs().max().double_value(&[]) < 1e-5);
        }
        trunk.set_compute(Compute::everywhere(Some(Half::BFloat16))).unwrap();
        let hurried = tch::no_grad(|| trunk.embed(&pictures(), Mode::EVAL));
        let apart = (&plain - hurried).abs().max().double_value(&[]);
        assert!((3e-5..0.05).contains(&apart), "{apart}");
        trunk.set_compute(Compute::default()).unwrap();
        assert!(trunk.embed(&pictures(), Mode::EVAL).equal(&plain), "to the bit as before");
    }
}
