//! The admin server: a thread of its own, with bounds on everything that a client can take.
//!
//! Whatever its clients do, no thread that a protected call runs on waits for them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_io_timeout::TimeoutStream;

use super::guard::Peer;
use super::problem::Problem;
use super::{Admin, stream};

/// What a client may take at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more are closed at once.
    pub connections: usize,
    /// From the beginning of a request, or the end of the one before, to the end of its headers.
    pub header: Duration,
    /// From there to the beginning of the response: the body of the request included.
    pub request: Duration,
    /// For how long nothing of a response may be read.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            header: Duration::from_secs(10),
            request: Duration::from_secs(10),
            write: Duration::from_secs(20),
        }
    }
}

/// The longest request line and headers together.
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 64;
/// The pause after the system has refused a connection, such as for want of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Why the admin side cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Everybody could change everything, or nobody anything, and it could be reached from afar.
    #[error("the admin side is to listen on {0}, allowed: a loopback address, or to set a token")]
    Exposed(SocketAddr),
    /// The listener or the thread cannot be used.
    #[error("the admin side cannot be served: {0}")]
    Io(#[from] io::Error),
}

/// The running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection, and waits until the thread has ended.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked is gone too.
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
    /// Serves the admin side on a thread of its own, with the usual [`Limits`].
    ///
    /// # Errors  [`ServeError`].
    pub fn serve(&self, listener: TcpListener) -> Result<Server, ServeError> {
        self.serve_with(listener, Limits::default())
    }

    /// Serves the admin side on a thread of its own.
    ///
    /// # Errors  [`ServeError`].
    pub fn serve_with(&self, listener: TcpListener, limits: Limits) -> Result<Server, ServeError> {
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
                // On its own, so that nothing that goes wrong in it ends the server.
                tokio::spawn(stream::look_around(admin.clone()));
                tokio::select! {
                    () = accept(&admin, listener, limits) => {}
                    _ = stopped => {}
                }
            });
            // Connections and streams are dropped with it.
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

async fn accept(admin: &Admin, listener: TcpListener, limits: Limits) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the admin side cannot be served");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(limits.connections));
    let router = admin
        .router()
        .layer(from_fn_with_state(limits.request, in_time));
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin side was not taken");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            drop(socket);
            continue;
        };
        let router = router.clone().layer(Extension(Peer(peer)));
        tokio::spawn(async move {
            serve_one(socket, router, limits).await;
            drop(place);
        });
    }
}

/// Serves one connection until its client leaves, or takes too long for anything.
async fn serve_one(socket: TcpStream, router: Router, limits: Limits) {
    // Without it small answers may wait for more; it is an optimisation only.
    let _ = socket.set_nodelay(true);
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(limits.write));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(Box::pin(socket)),
            TowerToHyperService::new(router),
        );
    // How a connection ends is its client's affair.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the admin side broke off");
    }
}

async fn in_time(
    State(patience): State<Duration>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let answered = tokio::time::timeout(patience, next.run(request)).await;
    answered.map_err(|_| {
        Problem::new(408, "too-slow", "the request took too long to come")
            .allowed(format!("{patience:?}"))
    })
}
