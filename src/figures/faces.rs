//! Draws boxes, landmarks and labels on a photo.

use image::RgbImage;

use super::canvas::{Canvas, Colour};
use super::text::{Anchor, Text, shortened, width};

/// The annotation of a face, in pixels of the photo.
#[derive(Debug, Clone, PartialEq)]
pub struct FaceLabel {
    /// Left, top, right and bottom edge.
    pub bounds: [f64; 4],
    /// Landmarks, (x, y).
    pub landmarks: Vec<[f64; 2]>,
    /// Text of the label; may be empty.
    pub words: String,
    /// Green if known, otherwise red.
    pub is_known: bool,
}

const POINT: Colour = Colour(255, 64, 129);
/// Colours of frame and label, of known and of unknown faces.
const KNOWN: (Colour, Colour) = (Colour(0, 204, 102), Colour(0, 102, 51));
const UNKNOWN: (Colour, Colour) = (Colour(214, 84, 84), Colour(128, 48, 48));

/// Left, top, right and bottom edge in units.
type Area = [f64; 4];

/// The photo with a frame, landmarks and a label for every face. Line width and font size grow with the
/// photo and the face. Labels are placed on the photo so that they cover neither each other nor faces;
/// where there is no space, they are smaller.
pub fn faces(photo: &RgbImage, faces: &[FaceLabel]) -> RgbImage {
    let units = |value: f64| value / Canvas::DENSITY;
    let paper = [photo.width(), photo.height()].map(|side| units(f64::from(side)));
    let side = paper[0].min(paper[1]);
    let mut canvas = Canvas::over(photo);
    let areas: Vec<Area> = faces.iter().map(|face| face.bounds.map(units)).collect();
    for (face, &[x1, y1, x2, y2]) in faces.iter().zip(&areas) {
        let (wide, high) = (x2 - x1, y2 - y1);
        let line = (side / 250.0).max(wide / 60.0).clamp(0.25, 12.0);
        let (frame, _) = if face.is_known { KNOWN } else { UNKNOWN };
        canvas.frame((x1, y1), (wide, high), line, frame);
        for &[x, y] in &face.landmarks {
            canvas.circle((units(x), units(y)), 0.8 * line, POINT);
        }
    }
    let mut labels: Vec<Area> = Vec::new();
    for (face, area) in faces.iter().zip(&areas) {
        if face.words.is_empty() {
            continue;
        }
        let wide = area[2] - area[0];
        let mut size = (side / 40.0).min((wide / 5.0).max(side / 90.0)).clamp(2.5, 60.0);
        let (words, room, [left, top]) = loop {
            let words = shortened(&face.words, size, paper[0] - 0.6 * size);
            let room = [width(&words, size) + 0.6 * size, 1.2 * size];
            let (cost, corner) = place(room, area, &areas, &labels, paper);
            let smaller = 0.8 * size;
            if cost == 0.0 || smaller < (side / 90.0).max(2.5) {
                break (words, room, corner);
            }
            size = smaller;
        };
        labels.push([left, top, left + room[0], top + room[1]]);
        let (_, ground) = if face.is_known { KNOWN } else { UNKNOWN };
        canvas.rectangle((left, top), (room[0], room[1]), ground);
        let text = Text::new(&words, size, Colour::WHITE).anchored(Anchor::Start);
        text.draw(&mut canvas, left + 0.3 * size, top + 0.5 * room[1]);
    }
    canvas.unscaled()
}

/// The best upper left corner of a label of `room` (width, height), and its cost: above, below, beside
/// or inside its face, where it covers least of other labels and faces.
fn place(
    room: [f64; 2],
    face: &Area,
    faces: &[Area],
    labels: &[Area],
    paper: [f64; 2],
) -> (f64, [f64; 2]) {
    let [x1, y1, x2, y2] = *face;
    let [wide, tall] = room;
    let inside = |at: f64, room: f64, all: f64| at.min(all - room).max(0.0);
    let mut best = (f64::INFINITY, [0.0; 2]);
    let lefts = [x1, x2 - wide, 0.5 * (x1 + x2 - wide)];
    let tops = [y1, y2 - tall, 0.5 * (y1 + y2 - tall)];
    let above_or_below = [y1 - tall, y2].into_iter().flat_map(|top| lefts.map(|left| [left, top]));
    let beside = [x2, x1 - wide].into_iter().flat_map(|left| tops.map(|top| [left, top]));
    let within = [y1, y2 - tall].into_iter().flat_map(|top| lefts.map(|left| [left, top]));
    for [left, top] in above_or_below.chain(beside).chain(within) {
        let corner = [inside(left, wide, paper[0]), inside(top, tall, paper[1])];
        let label = [corner[0], corner[1], corner[0] + wide, corner[1] + tall];
        let covered = |areas: &[Area]| areas.iter().map(|area| common(&label, area)).sum::<f64>();
        // Covering another face costs more than covering its own, covering a label most.
        let cost = 2.0 * covered(faces) - common(&label, face) + 4.0 * covered(labels);
        if cost < best.0 {
            best = (cost, corner);
        }
    }
    best
}

/// Area of the intersection.
fn common(a: &Area, b: &Area) -> f64 {
    let side = |low: usize| (a[low + 2].min(b[low + 2]) - a[low].max(b[low])).max(0.0);
    side(0) * side(1)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn frames_lie_on_the_edges_and_the_rest_stays() {
        let photo = RgbImage::from_fn(200, 150, |x, y| Rgb([x as u8, y as u8, 9]));
        let face = FaceLabel {
            bounds: [40.0, 60.0, 100.0, 120.0],
            landmarks: vec![[70.0, 90.0]],
            words: String::new(),
            is_known: true,
        };
        let far = FaceLabel { bounds: [-900.0, -900.0, 1e9, 1e9], ..face.clone() };
        let drawn = faces(&photo, &[face]);
        assert_eq!(drawn.dimensions(), (200, 150));
        assert_eq!(drawn.get_pixel(40, 80).0, [0, 204, 102]);
        assert_eq!(drawn.get_pixel(99, 80).0, [0, 204, 102]);
        assert_eq!(drawn.get_pixel(70, 90).0, [255, 64, 129]);
        for (x, y) in [(37, 80), (103, 80), (55, 75), (10, 10)] {
            assert_eq!(drawn.get_pixel(x, y), photo.get_pixel(x, y), "{x}, {y}");
        }
        assert_eq!(faces(&photo, &[far]).dimensions(), (200, 150));
    }

    #[test]
    fn words_are_written_over_the_box() {
        let photo = RgbImage::from_pixel(400, 300, Rgb([200; 3]));
        let face = FaceLabel {
            bounds: [100.0, 100.0, 200.0, 200.0],
            landmarks: vec![],
            words: "99.9".into(),
            is_known: true,
        };
        let drawn = faces(&photo, &[face]);
        let over = || (100..160).flat_map(|x| (80..100).map(move |y| (x, y)));
        // Paper is darker than the photo; letters on it are lighter than the paper.
        let paper = over().filter(|&(x, y)| drawn.get_pixel(x, y)[0] < 20).count();
        let letters =
            over().filter(|&(x, y)| (60..200).contains(&drawn.get_pixel(x, y)[0])).count();
        assert!(paper > 50 && letters > 10, "{paper} of paper, {letters} of letters");
    }

    #[test]
    fn a_label_is_beside_its_face_rather_than_over_a_neighbours() {
        // A face as high as the photo, with a neighbour to the left: only the right side is free.
        let areas: [Area; 2] = [[50.0, 0.0, 90.0, 100.0], [0.0, 0.0, 48.0, 100.0]];
        let (cost, corner) = place([50.0, 6.0], &areas[0], &areas, &[], [150.0, 100.0]);
        assert_eq!((cost, corner[0]), (0.0, 90.0));
        // No room at all: rather on the own face than on the neighbour's.
        let areas: [Area; 2] = [[50.0, 0.0, 100.0, 100.0], [0.0, 0.0, 50.0, 100.0]];
        let (_, corner) = place([40.0, 6.0], &areas[0], &areas, &[], [100.0, 100.0]);
        assert!(corner[0] >= 50.0, "{corner:?}");
    }

    #[test]
    fn labels_stay_on_the_photo_and_off_each_other() {
        let photo = RgbImage::from_pixel(600, 400, Rgb([200; 3]));
        let paper = [150.0, 100.0];
        // Neighbours in a row, the outer ones at the corners: every label has a place of its own.
        let areas: Vec<Area> = [0.0, 32.0, 64.0, 96.0, 125.0]
            .iter()
            .zip([0.0, 30.0, 30.0, 30.0, 75.0])
            .map(|(&x, y)| [x, y, x + 25.0, y + 25.0])
            .collect();
        let mut labels: Vec<Area> = Vec::new();
        for area in &areas {
            let (cost, [x, y]) = place([50.0, 4.0], area, &areas, &labels, paper);
            let label = [x, y, x + 50.0, y + 4.0];
            assert!(x >= 0.0 && y >= 0.0 && label[2] <= 150.0 && label[3] <= 100.0, "{label:?}");
            assert_eq!(cost, 0.0);
            assert!(labels.iter().chain(&areas).all(|other| common(&label, other) == 0.0));
            labels.push(label);
        }
        // What is wider than the photo is shortened; any letters can be drawn, red where unknown.
        let face = FaceLabel {
            bounds: [0.0, 0.0, 600.0, 400.0],
            landmarks: vec![],
            words: "Žofie Łukasiewicz-Ångström 李雷 \u{1F600} ".repeat(9),
            is_known: false,
        };
        let drawn = faces(&photo, &[face.clone(), FaceLabel { bounds: [f64::NAN; 4], ..face }]);
        assert_eq!(drawn.get_pixel(1, 200).0, [214, 84, 84]);
        assert_eq!(drawn.dimensions(), (600, 400));
    }
}
