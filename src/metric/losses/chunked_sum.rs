//! Sums that are too large for one graph: each chunk runs its backward pass at once and frees its
//! graph.

use tch::{Kind, Tensor};

use crate::metric::distance::precise;
use crate::native::without_autocast;

/// The term of one chunk: its value, and a scalar with its gradient.
pub(super) struct ChunkLoss {
    /// Used for its gradient only; needed if the embeddings require one.
    pub graph: Option<Tensor>,
    /// A float64 scalar.
    pub value: Tensor,
}

/// The sum over chunks of the terms that `of` computes from the embeddings `x`: a float64 scalar, with
/// memory for the graph of one chunk. The gradient is exact; there is no second derivative.
pub(super) fn chunked_sum<P>(
    x: &Tensor,
    chunks: impl Iterator<Item = P>,
    mut of: impl FnMut(&Tensor, P) -> ChunkLoss,
) -> Tensor {
    let x = precise(x);
    // Within `no_grad` there is no graph, even if `x` requires a gradient.
    let needs_gradient = x.narrow(0, 0, 0).sum(None).requires_grad();
    let leaf = x.detach().set_requires_grad(needs_gradient);
    let mut sum = Tensor::zeros([], (Kind::Double, x.device()));
    // Autocast would affect the backward passes.
    without_autocast(|| {
        for chunk in chunks {
            let ChunkLoss { graph, value } = of(&leaf, chunk);
            sum += value;
            // The gradients accumulate in the leaf.
            if let Some(graph) = graph.filter(|_| needs_gradient) {
                graph.backward();
            }
        }
    });
    if !needs_gradient {
        return sum;
    }
    let gradient = leaf.grad();
    let gradient = if gradient.defined() { gradient } else { leaf.detach().zeros_like() };
    with_gradient(&x, &gradient, &sum)
}

/// The float64 scalar `value` with the given gradient with respect to `x`: the graph is that of a
/// linear function with this gradient.
pub(super) fn with_gradient(x: &Tensor, gradient: &Tensor, value: &Tensor) -> Tensor {
    let linear = (x * gradient).sum(Kind::Double);
    &linear - linear.detach() + value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::{close, values};
    use tch::no_grad;

    #[test]
    fn chunks_add_up_in_value_and_gradient() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0]).set_requires_grad(true);
        let squares = |leaf: &Tensor, place: i64| {
            let square = leaf.get(place).square();
            ChunkLoss { value: square.detach().to_kind(Kind::Double), graph: Some(square) }
        };
        let sum = chunked_sum(&x, 0..3, squares);
        close(&values(&sum), &[14.0], 0.0);
        (sum * 2.0).backward();
        close(&values(&x.grad()), &[4.0, 8.0, 12.0], 1e-6);
        assert!(!no_grad(|| chunked_sum(&x, 0..3, squares)).requires_grad());
    }
}
