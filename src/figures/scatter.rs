//! A scatter plot of embeddings, one colour and marker per identity.

use image::RgbImage;

use super::canvas::{Canvas, Colour};
use super::palette::marker;
use super::text::{Anchor, Text, shortened, width};

/// Side of the square plot.
const SIDE: f64 = 640.0;
const MARGIN: f64 = 24.0;
const TITLE: f64 = 40.0;
const LEGEND_SIZE: f64 = 12.5;
const LEGEND_ROW: f64 = 21.0;
/// Widest name in the legend.
const LEGEND_NAME: f64 = 150.0;
/// Maximum number of identities in the legend.
const LEGEND_ENTRIES: usize = 40;

/// A scatter plot with one point per picture.
#[derive(Debug, Clone, Copy)]
pub struct Scatter<'a> {
    /// Title.
    pub title: &'a str,
    /// Identity names; labels index into them.
    pub names: &'a [String],
    /// Position of each picture, in any unit; both axes have the same scale.
    pub points: &'a [[f32; 2]],
    /// The identity of each picture.
    pub labels: &'a [usize],
    /// Whether each picture is in the validation part, drawn hollow; empty for none.
    pub validation: &'a [bool],
}

/// Draws the plot and its legend, which lists at most 40 identities. Points that are not finite or have
/// no name are left out.
pub fn scatter(figure: &Scatter<'_>) -> RgbImage {
    let named = figure.names.len();
    let listed = if named > LEGEND_ENTRIES { LEGEND_ENTRIES - 1 } else { named };
    let split = figure.validation.contains(&true) && figure.validation.contains(&false);
    let mut lines: Vec<Line> = (0..listed).map(Line::Identity).collect();
    if listed < named {
        lines.push(Line::More(named - listed));
    }
    if split {
        lines.extend([Line::Gap, Line::Part(false), Line::Part(true)]);
    }

    let rows = (SIDE / LEGEND_ROW) as usize;
    let columns = lines.len().div_ceil(rows);
    let rows = lines.len().div_ceil(columns.max(1));
    let texts = lines.iter().map(|line| width(&line.text(figure.names), LEGEND_SIZE));
    let column_width = texts.fold(0.0, f64::max).min(LEGEND_NAME) + 38.0;
    let legend = if columns > 0 { columns as f64 * column_width + 12.0 } else { 0.0 };
    let mut canvas = Canvas::new(SIDE + 2.0 * MARGIN + legend, TITLE + SIDE + MARGIN + 4.0);

    let title = shortened(figure.title, 18.0, SIDE + legend);
    Text::new(&title, 18.0, Colour::INK).bold().draw(&mut canvas, MARGIN, TITLE / 2.0 + 4.0);
    canvas.rectangle((MARGIN, TITLE + 4.0), (SIDE, SIDE), Colour(250, 251, 252));
    canvas.frame((MARGIN, TITLE + 4.0), (SIDE, SIDE), 1.0, Colour::GRID);
    draw_points(&mut canvas, figure, (MARGIN, TITLE + 4.0));

    let left = MARGIN + SIDE + 20.0;
    for (at, line) in lines.iter().enumerate() {
        let x = left + (at / rows) as f64 * column_width;
        let y = TITLE + 4.0 + ((at % rows) as f64 + 0.5) * LEGEND_ROW;
        let colour = match line {
            Line::Identity(i) => {
                marker(&mut canvas, *i, (x + 5.0, y), 5.0, false);
                Colour::INK
            }
            Line::Part(hollow) => {
                marker(&mut canvas, NEUTRAL, (x + 5.0, y), 5.0, *hollow);
                Colour::FAINT
            }
            _ => Colour::FAINT,
        };
        let text = shortened(&line.text(figure.names), LEGEND_SIZE, LEGEND_NAME);
        Text::new(&text, LEGEND_SIZE, colour).draw(&mut canvas, x + 17.0, y);
    }
    if figure.points.is_empty() {
        Text::new("no pictures", 14.0, Colour::FAINT).anchored(Anchor::Middle).draw(
            &mut canvas,
            MARGIN + SIDE / 2.0,
            TITLE + SIDE / 2.0,
        );
    }
    canvas.finish()
}

/// The identity with a grey marker, for the legend of hollow ones.
const NEUTRAL: usize = 8;

enum Line {
    Identity(usize),
    More(usize),
    Gap,
    Part(bool),
}

impl Line {
    fn text(&self, names: &[String]) -> String {
        match self {
            Self::Identity(i) => names[*i].clone(),
            Self::More(more) => format!("… and {more} more"),
            Self::Gap => String::new(),
            Self::Part(false) => "training".to_owned(),
            Self::Part(true) => "validation".to_owned(),
        }
    }
}

fn draw_points(canvas: &mut Canvas, figure: &Scatter<'_>, (left, top): (f64, f64)) {
    let mut points: Vec<(usize, f64, f64)> = figure
        .points
        .iter()
        .zip(figure.labels)
        .enumerate()
        .filter(|(_, (point, label))| {
            point.iter().all(|part| part.is_finite()) && **label < figure.names.len()
        })
        .map(|(i, (&[x, y], _))| (i, f64::from(x), f64::from(y)))
        .collect();
    let range = |part: fn(&(usize, f64, f64)) -> f64| {
        let (low, high) = points
            .iter()
            .map(part)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        (f64::midpoint(low, high), high - low)
    };
    let ((middle_x, wide), (middle_y, high)) = (range(|p| p.1), range(|p| p.2));
    let span = wide.max(high);
    let scale = if span > 0.0 { SIDE * 0.93 / span } else { 0.0 };
    let radius = match points.len() {
        0..=400 => 4.6,
        401..=2000 => 3.4,
        2001..=6000 => 2.5,
        _ => 1.8,
    };
    // In scattered order, so that no identity covers all others.
    points.sort_by_key(|&(i, _, _)| (i as u32).wrapping_mul(0x9E37_79B1));
    for (i, x, y) in points {
        let place =
            (left + SIDE / 2.0 + (x - middle_x) * scale, top + SIDE / 2.0 - (y - middle_y) * scale);
        let hollow = figure.validation.get(i).copied().unwrap_or(false);
        marker(
            canvas,
            figure.labels[i],
            place,
            if hollow { radius * 1.12 } else { radius },
            hollow,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("identity_{i}")).collect()
    }

    #[test]
    fn more_identities_need_a_wider_sheet_and_then_no_more() {
        let width = |count: usize| {
            let names = names(count);
            let figure =
                Scatter { title: "t", names: &names, points: &[], labels: &[], validation: &[] };
            scatter(&figure).width()
        };
        assert!(width(5) < width(40));
        assert_eq!(width(541), width(900));
    }

    #[test]
    fn points_are_drawn_in_their_colours_and_impossible_ones_are_not() {
        let names = names(2);
        let points = [[0.0, 0.0], [1.0, 1.0], [f32::NAN, 0.0], [9.0, 9.0]];
        let figure = Scatter {
            title: "two",
            names: &names,
            points: &points,
            labels: &[0, 1, 1, 7],
            validation: &[false, true, false, false],
        };
        let picture = scatter(&figure);
        let inside = |x: f64, y: f64| {
            *picture.get_pixel(((MARGIN + x) * 2.0) as u32, ((TITLE + 4.0 + y) * 2.0) as u32)
        };
        // Corners of the 93 % of the side that points fill, y upwards.
        let (near, far) = (SIDE * 0.035, SIDE * 0.965);
        assert_eq!(inside(near, far).0, [31, 108, 186]);
        assert_eq!(inside(far, near).0, [255; 3], "hollow");
        assert_eq!(inside(near, near).0, [250, 251, 252]);
    }

    #[test]
    fn one_point_and_many_in_one_place_are_fine() {
        let names = names(1);
        for points in [vec![[3.0, 4.0]], vec![[1e30, -1e30]; 5]] {
            let labels = vec![0; points.len()];
            let figure = Scatter {
                title: "",
                names: &names,
                points: &points,
                labels: &labels,
                validation: &[],
            };
            let picture = scatter(&figure);
            let (x, y) = ((MARGIN + SIDE / 2.0) as u32 * 2, (TITLE + 4.0 + SIDE / 2.0) as u32 * 2);
            assert_eq!(picture.get_pixel(x, y).0, [31, 108, 186]);
        }
    }
}
