//! Boxes, landmarks and words drawn onto a photo.

use image::RgbImage;

use super::canvas::{Canvas, Colour};
use super::text::{Anchor, Text, width};

/// What is drawn for one face, in pixels of the photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Marked {
    /// Left, top, right and bottom edge.
    pub bounds: [f64; 4],
    /// Points inside, (x, y).
    pub landmarks: Vec<[f64; 2]>,
    /// Words over the box; may be empty.
    pub words: String,
}

const FRAME: Colour = Colour(0, 204, 102);
const POINT: Colour = Colour(255, 64, 129);
const PAPER: Colour = Colour(0, 102, 51);

/// The photo with a frame, points and a label for every face; lines grow with the photo and with
/// the face, so that they are seen when the photo is shown small.
pub fn faces(photo: &RgbImage, faces: &[Marked]) -> RgbImage {
    let side = f64::from(photo.width().min(photo.height())) / Canvas::DENSITY;
    let mut canvas = Canvas::over(photo);
    let units = |value: f64| value / Canvas::DENSITY;
    for face in faces {
        let [x1, y1, x2, y2] = face.bounds.map(units);
        let (wide, high) = (x2 - x1, y2 - y1);
        let line = (side / 250.0).max(wide / 60.0).clamp(0.25, 12.0);
        canvas.frame((x1, y1), (wide, high), line, FRAME);
        for &[x, y] in &face.landmarks {
            canvas.circle((units(x), units(y)), 0.8 * line, POINT);
        }
        if face.words.is_empty() {
            continue;
        }
        let size = (side / 40.0).clamp(2.5, 60.0);
        let (room, tall) = (width(&face.words, size) + 0.6 * size, 1.2 * size);
        // Over the box, or inside where there is no room.
        let top = if y1 >= tall { y1 - tall } else { y1.max(0.0) };
        let left = x1.clamp(0.0, (units(f64::from(photo.width())) - room).max(0.0));
        canvas.rectangle((left, top), (room, tall), PAPER);
        let text = Text::new(&face.words, size, Colour::WHITE).anchored(Anchor::Start);
        text.draw(&mut canvas, left + 0.3 * size, top + 0.5 * tall);
    }
    canvas.unscaled()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn frames_lie_on_the_edges_and_the_rest_stays() {
        let photo = RgbImage::from_fn(200, 150, |x, y| Rgb([x as u8, y as u8, 9]));
        let face = Marked {
            bounds: [40.0, 60.0, 100.0, 120.0],
            landmarks: vec![[70.0, 90.0]],
            words: String::new(),
        };
        let far = Marked { bounds: [-900.0, -900.0, 1e9, 1e9], ..face.clone() };
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
        let face = Marked {
            bounds: [100.0, 100.0, 200.0, 200.0],
            landmarks: vec![],
            words: "99.9".into(),
        };
        let drawn = faces(&photo, &[face]);
        let over = || (100..160).flat_map(|x| (80..100).map(move |y| (x, y)));
        // Paper is darker than the photo; letters on it are lighter than the paper.
        let paper = over().filter(|&(x, y)| drawn.get_pixel(x, y)[0] < 20).count();
        let letters =
            over().filter(|&(x, y)| (60..200).contains(&drawn.get_pixel(x, y)[0])).count();
        assert!(paper > 50 && letters > 10, "{paper} of paper, {letters} of letters");
    }
}
