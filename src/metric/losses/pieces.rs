//! Sums that are too large for one graph: each piece gives its gradient at once and is forgotten.

use tch::{Kind, Tensor};

use crate::metric::distance::precise;
use crate::native::without_autocast;

/// A part of a sum: its value, and a scalar whose gradient is the part's.
pub(super) struct Piece {
    /// Only its gradient counts; needed where the embeddings have one.
    pub graph: Option<Tensor>,
    /// A float64 scalar.
    pub value: Tensor,
}

/// The sum of the pieces that `of` makes of the embeddings `x`, a float64 scalar, with memory for the
/// graph of one piece. The gradient is exact; there is no second one.
pub(super) fn sum_in_pieces<P>(
    x: &Tensor,
    pieces: impl Iterator<Item = P>,
    mut of: impl FnMut(&Tensor, P) -> Piece,
) -> Tensor {
    let x = precise(x);
    // What is computed from `x` has no graph within `no_grad`, whatever `x` says.
    let needs_gradient = x.narrow(0, 0, 0).sum(None).requires_grad();
    let leaf = x.detach().set_requires_grad(needs_gradient);
    let mut sum = Tensor::zeros([], (Kind::Double, x.device()));
    // Autocast would reach the products of the backward passes.
    without_autocast(|| {
        for piece in pieces {
            let Piece { graph, value } = of(&leaf, piece);
            sum += value;
            // The leaf adds the gradients up.
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

/// The scalar `value` with this gradient with respect to `x`: the graph is that of the linear
/// function with the gradient, moved to the right value. In float64.
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
    fn pieces_add_up_in_value_and_gradient() {
        let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0]).set_requires_grad(true);
        let squares = |leaf: &Tensor, place: i64| {
            let square = leaf.get(place).square();
            Piece { value: square.detach().to_kind(Kind::Double), graph: Some(square) }
        };
        let sum = sum_in_pieces(&x, 0..3, squares);
        close(&values(&sum), &[14.0], 0.0);
        (sum * 2.0).backward();
        close(&values(&x.grad()), &[4.0, 8.0, 12.0], 1e-6);
        assert!(!no_grad(|| sum_in_pieces(&x, 0..3, squares)).requires_grad());
    }
}
