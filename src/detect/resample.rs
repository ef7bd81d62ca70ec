//! Area resampling of 8-bit pixels, bit-identical to PyTorch's `interpolate(mode="area")` in float32.
//!
//! Output pixel i of n, from m input pixels, is the mean of the inputs floor(i m / n) to ceil((i + 1) m
//! / n). Sums of 8-bit values are integers, so that their order does not matter and no float copy of a
//! large picture is needed.

use std::ops::Range;

use image::RgbImage;

use super::boxes::Region;

/// The windows of `outputs` pixels over `inputs`.
fn windows(inputs: usize, outputs: usize) -> impl Fn(usize) -> Range<usize> {
    move |k| (k * inputs / outputs)..((k + 1) * inputs).div_ceil(outputs)
}

/// Resamples rows `rows` of `region` to `width` x `height`, as `[rows, width, 3]` of (p - 127.5) / 128,
/// into `out`.
///
/// The region must be inside the picture and not empty.
pub(super) fn area(
    picture: &RgbImage,
    region: Region,
    (width, height): (usize, usize),
    rows: Range<usize>,
    out: &mut [f32],
) {
    let stride = picture.width() as usize * 3;
    let pixels = picture.as_raw();
    let (high, wide) = (windows(region.height, height), windows(region.width, width));
    let columns: Vec<Range<usize>> = (0..width).map(wide).collect();
    let mut sums = vec![0_u32; region.width * 3];
    for (row, out) in rows.zip(out.chunks_exact_mut(width * 3)) {
        let window = high(row);
        let count = window.len() as f32;
        sums.fill(0);
        for line in window {
            let start = (region.top + line) * stride + region.left * 3;
            for (sum, &value) in sums.iter_mut().zip(&pixels[start..start + region.width * 3]) {
                *sum += u32::from(value);
            }
        }
        for (column, out) in columns.iter().zip(out.as_chunks_mut::<3>().0) {
            let mut total = [0_u32; 3];
            for pixel in sums[3 * column.start..3 * column.end].as_chunks::<3>().0 {
                for (total, value) in total.iter_mut().zip(pixel) {
                    *total += value;
                }
            }
            let wide = column.len() as f32;
            *out = total.map(|total| (total as f32 / count / wide - 127.5) * 0.007_812_5);
        }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;
    use tch::Tensor;

    use super::*;

    #[test]
    fn every_value_is_pytorchs_up_and_down() {
        let picture = RgbImage::from_fn(53, 41, |x, y| {
            Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (x * x + 3 * y) as u8])
        });
        let pixels = Tensor::from_slice(picture.as_raw()).view([1, 41, 53, 3]);
        let pixels = pixels.permute([0, 3, 1, 2]).to_kind(tch::Kind::Float);
        for (left, top, width, height, to) in
            [(0, 0, 53, 41, (32, 25)), (3, 5, 40, 30, (24, 24)), (50, 39, 3, 2, (48, 48))]
        {
            let region = Region { left, top, width, height };
            let mut ours = vec![0.0; to.0 * to.1 * 3];
            let (above, below) = ours.split_at_mut(10 * to.0 * 3);
            area(&picture, region, to, 0..10, above);
            area(&picture, region, to, 10..to.1, below);
            let [l, t, w, h, tw, th] = [left, top, width, height, to.0, to.1].map(|v| v as i64);
            let theirs = pixels.narrow(2, t, h).narrow(3, l, w).adaptive_avg_pool2d([th, tw]);
            let theirs = (theirs - 127.5) * 0.007_812_5;
            let theirs = theirs.permute([0, 2, 3, 1]).contiguous().flatten(0, -1);
            assert_eq!(ours, Vec::<f32>::try_from(theirs).unwrap(), "{region:?}");
        }
    }
}
