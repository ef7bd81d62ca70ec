//! What all requests share.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::job::{Job, Loaded};
use super::keys::KeyFile;
use super::log::Log;
use super::metrics::Metrics;
use super::options::Options;
use super::refusal::Refusal;
use crate::gallery::Gallery;
use crate::progress::Reporter;

/// Bytes of requests that are held at one time, as a multiple of the largest request ...
const UPLOADS: usize = 16;
/// ... and in units of this many, in which they are counted.
const UNIT: usize = 1024;

pub struct ServerState {
    pub options: Options,
    pub keys: RwLock<Option<KeyFile>>,
    pub metrics: Metrics,
    pub log: Option<Log>,
    say: Reporter,
    /// Permits for pictures.
    pub places: Arc<Semaphore>,
    /// Permits for bytes of requests.
    bytes: Arc<Semaphore>,
    /// Pictures on their way to the trunk; none once the server stops.
    jobs: Mutex<Option<Sender<Job>>>,
    /// There once the model is loaded.
    loaded: OnceLock<Loaded>,
}

impl ServerState {
    pub fn new(
        options: Options,
        keys: Option<KeyFile>,
        log: Option<Log>,
        say: Reporter,
    ) -> (Self, Receiver<Job>) {
        let (sender, waiting) = channel();
        let units = (options.max_upload / UNIT + 1).saturating_mul(UPLOADS);
        let state = Self {
            keys: RwLock::new(keys),
            metrics: Metrics::default(),
            log,
            say,
            places: Arc::new(Semaphore::new(options.queue)),
            bytes: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            jobs: Mutex::new(Some(sender)),
            loaded: OnceLock::new(),
            options,
        };
        (state, waiting)
    }

    /// The model is there.
    pub fn set_loaded(&self, loaded: Loaded) {
        let _ = self.loaded.set(loaded); // once
    }

    /// What was loaded.
    ///
    /// # Errors
    /// Nothing yet.
    pub fn loaded(&self) -> Result<&Loaded, Refusal> {
        let not_yet = || Refusal::busy("the server is starting; the model is being loaded", 1);
        self.loaded.get().ok_or_else(not_yet)
    }

    /// When a request that arrives now has taken too long.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.options.deadline
    }

    /// Sends pictures to the trunk.
    ///
    /// # Errors
    /// The server stops.
    pub fn send(&self, job: Job) -> Result<(), Refusal> {
        let stopping = || Refusal::busy("the server is stopping", 5);
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().ok_or_else(stopping)?.send(job).map_err(|_| stopping())
    }

    /// Nothing more is sent to the trunk: what works there ends once it has done what there is.
    pub fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Permits for that many bytes of a request.
    ///
    /// # Errors
    /// Too much is held already.
    pub fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let full = |_| Refusal::busy("too many uploads at one time", 1);
        self.bytes.clone().try_acquire_many_owned(units).map_err(full)
    }

    /// Runs `body` on the gallery, off the threads that speak to clients. It runs to its end even if the
    /// client goes away meanwhile.
    ///
    /// # Errors
    /// Others use the gallery until the deadline; a refusal of `body`.
    pub async fn in_gallery<T: Send + 'static>(
        &self,
        deadline: Instant,
        body: impl FnOnce(&mut Gallery) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let lock = self.loaded()?.gallery.clone().lock_owned();
        let guard = tokio::time::timeout_at(deadline.into(), lock).await;
        let mut guard = guard.map_err(|_| Refusal::late())?;
        let (outcome, counts) = tokio::task::spawn_blocking(move || {
            let outcome = body(&mut guard);
            (outcome, (guard.people(), guard.faces()))
        })
        .await
        .map_err(|_| Refusal::internal())?;
        self.metrics.enrolled(counts);
        outcome
    }

    /// An error that is the server's own.
    pub fn trouble(&self, text: &str) {
        self.say.error(text);
    }

    /// Writes what is left of the log.
    pub fn finish_log(&self) {
        if let Some(log) = &self.log {
            log.finish();
        }
    }
}
