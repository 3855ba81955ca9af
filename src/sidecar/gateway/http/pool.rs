//! Connections to a server that speaks HTTP/1.1 without TLS, pooled by one thread.
//!
//! A connection returns to the pool if the response was read to its end, and is closed otherwise.
//! In all else this works as hyper-util's pool does, without a task for each request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use tokio::time::{Instant, sleep};
use tower_service::Service as _;

use super::connector::{IDLE, UpstreamConnector};
use super::request_body::Upload;
use crate::sidecar::gateway::message::HttpFailure;

use crate::lock::LockExt as _;

/// Connections to one server.
pub(crate) struct ConnectionPool {
    connector: UpstreamConnector,
    uri: Uri,
    idle: Arc<IdlePool>,
}

/// Idle connections, reused in LIFO order.
#[derive(Default)]
struct IdlePool(Mutex<IdleConnections>);

#[derive(Default)]
struct IdleConnections {
    connections: Vec<(SendRequest<Upload>, Instant)>,
    /// True if a task is running that closes connections idle for too long.
    is_swept: bool,
}

impl IdlePool {
    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        self.0.acquire()
    }

    fn take(&self) -> Option<SendRequest<Upload>> {
        let connections = &mut self.lock().connections;
        // A connection that still sends the rest of a request is not ready yet, but may be later.
        let found = connections.iter().rposition(|(one, _)| one.is_ready())?;
        let (connection, since) = connections.remove(found);
        (since.elapsed() < IDLE && !connection.is_closed()).then_some(connection)
    }

    fn keep(self: &Arc<Self>, connection: SendRequest<Upload>) {
        let mut kept = self.lock();
        kept.connections.push((connection, Instant::now()));
        if !std::mem::replace(&mut kept.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Closes connections idle for too long, as long as the pool exists.
async fn sweep(idle: Weak<IdlePool>) {
    loop {
        sleep(IDLE).await;
        let Some(idle) = idle.upgrade() else { return };
        let is_good = |(connection, since): &(SendRequest<Upload>, Instant)| {
            !connection.is_closed() && since.elapsed() < IDLE
        };
        idle.lock().connections.retain(is_good);
    }
}

impl ConnectionPool {
    /// Creates a pool. `uri`: of the server.
    pub(crate) fn new(connector: UpstreamConnector, uri: Uri) -> Self {
        Self {
            connector,
            uri,
            idle: Arc::default(),
        }
    }

    /// Sends a request and waits for the head of its response. If a closing connection returns the
    /// request unsent, it is sent on another one: it was never made.
    pub(crate) async fn request(
        &self,
        mut message: Request<Upload>,
    ) -> Result<Response<PooledBody>, HttpFailure> {
        while let Some(mut connection) = self.idle.take() {
            match connection.try_send_request(message).await {
                Ok(response) => return Ok(self.arriving(response, connection)),
                Err(mut error) => message = error.take_message().ok_or(HttpFailure::Reset)?,
            }
        }
        // On the heap: it is rarely needed.
        let mut connection = Box::pin(self.connect()).await?;
        let sent = connection.try_send_request(message).await;
        let response = sent.map_err(|_| HttpFailure::Reset)?;
        Ok(self.arriving(response, connection))
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, HttpFailure> {
        let stream = self.connector.clone().call(self.uri.clone());
        let stream = stream.await.map_err(|_| HttpFailure::Connect)?;
        let (connection, work) = handshake(stream).await.map_err(|_| HttpFailure::Connect)?;
        // The requests report its end.
        tokio::spawn(async move { drop(work.await) });
        Ok(connection)
    }

    fn arriving(
        &self,
        response: Response<Incoming>,
        connection: SendRequest<Upload>,
    ) -> Response<PooledBody> {
        response.map(|body| {
            let mut arriving = PooledBody {
                body,
                lease: Some((connection, Arc::clone(&self.idle))),
            };
            if arriving.body.is_end_stream() {
                arriving.give_back();
            }
            arriving
        })
    }
}

/// A response body as it arrives. Read to its end, it returns its connection to the pool; dropped
/// before that, it closes the connection.
pub(crate) struct PooledBody {
    body: Incoming,
    lease: Option<(SendRequest<Upload>, Arc<IdlePool>)>,
}

impl PooledBody {
    /// Wraps a body that does not return its connection to this pool.
    pub(crate) fn alone(body: Incoming) -> Self {
        Self { body, lease: None }
    }

    fn give_back(&mut self) {
        if let Some((connection, idle)) = self.lease.take() {
            idle.keep(connection);
        }
    }
}

impl std::fmt::Debug for PooledBody {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.body.fmt(out)
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            // After an error the connection cannot be reused.
            Some(Err(_)) => this.lease = None,
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            _ => this.give_back(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
