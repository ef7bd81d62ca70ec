//! A picture on its way to the trunk, and what it meets there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::refusal::Refusal;
use crate::detect::{Detector, Face};
use crate::eval::Embeddings;
use crate::eval::unknown::Logistic;
use crate::gallery::{Gallery, GalleryTrunk, NewFace};
use crate::models::Backbone;
use crate::recognise::{View, Viewer};

/// All that the server computes with.
#[derive(Debug)]
pub struct Model {
    /// The people. It has its trunk already.
    pub gallery: Gallery,
    /// The gallery's trunk.
    pub backbone: Backbone,
    /// What there is to know of it.
    pub trunk: GalleryTrunk,
    /// Finds all faces on a picture.
    pub viewer: Viewer,
    /// Finds the main one, as `visage verify` does.
    pub main: Viewer,
    /// Finds faces without cutting them out.
    pub detector: Detector,
    /// Two faces at a smaller distance are one person's; none where the trunk has no threshold.
    pub threshold: Option<f64>,
    /// P(same person | distance), where it is known.
    pub probability: Option<Logistic>,
    /// The model's file or name, for replies.
    pub name: String,
}

/// The parts of a [`Model`] that requests use themselves.
#[derive(Debug)]
pub struct Loaded {
    pub gallery: Arc<tokio::sync::Mutex<Gallery>>,
    pub trunk: GalleryTrunk,
    pub threshold: Option<f64>,
    pub probability: Option<Logistic>,
    pub name: String,
}

/// What is wanted of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// The embeddings of all its faces.
    Faces,
    /// Its one face, to be enrolled or rejected.
    OneFace,
    /// The embedding of its main face.
    Main,
    /// Its faces, without embeddings.
    Detect,
}

/// What was found.
#[derive(Debug)]
pub enum Answer {
    Faces(View, Embeddings),
    OneFace(Box<NewFace>),
    Main(Embeddings),
    Detected(Vec<Face>),
}

/// A picture to be looked at.
#[derive(Debug)]
pub struct Job {
    pub work: Work,
    /// The client's name of it.
    pub name: PathBuf,
    pub content: Bytes,
    pub pixels: u64,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<Answer, Refusal>>,
    /// The place in the queue, and the bytes of the request; freed with the job.
    pub _held: (OwnedSemaphorePermit, Arc<Vec<OwnedSemaphorePermit>>),
}

impl Job {
    /// Somebody still waits for the answer.
    pub fn is_wanted(&self) -> bool {
        !self.answer.is_closed() && Instant::now() < self.deadline
    }

    /// Answers it.
    pub fn reply(self, found: Result<Answer, Refusal>) {
        // A client that is gone does not read it.
        let _ = self.answer.send(found);
    }
}
