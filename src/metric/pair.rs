//! Labels of pairs. Some published systems use 1 for the same person and some 0; a type avoids
//! mistakes.

use tch::{Device, Kind, Tensor, no_grad};

use crate::native::cuda::uploaded;
use crate::verdict::Verdict;

/// The [`Verdict`] of each of `N` pairs, as a mask on a device.
#[derive(Debug)]
pub struct PairLabels {
    /// Bool `[N]`, true for different people.
    different: Tensor,
}

impl PairLabels {
    /// One label per pair, on the CPU.
    pub fn new(pairs: &[Verdict]) -> Self {
        let different: Vec<bool> = pairs.iter().map(|pair| *pair == Verdict::Different).collect();
        Self { different: Tensor::from_slice(&different) }
    }

    /// From identities, int64 `[N]` each: same if they are equal.
    pub fn of_identities(a: &Tensor, b: &Tensor) -> Self {
        no_grad(|| Self { different: a.ne_tensor(&uploaded(b, a.device())) })
    }

    /// The mask of pairs of this kind: bool `[N]`.
    pub fn are(&self, pair: Verdict) -> Tensor {
        match pair {
            Verdict::Same => self.different.logical_not(),
            Verdict::Different => self.different.shallow_clone(),
        }
    }

    /// 1 for pairs of this kind and 0 otherwise: `[N]` of `kind` on `device`.
    pub fn ones_where(&self, pair: Verdict, kind: Kind, device: Device) -> Tensor {
        self.are(pair).to_device(device).to_kind(kind)
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.different.numel()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::values;

    #[test]
    fn verdicts_and_identities_agree() {
        let identities = |names: &[i64]| Tensor::from_slice(names);
        for labels in [
            PairLabels::new(&[Verdict::Same, Verdict::Different, Verdict::Different]),
            PairLabels::of_identities(&identities(&[4, 4, 7]), &identities(&[4, 7, 4])),
        ] {
            assert_eq!(values(&labels.are(Verdict::Different)), [0.0, 1.0, 1.0]);
            assert_eq!(values(&labels.are(Verdict::Same)), [1.0, 0.0, 0.0]);
            assert_eq!((labels.len(), labels.is_empty()), (3, false));
        }
        assert!(PairLabels::new(&[]).is_empty());
    }
}
