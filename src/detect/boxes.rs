//! Candidate boxes: non-maximum suppression, regression, squares, and the pixels they cover.
//!
//! The arithmetic is facenet-pytorch's, in float32 and with its two conventions: between the networks a
//! box is [x1, x2] (as in torchvision's NMS), while the regression after R-Net and O-Net and the last
//! suppression include the last pixel (+ 1).

/// A candidate box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// x1, y1, x2, y2 in pixels of the picture.
    pub edges: [f32; 4],
    pub score: f32,
    /// Predicted shifts of the four edges, relative to the box side.
    pub shift: [f32; 4],
}

/// A rectangle of at least one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Region {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
}

/// Denominator of an overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overlap {
    /// The union, without the last pixel: torchvision's `nms`.
    Union,
    /// The smaller box, with the last pixel: MTCNN's "Min".
    Smaller,
}

impl Overlap {
    /// Pixels added to a side.
    fn rim(self) -> f32 {
        match self {
            Self::Union => 0.0,
            Self::Smaller => 1.0,
        }
    }

    fn share(self, inter: f32, a: f32, b: f32) -> f32 {
        match self {
            Self::Union => inter / (a + b - inter),
            Self::Smaller => inter / a.min(b),
        }
    }
}

/// Non-maximum suppression: the indices of the boxes kept, most probable first. Of two boxes that
/// overlap by more than `threshold` the less probable one is dropped. Among equal probabilities (many
/// are exactly 1 after O-Net) torchvision's NMS keeps the earlier and MTCNN's "Min" the later.
pub(super) fn suppress(boxes: &[Candidate], threshold: f32, overlap: Overlap) -> Vec<usize> {
    let rim = overlap.rim();
    let area = |[x1, y1, x2, y2]: [f32; 4]| (x2 - x1 + rim) * (y2 - y1 + rim);
    let areas: Vec<f32> = boxes.iter().map(|candidate| area(candidate.edges)).collect();
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    if overlap == Overlap::Smaller {
        order.reverse();
    }
    order.sort_by(|&a, &b| boxes[b].score.total_cmp(&boxes[a].score));
    let mut dropped = vec![false; boxes.len()];
    let mut kept = Vec::new();
    for (rank, &best) in order.iter().enumerate() {
        if dropped[best] {
            continue;
        }
        kept.push(best);
        let [ax1, ay1, ax2, ay2] = boxes[best].edges;
        for &other in &order[rank + 1..] {
            let [bx1, by1, bx2, by2] = boxes[other].edges;
            let width = (ax2.min(bx2) - ax1.max(bx1) + rim).max(0.0);
            let height = (ay2.min(by2) - ay1.max(by1) + rim).max(0.0);
            let inter = width * height;
            if inter > 0.0 && overlap.share(inter, areas[best], areas[other]) > threshold {
                dropped[other] = true;
            }
        }
    }
    kept
}

impl Candidate {
    /// The box with its edges shifted; `rim` is 1 if the last pixel counts.
    pub fn regressed(&self, rim: f32) -> [f32; 4] {
        let [x1, y1, x2, y2] = self.edges;
        let (width, height) = (x2 - x1 + rim, y2 - y1 + rim);
        let [a, b, c, d] = self.shift;
        [x1 + a * width, y1 + b * height, x2 + c * width, y2 + d * height]
    }
}

/// The square with the same centre and the longer side.
pub(super) fn square([x1, y1, x2, y2]: [f32; 4]) -> [f32; 4] {
    let (width, height) = (x2 - x1, y2 - y1);
    let side = width.max(height);
    let (x, y) = (x1 + width * 0.5 - side * 0.5, y1 + height * 0.5 - side * 0.5);
    [x, y, x + side, y + side]
}

/// The pixels of a picture that a box covers: edges truncated to integers, counted from 1, inclusive,
/// clipped. `None` if it is empty.
pub(super) fn region(edges: [f32; 4], width: usize, height: usize) -> Option<Region> {
    let [x1, y1, x2, y2] = edges.map(|edge| edge as i64);
    let (left, top) = (x1.max(1) - 1, y1.max(1) - 1);
    let (right, bottom) = (x2.min(width as i64), y2.min(height as i64));
    let size = |from: i64, to: i64| usize::try_from(to - from).ok().filter(|&size| size > 0);
    Some(Region {
        left: usize::try_from(left).ok()?,
        top: usize::try_from(top).ok()?,
        width: size(left, right)?,
        height: size(top, bottom)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(edges: [f32; 4], score: f32) -> Candidate {
        Candidate { edges, score, shift: [0.0; 4] }
    }

    #[test]
    fn overlaps_are_measured_against_the_union_or_the_smaller() {
        // A box inside another of four times its area: 1/4 of the union, all of the smaller.
        let nested = [at([0., 0., 20., 20.], 0.8), at([0., 0., 10., 10.], 0.9)];
        assert_eq!(suppress(&nested, 0.5, Overlap::Union), [1, 0]);
        assert_eq!(suppress(&nested, 0.7, Overlap::Smaller), [1]);
        // Half of each: exactly the threshold stays.
        let half = [at([0., 0., 10., 10.], 0.5), at([0., 0., 10., 5.], 0.5)];
        assert_eq!(suppress(&half, 0.5, Overlap::Union), [0, 1]);
        assert_eq!(suppress(&half, 0.49, Overlap::Union), [0]);
        assert_eq!(suppress(&[], 0.5, Overlap::Union), [0; 0]);
    }

    #[test]
    fn of_equally_likely_boxes_the_first_or_the_last_is_kept() {
        let twins = [at([0., 0., 10., 10.], 1.0), at([1., 0., 11., 10.], 1.0)];
        assert_eq!(suppress(&twins, 0.5, Overlap::Union), [0]);
        assert_eq!(suppress(&twins, 0.5, Overlap::Smaller), [1]);
    }

    #[test]
    fn a_dropped_box_drops_no_other() {
        let row = [0., 4., 8.].map(|x| at([x, 0., x + 10., 10.], 0.9 - x / 100.0));
        assert_eq!(suppress(&row, 0.3, Overlap::Union), [0, 2]);
    }

    #[test]
    fn squares_and_regions() {
        assert_eq!(square([10., 20., 30., 60.]), [0., 20., 40., 60.]);
        let inside = region([10.9, 20.9, 30.2, 60.0], 100, 100).unwrap();
        assert_eq!(inside, Region { left: 9, top: 19, width: 21, height: 41 });
        let cut = region([-5.5, 90.0, 30.0, 130.0], 100, 100).unwrap();
        assert_eq!(cut, Region { left: 0, top: 89, width: 30, height: 11 });
        assert_eq!(region([-30.0, 0.0, -1.0, 20.0], 100, 100), None);
        assert_eq!(region([f32::NAN, 0.0, f32::NAN, 20.0], 100, 100), None);
    }

    #[test]
    fn regression_counts_the_last_pixel_where_asked() {
        let mut one = at([0., 0., 7., 15.], 1.0);
        one.shift = [0.125, 0.25, -0.125, 0.0];
        assert_eq!(one.regressed(0.0), [0.875, 3.75, 6.125, 15.0]);
        assert_eq!(one.regressed(1.0), [1.0, 4.0, 6.0, 15.0]);
    }
}
