//! Same or different: what is known, or said, about two pictures.

use serde::{Deserialize, Serialize};

/// Whether two pictures show one person. Some published systems write 1 for the same person and
/// some write 0, so here it is a type and never a bare number; where numbers come in, the
/// function's name says which is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// One person
    Same,
    /// Two people
    Different,
}

impl Verdict {
    /// The verdict on pictures of these identities.
    pub fn of(a: usize, b: usize) -> Self {
        if a == b { Self::Same } else { Self::Different }
    }

    /// Whether both pictures show one person.
    pub fn is_same(self) -> bool {
        self == Self::Same
    }
}
