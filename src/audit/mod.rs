//! Checks of a data set before training.
//!
//! ```text
//! picture -> PictureStats -> quality                        (tiny, blurred, dark, ...)
//!    PerceptualHash -> near_duplicates::pairs -> duplicates (one photo twice, under two names, in two parts)
//!    embedding -> mislabels                                 (a face closer to another identity)
//!    pictures per identity -> balance
//!       all of them -> AuditReport -> table, JSON, CSV, HTML
//! ```
//!
//! [`scan`] reads and measures the pictures; the checks take measurements and return [`Finding`]s.
//! Nothing is ever moved or deleted.

pub mod balance;
pub mod duplicates;
mod finding;
pub mod html;
pub mod mislabels;
pub mod quality;
mod report;
pub mod scan;
mod stats;
mod thumbnail;

pub use finding::{Finding, FindingKind, Severity};
pub use quality::QualityLimits;
pub use report::AuditReport;
pub use stats::PictureStats;

use crate::data::Part;

/// A picture of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Path relative to the data folder, with `/` as separator.
    pub name: String,
    /// Index of its identity; `None` in a folder without identities.
    pub identity: Option<usize>,
    /// Its part of the split, if there is a split.
    pub part: Option<Part>,
}
