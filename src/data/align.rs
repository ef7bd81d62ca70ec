//! Correlation of two grey thumbnails under the best alignment, to find near-duplicates.
//!
//! An affine warp is refined by Gauss-Newton steps (Lucas & Kanade 1981, with gain and offset for
//! brightness); the result is the correlation coefficient under that warp. Two crops of one photo reach
//! 0.98 and more; two photos of one person from different days rarely 0.96.

/// Side of a thumbnail in pixels.
pub(super) const SIDE: usize = 64;

/// Maximum number of steps; true pairs converge after five to fifteen.
const STEPS: usize = 30;
/// Correlation below which a pair is given up after this many steps.
const HOPELESS: (usize, f64) = (8, 0.85);
/// Minimum fraction of the template inside the other picture.
const OVERLAP: f64 = 0.8;

/// A grey thumbnail, `SIDE * SIDE` values, row-major.
pub(super) type Thumbnail = [f32];

/// A square part of a thumbnail, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Square {
    pub left: usize,
    pub top: usize,
    pub side: usize,
}

/// The warp of a template point: `x' = a[0] + a[1] u + a[2] v`, `y' = a[3] + a[4] u + a[5] v`, with (u,
/// v) in [-1, 1] over the template.
type Warp = [f64; 6];

/// The correlation, in [-1, 1], of `part` of `template` with `picture` under the best affine warp near
/// the one that maps `part` to `start`.
///
/// 0 if they do not overlap enough, or if one of them is flat.
pub(super) fn correlation(
    template: &Thumbnail,
    part: Square,
    picture: &Thumbnail,
    start: Square,
) -> f64 {
    let half = start.side as f64 / 2.0;
    let mut warp: Warp =
        [start.left as f64 + half - 0.5, half, 0.0, start.top as f64 + half - 0.5, 0.0, half];
    let mut best = 0.0_f64;
    for taken in 0..STEPS {
        let Some(overlay) = Overlay::of(template, part, picture, &warp) else { return best };
        best = best.max(overlay.correlation());
        if taken >= HOPELESS.0 && best < HOPELESS.1 {
            return best;
        }
        let Some(step) = solve(overlay.normal) else { return best };
        for (value, change) in warp.iter_mut().zip(step) {
            *value += change;
        }
        // Upper bound of the movement of the four corners.
        let moved = step.iter().take(6).map(|change| change.abs()).sum::<f64>();
        let area = (warp[1] * warp[5] - warp[2] * warp[4]).abs() / (half * half);
        if moved < 0.02 || !(0.4..2.5).contains(&area) {
            break;
        }
    }
    best
}

/// Sums over the template points inside the picture.
struct Overlay {
    /// Normal equations of `I + dI/dwarp . step = gain * T + offset`: 8 unknowns, the right-hand side
    /// in the last column.
    normal: [[f64; 9]; 8],
    points: f64,
    sums: [f64; 5],
}

impl Overlay {
    /// `None` if too little of the template is inside the picture.
    fn of(template: &Thumbnail, part: Square, picture: &Thumbnail, warp: &Warp) -> Option<Self> {
        let mut overlay = Self { normal: [[0.0; 9]; 8], points: 0.0, sums: [0.0; 5] };
        let unit = |k: usize| (k as f64 + 0.5) * 2.0 / part.side as f64 - 1.0;
        for row in 0..part.side {
            let v = unit(row);
            for column in 0..part.side {
                let u = unit(column);
                let x = warp[0] + warp[1] * u + warp[2] * v;
                let y = warp[3] + warp[4] * u + warp[5] * v;
                let Some((value, dx, dy)) = sample(picture, x, y) else { continue };
                let wanted = f64::from(template[(part.top + row) * SIDE + part.left + column]);
                overlay.add([dx, dx * u, dx * v, dy, dy * u, dy * v, -wanted, -1.0, -value]);
            }
        }
        (overlay.points >= OVERLAP * (part.side * part.side) as f64).then_some(overlay)
    }

    fn add(&mut self, terms: [f64; 9]) {
        // Symmetric: only the upper triangle and the right-hand side.
        for (k, row) in self.normal.iter_mut().enumerate() {
            for (cell, right) in row.iter_mut().zip(terms).skip(k) {
                *cell += terms[k] * right;
            }
        }
        let (wanted, value) = (-terms[6], -terms[8]);
        self.points += 1.0;
        let products = [wanted, value, wanted * wanted, value * value, wanted * value];
        for (sum, product) in self.sums.iter_mut().zip(products) {
            *sum += product;
        }
    }

    fn correlation(&self) -> f64 {
        let [t, i, tt, ii, ti] = self.sums.map(|sum| sum / self.points);
        let spread = (tt - t * t) * (ii - i * i);
        // Minimum variance: one squared grey level each.
        if spread < 1.0 { 0.0 } else { (ti - t * i) / spread.sqrt() }
    }
}

/// Bilinear value at (x, y) and its derivatives; `None` outside the picture.
fn sample(picture: &Thumbnail, x: f64, y: f64) -> Option<(f64, f64, f64)> {
    let last = (SIDE - 1) as f64;
    if !(0.0..=last).contains(&x) || !(0.0..=last).contains(&y) {
        return None;
    }
    let (column, row) = ((x as usize).min(SIDE - 2), (y as usize).min(SIDE - 2));
    let (fx, fy) = (x - column as f64, y - row as f64);
    let at = |r: usize, c: usize| f64::from(picture[(row + r) * SIDE + column + c]);
    let (a, b, c, d) = (at(0, 0), at(0, 1), at(1, 0), at(1, 1));
    let (top, bottom) = (a + (b - a) * fx, c + (d - c) * fx);
    let dx = (b - a) * (1.0 - fy) + (d - c) * fy;
    Some((top + (bottom - top) * fy, dx, bottom - top))
}

/// Gaussian elimination with pivoting of a symmetric matrix given by its upper triangle; `None` if it
/// is singular.
fn solve(upper: [[f64; 9]; 8]) -> Option<[f64; 8]> {
    let mut rows = upper;
    for (k, row) in rows.iter_mut().enumerate() {
        for (cell, mirrored) in row.iter_mut().take(k).zip(&upper) {
            *cell = mirrored[k];
        }
    }
    for pivot in 0..8 {
        let largest = (pivot..8)
            .max_by(|&a, &b| rows[a][pivot].abs().total_cmp(&rows[b][pivot].abs()))
            .filter(|&row| rows[row][pivot].abs() > 1e-9)?;
        rows.swap(pivot, largest);
        let (upper, lower) = rows.split_at_mut(pivot + 1);
        for row in lower {
            let factor = row[pivot] / upper[pivot][pivot];
            for (cell, above) in row.iter_mut().zip(upper[pivot]).skip(pivot) {
                *cell -= factor * above;
            }
        }
    }
    let mut answer = [0.0; 8];
    for row in (0..8).rev() {
        let known: f64 = (row + 1..8).map(|k| rows[row][k] * answer[k]).sum();
        answer[row] = (rows[row][8] - known) / rows[row][row];
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Square = Square { left: 0, top: 0, side: SIDE };
    const MIDDLE: Square = Square { left: 5, top: 5, side: 54 };

    /// A smooth scene, so that any crop of it can be drawn without resampling.
    fn scene(x: f64, y: f64) -> f32 {
        let waves = (x * 0.21 + 0.3).sin() + (y * 0.17 - 1.0).cos() + (x * 0.11 - y * 0.23).sin();
        (128.0 + 35.0 * waves) as f32
    }

    fn draw(point: impl Fn(f64, f64) -> (f64, f64)) -> Vec<f32> {
        (0..SIDE * SIDE)
            .map(|k| {
                let (x, y) = point((k % SIDE) as f64, (k / SIDE) as f64);
                scene(x, y)
            })
            .collect()
    }

    #[test]
    fn a_crop_that_is_shifted_scaled_turned_and_brighter_is_found_again() {
        let (sin, cos) = 0.08_f64.sin_cos();
        let photo = draw(|x, y| (x, y));
        let other: Vec<f32> =
            draw(|x, y| (1.1 * (cos * x - sin * y) - 2.0, 1.1 * (sin * x + cos * y) - 5.0))
                .into_iter()
                .map(|value| 0.7 * value + 30.0)
                .collect();
        let before = Overlay::of(&photo, MIDDLE, &other, &[31.5, 27.0, 0.0, 31.5, 0.0, 27.0])
            .unwrap()
            .correlation();
        let after = correlation(&photo, MIDDLE, &other, MIDDLE);
        assert!(before < 0.9, "{before}");
        assert!(after > 0.998, "{after}");
    }

    #[test]
    fn a_different_scene_and_a_flat_one_do_not_agree() {
        let photo = draw(|x, y| (x, y));
        let other = draw(|x, y| (200.0 - 1.7 * y, 90.0 + 1.3 * x));
        assert!(correlation(&photo, MIDDLE, &other, WHOLE) < 0.9);
        assert_eq!(correlation(&photo, MIDDLE, &vec![7.0; SIDE * SIDE], WHOLE), 0.0);
    }

    #[test]
    fn elimination_solves_and_notices_singular_systems() {
        // Ones everywhere and k + 1 on the diagonal; the answer 1, 2, ... 8 was chosen first.
        let mut rows = [[1.0; 9]; 8];
        for (k, row) in rows.iter_mut().enumerate() {
            row[k] = (k + 2) as f64;
            row[8] = 36.0 + ((k + 1) * (k + 1)) as f64;
        }
        let answer = solve(rows).unwrap();
        for (k, value) in answer.iter().enumerate() {
            assert!((value - (k + 1) as f64).abs() < 1e-12, "{answer:?}");
        }
        assert!(solve([[1.0; 9]; 8]).is_none());
    }
}
