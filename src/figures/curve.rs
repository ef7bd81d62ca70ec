//! Line charts: ROC curves and learning curves.

use image::RgbImage;

use super::canvas::{Canvas, Colour};
use super::palette::colour;
use super::text::{Anchor, Text, shortened, width};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 380.0;
const MARGIN: f64 = 24.0;
const TITLE: f64 = 40.0;
const SMALL: f64 = 12.0;
/// Widest name in the legend.
const LEGEND_NAME: f64 = 210.0;

/// A line of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (x, y) in drawing order; a point that is not finite breaks the line. A single point is drawn
    /// as a marker.
    pub points: Vec<(f64, f64)>,
}

/// A line chart.
#[derive(Debug, Clone, Copy)]
pub struct Curve<'a> {
    /// Title.
    pub title: &'a str,
    /// Title of the x axis.
    pub x_label: &'a str,
    /// Title of the y axis.
    pub y_label: &'a str,
    /// The lines; with more than one there is a legend.
    pub series: &'a [Series],
    /// Limits of the x axis; `None` to fit the points.
    pub x_range: Option<(f64, f64)>,
    /// Limits of the y axis; `None` to fit the points.
    pub y_range: Option<(f64, f64)>,
    /// Draws a dashed diagonal: chance level of an ROC curve.
    pub diagonal: bool,
}

/// Draws the chart.
pub fn curve(figure: &Curve<'_>) -> RgbImage {
    let x = Axis::new(figure.x_range, figure.series.iter().flat_map(|s| &s.points).map(|p| p.0));
    draw(figure, &x)
}

/// Draws the chart with a logarithmic x axis, from one power of ten to another. Points with x <= 0 break
/// the line; `x_range` is in the unit of x.
pub fn log_curve(figure: &Curve<'_>) -> RgbImage {
    let power = |x: f64| if x > 0.0 { x.log10() } else { f64::NAN };
    let powers = |series: &Series| Series {
        name: series.name.clone(),
        points: series.points.iter().map(|&(x, y)| (power(x), y)).collect(),
    };
    let series: Vec<Series> = figure.series.iter().map(powers).collect();
    let range = figure.x_range.map(|(low, high)| (power(low), power(high)));
    let x = Axis::powers(range, series.iter().flat_map(|s| &s.points).map(|p| p.0));
    draw(&Curve { series: &series, ..*figure }, &x)
}

/// Charts below each other on one sheet.
pub fn stacked(charts: &[RgbImage]) -> RgbImage {
    let width = charts.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = charts.iter().map(RgbImage::height).sum::<u32>().max(1);
    let mut sheet = RgbImage::from_pixel(width, height, image::Rgb([255; 3]));
    let mut top = 0;
    for chart in charts {
        image::imageops::replace(&mut sheet, chart, 0, top);
        top += i64::from(chart.height());
    }
    sheet
}

fn draw(figure: &Curve<'_>, x: &Axis) -> RgbImage {
    let y = Axis::new(figure.y_range, figure.series.iter().flat_map(|s| &s.points).map(|p| p.1));
    let tick_width = y.ticks().iter().map(|(_, words)| width(words, SMALL)).fold(0.0, f64::max);
    let left = MARGIN + 22.0 + tick_width + 8.0;
    let top = TITLE + 12.0;
    let names = figure.series.iter().map(|series| width(&series.name, SMALL));
    let legend = if figure.series.len() > 1 {
        names.fold(0.0, f64::max).min(LEGEND_NAME) + 48.0
    } else {
        0.0
    };
    let legend_height = figure.series.len() as f64 * 21.0 + 12.0;
    let plot_height = HEIGHT.max(if legend > 0.0 { legend_height } else { 0.0 });
    let sheet = left + WIDTH + legend + MARGIN + 6.0;
    let mut canvas = Canvas::new(sheet, top + plot_height + 62.0);

    let title = shortened(figure.title, 18.0, sheet - 2.0 * MARGIN);
    Text::new(&title, 18.0, Colour::INK).bold().draw(&mut canvas, MARGIN, TITLE / 2.0 + 2.0);
    let across = |value: f64| left + x.part(value) * WIDTH;
    let down = |value: f64| top + (1.0 - y.part(value)) * plot_height;
    for (value, words) in x.ticks() {
        canvas.rectangle((across(value) - 0.5, top), (1.0, plot_height), Colour::GRID);
        Text::new(&words, SMALL, Colour::FAINT).anchored(Anchor::Middle).draw(
            &mut canvas,
            across(value),
            top + plot_height + 14.0,
        );
    }
    for (value, words) in y.ticks() {
        canvas.rectangle((left, down(value) - 0.5), (WIDTH, 1.0), Colour::GRID);
        Text::new(&words, SMALL, Colour::FAINT).anchored(Anchor::End).draw(
            &mut canvas,
            left - 8.0,
            down(value),
        );
    }
    let axis = |words| Text::new(words, 13.0, Colour::INK).anchored(Anchor::Middle);
    axis(figure.x_label).draw(&mut canvas, left + WIDTH / 2.0, top + plot_height + 38.0);
    axis(figure.y_label).upward().draw(&mut canvas, MARGIN + 6.0, top + plot_height / 2.0);
    canvas.frame((left, top), (WIDTH, plot_height), 1.0, Colour::LINE);

    let place = |t: f64| (left + t * WIDTH, top + (1.0 - t) * plot_height);
    for dash in (0..60).step_by(2).filter(|_| figure.diagonal) {
        let from = f64::from(dash) / 60.0;
        canvas.line(place(from), place(from + 1.0 / 60.0), 1.2, Colour::LINE);
    }
    for (i, series) in figure.series.iter().enumerate() {
        draw_line(&mut canvas, series, (x, &y), (left, top, plot_height), colour(i));
        if legend > 0.0 {
            let (at, height) = (left + WIDTH + 18.0, top + 10.0 + i as f64 * 21.0);
            match series.points.len() {
                1 => canvas.circle((at + 9.0, height), 5.0, colour(i)),
                _ => canvas.line((at, height), (at + 18.0, height), 2.4, colour(i)),
            }
            let name = shortened(&series.name, SMALL, LEGEND_NAME);
            Text::new(&name, SMALL, Colour::INK).draw(&mut canvas, at + 25.0, height);
        }
    }
    canvas.finish()
}

/// Draws the line, clipped at the frame.
fn draw_line(
    canvas: &mut Canvas,
    series: &Series,
    (x, y): (&Axis, &Axis),
    (left, top, height): (f64, f64, f64),
    colour: Colour,
) {
    let place = |&(a, b): &(f64, f64)| (x.part(a), y.part(b));
    let on_sheet = |(a, b): (f64, f64)| (left + a * WIDTH, top + (1.0 - b) * height);
    let fine = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
    for run in series.points.split(|point| !fine(point)) {
        let places: Vec<(f64, f64)> = run.iter().map(place).collect();
        for pair in places.windows(2) {
            if let Some((from, to)) = inside(pair[0], pair[1]) {
                canvas.line(on_sheet(from), on_sheet(to), 2.0, colour);
            }
        }
        // A single point is a marker; few points are dots on the line, many are round joints.
        let radius = match series.points.len() {
            1 => 5.0,
            0..=40 => 3.0,
            _ => 1.0,
        };
        for &(a, b) in places.iter().filter(|(a, b)| in_frame(*a) && in_frame(*b)) {
            canvas.circle(on_sheet((a, b)), radius, colour);
        }
    }
}

fn in_frame(part: f64) -> bool {
    (-1e-9..=1.0 + 1e-9).contains(&part)
}

/// The part of a segment within the unit square (Liang and Barsky's clipping).
fn inside(a: (f64, f64), b: (f64, f64)) -> Option<((f64, f64), (f64, f64))> {
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (from, by) in [(a.0, b.0 - a.0), (a.1, b.1 - a.1)] {
        if by == 0.0 {
            if !in_frame(from) {
                return None;
            }
            continue;
        }
        let (s, t) = (-from / by, (1.0 - from) / by);
        enter = enter.max(s.min(t));
        leave = leave.min(s.max(t));
    }
    let at = |part: f64| (a.0 + part * (b.0 - a.0), a.1 + part * (b.1 - a.1));
    (enter <= leave).then(|| (at(enter), at(leave)))
}

/// A linear axis with round ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
    /// Values are exponents of ten.
    powers: bool,
}

impl Axis {
    /// The given limits, or round numbers around the finite `values`.
    fn new(range: Option<(f64, f64)>, values: impl Iterator<Item = f64>) -> Self {
        let fitted = range.filter(|(low, high)| low < high && (high - low).is_finite());
        let (mut low, mut high) = fitted.unwrap_or_else(|| {
            values
                .filter(|value| value.is_finite())
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                    (low.min(value), high.max(value))
                })
        });
        if !(high - low).is_finite() {
            (low, high) = (0.0, 1.0);
        } else if high - low <= 1e-12 * high.abs().max(low.abs()) {
            // All values equal: add space around them.
            let room = if high == 0.0 { 1.0 } else { high.abs() * 0.1 };
            (low, high) = (low - room, high + room);
        }
        let step = round_step((high - low) / 5.0);
        if fitted.is_none() {
            (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        }
        Self { low, high, step, powers: false }
    }

    /// A logarithmic axis; `values` are exponents. At most ten or so ticks.
    fn powers(range: Option<(f64, f64)>, values: impl Iterator<Item = f64>) -> Self {
        let Self { low, high, .. } = Self::new(range, values);
        let (low, high) = (low.floor(), high.ceil());
        Self { low, high, step: ((high - low) / 10.0).ceil().max(1.0), powers: true }
    }

    /// 0 at the lower end, 1 at the upper.
    fn part(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }

    /// Round values within the limits, and their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        let digits = (-self.step.log10().floor()).clamp(0.0, 12.0) as usize;
        // 2.5 needs one digit more than 2.
        let digits = digits + usize::from(self.step * 10f64.powi(digits as i32) % 1.0 > 1e-6);
        let (first, last) = (self.low / self.step - 1e-6, self.high / self.step + 1e-6);
        (0..20)
            .map(|i| first.ceil() + f64::from(i))
            .take_while(|&at| at <= last)
            .map(|at| {
                let value = at * self.step;
                if self.powers {
                    return (value, format!("1e{value:.0}"));
                }
                let large = value.abs() >= 1e6 || self.step < 1e-6;
                let words = if large && value != 0.0 {
                    format!("{value:.1e}")
                } else {
                    // Adding 0 turns -0 into 0.
                    format!("{:.digits$}", value + 0.0)
                };
                (value, words)
            })
            .collect()
    }
}

/// The smallest of 1, 2, 2.5, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let fitting = [1.0, 2.0, 2.5, 5.0].into_iter().map(|m| m * power).find(|&s| s >= step * 0.999);
    fitting.unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(range: (f64, f64)) -> Vec<String> {
        let axis = Axis::new(Some(range), std::iter::empty());
        axis.ticks().into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(words((0.0, 1.0)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(words((1.0, 12.0)), ["2.5", "5.0", "7.5", "10.0"]);
        assert_eq!(words((0.0, 500.0)), ["0", "100", "200", "300", "400", "500"]);
        assert_eq!(words((-0.01, 0.01)), ["-0.010", "-0.005", "0.000", "0.005", "0.010"]);
        assert_eq!(words((0.0, 8e6)).last().map(String::as_str), Some("8.0e6"));
    }

    #[test]
    fn a_logarithmic_axis_ends_on_powers_of_ten() {
        let words = |values: &[f64]| {
            let axis = Axis::powers(None, values.iter().map(|value: &f64| value.log10()));
            axis.ticks().into_iter().map(|(_, words)| words).collect::<Vec<_>>()
        };
        assert_eq!(words(&[2e-4, 1.0, 3.0]), ["1e-4", "1e-3", "1e-2", "1e-1", "1e0", "1e1"]);
        assert_eq!(
            words(&[1e-30, 1.0]),
            [
                "1e-30", "1e-27", "1e-24", "1e-21", "1e-18", "1e-15", "1e-12", "1e-9", "1e-6",
                "1e-3", "1e0"
            ]
        );
        assert!(words(&[5.0]).len() >= 2 && words(&[]).len() >= 2);
    }

    #[test]
    fn equal_factors_are_equally_far_apart_on_a_logarithmic_axis() {
        // A line through (1, 0), (10, 1), (100, 2) is straight there: it hides a straight one.
        let steps = [(1.0, 0.0), (10.0, 1.0), (100.0, 2.0), (0.0, 1.0), (-1.0, 1.0)];
        let series = [
            Series { name: "bent".into(), points: steps.to_vec() },
            Series { name: "straight".into(), points: vec![(1.0, 0.0), (100.0, 2.0)] },
        ];
        let mut figure = Curve {
            title: "",
            x_label: "",
            y_label: "",
            series: &series,
            x_range: Some((1.0, 100.0)),
            y_range: None,
            diagonal: false,
        };
        let bent = |picture: RgbImage| {
            let Colour(r, g, b) = colour(0);
            picture.pixels().filter(|pixel| pixel.0 == [r, g, b]).count()
        };
        let (hidden, seen) = (bent(log_curve(&figure)), bent(curve(&figure)));
        assert!(seen > 2 * hidden, "{seen} and {hidden} pixels");
        figure.series = &[];
        assert!(log_curve(&figure).width() > 500);
    }

    #[test]
    fn a_fitted_axis_holds_all_values_and_survives_odd_ones() {
        let axis = Axis::new(None, [0.13, 0.87, f64::NAN].into_iter());
        assert!(axis.low <= 0.13 && axis.high >= 0.87);
        assert!((axis.part(axis.high) - 1.0).abs() < 1e-12);
        for values in [vec![], vec![f64::INFINITY], vec![5.0], vec![0.0, 0.0], vec![-1e300, 1e300]]
        {
            let axis = Axis::new(None, values.into_iter());
            assert!(axis.low < axis.high && !axis.ticks().is_empty());
        }
    }

    #[test]
    fn charts_are_stacked_from_the_top() {
        let shade = |width, value| RgbImage::from_pixel(width, 3, image::Rgb([value; 3]));
        let sheet = stacked(&[shade(4, 10), shade(2, 20)]);
        assert_eq!(sheet.dimensions(), (4, 6));
        let at = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([at(3, 2), at(1, 3), at(3, 3)], [10, 20, 255]);
        assert_eq!(stacked(&[]).dimensions(), (1, 1));
    }

    #[test]
    fn segments_are_cut_at_the_frame() {
        assert_eq!(inside((0.2, 0.2), (0.4, 0.3)), Some(((0.2, 0.2), (0.4, 0.3))));
        assert_eq!(inside((-1.0, 0.5), (2.0, 0.5)).map(|(a, b)| (a.1, b.1)), Some((0.5, 0.5)));
        assert_eq!(inside((0.5, 0.5), (0.5, 3.5)).map(|(_, b)| b), Some((0.5, 1.0)));
        assert_eq!(inside((2.0, 0.0), (3.0, 1.0)), None);
        assert_eq!(inside((0.5, 2.0), (0.6, 2.0)), None);
    }

    #[test]
    fn lines_and_markers_are_drawn_in_their_colours_and_nothing_is_fine() {
        let line = |name: &str, points: Vec<(f64, f64)>| Series { name: name.into(), points };
        let series = [
            line("up", vec![(0.0, 0.0), (1.0, 1.0)]),
            line("broken", vec![(0.0, 0.5), (f64::NAN, 0.5), (1.0, 0.5)]),
            line("marker", vec![(0.5, 0.7)]),
        ];
        let mut figure = Curve {
            title: "roc",
            x_label: "x",
            y_label: "y",
            series: &series,
            x_range: None,
            y_range: None,
            diagonal: true,
        };
        let picture = curve(&figure);
        let count = |i: usize| {
            let Colour(r, g, b) = colour(i);
            picture.pixels().filter(|pixel| pixel.0 == [r, g, b]).count()
        };
        assert!(count(0) > 2000, "{}", count(0));
        // Two dots and the legend, no line between them.
        assert!((50..1000).contains(&count(1)), "{}", count(1));
        // A marker of ten units across, twice: in the chart and in the legend.
        assert!((400..800).contains(&count(2)), "{}", count(2));
        figure.series = &[];
        assert!(curve(&figure).width() > 500);
    }
}
