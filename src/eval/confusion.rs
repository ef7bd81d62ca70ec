//! Who is taken for whom, and how often nobody is named at all.

use super::share;
use crate::{Error, Result};

/// Counts of (true identity, answer); the answer may be UNKNOWN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    names: Vec<String>,
    /// `[names, names + 1]`; the last column is UNKNOWN.
    counts: Vec<usize>,
}

/// How one identity fares.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IdentityScore {
    /// The identity.
    pub name: String,
    /// The share of the pictures given this name that show this identity; `None` when none were.
    pub precision: Option<f64>,
    /// The share of this identity's pictures given this name; `None` without pictures.
    pub recall: Option<f64>,
    /// How many of this identity's pictures were called UNKNOWN.
    pub unknown: usize,
    /// How many pictures show this identity.
    pub support: usize,
}

impl Confusion {
    /// An empty table over identities in the given order.
    pub fn new(names: Vec<String>) -> Self {
        let counts = vec![0; names.len() * (names.len() + 1)];
        Self { names, counts }
    }

    /// Counts one picture of identity `truth` that was answered with `predicted`, or UNKNOWN.
    ///
    /// # Errors
    /// An index that is no identity's.
    pub fn record(&mut self, truth: usize, predicted: Option<usize>) -> Result<()> {
        let identities = self.names.len();
        if let Some(wrong) =
            [Some(truth), predicted].into_iter().flatten().find(|&i| i >= identities)
        {
            return Err(Error::Data(format!(
                "confusion table: identity number {wrong} does not exist, there are {identities}"
            )));
        }
        self.counts[truth * (identities + 1) + predicted.unwrap_or(identities)] += 1;
        Ok(())
    }

    /// The identities, in the order of rows and of all columns but the last.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// All counts, row after row: rows are true identities, columns the answers, UNKNOWN last;
    /// shape `[names, names + 1]`.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// The counts of one true identity, UNKNOWN last.
    ///
    /// # Panics
    /// When `truth` is no identity, as a slice does.
    pub fn row(&self, truth: usize) -> &[usize] {
        let width = self.names.len() + 1;
        &self.counts[truth * width..(truth + 1) * width]
    }

    /// How many pictures were counted.
    pub fn pictures(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The share of all pictures given their right name; UNKNOWN is wrong. `None` of nothing.
    pub fn accuracy(&self) -> Option<f64> {
        let right = (0..self.names.len()).map(|i| self.row(i)[i]).sum();
        share(right, self.pictures())
    }

    /// The share of all pictures that were called UNKNOWN. `None` of nothing.
    pub fn unknown_rate(&self) -> Option<f64> {
        let unknown = (0..self.names.len()).map(|i| self.row(i)[self.names.len()]).sum();
        share(unknown, self.pictures())
    }

    /// One line per identity, in order.
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
    fn numbers_that_are_nobody_are_refused() {
        let mut table = Confusion::new(vec!["ann".into()]);
        assert!(table.record(1, None).unwrap_err().to_string().contains("number 1"));
        assert!(table.record(0, Some(7)).unwrap_err().to_string().contains("number 7"));
        assert_eq!((table.pictures(), table.accuracy()), (0, None));
        assert_eq!(Confusion::new(Vec::new()).accuracy(), None);
    }
}
