//! The gallery as JSON: what the program prints and what the server sends.

use serde_json::{Value, json};

use super::{Enrolled, Gallery};
use crate::Result;

/// Pictures without one clear face, each with the reason: `[{"file", "reason"}]`.
pub fn left_out_json(left_out: &[(String, String)]) -> Value {
    left_out.iter().map(|(file, reason)| json!({ "file": file, "reason": reason })).collect()
}

impl Gallery {
    /// `{"people", "faces", "trunk", "limit", "fpir"}`: who is enrolled, and when a face is named.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list_json(&self) -> Result<Value> {
        let trunk = self.trunk().map(|trunk| {
            json!({ "architecture": trunk.architecture, "fingerprint": trunk.fingerprint,
                    "embedding": trunk.dim, "source": trunk.source })
        });
        let fpir = self.threshold().map(|threshold| &threshold.fpir);
        let limit = self.threshold().map(|threshold| threshold.limit);
        Ok(json!({ "people": self.list()?, "faces": self.faces(), "trunk": trunk,
                   "limit": limit, "fpir": fpir }))
    }

    /// What became of pictures that were to be enrolled: `people` is the number of people they show,
    /// `left_out` names those without one clear face, with the reason.
    pub fn enrolled_json(
        &self,
        people: usize,
        enrolled: &Enrolled,
        left_out: &[(String, String)],
    ) -> Value {
        let Enrolled { added, again, doubts } = enrolled;
        let doubts = doubts.iter().map(|doubt| {
            json!({ "file": doubt.path, "looks_like": doubt.person, "distance": doubt.distance,
                    "same_picture": doubt.is_same_picture })
        });
        json!({
            "enrolled": added, "people": people, "already": again,
            "doubts": doubts.collect::<Vec<_>>(), "left_out": left_out_json(left_out),
            "db": self.path().to_string_lossy(), "total_faces": self.faces(),
            "total_people": self.people(),
            "limit": self.threshold().map(|threshold| threshold.limit),
            "fpir": self.threshold().map(|threshold| &threshold.fpir),
        })
    }
}
