//! A gallery over HTTP: photos to names, and people enrolled and forgotten, as JSON.
//!
//! ```text
//! connection -> gate (host, key) -> body -> queue -> decode -> trunk (this thread) -> gallery -> reply
//! ```
//!
//! libtorch runs on the thread that calls [`run`]. Pictures of several requests that wait at the same time
//! are one batch; none waits for others to come. Whoever comes when the queue is full is told so (503), and
//! nothing is computed for a client that is gone or whose deadline has passed.

mod body;
mod gate;
mod handlers;
mod job;
pub mod keys;
mod listen;
mod log;
mod metrics;
mod options;
mod page;
mod queue;
mod refusal;
mod routes;
mod state;
mod table;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use job::Model;
pub use log::{LogFormat, LogOutput};
pub use options::Options;

use crate::progress::Reporter;
use crate::train::interrupt::Interrupt;
use crate::{Error, Result};
use keys::KeyFile;
use listen::{Connections, Tls};
use state::ServerState;

/// Serves until SIGINT or SIGTERM; requests that are under way are answered first. `load` gives the model
/// once the server listens; until then it says that it is not ready.
///
/// # Errors
/// The address cannot be used, the keys or the certificate cannot be read, or `load` fails.
pub fn run<E: From<Error>>(
    options: Options,
    log: Option<LogOutput>,
    say: &Reporter,
    load: impl FnOnce() -> Result<Model, E>,
) -> Result<(), E> {
    options.validate()?;
    let keys = options.key_file.as_deref().map(KeyFile::read).transpose()?;
    let tls = options.tls.as_ref().map(|(cert, key)| Tls::read(cert, key)).transpose()?;
    let connections = Connections::allowed();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (host, port) = (options.host, options.port);
    let listener = listen::bind(SocketAddr::new(host, port))?;
    let address = listener.local_addr().map_err(|error| listen::unusable(host, port, &error))?;
    let stop = Interrupt::watch();
    let (state, waiting) =
        ServerState::new(options, keys, log.map(log::Log::start).transpose()?, say.clone());
    let state = Arc::new(state);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|error| Error::Config(format!("no threads to serve with: {error}")))?;
    let server = listen::serve(listener, tls, connections, state.clone(), stop);
    let server = runtime.spawn(server);
    say.line(&format!("listening on {scheme}://{address}"));
    let served = load().and_then(|model| Ok(queue::work(model, &state, waiting)?));
    if served.is_err() {
        server.abort();
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
    state.finish_log();
    served
}
