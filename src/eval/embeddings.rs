//! A checked matrix of embeddings, one picture a row.

use crate::{Error, Result};

/// Embeddings of shape `[rows, dim]`, row-major; every value is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    rows: usize,
    dim: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Takes `rows * dim` values, row after row. No rows are fine; a `dim` of zero is not.
    ///
    /// # Errors
    /// The shape does not fit the number of values, or a value is NaN or infinite (the sign of a
    /// training that diverged); the message names the row.
    pub fn new(rows: usize, dim: usize, values: Vec<f32>) -> Result<Self> {
        if dim == 0 || rows.checked_mul(dim) != Some(values.len()) {
            let count = values.len();
            return Err(Error::Data(format!(
                "embeddings: {count} values do not make {rows} rows of {dim}"
            )));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::Data(format!(
                "embeddings: row {} holds {}, so no distance to it means anything; if a training \
                 run made it, lower its learning rate",
                at / dim,
                values[at]
            )));
        }
        Ok(Self { rows, dim, values })
    }

    /// How many embeddings there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of one embedding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The embedding of picture `i`.
    ///
    /// # Panics
    /// When `i` is not below [`rows`](Self::rows), as a slice does.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// All embeddings in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dim)
    }

    /// The given rows, in the given order; a row may come twice.
    ///
    /// # Panics
    /// When an index is not below [`rows`](Self::rows), as a slice does.
    pub fn subset(&self, indices: &[usize]) -> Self {
        let values = indices.iter().flat_map(|&i| self.row(i)).copied().collect();
        Self { rows: indices.len(), dim: self.dim, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_subsets_come_out_as_they_went_in() {
        let all = Embeddings::new(3, 2, vec![0., 1., 2., 3., 4., 5.]).unwrap();
        assert_eq!(all.row(1), [2., 3.]);
        assert_eq!(all.iter().count(), 3);
        let some = all.subset(&[2, 0, 2]);
        assert_eq!((some.rows(), some.dim()), (3, 2));
        assert_eq!(some.values(), [4., 5., 0., 1., 4., 5.]);
    }

    #[test]
    fn a_wrong_shape_and_a_nan_are_refused_by_name() {
        let wrong = Embeddings::new(2, 3, vec![0.; 5]).unwrap_err().to_string();
        assert!(wrong.contains("5 values") && wrong.contains("2 rows of 3"), "{wrong}");
        assert!(Embeddings::new(0, 0, vec![]).is_err());
        assert!(Embeddings::new(usize::MAX, 2, vec![]).is_err());
        assert_eq!(Embeddings::new(0, 4, vec![]).unwrap().iter().count(), 0);
        let nan = Embeddings::new(2, 2, vec![0., 0., 0., f32::NAN]).unwrap_err().to_string();
        assert!(nan.contains("row 1") && nan.contains("NaN"), "{nan}");
    }
}
