//! All findings of a data set, sorted, as JSON and CSV.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::balance::Sizes;
use super::{Finding, FindingKind, Severity};
use crate::words::cell;
use crate::{Result, files};

/// The result of an audit.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditReport {
    /// The data folder, as given.
    pub folder: String,
    /// Number of picture files, including unreadable ones.
    pub pictures: usize,
    /// Number of identities.
    pub identities: usize,
    /// Number of pictures whose label could be checked.
    pub scored: usize,
    /// Pictures per identity; `None` in a folder without identities.
    pub sizes: Option<Sizes>,
    /// The findings, most severe first.
    pub findings: Vec<Finding>,
    /// Further remarks, one sentence each.
    pub notes: Vec<String>,
}

impl AuditReport {
    /// Sorts the findings by severity and kind, then by value, then by file.
    pub fn sort(&mut self) {
        let rank = |finding: &Finding| match finding.kind {
            FindingKind::Mislabel
            | FindingKind::Doubtful
            | FindingKind::SeveralFaces
            | FindingKind::Many => -finding.value.unwrap_or(0.0),
            kind if kind.severity() == Severity::High => 0.0,
            _ => finding.value.unwrap_or(0.0),
        };
        self.findings.sort_by(|a, b| {
            let names = |f: &Finding| (f.file.clone(), f.identity.clone(), f.other.clone());
            (a.kind.cmp(&b.kind))
                .then(rank(a).total_cmp(&rank(b)))
                .then_with(|| names(a).cmp(&names(b)))
        });
    }

    /// The number of findings of every kind, most severe first.
    pub fn counts(&self) -> Vec<(FindingKind, usize)> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.kind).or_insert(0) += 1;
        }
        FindingKind::ALL
            .into_iter()
            .map(|kind| (kind, counts.get(&kind).copied().unwrap_or(0)))
            .collect()
    }

    /// The number of findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The report as a JSON object.
    pub fn json(&self) -> Value {
        let counts: serde_json::Map<String, Value> =
            self.counts().into_iter().map(|(kind, n)| (kind.name().to_owned(), n.into())).collect();
        let sizes = self
            .sizes
            .map(|sizes| json!({"min": sizes.min, "median": sizes.median, "max": sizes.max}));
        json!({
            "folder": self.folder,
            "pictures": self.pictures,
            "identities": self.identities,
            "judged": self.scored,
            "pictures_per_identity": sizes,
            "counts": counts,
            "notes": self.notes,
            "findings": self.findings,
        })
    }

    /// Writes all findings as CSV, one row each.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write_csv(&self, path: &Path) -> Result<()> {
        files::write_atomically(path, |out| {
            let mut table = csv::Writer::from_writer(out);
            table.write_record([
                "severity",
                "kind",
                "file",
                "other",
                "identity",
                "looks_like",
                "value",
                "what",
                "fix",
            ])?;
            for finding in &self.findings {
                let text = |text: &Option<String>| {
                    text.as_deref().map(cell).unwrap_or_default().into_owned()
                };
                table.write_record([
                    finding.severity.name(),
                    finding.kind.name(),
                    &text(&finding.file),
                    &text(&finding.other),
                    &text(&finding.identity),
                    &text(&finding.looks_like),
                    &finding.value.map(|value| value.to_string()).unwrap_or_default(),
                    &cell(&finding.what),
                    finding.fix,
                ])?;
            }
            table.flush()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> AuditReport {
        let finding = |kind, file: &str, value| Finding {
            file: Some(file.into()),
            ..Finding::new(kind, Some(value), "so, \"so\"".into())
        };
        let mut report = AuditReport {
            folder: "faces".into(),
            pictures: 9,
            identities: 2,
            scored: 8,
            sizes: Sizes::of(&[3, 6]),
            findings: vec![
                finding(FindingKind::Tiny, "t2", 40.0),
                finding(FindingKind::Mislabel, "m1", 0.3),
                finding(FindingKind::Tiny, "t1", 20.0),
                finding(FindingKind::Mislabel, "m2", 0.5),
                finding(FindingKind::Unreadable, "u", 0.0),
            ],
            notes: vec![],
        };
        report.sort();
        report
    }

    #[test]
    fn the_worst_come_first() {
        let report = report();
        let files: Vec<_> = report.findings.iter().map(|f| f.file.as_deref().unwrap()).collect();
        assert_eq!(files, ["u", "m2", "m1", "t1", "t2"]);
        assert_eq!((report.count(Severity::High), report.count(Severity::Medium)), (3, 2));
    }

    #[test]
    fn json_and_csv_hold_every_finding() {
        let report = report();
        let json = report.json();
        assert_eq!(json["counts"]["mislabel"], 2);
        assert_eq!(json["counts"]["leak"], 0);
        assert_eq!(json["findings"][1]["kind"], "mislabel");
        assert_eq!(json["findings"][1]["severity"], "high");
        assert_eq!(json["pictures_per_identity"]["median"], 4.5);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.csv");
        report.write_csv(&path).unwrap();
        let mut table = csv::Reader::from_path(path).unwrap();
        let rows: Vec<_> = table.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 5);
        assert_eq!((&rows[0][1], &rows[0][2], &rows[0][7]), ("unreadable", "u", "so, \"so\""));
    }
}
