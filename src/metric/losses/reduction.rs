//! The output of a loss, and its reduction over tuples.

use tch::{Kind, Tensor};

use crate::metric::named::named_enum;

named_enum! {
    /// What the sum over tuples is divided by.
    pub enum Reduction {
        /// The number of tuples
        Mean = "mean",
        /// The number of tuples whose loss is not zero, so that easy tuples do not dilute the gradient
        Active = "active",
    }
}

/// A loss and its counts. The counts are tensors, so that the host waits for the device only when
/// they are read.
#[derive(Debug)]
pub struct LossOutput {
    /// The reduced loss: a float32 (or float64) scalar with a graph. Without tuples it is zero
    /// with a zero gradient.
    pub loss: Tensor,
    /// Number of tuples: an int64 scalar, on the CPU or on the device.
    pub tuples: Tensor,
    /// Number of tuples with a loss above zero: an int64 scalar.
    pub active: Tensor,
}

impl Reduction {
    /// Reduces `per_tuple [T]`, float32 or float64, not negative.
    pub fn reduce(self, per_tuple: &Tensor) -> LossOutput {
        let active = per_tuple.gt(0.0).sum(Kind::Int64);
        self.divide(per_tuple.sum(per_tuple.kind()), per_tuple.numel() as i64, active)
    }

    /// Reduces the sum over `tuples` tuples, `active` of which are above zero.
    pub(super) fn divide(self, sum: Tensor, tuples: i64, active: Tensor) -> LossOutput {
        // At least 1, which avoids 0/0 and keeps the graph.
        let loss = match self {
            Self::Mean => sum / tuples.max(1),
            Self::Active => sum / active.clamp_min(1),
        };
        LossOutput { loss, tuples: Tensor::from(tuples), active }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_means_by_hand() {
        let per_tuple = Tensor::from_slice(&[0.0f32, 3.0, 0.0, 1.0]);
        for (reduction, wanted) in [(Reduction::Mean, 1.0), (Reduction::Active, 2.0)] {
            let output = reduction.reduce(&per_tuple);
            assert_eq!(output.loss.double_value(&[]), wanted);
            assert_eq!(output.tuples.int64_value(&[]), 4);
            assert_eq!(output.active.int64_value(&[]), 2);
            assert_eq!(reduction.reduce(&(per_tuple.zeros_like())).loss.double_value(&[]), 0.0);
        }
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_not_hidden() {
        let per_tuple = Tensor::from_slice(&[f32::NAN, 1.0]);
        assert!(Reduction::Active.reduce(&per_tuple).loss.double_value(&[]).is_nan());
    }
}
