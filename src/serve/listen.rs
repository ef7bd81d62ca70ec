//! Connections: accepted, encrypted, bounded in number and time, and ended in order.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower_service::Service;

use super::routes;
use super::state::ServerState;
use crate::train::interrupt::Interrupt;
use crate::{Error, Result};

/// The time for a request's headers, and how long a connection may be idle.
const IDLE: Duration = Duration::from_secs(30);
/// The time for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests that are under way are waited for at the end, beyond their deadline.
const ENDING: Duration = Duration::from_secs(5);
/// How often a signal is looked for.
const TICK: Duration = Duration::from_millis(50);
/// Files that the server needs besides its connections.
const FILES: u64 = 64;
/// Files that are asked for, where the system allows more than are usual.
const MANY: u64 = 65_536;

/// The certificate and key of an encrypted server.
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Reads PEM files.
    ///
    /// # Errors
    /// One cannot be read, or they do not belong together.
    pub fn read(cert: &Path, key: &Path) -> Result<Self> {
        let fail = |flag: &str, path: &Path, reason: String| {
            Error::Config(format!("{flag} {}: {reason}", path.display()))
        };
        let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect)
            .map_err(|error| fail("--tls-cert", cert, error.to_string()))?;
        if chain.is_empty() {
            return Err(fail("--tls-cert", cert, "there is no PEM certificate in it".into()));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| fail("--tls-key", key, error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(chain, private));
        let mut config = config.map_err(|error| fail("--tls-key", key, error.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Takes the address.
///
/// # Errors
/// It is in use, or not this machine's.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
    listener.map_err(|error| unusable(address.ip(), address.port(), &error))
}

/// The address cannot be used.
pub fn unusable(host: IpAddr, port: u16, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there; give another --port",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need privileges; give a higher --port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address; give another --host"
        }
        _ => "",
    };
    Error::Config(format!("--host {host} --port {port}: {error}{advice}"))
}

/// The open connections. When there are as many as the system allows, the one that has been idle for
/// longest makes place.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    open: Mutex<BTreeMap<u64, Arc<Activity>>>,
    next: AtomicU64,
    /// Tells of a connection that ended.
    ended: Notify,
}

/// What a connection does.
#[derive(Debug)]
struct Activity {
    /// Requests being answered.
    busy: AtomicUsize,
    /// When it last began or ended one, in milliseconds since `started`.
    last: AtomicU64,
    started: Instant,
    /// It has to make place.
    close: Notify,
    closing: AtomicBool,
}

impl Activity {
    fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    fn idle_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

impl Connections {
    /// As many as the system allows; its limit of open files is raised if it can be.
    pub fn allowed() -> Self {
        let most = usize::try_from(open_files().saturating_sub(FILES).max(16)).unwrap_or(16);
        let (open, next, ended) = (Mutex::default(), AtomicU64::new(0), Notify::new());
        Self { most, open, next, ended }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) -> (u64, Arc<Activity>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity {
            busy: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            started: Instant::now(),
            close: Notify::new(),
            closing: AtomicBool::new(false),
        });
        self.open().insert(id, activity.clone());
        (id, activity)
    }

    fn remove(&self, id: u64) {
        self.open().remove(&id);
        self.ended.notify_one();
    }

    /// Waits until there is place for one more.
    async fn place(&self) {
        loop {
            {
                let open = self.open();
                if open.len() < self.most {
                    return;
                }
                let idle = open.values().filter(|one| one.is_idle());
                let idle = idle.filter(|one| !one.closing.load(Ordering::Relaxed));
                if let Some(oldest) = idle.max_by_key(|one| one.idle_for()) {
                    oldest.closing.store(true, Ordering::Relaxed);
                    oldest.close.notify_one();
                }
            }
            let _ = timeout(Duration::from_millis(100), self.ended.notified()).await;
        }
    }
}

/// The number of files that this process may open, after raising it.
#[cfg(unix)]
fn open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let (own, most) = (limit.current.unwrap_or(MANY), limit.maximum.unwrap_or(MANY));
    let wanted = most.min(MANY).max(own);
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(_) => own,
    }
}

#[cfg(not(unix))]
fn open_files() -> u64 {
    4096
}

/// Accepts connections until a signal comes, and then waits for those that are under way.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    connections: Connections,
    state: Arc<ServerState>,
    stop: Interrupt,
) {
    let router = routes::router(state.clone());
    let connections = Arc::new(connections);
    let (tell, told) = watch::channel(false);
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            let tls = tls.map(|Tls(acceptor)| acceptor);
            let accepting = accept(&listener, tls, &connections, &router, &told, &state);
            tokio::select! {
                () = accepting => {}
                () = signal(&stop) => {}
            }
        }
        Err(error) => state.trouble(&format!("the connections cannot be accepted: {error}")),
    }
    let _ = tell.send(true);
    let ended = async {
        while !connections.open().is_empty() {
            let _ = timeout(TICK, connections.ended.notified()).await;
        }
    };
    let _ = timeout(state.options.deadline + ENDING, ended).await;
    state.close();
}

async fn signal(stop: &Interrupt) {
    while stop.signal().is_none() {
        sleep(TICK).await;
    }
}

async fn accept(
    listener: &tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    connections: &Arc<Connections>,
    router: &Router,
    told: &watch::Receiver<bool>,
    state: &Arc<ServerState>,
) {
    loop {
        connections.place().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of files, or a connection that is gone already.
                sleep(TICK).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (id, activity) = connections.add();
        state.metrics.connections(connections.open().len());
        let (connections, state) = (connections.clone(), state.clone());
        let (tls, router, told) = (tls.clone(), router.clone(), told.clone());
        tokio::spawn(async move {
            speak(stream, tls, router, &activity, told).await;
            connections.remove(id);
            state.metrics.connections(connections.open().len());
        });
    }
}

async fn speak(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    activity: &Arc<Activity>,
    told: watch::Receiver<bool>,
) {
    match tls {
        None => converse(stream, router, activity, told).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                converse(stream, router, activity, told).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    activity: &Arc<Activity>,
    mut told: watch::Receiver<bool>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (mut router, activity) = (router.clone(), activity.clone());
        async move {
            activity.busy.fetch_add(1, Ordering::Relaxed);
            let _end = End(activity);
            router.call(request.map(Body::new)).await as std::result::Result<_, Infallible>
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.close.notified() => {}
        _ = told.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    // An idle connection ends now; one that is answering, after its answer.
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = sleep(TICK) => {
                if activity.is_idle() && activity.idle_for() > TICK * 4 {
                    return;
                }
            }
        }
    }
}

/// Notes the end of a request, even of one that is abandoned.
struct End(Arc<Activity>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}
