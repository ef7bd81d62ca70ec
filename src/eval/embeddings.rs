//! A checked matrix of embeddings.

use crate::{Error, Result};

/// Embeddings `[rows, dim]`, row-major; all values are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    rows: usize,
    dim: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// From `rows * dim` values, row-major. There may be no rows; `dim` must not be 0.
    ///
    /// # Errors
    /// The number of values does not match the shape, or a value is NaN or infinite (after training
    /// diverged); names the row.
    pub fn new(rows: usize, dim: usize, values: Vec<f32>) -> Result<Self> {
        if dim == 0 || rows.checked_mul(dim) != Some(values.len()) {
            let count = values.len();
            return Err(Error::Data(format!(
                "embeddings: {count} values do not fit the shape [{rows}, {dim}]"
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

    /// Number of embeddings.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Embedding size.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The embedding of picture `i`.
    ///
    /// # Panics
    /// When `i` is out of range.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// All embeddings in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dim)
    }

    /// Selects rows, in the given order; rows may be repeated.
    ///
    /// # Panics
    /// When an index is out of range.
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
        assert!(wrong.contains("5 values") && wrong.contains("shape [2, 3]"), "{wrong}");
        assert!(Embeddings::new(0, 0, vec![]).is_err());
        assert!(Embeddings::new(usize::MAX, 2, vec![]).is_err());
        assert_eq!(Embeddings::new(0, 4, vec![]).unwrap().iter().count(), 0);
        let nan = Embeddings::new(2, 2, vec![0., 0., 0., f32::NAN]).unwrap_err().to_string();
        assert!(nan.contains("row 1") && nan.contains("NaN"), "{nan}");
    }
}
