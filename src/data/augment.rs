//! Data augmentation of whole batches on their device.

use rand::RngExt;
use rand::rngs::StdRng;
use tch::{Kind, Tensor, no_grad};

use super::random::{Purpose, generator};
use crate::Result;
use crate::native::cuda::upload_slice;

/// Range of scales.
const SCALE: (f64, f64) = (0.9, 1.15);
/// Maximum shift along each axis, relative to the side.
const SHIFT: f64 = 0.06;
/// Maximum rotation in degrees.
const ANGLE: f64 = 8.0;
/// Maximum change of brightness, contrast and saturation.
const JITTER: f64 = 0.2;
/// Probability of a grey picture.
const GREY: f64 = 0.1;
/// ITU-R 601 luma, as Pillow's `convert("L")`.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Which random views a batch gets: a function of the seed and of each picture's place in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draws {
    /// The batch's seed.
    pub seed: u64,
    /// The place of the first picture, where only a part of the batch is at hand.
    pub first: usize,
}

impl From<u64> for Draws {
    /// Of a whole batch.
    fn from(seed: u64) -> Self {
        Self { seed, first: 0 }
    }
}

impl Draws {
    fn views(self, count: usize) -> Vec<View> {
        let mut random = generator(self.seed, Purpose::Augment, 0);
        let all = (0..self.first + count).map(|_| View::draw(&mut random));
        all.skip(self.first).collect()
    }
}

/// Data augmentation of training pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augment {
    /// Horizontal flip with probability 0.5.
    pub flip: bool,
    /// Random scale of 0.9 to 1.15, shift of up to 6 % of the side, rotation of up to 8 degrees.
    pub crop: bool,
    /// Random brightness, contrast and saturation of up to 20 %; grey with probability 0.1.
    pub jitter: bool,
}

/// The random parameters of one picture. All are always drawn, so that one augmentation does not change
/// the others.
struct View {
    mirrored: bool,
    scale: f64,
    shift: (f64, f64),
    angle: f64,
    brightness: f64,
    contrast: f64,
    saturation: f64,
}

impl View {
    fn draw(random: &mut StdRng) -> Self {
        let factor = |random: &mut StdRng| 1.0 + random.random_range(-JITTER..=JITTER);
        Self {
            mirrored: random.random_bool(0.5),
            scale: random.random_range(SCALE.0..=SCALE.1),
            shift: (random.random_range(-SHIFT..=SHIFT), random.random_range(-SHIFT..=SHIFT)),
            angle: random.random_range(-ANGLE..=ANGLE).to_radians(),
            brightness: factor(random),
            contrast: factor(random),
            saturation: {
                let saturation = factor(random);
                if random.random_bool(GREY) { 0.0 } else { saturation }
            },
        }
    }

    /// The affine map from positions in the view to positions in the picture, both in [-1, 1].
    fn theta(&self) -> [f32; 6] {
        let (sin, cos) = self.angle.sin_cos();
        let zoom = 1.0 / self.scale;
        [cos * zoom, -sin * zoom, 2.0 * self.shift.0, sin * zoom, cos * zoom, 2.0 * self.shift.1]
            .map(|value| value as f32)
    }
}

impl Augment {
    /// No augmentation, for validation.
    pub const NONE: Self = Self { flip: false, crop: false, jitter: false };
    /// All augmentations.
    pub const ALL: Self = Self { flip: true, crop: true, jitter: true };

    /// A random view of each picture: f32 `[B, 3, H, W]` in [0, 1] to `[B, 3, size, size]` in [0, 1] on
    /// the same device, without gradient.
    ///
    /// Depends on `draws` only; libtorch's generators are not used. Without augmentation pictures are
    /// only resized (bilinear, antialiased), if the size differs.
    ///
    /// # Errors
    /// An error from libtorch, such as a wrong shape.
    pub fn apply(&self, batch: &Tensor, size: i64, draws: impl Into<Draws>) -> Result<Tensor> {
        no_grad(|| self.views(batch, size, draws.into()))
    }

    /// Which pictures of a batch of `count` are flipped by [`apply`](Self::apply), if neither crop nor
    /// jitter is on.
    pub fn mirrored(&self, count: usize, draws: impl Into<Draws>) -> Option<Vec<bool>> {
        if self.crop || self.jitter {
            return None;
        }
        let views = draws.into().views(count);
        Some(views.into_iter().map(|view| view.mirrored && self.flip).collect())
    }

    fn views(&self, batch: &Tensor, size: i64, draws: Draws) -> Result<Tensor> {
        let (count, _, height, width) = batch.size4()?;
        let views = draws.views(count as usize);
        // One number per picture, broadcast over channels and pixels.
        let each = |value: &dyn Fn(&View) -> f64| {
            let values: Vec<f32> = views.iter().map(|view| value(view) as f32).collect();
            Ok::<_, crate::Error>(upload_slice(&values, batch.device())?.f_view([count, 1, 1, 1])?)
        };

        let mut out = if self.crop {
            let thetas: Vec<f32> = views.iter().flat_map(View::theta).collect();
            let theta = upload_slice(&thetas, batch.device())?.f_view([count, 2, 3])?;
            let grid = Tensor::f_affine_grid_generator(&theta, [count, 3, size, size], false)?;
            const BILINEAR: i64 = 0;
            const REPEAT_BORDER: i64 = 1;
            batch.f_grid_sampler(&grid, BILINEAR, REPEAT_BORDER, false)?
        } else if (height, width) == (size, size) {
            batch.f_detach()?
        } else {
            batch.f_internal_upsample_bilinear2d_aa([size, size], false, None, None)?
        };
        if self.flip {
            let mirrored: Vec<bool> = views.iter().map(|view| view.mirrored).collect();
            out = mirror(&out, &mirrored)?;
        }
        if self.jitter {
            let luma = upload_slice(&LUMA, out.device())?.f_view([1, 3, 1, 1])?;
            let grey =
                |colours: &Tensor| colours.f_mul(&luma)?.f_sum_dim_intlist(1, true, Kind::Float);
            // Each interpolates between a degenerate picture (black, its mean grey, its grey) and the
            // picture: 1 is the picture itself.
            out = out.f_mul(&each(&|view| view.brightness)?)?.f_clamp(0.0, 1.0)?;
            let mean = grey(&out)?.f_mean_dim([2, 3].as_slice(), true, Kind::Float)?;
            out = mean.f_lerp_tensor(&out, &each(&|view| view.contrast)?)?.f_clamp(0.0, 1.0)?;
            let plain = grey(&out)?.f_expand_as(&out)?;
            out = plain.f_lerp_tensor(&out, &each(&|view| view.saturation)?)?.f_clamp(0.0, 1.0)?;
        }
        Ok(out)
    }
}

/// Flips the pictures of `[B, 3, H, W]` that `mirrored` marks.
///
/// # Errors
/// An error from libtorch, such as a wrong number of marks.
pub fn mirror(pictures: &Tensor, mirrored: &[bool]) -> Result<Tensor> {
    let marks = upload_slice(mirrored, pictures.device())?;
    let marks = marks.f_view([mirrored.len() as i64, 1, 1, 1])?;
    Ok(pictures.f_flip([3])?.f_where_self(&marks, pictures)?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Smooth pictures, so that resampling does not blur away what is compared.
    fn batch(count: i64, size: i64) -> Tensor {
        let ramp = Tensor::arange(size, (Kind::Float, Device::Cpu)) / size as f64;
        let rows = (&ramp * 3.0).sin().view([1, 1, size, 1]) * 0.4;
        let columns = (&ramp * 5.0).cos().view([1, 1, 1, size]) * 0.2;
        let tint =
            Tensor::arange(count * 3, (Kind::Float, Device::Cpu)).view([count, 3, 1, 1]) * 0.01;
        rows + columns + tint + 0.3
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn with_all_switches_off_pictures_are_untouched_or_only_resized() {
        let pictures = batch(3, 24);
        assert_eq!(Augment::NONE.apply(&pictures, 24, 1).unwrap(), pictures);
        let small = Augment::NONE.apply(&pictures, 12, 1).unwrap();
        let wanted = pictures.internal_upsample_bilinear2d_aa([12, 12], false, None, None);
        assert_eq!(small, wanted);
    }

    #[test]
    fn the_seed_decides_and_the_values_stay_in_range() {
        let pictures = batch(8, 24);
        let view = |seed| Augment::ALL.apply(&pictures, 20, seed).unwrap();
        assert_eq!(view(3), view(3));
        assert_ne!(view(3), view(4));
        let loud = Augment::ALL.apply(&(pictures * 3.0 - 1.0).clamp(0.0, 1.0), 20, 5).unwrap();
        assert_eq!(loud.size(), [8, 3, 20, 20]);
        assert!(loud.min().double_value(&[]) >= 0.0 && loud.max().double_value(&[]) <= 1.0);
    }

    #[test]
    fn a_flip_mirrors_whole_pictures_and_about_half_of_them() {
        let pictures = batch(200, 6);
        let flip = Augment { flip: true, ..Augment::NONE };
        let views = flip.apply(&pictures, 6, 9).unwrap();
        let mut mirrored = 0;
        for k in 0..200 {
            let (own, view) = (pictures.get(k), views.get(k));
            if view == own.flip([2]) {
                mirrored += 1;
            } else {
                assert_eq!(view, own);
            }
        }
        assert!((70..=130).contains(&mirrored), "{mirrored}");
    }

    #[test]
    fn the_affine_map_of_no_change_is_the_identity() {
        let still = View {
            mirrored: false,
            scale: 1.0,
            shift: (0.0, 0.0),
            angle: 0.0,
            brightness: 1.0,
            contrast: 1.0,
            saturation: 1.0,
        };
        assert_eq!(still.theta(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        // Twice as large and shifted by a quarter of the side: the view's left edge, at -1, shows
        // the picture at -1 / 2 + 2 / 4 = 0.
        let near = View { scale: 2.0, shift: (0.25, 0.0), ..still };
        assert_eq!(-near.theta()[0] + near.theta()[2], 0.0);
    }

    #[test]
    fn crops_move_pictures_a_little() {
        let pictures = batch(16, 32);
        let crop = Augment { crop: true, ..Augment::NONE };
        let views = crop.apply(&pictures, 32, 2).unwrap();
        for k in 0..16 {
            let moved = largest_difference(&views.get(k), &pictures.get(k));
            assert!((0.005..0.35).contains(&moved), "picture {k}: {moved}");
        }
    }

    /// One pixel at a time, in plain numbers.
    #[test]
    fn jitter_is_brightness_then_contrast_then_saturation() {
        let pictures = batch(40, 4);
        let jitter = Augment { jitter: true, ..Augment::NONE };
        let views = jitter.apply(&pictures, 4, 6).unwrap();
        let mut random = generator(6, Purpose::Augment, 0);
        let mut greys = 0;
        for k in 0..40 {
            let view = View::draw(&mut random);
            greys += usize::from(view.saturation == 0.0);
            let at = |tensor: &Tensor, channel, pixel: i64| {
                tensor.double_value(&[k, channel, pixel / 4, pixel % 4])
            };
            let luma = |rgb: [f64; 3]| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
            let bright: Vec<[f64; 3]> = (0..16)
                .map(|pixel| {
                    [0, 1, 2].map(|c| (at(&pictures, c, pixel) * view.brightness).clamp(0.0, 1.0))
                })
                .collect();
            let mean = bright.iter().map(|&rgb| luma(rgb)).sum::<f64>() / 16.0;
            for (pixel, rgb) in bright.into_iter().enumerate() {
                let rgb = rgb.map(|c| (mean + view.contrast * (c - mean)).clamp(0.0, 1.0));
                let grey = luma(rgb);
                for (channel, value) in rgb.into_iter().enumerate() {
                    let wanted = (grey + view.saturation * (value - grey)).clamp(0.0, 1.0);
                    let own = at(&views, channel as i64, pixel as i64);
                    assert!((own - wanted).abs() < 1e-5, "{own} for {wanted}");
                }
            }
        }
        assert!((1..=10).contains(&greys), "{greys} of 40");
    }

    #[test]
    fn a_batch_of_another_shape_is_an_error() {
        assert!(Augment::ALL.apply(&batch(1, 8).squeeze(), 8, 0).is_err());
    }
}
