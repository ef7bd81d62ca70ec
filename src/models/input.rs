//! Input size and normalisation of a network.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{Error, Result};

/// ImageNet's mean per RGB channel, pixels in [0, 1].
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// ImageNet's standard deviation per RGB channel.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// Preprocessing: resize to `size` x `size`, scale to [0, 1], then (x - mean) / std per RGB channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Side of the square input in pixels.
    pub size: u32,
    /// Mean per channel.
    pub mean: [f64; 3],
    /// Standard deviation per channel.
    pub std: [f64; 3],
}

impl InputSpec {
    /// Pixels in [0, 1] without normalisation.
    pub const fn plain(size: u32) -> Self {
        Self { size, mean: [0.0; 3], std: [1.0; 3] }
    }

    /// torchvision's normalisation.
    pub const fn imagenet(size: u32) -> Self {
        Self { size, mean: IMAGENET_MEAN, std: IMAGENET_STD }
    }

    /// facenet-pytorch's `fixed_image_standardization`, (255 x - 127.5) / 128.
    pub const fn facenet(size: u32) -> Self {
        Self { size, mean: [0.5; 3], std: [128.0 / 255.0; 3] }
    }

    /// ArcFace's normalisation, pixels from -1 to 1.
    pub const fn arcface(size: u32) -> Self {
        Self { size, mean: [0.5; 3], std: [0.5; 3] }
    }

    /// dlib's mean colour subtracted from pixels 0 to 255, divided by 256.
    pub const fn dlib(size: u32) -> Self {
        let mean = [122.782 / 255.0, 117.001 / 255.0, 104.298 / 255.0];
        Self { size, mean, std: [256.0 / 255.0; 3] }
    }

    /// Pictures `[N, 3, H, W]`, or grey ones `[N, 1, H, W]`, in [0, 1] to the network's input `[N, 3,
    /// H, W]`.
    pub fn normalise(&self, pictures: &Tensor) -> Tensor {
        let rgb = match pictures.size()[..] {
            [count, 1, height, width] => pictures.expand([count, 3, height, width], false),
            _ => pictures.shallow_clone(),
        };
        if self.mean == [0.0; 3] && self.std == [1.0; 3] {
            return rgb;
        }
        (rgb - per_channel(&self.mean, pictures)) / per_channel(&self.std, pictures)
    }
}

/// One value per channel, `[1, 3, 1, 1]`, with the dtype and device of `like`.
///
/// Made by operations instead of copied from a slice, so that a tracer records the values.
pub(super) fn per_channel(values: &[f64; 3], like: &Tensor) -> Tensor {
    let one = |value| Tensor::full([1, 1, 1, 1], value, (like.kind(), like.device()));
    Tensor::cat(&values.map(one), 1)
}

/// Supported input sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputSizes {
    /// Only this side: the network ends in a fixed pooling window.
    Only(u32),
    /// This side and larger ones.
    From(u32),
}

impl InputSizes {
    /// Checks the size of pictures.
    ///
    /// # Errors
    /// It is not supported; names the `network`, the size and the supported ones.
    pub fn check(self, network: &str, height: i64, width: i64) -> Result<()> {
        let (fits, what) = match self {
            Self::Only(side) => {
                let side = i64::from(side);
                (height == side && width == side, format!("exactly {side}x{side}"))
            }
            Self::From(side) => {
                (height.min(width) >= i64::from(side), format!("at least {side}x{side}"))
            }
        };
        if fits {
            return Ok(());
        }
        Err(Error::Config(format!(
            "an input of {height}x{width} pixels does not fit {network}: it takes {what}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facenet_normalisation_is_fixed_image_standardization() {
        let grey = Tensor::from_slice(&[0f32, 1.0, 0.2]).view([1, 1, 1, 3]);
        let input = InputSpec::facenet(160).normalise(&grey);
        assert_eq!(input.size(), [1, 3, 1, 3]);
        let values: Vec<f32> = Vec::try_from(input.flatten(0, -1)).unwrap();
        for (value, pixel) in values.iter().zip([0f32, 255.0, 51.0].repeat(3)) {
            assert!((value - (pixel - 127.5) / 128.0).abs() < 1e-6, "{values:?}");
        }
    }

    #[test]
    fn every_normalisation_is_read_as_it_was_written() {
        for architecture in crate::models::Architecture::ALL {
            let input = &architecture.info().input;
            let text = serde_json::to_string(input).unwrap();
            assert_eq!(serde_json::from_str::<InputSpec>(&text).unwrap(), *input, "{text}");
        }
    }

    #[test]
    fn a_size_that_does_not_fit_is_named_with_what_does() {
        assert!(InputSizes::From(32).check("vgg16", 32, 500).is_ok());
        let error = InputSizes::From(32).check("vgg16", 64, 31).unwrap_err().to_string();
        assert!(error.contains("64x31") && error.contains("vgg16: it takes at least 32x32"));
        let error = InputSizes::Only(96).check("openface", 128, 128).unwrap_err().to_string();
        assert!(error.contains("exactly 96x96"), "{error}");
    }
}
