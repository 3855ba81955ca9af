//! The admin server, on its own thread, with limits on all resources that a client can use.
//!
//! No thread that runs protected calls ever waits for its clients.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_io_timeout::TimeoutStream;

use super::auth::{PeerAddress, RefusalLog};
use super::connections::{AdminConnection, BusyBody, ConnectionTable, FlushedSocket};
use super::problem::AdminProblem;
use super::{Admin, stream};

/// Limits for clients.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Maximum number of connections, without those of event streams. A further one displaces the
    /// connection that has been idle longest.
    pub connections: usize,
    /// Limit from the start of a request, or from the end of the previous one, to the end of its
    /// headers.
    pub header: Duration,
    /// Limit from there to the start of the response, including the request body.
    pub request: Duration,
    /// Maximum time without progress while a response is written.
    pub write: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            header: Duration::from_secs(10),
            request: Duration::from_secs(10),
            write: Duration::from_secs(20),
        }
    }
}

/// Maximum size of the request line and the headers together, in bytes.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;
/// Pause after the system has refused a connection, for example for lack of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Reason why the admin side cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A non-loopback address without a token: either every client could change settings, or none.
    #[error(
        "the admin side cannot listen on {0} without a token, allowed: a loopback address, or to set a token"
    )]
    Exposed(SocketAddr),
    /// The listener or the thread cannot be used.
    #[error("the admin side cannot be served: {0}")]
    Io(#[from] io::Error),
}

/// The running server. Dropping it stops the server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection, and waits for the thread to end.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Admin {
    /// Serves the admin side on its own thread, with default [`ServerLimits`].
    ///
    /// # Errors  [`ServeError`].
    pub fn serve(&self, listener: TcpListener) -> Result<Server, ServeError> {
        self.serve_with(listener, ServerLimits::default())
    }

    /// Serves the admin side on its own thread.
    ///
    /// # Errors  [`ServeError`].
    pub fn serve_with(
        &self,
        listener: TcpListener,
        limits: ServerLimits,
    ) -> Result<Server, ServeError> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() && self.inner.token.is_none() {
            return Err(ServeError::Exposed(address));
        }
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let admin = self.clone();
        let run = move || {
            runtime.block_on(async move {
                // A separate task, so that no failure in it ends the server.
                tokio::spawn(stream::look_around(admin.clone()));
                tokio::select! {
                    () = accept(&admin, listener, limits) => {}
                    _ = stopped => {}
                }
            });
            // This drops connections and streams.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new()
            .name("breakerbox-admin".to_owned())
            .spawn(run)?;
        Ok(Server {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

async fn accept(admin: &Admin, listener: TcpListener, limits: ServerLimits) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin side cannot be served");
            return;
        }
    };
    let connections = ConnectionTable::new(limits.connections);
    let refused = RefusalLog::default();
    let router = admin
        .router()
        .layer(from_fn_with_state(limits.request, in_time));
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(others) = refused.note(admin.inner.stamps.now()) {
                    tracing::warn!(%error, others, "a connection to the admin side could not be accepted");
                }
                connections.shed();
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let connection = connections.admit().await;
        let router = router.clone().layer(Extension(PeerAddress(peer)));
        tokio::spawn(serve_one(socket, router, limits, connection));
    }
}

/// Serves one connection until the client disconnects or exceeds a limit, or until the connection
/// gives way to a new one.
async fn serve_one(
    socket: TcpStream,
    router: Router,
    limits: ServerLimits,
    place: Arc<AdminConnection>,
) {
    // Without it small responses may be delayed (Nagle). It is only an optimisation.
    let _ = socket.set_nodelay(true);
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(limits.write));
    let socket = FlushedSocket::new(socket, Arc::clone(&place));
    let (routes, busy) = (TowerToHyperService::new(router), Arc::clone(&place));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let busy = busy.begin();
        let answered = routes.call(request);
        async move {
            let response = answered.await?;
            let kind = response.headers().get(CONTENT_TYPE);
            if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
                busy.streams();
            }
            Ok::<_, Infallible>(response.map(|body| BusyBody::new(body, busy)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = place.displaced() => {}
        }
        // A request that has already arrived is seen first, and then the connection stays.
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = sockets_are_polled() => {}
        }
        if place.gives_way() {
            return;
        }
    };
    // A broken connection concerns only its client.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the admin side broke off");
    }
}

/// Waits until the runtime has asked the system for new data on its sockets: it does so before it
/// resumes a task that yields. The second turn is for the tasks that the first one woke.
async fn sockets_are_polled() {
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
}

async fn in_time(
    State(patience): State<Duration>,
    request: Request,
    next: Next,
) -> Result<Response, AdminProblem> {
    let answered = tokio::time::timeout(patience, next.run(request)).await;
    answered.map_err(|_| {
        AdminProblem::new(408, "too-slow", "the request took too long")
            .allowed(format!("{patience:?}"))
    })
}
