//! Findings of an audit.

use serde::{Serialize, Serializer};

use super::Picture;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Makes training or its evaluation wrong.
    High,
    /// Costs accuracy, or needs a check.
    Medium,
    /// For information.
    Low,
}

impl Severity {
    /// Its name: `high`, `medium`, `low`.
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

/// Kinds of findings, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// A picture file that cannot be decoded.
    Unreadable,
    /// One photo in several parts of the split.
    Leak,
    /// One photo under several identities.
    TwoNames,
    /// A face that is clearly closer to another identity than to its own.
    Mislabel,
    /// A face that is closer to another identity than to its own.
    Doubtful,
    /// Equal pixels.
    Duplicate,
    /// Low contrast.
    Flat,
    /// Underexposed.
    Dark,
    /// Overexposed.
    Bright,
    /// Smaller than the network's input.
    Tiny,
    /// No sharp edges.
    Blurred,
    /// Much wider than high, or higher than wide.
    Elongated,
    /// One photo several times: recompressed, mirrored or cropped.
    NearDuplicate,
    /// An identity with one picture, or none.
    Lonely,
    /// An identity with far fewer pictures than the others.
    Few,
    /// An identity with far more pictures than the others.
    Many,
    /// Grey, among coloured ones.
    Grey,
    /// No face detected.
    NoFace,
    /// Several faces of similar size detected.
    SeveralFaces,
}

/// How a kind is described.
struct Description {
    name: &'static str,
    severity: Severity,
    title: &'static str,
    fix: &'static str,
}

impl FindingKind {
    /// All kinds, most severe first.
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

    fn description(self) -> Description {
        use Severity::{High, Low, Medium};
        let (name, severity, title, fix) = match self {
            Self::Unreadable => (
                "unreadable",
                High,
                "Files that cannot be read",
                "replace or delete the file; training skips it",
            ),
            Self::Leak => (
                "leak",
                High,
                "One photo in two parts of the split",
                "make a new split (train-triplet keeps near-duplicates together), or delete one of them",
            ),
            Self::TwoNames => (
                "two-names",
                High,
                "One photo under two names",
                "keep the one with the right name; if the photo shows both people, crop each face",
            ),
            Self::Mislabel => (
                "mislabel",
                High,
                "Probably mislabelled",
                "compare it with both people; move the file to the right folder, or delete it",
            ),
            Self::Doubtful => (
                "doubtful",
                Medium,
                "Possibly mislabelled",
                "check it; if the label is right, keep it: it is a hard example",
            ),
            Self::Duplicate => (
                "duplicate",
                Medium,
                "Duplicates",
                "delete the copy: it adds no information and is counted twice",
            ),
            Self::Flat => (
                "flat",
                Medium,
                "Low contrast",
                "replace it, or delete it if no face can be recognised",
            ),
            Self::Dark => (
                "dark",
                Medium,
                "Underexposed",
                "brighten it, or delete it if no face can be recognised",
            ),
            Self::Bright => (
                "bright",
                Medium,
                "Overexposed",
                "replace it, or delete it if no face can be recognised",
            ),
            Self::Tiny => (
                "tiny",
                Medium,
                "Smaller than the network's input, or than --min-side",
                "replace it by a larger one; enlarging blurs it",
            ),
            Self::Blurred => (
                "blurred",
                Medium,
                "Blurred",
                "replace it by a sharper one, or delete it if the face is hard to recognise",
            ),
            Self::Elongated => (
                "elongated",
                Medium,
                "Extreme aspect ratio",
                "crop the face (`visage prepare faces`): only the central square is used",
            ),
            Self::NearDuplicate => (
                "near-duplicate",
                Low,
                "Near-duplicates: one photo recompressed, mirrored or cropped",
                "keep the best one; train-triplet keeps them in one part of the split",
            ),
            Self::Lonely => (
                "lonely",
                Low,
                "Identities with one picture or none",
                "add pictures: one picture makes no pair, and its label cannot be checked",
            ),
            Self::Few => (
                "few",
                Low,
                "Identities with far fewer pictures than the others",
                "add pictures, or expect lower accuracy for this identity",
            ),
            Self::Many => (
                "many",
                Low,
                "Identities with far more pictures than the others",
                "none for train-triplet, which samples identities equally; otherwise remove some",
            ),
            Self::Grey => (
                "grey",
                Low,
                "Grey pictures among coloured ones",
                "keep it if grey photos are expected in use; otherwise replace it",
            ),
            Self::NoFace => (
                "no-face",
                Low,
                "No face detected",
                "check it; delete it if there is no face; tight crops are fine",
            ),
            Self::SeveralFaces => (
                "several-faces",
                Low,
                "Several faces of similar size",
                "check that the central face is the right one, and crop it",
            ),
        };
        Description { name, severity, title, fix }
    }

    /// Its name in tables, CSV and JSON.
    pub fn name(self) -> &'static str {
        self.description().name
    }

    /// Its severity.
    pub fn severity(self) -> Severity {
        self.description().severity
    }

    /// Its title.
    pub fn title(self) -> &'static str {
        self.description().title
    }

    /// The recommended action.
    pub fn fix(self) -> &'static str {
        self.description().fix
    }
}

impl Serialize for FindingKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A problem of a picture or an identity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// Severity of the kind.
    pub severity: Severity,
    /// Path of the picture relative to the data folder; `None` for findings about an identity.
    pub file: Option<String>,
    /// The other picture of a pair of near-duplicates.
    pub other: Option<String>,
    /// The identity of the picture, or the one that the finding is about.
    pub identity: Option<String>,
    /// The identity that the picture is closer to, or the identity of the other picture.
    pub looks_like: Option<String>,
    /// The measured value; its unit depends on the kind.
    pub value: Option<f64>,
    /// Description.
    pub what: String,
    /// Recommended action.
    pub fix: &'static str,
    /// For mislabels: the nearest pictures of its own identity, and of the other one.
    #[serde(skip)]
    pub nearest: [Vec<String>; 2],
}

impl Finding {
    /// A finding without picture and identity.
    pub(super) fn new(kind: FindingKind, value: Option<f64>, what: String) -> Self {
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

    /// A file that cannot be decoded.
    pub fn unreadable(picture: &Picture, identities: &[String], reason: &str) -> Self {
        Self::new(FindingKind::Unreadable, None, reason.to_owned()).of(picture, identities)
    }

    /// Sets the picture and its identity.
    pub(super) fn of(mut self, picture: &Picture, identities: &[String]) -> Self {
        self.file = Some(picture.name.clone());
        self.identity = identity(picture, identities);
        self
    }
}

/// The name of a picture's identity.
pub(super) fn identity(picture: &Picture, identities: &[String]) -> Option<String> {
    picture.identity.and_then(|index| identities.get(index)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_order_of_severity_and_have_distinct_names() {
        assert!(FindingKind::ALL.is_sorted());
        assert!(FindingKind::ALL.is_sorted_by_key(|kind| kind.severity()));
        let mut names = FindingKind::ALL.map(FindingKind::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FindingKind::ALL.len());
    }
}
