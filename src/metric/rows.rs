//! Counting in the sorted rows of a matrix: what keeps the miners in memory of order B^2.

use tch::Tensor;

/// For each of `values [B, V]`, how many entries of the same row of `sorted [B, S]` (ascending) are
/// smaller: int64 `[B, V]`.
pub(super) fn count_below(sorted: &Tensor, values: &Tensor) -> Tensor {
    values.contiguous().searchsorted(&sorted.contiguous(), false, false, "left", None::<Tensor>)
}

/// For each of `values [B, V]`, how many entries of the same row of `sorted [B, S]` (ascending) are
/// smaller or equal: int64 `[B, V]`.
pub(super) fn count_up_to(sorted: &Tensor, values: &Tensor) -> Tensor {
    values.contiguous().searchsorted(&sorted.contiguous(), false, true, "right", None::<Tensor>)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_separate_the_two_counts() {
        let sorted = Tensor::from_slice2(&[[1.0f32, 2.0, 2.0], [0.0, 5.0, f32::INFINITY]]);
        let values = Tensor::from_slice2(&[[2.0f32, 0.0], [5.0, 9.0]]);
        assert_eq!(count_below(&sorted, &values), Tensor::from_slice2(&[[1i64, 0], [1, 2]]));
        assert_eq!(count_up_to(&sorted, &values), Tensor::from_slice2(&[[3i64, 0], [2, 2]]));
    }
}
