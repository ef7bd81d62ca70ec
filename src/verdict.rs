//! Labels of pairs: same or different.

use serde::{Deserialize, Serialize};

/// Whether two pictures show the same person. Some published systems use 1 for the same person and some
/// 0; a type avoids mistakes, and functions that take numbers say which is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Same person
    Same,
    /// Different people
    Different,
}

impl Verdict {
    /// The label of pictures with these identities.
    pub fn of(a: usize, b: usize) -> Self {
        if a == b { Self::Same } else { Self::Different }
    }

    /// Whether both pictures show the same person.
    pub fn is_same(self) -> bool {
        self == Self::Same
    }
}
