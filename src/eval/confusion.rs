//! Confusion matrix of identities and UNKNOWN.

use super::share;
use crate::{Error, Result};

/// Counts of (true identity, prediction); the prediction may be UNKNOWN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    names: Vec<String>,
    /// `[names, names + 1]`; the last column is UNKNOWN.
    counts: Vec<usize>,
}

/// The scores of an identity.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IdentityScore {
    /// Identity.
    pub name: String,
    /// Precision: the fraction of pictures predicted as this identity that show it; `None` if there are
    /// none.
    pub precision: Option<f64>,
    /// Recall: the fraction of its pictures predicted as this identity; `None` without pictures.
    pub recall: Option<f64>,
    /// Number of its pictures predicted as UNKNOWN.
    pub unknown: usize,
    /// Number of its pictures.
    pub support: usize,
}

impl Confusion {
    /// An empty matrix over identities in the given order.
    pub fn new(names: Vec<String>) -> Self {
        let counts = vec![0; names.len() * (names.len() + 1)];
        Self { names, counts }
    }

    /// Counts one picture of identity `truth`, predicted as `predicted` or UNKNOWN.
    ///
    /// # Errors
    /// An index is out of range.
    pub fn record(&mut self, truth: usize, predicted: Option<usize>) -> Result<()> {
        let identities = self.names.len();
        if let Some(wrong) =
            [Some(truth), predicted].into_iter().flatten().find(|&i| i >= identities)
        {
            return Err(Error::Data(format!(
                "confusion matrix: identity {wrong} is out of range for {identities} identities"
            )));
        }
        self.counts[truth * (identities + 1) + predicted.unwrap_or(identities)] += 1;
        Ok(())
    }

    /// The identities, in the order of rows and columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All counts `[names, names + 1]`, row-major: rows are true identities, columns predictions,
    /// UNKNOWN last.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// The counts of one true identity, UNKNOWN last.
    ///
    /// # Panics
    /// When `truth` is out of range.
    pub fn row(&self, truth: usize) -> &[usize] {
        let width = self.names.len() + 1;
        &self.counts[truth * width..(truth + 1) * width]
    }

    /// Number of pictures.
    pub fn pictures(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Accuracy; UNKNOWN counts as wrong. `None` without pictures.
    pub fn accuracy(&self) -> Option<f64> {
        let right = (0..self.names.len()).map(|i| self.row(i)[i]).sum();
        share(right, self.pictures())
    }

    /// The fraction of pictures predicted as UNKNOWN. `None` without pictures.
    pub fn unknown_rate(&self) -> Option<f64> {
        let unknown = (0..self.names.len()).map(|i| self.row(i)[self.names.len()]).sum();
        share(unknown, self.pictures())
    }

    /// The scores of every identity, in order.
    pub fn table(&self) -> Vec<IdentityScore> {
        let identities = self.names.len();
        (0..identities)
            .map(|i| {
                let row = self.row(i);
                let named = (0..identities).map(|truth| self.row(truth)[i]).sum();
                let support = row.iter().sum();
                IdentityScore {
                    name: self.names[i].clone(),
                    precision: share(row[i], named),
                    recall: share(row[i], support),
                    unknown: row[identities],
                    support,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_by_hand() {
        let mut table = Confusion::new(vec!["ann".into(), "bob".into(), "cy".into()]);
        for (truth, answer) in
            [(0, Some(0)), (0, Some(0)), (0, Some(1)), (0, None), (1, Some(1)), (1, Some(1))]
        {
            table.record(truth, answer).unwrap();
        }
        assert_eq!(table.counts(), [2, 1, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(table.accuracy(), Some(4.0 / 6.0));
        assert_eq!(table.unknown_rate(), Some(1.0 / 6.0));
        let scores = table.table();
        assert_eq!((scores[0].precision, scores[0].recall), (Some(1.0), Some(0.5)));
        assert_eq!((scores[0].unknown, scores[0].support), (1, 4));
        assert_eq!((scores[1].precision, scores[1].recall), (Some(2.0 / 3.0), Some(1.0)));
        assert_eq!((scores[2].precision, scores[2].recall, scores[2].support), (None, None, 0));
    }

    #[test]
    fn indices_out_of_range_are_refused() {
        let mut table = Confusion::new(vec!["ann".into()]);
        assert!(table.record(1, None).unwrap_err().to_string().contains("identity 1"));
        assert!(table.record(0, Some(7)).unwrap_err().to_string().contains("identity 7"));
        assert_eq!((table.pictures(), table.accuracy()), (0, None));
        assert_eq!(Confusion::new(Vec::new()).accuracy(), None);
    }
}
