//! What is wrong with a data set, before anything is trained on it.
//!
//! ```text
//! picture -> Facts::of -> quality        (tiny, blurred, dark, ...)
//!    Look -> near_duplicates::pairs -> duplicates   (one photo twice, under two names, in two parts)
//!    embedding -> mislabels              (a face that sits with somebody else's)
//!    pictures an identity -> balance
//!       all of them -> Report -> table, JSON, CSV, html
//! ```
//!
//! Everything here takes what was measured and gives [`Finding`]s; no file is touched but those of
//! [`html`], which shows pictures. Nothing is ever moved or deleted.

pub mod balance;
pub mod duplicates;
mod facts;
mod finding;
pub mod html;
pub mod mislabels;
pub mod quality;
mod report;
mod thumbnail;

pub use facts::Facts;
pub use finding::{Finding, Kind, Severity};
pub use quality::QualityLimits;
pub use report::Report;

use crate::data::Part;

/// A picture of the data set, as far as its place tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Its path below the data set's folder, with `/` between the parts.
    pub name: String,
    /// The index of the identity it is filed under; none in a folder without identities.
    pub identity: Option<usize>,
    /// The part of the split it is in, where there is one.
    pub part: Option<Part>,
}
