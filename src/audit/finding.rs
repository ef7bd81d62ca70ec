//! What an audit finds, and what there is to say about each kind of it.

use serde::{Serialize, Serializer};

use super::Picture;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training or its measurement is wrong until it is mended.
    High,
    /// Worth a look: it costs accuracy, or may be worse than it seems.
    Medium,
    /// Good to know.
    Low,
}

impl Severity {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// What can be found, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A file with a picture's name that cannot be decoded.
    Unreadable,
    /// One photo in several parts of the split.
    Leak,
    /// One photo under several names.
    TwoNames,
    /// A face that is clearly nearer to another identity than to its own.
    Mislabel,
    /// A face that is nearer to another identity than to its own.
    Doubtful,
    /// The same pixels twice.
    Duplicate,
    /// Hardly any contrast.
    Flat,
    /// Nearly black.
    Dark,
    /// Nearly white.
    Bright,
    /// Smaller than the network's input.
    Tiny,
    /// Without sharp edges.
    Blurred,
    /// Much wider than high, or the reverse.
    Elongated,
    /// One photo several times: saved again, mirrored, cut differently.
    NearDuplicate,
    /// An identity with one picture, or none.
    Lonely,
    /// An identity with far fewer pictures than the others.
    Few,
    /// An identity with far more pictures than the others.
    Many,
    /// Without colours, among coloured ones.
    Grey,
    /// The detector sees no face.
    NoFace,
    /// The detector sees several faces of like size.
    SeveralFaces,
}

/// The words of a kind.
struct Words {
    name: &'static str,
    severity: Severity,
    title: &'static str,
    fix: &'static str,
}

impl Kind {
    /// All kinds, the worst first.
    pub const ALL: [Self; 19] = [
        Self::Unreadable,
        Self::Leak,
        Self::TwoNames,
        Self::Mislabel,
        Self::Doubtful,
        Self::Duplicate,
        Self::Flat,
        Self::Dark,
        Self::Bright,
        Self::Tiny,
        Self::Blurred,
        Self::Elongated,
        Self::NearDuplicate,
        Self::Lonely,
        Self::Few,
        Self::Many,
        Self::Grey,
        Self::NoFace,
        Self::SeveralFaces,
    ];

    fn words(self) -> Words {
        use Severity::{High, Low, Medium};
        let (name, severity, title, fix) = match self {
            Self::Unreadable => (
                "unreadable",
                High,
                "Files that cannot be read",
                "get the file again, or delete it; training skips it",
            ),
            Self::Leak => (
                "leak",
                High,
                "One photo in two parts of the split",
                "draw the split anew (train-triplet keeps copies together), or delete one of the two",
            ),
            Self::TwoNames => (
                "two-names",
                High,
                "One photo under two names",
                "look who it shows and delete the other; of a photo of two people cut out each face",
            ),
            Self::Mislabel => (
                "mislabel",
                High,
                "Probably filed under the wrong name",
                "look at both people; move the file to the right folder, or delete it",
            ),
            Self::Doubtful => (
                "doubtful",
                Medium,
                "Perhaps filed under the wrong name",
                "look at it; leave it where the name is right: it is a hard picture",
            ),
            Self::Duplicate => (
                "duplicate",
                Medium,
                "The same picture twice",
                "delete the copy: it teaches nothing and counts double",
            ),
            Self::Flat => (
                "flat",
                Medium,
                "Hardly any contrast",
                "delete it where no face is to be made out, or get a better one",
            ),
            Self::Dark => (
                "dark",
                Medium,
                "Very dark",
                "brighten it, or delete it where no face is to be made out",
            ),
            Self::Bright => (
                "bright",
                Medium,
                "Very bright",
                "get a picture with another exposure, or delete it",
            ),
            Self::Tiny => (
                "tiny",
                Medium,
                "Smaller than the network's input, or than --min-side",
                "get a larger one; this one is blown up and blurred by that",
            ),
            Self::Blurred => (
                "blurred",
                Medium,
                "Blurred",
                "get a sharper one, or delete it where the face is hard to tell",
            ),
            Self::Elongated => (
                "elongated",
                Medium,
                "One side much longer than the other",
                "cut the face out (`visage prepare faces`): only the central square is looked at",
            ),
            Self::NearDuplicate => (
                "near-duplicate",
                Low,
                "One photo several times: saved again, mirrored, or cut differently",
                "keep the better one; a split drawn by train-triplet keeps them together",
            ),
            Self::Lonely => (
                "lonely",
                Low,
                "Identities with one picture or none",
                "add pictures: one alone makes no pair, and its name cannot be checked",
            ),
            Self::Few => (
                "few",
                Low,
                "Identities with far fewer pictures than the others",
                "add pictures, or expect this identity to be named less reliably",
            ),
            Self::Many => (
                "many",
                Low,
                "Identities with far more pictures than the others",
                "nothing for train-triplet, which draws identities evenly; else take some away",
            ),
            Self::Grey => (
                "grey",
                Low,
                "Grey pictures among coloured ones",
                "fine where the photos to come may be grey, too; else get a coloured one",
            ),
            Self::NoFace => (
                "no-face",
                Low,
                "No face found",
                "look at it: delete it where there is none; a tight crop of a face is fine",
            ),
            Self::SeveralFaces => (
                "several-faces",
                Low,
                "Several faces of like size",
                "make sure that the one in the middle is meant, and cut it out",
            ),
        };
        Words { name, severity, title, fix }
    }

    /// The word for it in tables, CSV and JSON.
    pub fn name(self) -> &'static str {
        self.words().name
    }

    /// How much it matters.
    pub fn severity(self) -> Severity {
        self.words().severity
    }

    /// A heading for it.
    pub fn title(self) -> &'static str {
        self.words().title
    }

    /// What to do about it.
    pub fn fix(self) -> &'static str {
        self.words().fix
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One thing that is wrong, or may be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// How much it matters: the kind's severity.
    pub severity: Severity,
    /// The picture, below the data set's folder; none where a whole identity is meant.
    pub file: Option<String>,
    /// The other picture, of two that are one photo.
    pub other: Option<String>,
    /// The identity that the picture is filed under, or that is meant.
    pub identity: Option<String>,
    /// The identity whose pictures it is nearer to, or that the other picture is filed under.
    pub looks_like: Option<String>,
    /// What was measured; its unit depends on the kind.
    pub value: Option<f64>,
    /// The finding in words.
    pub what: String,
    /// What to do about it.
    pub fix: &'static str,
    /// For a doubted name: the nearest pictures of its own identity, and of the other one.
    #[serde(skip)]
    pub nearest: [Vec<String>; 2],
}

impl Finding {
    /// A finding with its kind, its value and its words; the rest is filled in by who found it.
    pub(super) fn new(kind: Kind, value: Option<f64>, what: String) -> Self {
        Self {
            kind,
            severity: kind.severity(),
            file: None,
            other: None,
            identity: None,
            looks_like: None,
            value: value.map(|value| (value * 1e4).round() / 1e4),
            what,
            fix: kind.fix(),
            nearest: [Vec::new(), Vec::new()],
        }
    }

    /// A file that cannot be decoded, and why.
    pub fn unreadable(picture: &Picture, identities: &[String], reason: &str) -> Self {
        Self::new(Kind::Unreadable, None, reason.to_owned()).of(picture, identities)
    }

    /// Names the picture and the identity it is filed under.
    pub(super) fn of(mut self, picture: &Picture, identities: &[String]) -> Self {
        self.file = Some(picture.name.clone());
        self.identity = identity(picture, identities);
        self
    }
}

/// The name of the identity that a picture is filed under.
pub(super) fn identity(picture: &Picture, identities: &[String]) -> Option<String> {
    picture.identity.and_then(|index| identities.get(index)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_order_of_severity_and_have_their_own_words() {
        assert!(Kind::ALL.is_sorted());
        assert!(Kind::ALL.is_sorted_by_key(|kind| kind.severity()));
        let mut names = Kind::ALL.map(Kind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
