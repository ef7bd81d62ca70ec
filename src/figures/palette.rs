//! Twelve colours and seven marker shapes, distinguishable without colours.

use super::canvas::{Canvas, Colour};

/// Consecutive colours differ clearly; all are dark enough for a white background.
const COLOURS: [Colour; 12] = [
    Colour(31, 108, 186),
    Colour(226, 106, 17),
    Colour(34, 139, 74),
    Colour(197, 42, 61),
    Colour(124, 77, 178),
    Colour(0, 151, 167),
    Colour(209, 70, 154),
    Colour(138, 110, 22),
    Colour(84, 96, 112),
    Colour(118, 176, 32),
    Colour(122, 62, 36),
    Colour(92, 124, 250),
];
const SHAPES: usize = 7;

/// The colour of identity or line `i`.
pub(super) fn colour(i: usize) -> Colour {
    COLOURS[i % COLOURS.len()]
}

/// Draws the marker of identity `i`; the first 84 combinations of colour and shape are distinct.
pub(super) fn marker(canvas: &mut Canvas, i: usize, (x, y): (f64, f64), radius: f64, hollow: bool) {
    let corners = |scale: f64| -> Vec<(f64, f64)> {
        outline(shape(i)).into_iter().map(|(dx, dy)| (x + dx * scale, y + dy * scale)).collect()
    };
    // A white outline separates overlapping markers.
    let rim = if hollow { 0.25 } else { 0.22 };
    canvas.polygon(&corners(radius * (1.0 + rim)), Colour::WHITE);
    canvas.polygon(&corners(radius), colour(i));
    if hollow {
        canvas.polygon(&corners(radius * 0.58), Colour::WHITE);
    }
}

/// The shape of identity `i`; the second identity of a colour has another one.
fn shape(i: usize) -> usize {
    (i + i / COLOURS.len()) % SHAPES
}

/// Corners around (0, 0), with about the area of a circle of radius 1.
fn outline(shape: usize) -> Vec<(f64, f64)> {
    let regular = |corners: usize, radius: f64, turn: f64| -> Vec<(f64, f64)> {
        (0..corners)
            .map(|k| {
                let angle = (turn + k as f64 / corners as f64) * std::f64::consts::TAU;
                (radius * angle.sin(), -radius * angle.cos())
            })
            .collect()
    };
    match shape {
        0 => regular(32, 1.0, 0.0),
        1 => regular(4, 1.28, 0.125),
        2 => regular(3, 1.45, 0.0),
        3 => regular(4, 1.32, 0.0),
        4 => regular(3, 1.45, 0.5),
        5 => {
            let (outer, inner) = (regular(5, 1.5, 0.0), regular(5, 0.7, 0.1));
            outer.into_iter().zip(inner).flat_map(|(a, b)| [a, b]).collect()
        }
        _ => regular(6, 1.15, 0.0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn eighty_four_identities_look_different() {
        let looks: BTreeSet<_> = (0..84).map(|i| (i % COLOURS.len(), shape(i))).collect();
        assert_eq!(looks.len(), 84);
    }

    #[test]
    fn every_shape_covers_its_middle_and_hollow_ones_do_not() {
        for i in 0..SHAPES {
            for hollow in [false, true] {
                let mut canvas = Canvas::new(20.0, 20.0);
                marker(&mut canvas, i, (10.0, 10.0), 6.0, hollow);
                let picture = canvas.finish();
                let ink = picture.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
                assert_eq!(picture.get_pixel(20, 20).0 == [255; 3], hollow, "shape {i}");
                assert!((200..600).contains(&ink), "shape {i}: {ink} pixels");
            }
        }
    }
}
