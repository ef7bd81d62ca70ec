//! Synthetic pictures and folders for the tests of this module.

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};

/// The side of [`scene`] pictures unless said otherwise.
pub(super) const SIDE: u32 = 120;

/// A part of a smooth coloured scene, never the same for two seeds: the square of `side` scene
/// units from (`left`, `top`), drawn with `pixels` x `pixels`. The whole scene is 100 units wide.
pub(super) fn part(seed: u64, left: f64, top: f64, side: f64, pixels: u32) -> RgbImage {
    // A well-mixed number in [0, 1) of (seed, k): the last step of SplitMix64.
    let chance = |k: u64| {
        let mut z = (seed << 32 | k).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let wave = |channel: u64, x: f64, y: f64| {
        let waves = (0..6).map(|k| {
            let k = 20 * channel + 3 * k;
            let (a, b) = ((chance(k) - 0.5) * 0.5, (chance(k + 1) - 0.5) * 0.5);
            (a * x + b * y + 6.3 * chance(k + 2)).sin()
        });
        (128.0 + 36.0 * waves.sum::<f64>()).clamp(0.0, 255.0) as u8
    };
    RgbImage::from_fn(pixels, pixels, |column, row| {
        let unit = side / f64::from(pixels);
        let (x, y) = (left + f64::from(column) * unit, top + f64::from(row) * unit);
        Rgb([wave(0, x, y), wave(1, x, y), wave(2, x, y)])
    })
}

/// The whole scene of a seed.
pub(super) fn scene(seed: u64) -> RgbImage {
    part(seed, 0.0, 0.0, 100.0, SIDE)
}

/// Writes scenes as `root/NAME/K.png`, K from 0 to the number of pictures asked for.
pub(crate) fn face_folder(root: &Path, identities: &[(&str, usize)]) {
    let mut seed = 0;
    for &(name, pictures) in identities {
        std::fs::create_dir_all(root.join(name)).unwrap();
        for k in 0..pictures {
            part(seed, 0.0, 0.0, 100.0, 24).save(root.join(name).join(format!("{k}.png"))).unwrap();
            seed += 1;
        }
    }
}

/// A folder of real pictures beside the checkout; says so where it is missing.
pub(super) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.is_dir() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}
