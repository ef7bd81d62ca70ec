//! Overlaid histograms, such as distances of same and of different pairs.

use image::RgbImage;

use super::curve::{Curve, Series, curve};

/// Bins between the smallest and the largest value.
const BINS: usize = 50;

/// Overlaid histograms.
#[derive(Debug, Clone, Copy)]
pub struct Histogram<'a> {
    /// Title.
    pub title: &'a str,
    /// Title of the x axis.
    pub x_label: &'a str,
    /// Each histogram's name and values; values that are not finite are left out.
    pub kinds: &'a [(&'a str, Vec<f64>)],
    /// Name and position of a vertical line.
    pub line: Option<(&'a str, f64)>,
}

/// Draws the outline of each histogram, in percent of its values.
pub fn histogram(figure: &Histogram<'_>) -> RgbImage {
    let finite = |values: &[f64]| -> Vec<f64> {
        values.iter().copied().filter(|value| value.is_finite()).collect()
    };
    let kinds: Vec<(&str, Vec<f64>)> =
        figure.kinds.iter().map(|(name, values)| (*name, finite(values))).collect();
    let all = kinds.iter().flat_map(|(_, values)| values).copied();
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    let width = (high - low) / BINS as f64;
    let mut series = Vec::new();
    let mut top = 0.0f64;
    for (name, values) in &kinds {
        let shares = shares(values, low, width);
        top = shares.iter().copied().fold(top, f64::max);
        series.push(Series { name: (*name).to_owned(), points: outline(&shares, low, width) });
    }
    if let Some((name, at)) = figure.line.filter(|(_, at)| at.is_finite()) {
        // Enough points to be drawn without markers.
        let points = (0..=60).map(|i| (at, top * f64::from(i) / 60.0)).collect();
        series.push(Series { name: name.to_owned(), points });
    }
    curve(&Curve {
        title: figure.title,
        x_label: figure.x_label,
        y_label: "pairs (%)",
        series: &series,
        x_range: None,
        y_range: None,
        diagonal: false,
    })
}

/// The percentage of the values in each bin; the last bin includes its upper edge.
fn shares(values: &[f64], low: f64, width: f64) -> Vec<f64> {
    let mut shares = vec![0.0; BINS];
    for value in values {
        let bin = if width > 0.0 { ((value - low) / width) as usize } else { 0 };
        shares[bin.min(BINS - 1)] += 100.0 / values.len() as f64;
    }
    shares
}

/// The outline of the bins as a line from and to the x axis.
fn outline(shares: &[f64], low: f64, width: f64) -> Vec<(f64, f64)> {
    let edge = |at: usize| low + at as f64 * width;
    let mut points = vec![(edge(0), 0.0)];
    for (bin, &share) in shares.iter().enumerate() {
        points.extend([(edge(bin), share), (edge(bin + 1), share)]);
    }
    points.push((edge(shares.len()), 0.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_the_ends_count() {
        let found = shares(&[0.0, 0.5, 0.5, 1.0], 0.0, 0.02);
        assert_eq!((found[0], found[25], found[49]), (25.0, 50.0, 25.0));
        assert_eq!(shares(&[3.0, 3.0], 3.0, 0.0)[0], 100.0);
        let points = outline(&[10.0, 20.0], 1.0, 0.5);
        let wanted = [(1.0, 0.0), (1.0, 10.0), (1.5, 10.0), (1.5, 20.0), (2.0, 20.0), (2.0, 0.0)];
        assert_eq!(points, wanted);
    }

    #[test]
    fn odd_values_do_not_stand_in_the_way() {
        for values in [vec![], vec![f64::NAN, 1.0], vec![2.0, 2.0]] {
            let kinds = [("same", values), ("different", vec![])];
            let line = Some(("threshold", 1.5));
            let figure = Histogram { title: "t", x_label: "x", kinds: &kinds, line };
            assert!(histogram(&figure).width() > 500);
        }
    }
}
