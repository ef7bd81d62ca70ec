//! The nearest other person of many enrolled faces at once, in blocks of a matrix product.

use std::collections::BTreeSet;

use tch::{Kind, Tensor, no_grad};

use super::search::{Hit, Index, ROUNDING};
use crate::Result;

/// Faces from which on blocks are quicker than one search each.
const MANY: usize = 16;
/// Faces and rows in a block: their distances take 64 MiB.
const FACES: usize = 1024;
const ROWS: usize = 16_384;

impl Index {
    /// For each (row, radius), the nearest person who is not the row's own, if the mean distance to their
    /// `neighbours` nearest faces is below the radius. As [`search`](Self::search) finds them.
    ///
    /// # Errors
    /// An error from libtorch.
    pub fn nearest_others(
        &self,
        faces: &[(usize, f32)],
        neighbours: usize,
    ) -> Result<Vec<Option<Hit>>> {
        if faces.len() < MANY {
            let one = |&(row, radius): &(usize, f32)| {
                let own = self.owner(row);
                let hits = self.search(self.row(row), neighbours, |person| Some(person) == own);
                hits.first().copied().filter(|hit| hit.distance < radius)
            };
            return Ok(faces.iter().map(one).collect());
        }
        let near = self.people_within(faces)?;
        let nearest = |(&(row, radius), people): (&(usize, f32), BTreeSet<usize>)| {
            let hits = people.into_iter();
            let hits = hits.filter_map(|person| self.distance(person, self.row(row), neighbours));
            let hits = hits.filter(|hit| hit.distance < radius);
            hits.min_by(|a, b| a.distance.total_cmp(&b.distance).then(a.row.cmp(&b.row)))
        };
        Ok(faces.iter().zip(near).map(nearest).collect())
    }

    /// The other people with a face about within the radius of each row; no one whose faces are is missing.
    fn people_within(&self, faces: &[(usize, f32)]) -> Result<Vec<BTreeSet<usize>>> {
        let mut near = vec![BTreeSet::new(); faces.len()];
        for first in (0..self.len()).step_by(ROWS) {
            let rows: Vec<_> = (first..(first + ROWS).min(self.len())).collect();
            // -d² = [a, |a|², 1] · [2b, -1, -|b|²]: one product has the distances.
            let (b, squares) = self.gather(&rows);
            let minus_one = -squares.ones_like();
            let b = Tensor::f_cat(&[b * 2.0, minus_one, -squares], 1)?.tr();
            for (block, faces) in faces.chunks(FACES).enumerate() {
                let own: Vec<_> = faces.iter().map(|(row, _)| *row).collect();
                let (a, squares) = self.gather(&own);
                let bounds: Vec<f32> = faces.iter().map(|(_, radius)| radius * radius).collect();
                // The sums of squares cancel; their rounding must hide nobody.
                let bounds = Tensor::from_slice(&bounds).view([-1, 1])
                    + &squares * (4.0 * f64::from(ROUNDING));
                let a = Tensor::f_cat(&[a, squares.shallow_clone(), squares.ones_like()], 1)?;
                let found = no_grad(|| a.f_matmul(&b)?.f_ge_tensor(&-bounds)?.f_nonzero())?;
                let found = Vec::<i64>::try_from(found.f_reshape([-1])?)?;
                for pair in found.as_chunks::<2>().0 {
                    let [face, row] = pair.map(|number| number as usize);
                    let person = self.owner(first + row);
                    near[block * FACES + face]
                        .extend(person.filter(|_| person != self.owner(own[face])));
                }
            }
        }
        Ok(near)
    }

    /// Rows as `[N, D]`, and their squared lengths `[N, 1]`.
    fn gather(&self, rows: &[usize]) -> (Tensor, Tensor) {
        let values: Vec<f32> = rows.iter().flat_map(|&row| self.row(row)).copied().collect();
        let values = Tensor::from_slice(&values).view([rows.len() as i64, self.dim() as i64]);
        let squares = values.square().sum_dim_intlist(1, true, Kind::Float);
        (values, squares)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn blocks_find_whom_single_searches_find() {
        let mut generator = StdRng::seed_from_u64(3);
        for scale in [0.1, 1.0, 30.0] {
            let mut index = Index::new(6);
            for face in 0..700 {
                let row: Vec<f32> = (0..6).map(|_| scale * generator.random::<f32>()).collect();
                index.push(face % 90, &row);
            }
            let faces: Vec<_> =
                (0..700).map(|row| (row, scale * [0.05, 0.2, 0.5][row % 3])).collect();
            let blocks = index.nearest_others(&faces, 3).unwrap();
            let singles: Vec<_> = faces
                .chunks(MANY - 1)
                .flat_map(|some| index.nearest_others(some, 3).unwrap())
                .collect();
            assert_eq!(blocks, singles);
            let found = blocks.iter().flatten().count();
            assert!(found > 50 && found < 650, "{found}");
        }
    }
}
