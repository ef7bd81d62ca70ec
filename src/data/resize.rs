//! Resizing, bit-identical to Pillow, so that results agree with PyTorch and torchvision.
//!
//! Each output pixel is a weighted mean of the input pixels under a triangle filter. Its width is two
//! input pixels, or two output pixels if those are larger (antialiasing). Rows are resized first and
//! rounded to 8 bits, then columns.

use image::RgbImage;

/// Fixed-point weights in units of 2^-22: 8 bits for the pixel, 2 against overflow, 32 in total.
const FRACTION: u32 = 22;

/// The weights of an output pixel for the input pixels from `first`.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Rows resized together, with their bytes of one column adjacent.
const STRIP: usize = 8;
/// Bytes of a column processed together.
const LANES: usize = 32;

/// Resizes a non-empty picture to `width` x `height`: antialiased bilinear.
pub(super) fn resize(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
    let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
    let narrow = resize_rows(picture.as_raw(), from_width, &taps(from_width, width as usize));
    let pixels = resize_columns(&narrow, 3 * width as usize, &taps(from_height, height as usize));
    // The buffer has width * height * 3 bytes, so this never falls back to the blank picture.
    RgbImage::from_raw(width, height, pixels).unwrap_or_else(|| RgbImage::new(width, height))
}

/// The weights of every output pixel when resizing from `from` to `to` pixels.
fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    (0..to)
        .map(|k| {
            let centre = (k as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let heights: Vec<f64> = (first..end)
                .map(|x| (1.0 - ((x as f64 - centre + 0.5) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = heights.iter().sum();
            let whole = |height: &f64| (height / sum * f64::from(1 << FRACTION)).round() as i32;
            Taps { first, weights: heights.iter().map(whole).collect() }
        })
        .collect()
}

/// Resizes each row of `width` RGB pixels. A strip of rows is transposed first, so that equally
/// weighted values are adjacent and the compiler can vectorise.
fn resize_rows(pixels: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let (from, to) = (3 * width, 3 * taps.len());
    let mut out = vec![0; pixels.len() / from * to];
    // Four bytes per pixel, the last unused: moved with one load and one store.
    let mut columns = vec![[[0; 4]; STRIP]; width];
    let strips = pixels.chunks(STRIP * from).zip(out.chunks_mut(STRIP * to));
    for (source, target) in strips {
        for (at, row) in source.chunks_exact(from).enumerate() {
            for (column, bytes) in columns.iter_mut().zip(row.windows(4).step_by(3)) {
                column[at] = [bytes[0], bytes[1], bytes[2], bytes[3]];
            }
            if let (Some(column), [.., r, g, b]) = (columns.last_mut(), row) {
                column[at] = [*r, *g, *b, 0];
            }
        }
        for (k, Taps { first, weights }) in taps.iter().enumerate() {
            let columns = columns[*first..].iter().filter_map(|c| c.as_flattened().first_chunk());
            let mixed: [u8; 4 * STRIP] = mix(columns, weights);
            for (row, pixel) in target.chunks_exact_mut(to).zip(mixed.as_chunks::<4>().0) {
                row[3 * k..3 * k + 3].copy_from_slice(&pixel[..3]);
            }
        }
    }
    out
}

/// Resizes each column of rows of `length` bytes.
fn resize_columns(rows: &[u8], length: usize, taps: &[Taps]) -> Vec<u8> {
    let mut out = vec![0; length * taps.len()];
    for (row, Taps { first, weights }) in out.chunks_exact_mut(length).zip(taps) {
        let lines = || rows[first * length..].chunks_exact(length);
        let (blocks, rest) = row.as_chunks_mut::<LANES>();
        let done = blocks.len() * LANES;
        for (at, block) in blocks.iter_mut().enumerate() {
            let lines = lines().filter_map(|line| line[at * LANES..].first_chunk());
            *block = mix(lines, weights);
        }
        for (at, byte) in rest.iter_mut().enumerate() {
            let lines = lines().filter_map(|line| line[done + at..].first_chunk());
            [*byte] = mix(lines, weights);
        }
    }
    out
}

/// The weighted sum of lines, rounded to bytes.
#[inline(always)] // its sums stay in registers only where it is inlined
fn mix<'a, const N: usize>(lines: impl Iterator<Item = &'a [u8; N]>, weights: &[i32]) -> [u8; N] {
    let mut sums = [1_i32 << (FRACTION - 1); N];
    for (line, weight) in lines.zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(line) {
            *sum += i32::from(value) * weight;
        }
    }
    sums.map(|sum| (sum >> FRACTION).clamp(0, 255) as u8)
}

#[cfg(test)]
pub(super) mod tests {
    use image::{Rgb, RgbImage};

    use super::super::picture::fit;

    /// The same formula as in tests/golden/data_fit.py.
    pub(in crate::data) fn source(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (x * x + 3 * y) as u8])
        })
    }

    #[test]
    fn every_byte_is_pillows() {
        let golden = include_str!("../../tests/golden/data_fit.csv");
        for line in golden.lines() {
            let numbers: Vec<u32> = line.split(',').map(|field| field.parse().unwrap()).collect();
            let fitted = fit(&source(numbers[0], numbers[1]), numbers[2]);
            assert_eq!(fitted.dimensions(), (numbers[2], numbers[2]));
            let bytes: Vec<u32> = fitted.as_raw().iter().map(|&byte| u32::from(byte)).collect();
            assert_eq!(bytes, numbers[3..], "{:?}", &numbers[..3]);
        }
        assert_eq!(golden.lines().count(), 4);
    }

    /// One pixel at a time, straight from the formula.
    fn slow(picture: &RgbImage, width: u32, height: u32) -> RgbImage {
        let mean = |taps: &super::Taps, at: &dyn Fn(u32) -> Rgb<u8>| {
            Rgb([0, 1, 2].map(|channel| {
                let weighted = (taps.first as u32..).zip(&taps.weights);
                let sum: i64 = weighted
                    .map(|(x, weight)| i64::from(at(x).0[channel]) * i64::from(*weight))
                    .sum();
                ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
            }))
        };
        let across = super::taps(picture.width() as usize, width as usize);
        let down = super::taps(picture.height() as usize, height as usize);
        let narrow = RgbImage::from_fn(width, picture.height(), |x, y| {
            mean(&across[x as usize], &|from| *picture.get_pixel(from, y))
        });
        RgbImage::from_fn(width, height, |x, y| {
            mean(&down[y as usize], &|from| *narrow.get_pixel(x, from))
        })
    }

    #[test]
    fn strips_and_blocks_make_no_difference() {
        let sizes = [(40, 25, 13, 17), (9, 8, 30, 5), (1, 1, 3, 2), (70, 3, 1, 1), (5, 33, 11, 40)];
        for (from_width, from_height, width, height) in sizes {
            let picture = source(from_width, from_height);
            let resized = super::resize(&picture, width, height);
            assert_eq!(resized, slow(&picture, width, height), "{width}x{height}");
        }
    }
}
