//! The image pyramid of P-Net, and how it is split into batches.
//!
//! Large levels are split into strips: P-Net is fully convolutional with a stride of 2, so that a strip
//! of input rows 2a to 2(b - 1) + 12 gives exactly the output rows a to b. A picture of 40 megapixels
//! then needs no more memory than a small one, with the same result. Strips of equal size, of one or
//! several pictures, are batched.

use std::collections::BTreeMap;
use std::ops::Range;

use super::nets::PNet;

/// Pixels in a P-Net batch: 64 bytes each after its first convolution, 8 MB.
const BATCH_PIXELS: usize = 1 << 17;
/// Minimum output rows of a strip; 10 input rows of each strip overlap the next one.
const FEWEST_ROWS: usize = 32;

/// A pyramid level of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    /// Level pixels per picture pixel.
    pub scale: f64,
    pub width: usize,
    pub height: usize,
}

/// The levels of a picture, largest first; none if the picture is smaller than `min_face`.
pub(super) fn levels(width: u32, height: u32, min_face: f64, factor: f64) -> Vec<Level> {
    let window = PNet::WINDOW as f64;
    let mut scale = window / min_face;
    let mut shorter = f64::from(width.min(height)) * scale;
    let side = |length: u32, scale: f64| (f64::from(length) * scale + 1.0) as usize;
    let mut levels = Vec::new();
    while shorter >= window {
        levels.push(Level { scale, width: side(width, scale), height: side(height, scale) });
        scale *= factor;
        shorter *= factor;
    }
    levels
}

/// A strip of a level.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Strip {
    pub picture: usize,
    pub level: usize,
    /// Input rows, in the level.
    pub rows: Range<usize>,
    /// First output row.
    pub first: usize,
}

/// Number of output rows of P-Net for `height` input rows.
fn outputs(height: usize) -> usize {
    (height.saturating_sub(2).div_ceil(2)).saturating_sub(4)
}

/// The strips of all levels of all pictures, in batches of equal width and height.
pub(super) fn batches(pyramids: &[Vec<Level>]) -> Vec<Vec<Strip>> {
    let mut sizes: BTreeMap<(usize, usize), Vec<Strip>> = BTreeMap::new();
    for (picture, levels) in pyramids.iter().enumerate() {
        for (index, level) in levels.iter().enumerate() {
            let total = outputs(level.height);
            let room = (BATCH_PIXELS / level.width).saturating_sub(PNet::WINDOW);
            let each = (room / PNet::STRIDE).max(FEWEST_ROWS);
            for first in (0..total).step_by(each) {
                let last = (first + each).min(total) - 1;
                let end = (last * PNet::STRIDE + PNet::WINDOW).min(level.height);
                let rows = first * PNet::STRIDE..end;
                let strip = Strip { picture, level: index, rows, first };
                sizes.entry((level.width, strip.rows.len())).or_default().push(strip);
            }
        }
    }
    let mut batches = Vec::new();
    for ((width, height), strips) in sizes {
        let most = (BATCH_PIXELS / (width * height)).max(1);
        batches.extend(strips.chunks(most).map(<[Strip]>::to_vec));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_facenets() {
        // 12 / 20 of 250 pixels is 150; 150 * 0.709^7 is the last not below 12.
        let levels = levels(250, 300, 20.0, 0.709);
        let sizes: Vec<_> = levels.iter().map(|level| (level.width, level.height)).collect();
        let wanted =
            [(151, 181), (107, 128), (76, 91), (54, 65), (38, 46), (27, 33), (20, 23), (14, 17)];
        assert_eq!(sizes, wanted);
        assert!(super::levels(19, 300, 20.0, 0.709).is_empty());
    }

    #[test]
    fn strips_cover_every_output_row_once() {
        let pyramids = [levels(9000, 4001, 20.0, 0.709), levels(100, 80, 20.0, 0.709), vec![]];
        let mut seen: BTreeMap<(usize, usize), Vec<Range<usize>>> = BTreeMap::new();
        for batch in batches(&pyramids) {
            let lengths: Vec<_> = batch.iter().map(|strip| strip.rows.len()).collect();
            assert!(lengths.iter().all(|length| *length == lengths[0]));
            let width = pyramids[batch[0].picture][batch[0].level].width;
            let most = BATCH_PIXELS.max(width * (PNet::STRIDE * FEWEST_ROWS + PNet::WINDOW));
            assert!(batch.len() * lengths[0] * width <= most);
            for strip in batch {
                let rows = strip.first..strip.first + outputs(strip.rows.len());
                assert_eq!(strip.rows.start, 2 * strip.first);
                seen.entry((strip.picture, strip.level)).or_default().push(rows);
            }
        }
        for (&(picture, level), found) in &mut seen {
            found.sort_by_key(|rows| rows.start);
            let end = found.iter().fold(0, |end, rows| {
                assert_eq!(rows.start, end);
                rows.end
            });
            assert_eq!(end, outputs(pyramids[picture][level].height));
        }
        assert_eq!(seen.len(), pyramids.iter().map(Vec::len).sum::<usize>());
    }
}
