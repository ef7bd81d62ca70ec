//! Counting in rows of a matrix, for sums over triplets without listing them.

use tch::Tensor;

/// For each of `values [B, V]`, the number of smaller entries in the same row of `sorted [B, S]`
/// (ascending): int64 `[B, V]`.
pub(super) fn count_below(sorted: &Tensor, values: &Tensor) -> Tensor {
    values.contiguous().searchsorted(&sorted.contiguous(), false, false, "left", None::<Tensor>)
}

/// For each of `values [B, V]`, the number of smaller or equal entries in the same row of `sorted [B,
/// S]` (ascending): int64 `[B, V]`.
pub(super) fn count_up_to(sorted: &Tensor, values: &Tensor) -> Tensor {
    values.contiguous().searchsorted(&sorted.contiguous(), false, true, "right", None::<Tensor>)
}

/// Maximum number of values per row for which comparing with the whole matrix is faster than sorting.
pub(super) const FEW: i64 = 24;

/// For each of `values [T, K]`, the number of smaller entries in the same row of `rows [T, B]`:
/// integers in the dtype of `rows`, `[T, K]` (exact below 2^24). To each entry of `larger`, `[T, B]`,
/// the number of values larger than that entry is added.
pub(super) fn count_smaller(rows: &Tensor, values: &Tensor, larger: Option<&mut Tensor>) -> Tensor {
    let (kind, width) = (rows.kind(), values.size()[1]);
    if width > FEW {
        let (sorted, _) = values.sort(1, false);
        if let Some(larger) = larger {
            *larger += (width - count_up_to(&sorted, rows)).to_kind(kind);
        }
        return count_below(&rows.sort(1, false).0, values).to_kind(kind);
    }
    // Ones and zeros in the dtype of the rows, so that comparing and adding are vectorised.
    let ones = rows.empty_like();
    let mut larger = larger;
    let counts = (0..width).map(|column| {
        let _ = rows.lt_tensor_out(&ones, &values.narrow(1, column, 1));
        if let Some(larger) = larger.as_deref_mut() {
            *larger += &ones;
        }
        ones.sum_dim_intlist([1i64].as_slice(), true, None)
    });
    Tensor::cat(&counts.collect::<Vec<_>>(), 1)
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

    #[test]
    fn many_values_are_counted_as_few_are() {
        let options = (tch::Kind::Float, tch::Device::Cpu);
        let rows = Tensor::randint(9, [7, 30], options);
        let values = Tensor::randint(9, [7, 2 * FEW], options);
        let mut larger = rows.zeros_like();
        let counts = count_smaller(&rows, &values, Some(&mut larger));
        let mut larger_of_few = rows.zeros_like();
        let halves = [0, FEW].map(|start| {
            count_smaller(&rows, &values.narrow(1, start, FEW), Some(&mut larger_of_few))
        });
        assert_eq!(counts, Tensor::cat(&halves, 1));
        assert_eq!(larger, larger_of_few);
        let wanted = rows.unsqueeze(1).lt_tensor(&values.unsqueeze(2));
        assert_eq!(counts, wanted.sum_dim_intlist([2i64].as_slice(), false, tch::Kind::Float));
        assert_eq!(larger, wanted.sum_dim_intlist([1i64].as_slice(), false, tch::Kind::Float));
    }
}
