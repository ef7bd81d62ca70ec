//! Pairs of pictures and what is known about them. Some published systems write 1 for two pictures
//! of the same person and some write 0, so here it is a type and never a bare number.

use tch::{Device, Kind, Tensor, no_grad};

use crate::verdict::Verdict;
use crate::{Error, Result};

/// The [`Verdict`] of each of `N` pairs, as a mask on some device.
#[derive(Debug)]
pub struct PairLabels {
    /// Bool `[N]`, set where the two people differ.
    different: Tensor,
}

impl PairLabels {
    /// One label a pair, on the CPU.
    pub fn new(pairs: &[Verdict]) -> Self {
        let different: Vec<bool> = pairs.iter().map(|pair| *pair == Verdict::Different).collect();
        Self { different: Tensor::from_slice(&different) }
    }

    /// From identities, int64 `[N]` each: the pair is the same where they are equal.
    pub fn of_identities(a: &Tensor, b: &Tensor) -> Self {
        no_grad(|| Self { different: a.ne_tensor(&b.to_device(a.device())) })
    }

    /// From numbers `[N]` that are 1 for the same person and 0 for different people, the convention
    /// of classifiers that answer "is it the same person".
    ///
    /// # Errors
    /// When there is a number other than 0 and 1.
    pub fn from_same_is_one(numbers: &Tensor) -> Result<Self> {
        Self::from_ones(numbers, "same").map(|same| Self { different: same.logical_not() })
    }

    /// From numbers `[N]` that are 1 for different people and 0 for the same person, the convention
    /// of the contrastive loss.
    ///
    /// # Errors
    /// When there is a number other than 0 and 1.
    pub fn from_different_is_one(numbers: &Tensor) -> Result<Self> {
        Self::from_ones(numbers, "different").map(|different| Self { different })
    }

    fn from_ones(numbers: &Tensor, word: &str) -> Result<Tensor> {
        no_grad(|| {
            let (zero, one) = (numbers.eq(0.0), numbers.eq(1.0));
            if zero.logical_or(&one).all().int64_value(&[]) == 0 {
                return Err(Error::Data(format!(
                    "a pair has a label other than 1 ({word}) and 0 (not {word})"
                )));
            }
            Ok(one)
        })
    }

    /// Where the pair is of this kind: bool `[N]`.
    pub fn are(&self, pair: Verdict) -> Tensor {
        match pair {
            Verdict::Same => self.different.logical_not(),
            Verdict::Different => self.different.shallow_clone(),
        }
    }

    /// 1 where the pair is of this kind and 0 elsewhere: `[N]` of `kind` on `device`.
    pub fn ones_where(&self, pair: Verdict, kind: Kind, device: Device) -> Tensor {
        self.are(pair).to_device(device).to_kind(kind)
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.different.numel()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::testing::values;

    #[test]
    fn both_conventions_and_the_identities_say_the_same() {
        let number = |numbers: &[f32]| Tensor::from_slice(numbers);
        let identities = |names: &[i64]| Tensor::from_slice(names);
        for labels in [
            PairLabels::new(&[Verdict::Same, Verdict::Different, Verdict::Different]),
            PairLabels::from_same_is_one(&number(&[1.0, 0.0, 0.0])).unwrap(),
            PairLabels::from_different_is_one(&number(&[0.0, 1.0, 1.0])).unwrap(),
            PairLabels::of_identities(&identities(&[4, 4, 7]), &identities(&[4, 7, 4])),
        ] {
            assert_eq!(values(&labels.are(Verdict::Different)), [0.0, 1.0, 1.0]);
            assert_eq!(values(&labels.are(Verdict::Same)), [1.0, 0.0, 0.0]);
            assert_eq!((labels.len(), labels.is_empty()), (3, false));
        }
        assert!(PairLabels::new(&[]).is_empty());
    }

    #[test]
    fn a_number_that_is_no_label_is_refused() {
        for wrong in [0.5f32, -1.0, 2.0, f32::NAN] {
            let numbers = Tensor::from_slice(&[1.0, wrong]);
            let error = PairLabels::from_same_is_one(&numbers).unwrap_err().to_string();
            assert!(error.contains("1 (same)"), "{error}");
            assert!(PairLabels::from_different_is_one(&numbers).is_err());
        }
    }
}
