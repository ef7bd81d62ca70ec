//! Pictures on their way through the trunk: a decoding thread in front of the thread that owns the networks.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use image::RgbImage;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::job::{Answer, Job, Loaded, Model, Work};
use super::refusal::Refusal;
use super::state::ServerState;
use crate::data::picture;
use crate::detect::Detector;
use crate::eval::Embeddings;
use crate::gallery::one_face;
use crate::models::Backbone;
use crate::recognise::pipeline::{Framed, Framer, PIXELS};
use crate::recognise::{Decoded, View, Viewer, embed_pictures};
use crate::{Error, Result};

/// A decoded picture.
enum Ready {
    Decoded(Decoded),
    Whole(RgbImage),
}

type Batch = Vec<(Job, Ready)>;

/// Works until nothing more can come. The networks stay on this thread.
///
/// # Errors
/// The system has no thread to give.
pub fn work(model: Model, state: &Arc<ServerState>, waiting: Receiver<Job>) -> Result<()> {
    let Model { gallery, backbone, trunk, mut viewer, main, detector, .. } = model;
    viewer.keeps_pictures = true; // for the sharpness and the thumbnails of new faces
    state.metrics.enrolled((gallery.people(), gallery.faces()));
    let (faces, one) = (viewer.preparer(), main.preparer());
    let prepare = move |work: Work, picture: RgbImage| match work {
        Work::Faces | Work::OneFace => Ready::Decoded(faces(picture)),
        Work::Main => Ready::Decoded(one(picture)),
        Work::Detect => Ready::Whole(picture),
    };
    // No batch waits: one is computed while the next is decoded.
    let (sender, batches) = sync_channel::<Batch>(0);
    let own = state.clone();
    thread::Builder::new()
        .name("decode".into())
        .spawn(move || decode(&own, &waiting, &sender, prepare))
        .map_err(|error| Error::Config(format!("no thread to decode pictures with: {error}")))?;
    let gallery = Arc::new(tokio::sync::Mutex::new(gallery));
    let (threshold, probability, name) = (model.threshold, model.probability, model.name);
    state.set_loaded(Loaded { gallery, trunk, threshold, probability, name });
    let thumbnails = state.options.thumbnails;
    for batch in batches {
        let batch: Batch = batch.into_iter().filter(|(job, _)| job.is_wanted()).collect();
        state.metrics.batch(batch.len());
        let (mut all, mut single, mut whole) = (Vec::new(), Vec::new(), Vec::new());
        for (job, ready) in batch {
            match ready {
                Ready::Whole(picture) => whole.push((job, picture)),
                Ready::Decoded(decoded) if job.work == Work::Main => single.push((job, decoded)),
                Ready::Decoded(decoded) => all.push((job, decoded)),
            }
        }
        embed(state, &backbone, &viewer, all, |job, mut view, rows| match job.work {
            Work::OneFace => {
                let sha256 = || Ok(sha256(&job.content));
                if rows.rows() == 0 {
                    let sentence = format!("{}: no face found", job.name.display());
                    return Err(Refusal::unprocessable(sentence));
                }
                let face = one_face(&job.name, sha256, &view, &rows, thumbnails)?;
                Ok(Answer::OneFace(Box::new(face)))
            }
            _ => {
                state.metrics.faces(rows.rows());
                view.picture = None;
                Ok(Answer::Faces(view, rows))
            }
        });
        embed(state, &backbone, &main, single, |_, _, rows| Ok(Answer::Main(rows)));
        detect(state, &detector, whole);
    }
    Ok(())
}

/// SHA-256, hexadecimal.
pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// Takes what waits, decodes it on all cores, and hands it on, batch by batch.
fn decode(
    state: &ServerState,
    waiting: &Receiver<Job>,
    sender: &SyncSender<Batch>,
    prepare: impl Fn(Work, RgbImage) -> Ready + Send + Sync,
) {
    let mut kept = None;
    loop {
        let Some(first) = kept.take().or_else(|| waiting.recv().ok()) else { return };
        let (mut pixels, mut jobs) = (first.pixels, vec![first]);
        while jobs.len() < state.options.batch {
            match waiting.try_recv() {
                Ok(next) if pixels + next.pixels > PIXELS => {
                    kept = Some(next);
                    break;
                }
                Ok(next) => {
                    pixels += next.pixels;
                    jobs.push(next);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let decoded: Vec<(Job, Result<Ready>)> = jobs
            .into_par_iter()
            .filter(Job::is_wanted)
            .map(|job| {
                let picture = picture::decode_bytes(&job.name, &job.content);
                let ready = picture.map(|picture| prepare(job.work, picture));
                (job, ready)
            })
            .collect();
        let mut batch = Vec::new();
        for (job, ready) in decoded {
            match ready {
                Ok(ready) => batch.push((job, ready)),
                Err(error) => job.reply(Err(error.into())),
            }
        }
        if !batch.is_empty() && sender.send(batch).is_err() {
            return;
        }
    }
}

/// Embeds the faces on a batch of pictures; `each` makes the answers.
fn embed(
    state: &ServerState,
    backbone: &Backbone,
    viewer: &Viewer,
    batch: Vec<(Job, Decoded)>,
    each: impl Fn(&Job, View, Embeddings) -> Result<Answer, Refusal>,
) {
    if batch.is_empty() {
        return;
    }
    let (jobs, pictures): (Vec<Job>, Vec<Decoded>) = batch.into_iter().unzip();
    let embedded = viewer.frame(pictures).and_then(|framed| {
        let mut faces = Vec::new();
        let views = framed.into_iter().map(|Framed { info, faces: own, .. }| {
            let first = faces.len();
            faces.extend(own);
            (info, first..faces.len())
        });
        let views: Vec<_> = views.collect();
        Ok((views, embed_pictures(backbone, &faces)?))
    });
    match embedded {
        Ok((views, rows)) => {
            for (job, (view, own)) in jobs.into_iter().zip(views) {
                let rows = rows.subset(&own.collect::<Vec<_>>());
                let found = each(&job, view, rows);
                job.reply(found);
            }
        }
        Err(error) => failed(state, jobs, &error),
    }
}

fn detect(state: &ServerState, detector: &Detector, batch: Vec<(Job, RgbImage)>) {
    if batch.is_empty() {
        return;
    }
    let pictures: Vec<&RgbImage> = batch.iter().map(|(_, picture)| picture).collect();
    let found = detector.detect(&pictures);
    let jobs = batch.into_iter().map(|(job, _)| job).collect::<Vec<_>>();
    match found {
        Ok(found) => {
            for (job, faces) in jobs.into_iter().zip(found) {
                state.metrics.faces(faces.len());
                job.reply(Ok(Answer::Detected(faces)));
            }
        }
        Err(error) => failed(state, jobs, &error),
    }
}

fn failed(state: &ServerState, jobs: Vec<Job>, error: &Error) {
    state.trouble(&error.to_string());
    jobs.into_iter().for_each(|job| job.reply(Err(Refusal::internal())));
}
