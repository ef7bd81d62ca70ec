//! A confusion table as a heat map: blue for right answers, red for wrong ones, grey for UNKNOWN.

use image::RgbImage;

use super::canvas::{Canvas, Colour};
use super::text::{Anchor, Text, shortened, width};

const RIGHT: Colour = Colour(20, 84, 158);
const WRONG: Colour = Colour(190, 38, 48);
const UNKNOWN: Colour = Colour(92, 100, 112);
const MARGIN: f64 = 24.0;
const TITLE: f64 = 40.0;
/// Maximum width of names.
const NAME: f64 = 150.0;
/// Maximum number of identities for numbers in the cells.
const COUNTED: usize = 40;
/// Maximum side of the matrix.
const SIDE: f64 = 800.0;

/// A confusion matrix.
#[derive(Debug, Clone, Copy)]
pub struct ConfusionFigure<'a> {
    /// Title.
    pub title: &'a str,
    /// Identities, in the order of the rows.
    pub names: &'a [String],
    /// `[names, names + 1]`, row-major: rows are true identities, columns predictions, the last one
    /// UNKNOWN.
    pub counts: &'a [usize],
}

/// Draws the matrix. The shade of a cell is its fraction of the row. Zeros are blank, and with more than
/// 40 identities there are no numbers. Missing `counts` are 0.
pub fn confusion(figure: &ConfusionFigure<'_>) -> RgbImage {
    let identities = figure.names.len();
    let cell = (SIDE / identities.max(1) as f64).min(56.0);
    let aside = cell.max(8.0);
    // Names need cells of 9 units.
    let name_size = (cell * 0.62).min(12.5);
    let named = cell >= 9.0;
    let widest = |names: &mut dyn Iterator<Item = &str>| {
        names.map(|name| width(name, name_size)).fold(0.0, f64::max).min(NAME)
    };
    let beside = if named { widest(&mut figure.names.iter().map(String::as_str)) } else { 0.0 };
    let above =
        widest(&mut figure.names.iter().map(String::as_str).filter(|_| named).chain(["UNKNOWN"]));
    let gap = (cell * 0.18).max(4.0);
    let left = MARGIN + 22.0 + beside + 8.0;
    let top = TITLE + 26.0 + above + 8.0;
    let table = identities as f64 * cell;
    let across = table + gap + aside;
    let title_width = width(figure.title, 18.0).min(700.0);
    let sheet = (left + across + MARGIN).max(title_width + 2.0 * MARGIN).max(300.0);
    let mut canvas = Canvas::new(sheet, top + table + 40.0);

    let title = shortened(figure.title, 18.0, sheet - 2.0 * MARGIN);
    Text::new(&title, 18.0, Colour::INK).bold().draw(&mut canvas, MARGIN, TITLE / 2.0 + 4.0);
    let middle = (left + table / 2.0, top + table / 2.0);
    let axis = |words| Text::new(words, 12.0, Colour::FAINT).anchored(Anchor::Middle);
    axis("predicted identity").draw(&mut canvas, middle.0, TITLE + 14.0);
    axis("true identity").upward().draw(&mut canvas, MARGIN + 6.0, middle.1);

    for (i, name) in figure.names.iter().enumerate().filter(|_| named) {
        let along = (i as f64 + 0.5) * cell;
        let name = shortened(name, name_size, NAME);
        let text = Text::new(&name, name_size, Colour::INK);
        text.anchored(Anchor::End).draw(&mut canvas, left - 8.0, top + along);
        text.upward().draw(&mut canvas, left + along, top - 8.0);
    }
    let unknown = Text::new("UNKNOWN", name_size.max(8.0), Colour::FAINT);
    unknown.upward().draw(&mut canvas, left + table + gap + aside / 2.0, top - 8.0);

    for (truth, row) in figure.counts.chunks(identities + 1).take(identities).enumerate() {
        let pictures: usize = row.iter().sum();
        for (answer, &count) in row.iter().enumerate() {
            let (shift, wide, full) = match answer {
                answer if answer == identities => (gap, aside, UNKNOWN),
                answer if answer == truth => (0.0, cell, RIGHT),
                _ => (0.0, cell, WRONG),
            };
            let place = (left + answer as f64 * cell + shift, top + truth as f64 * cell);
            let shade = shade(full, count, pictures);
            canvas.rectangle(place, (wide, cell), shade);
            if count > 0 && identities <= COUNTED {
                let ink = if shade.brightness() < 0.6 { Colour::WHITE } else { Colour::INK };
                let words = count.to_string();
                let fits = (cell * 0.86 / width(&words, 1.0)).min(cell * 0.42).min(14.0);
                Text::new(&words, fits, ink).anchored(Anchor::Middle).draw(
                    &mut canvas,
                    place.0 + cell / 2.0,
                    place.1 + cell / 2.0,
                );
            }
        }
    }
    if named {
        for line in 0..=identities {
            let along = line as f64 * cell;
            canvas.rectangle((left, top + along - 0.25), (table, 0.5), Colour::GRID);
            canvas.rectangle((left + table + gap, top + along - 0.25), (aside, 0.5), Colour::GRID);
            canvas.rectangle((left + along - 0.25, top), (0.5, table), Colour::GRID);
        }
    }
    canvas.frame((left, top), (table, table), 1.0, Colour::LINE);
    canvas.frame((left + table + gap, top), (aside, table), 1.0, Colour::LINE);

    let mut x = left;
    for (colour, words) in [(RIGHT, "correct"), (WRONG, "wrong"), (UNKNOWN, "UNKNOWN")] {
        canvas.rectangle((x, top + table + 15.0), (10.0, 10.0), colour);
        Text::new(words, 11.0, Colour::FAINT).draw(&mut canvas, x + 15.0, top + table + 20.0);
        x += width(words, 11.0) + 32.0;
    }
    canvas.finish()
}

/// From white (0) to `full` (the whole row); a single picture is visible.
fn shade(full: Colour, count: usize, pictures: usize) -> Colour {
    if count == 0 {
        return Colour::WHITE;
    }
    let share = count as f64 / pictures as f64;
    Colour::WHITE.towards(full, 0.12 + 0.88 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(counts: &[usize], identities: usize) -> RgbImage {
        let names: Vec<String> = (0..identities).map(|i| format!("name {i}")).collect();
        confusion(&ConfusionFigure { title: "who is who", names: &names, counts })
    }

    fn has(picture: &RgbImage, colour: Colour) -> bool {
        picture.pixels().filter(|p| p.0 == [colour.0, colour.1, colour.2]).count() > 500
    }

    #[test]
    fn right_wrong_and_unknown_answers_have_their_colours() {
        let picture = draw(&[4, 0, 0, 0, 0, 3], 2);
        assert!(has(&picture, RIGHT) && has(&picture, UNKNOWN) && !has(&picture, WRONG));
        let picture = draw(&[0, 4, 0, 3, 0, 0], 2);
        assert!(!has(&picture, RIGHT) && !has(&picture, UNKNOWN) && has(&picture, WRONG));
        assert_eq!(shade(RIGHT, 0, 5), Colour::WHITE);
        assert_eq!(shade(RIGHT, 5, 5), RIGHT);
    }

    #[test]
    fn none_one_many_and_missing_counts_are_fine() {
        assert!(draw(&[], 0).width() > 100);
        assert!(draw(&[1], 1).width() > 100);
        let many = draw(&vec![1; 1000 * 1001], 1000);
        assert!(many.width() < 3000 && many.height() < 3000);
        assert!(draw(&[1, 2, 3], 5).width() > 100);
    }
}
