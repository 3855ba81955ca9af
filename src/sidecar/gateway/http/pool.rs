//! Connections to a server or a proxy that speaks HTTP/1.1, pooled by one thread.
//!
//! A connection returns to the pool if the response was read to its end, and is closed otherwise.
//! In all else this works as hyper-util's pool does, without a task for each request.

use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use tokio::time::{Instant, sleep};

use super::address::UpstreamAddress;
use super::answer_fault::{AnswerFault, FirstBytes};
use super::connect_failure::ConnectFailure;
use super::connector::UpstreamConnector;
use super::send_mark::MarkedBody;
use super::socket::SocketHistory;
use crate::sidecar::gateway::message::HttpFailure;

use crate::lock::LockExt as _;

/// Connections to one server.
pub(crate) struct ConnectionPool {
    connector: UpstreamConnector,
    address: Arc<UpstreamAddress>,
    idle: Arc<IdlePool>,
}

/// An open connection.
struct OpenConnection {
    sender: SendRequest<MarkedBody>,
    history: Arc<SocketHistory>,
    /// Idle time after which the server may close it.
    keep: Duration,
}

/// Idle connections, reused in LIFO order.
#[derive(Default)]
struct IdlePool(Mutex<IdleConnections>);

#[derive(Default)]
struct IdleConnections {
    connections: Vec<(OpenConnection, Instant)>,
    /// True if a task is running that closes connections idle for too long.
    is_swept: bool,
}

/// Maximum number of header lines of a response.
pub(super) const MAX_HEADERS: usize = 256;
/// Most of a response that is read ahead of its caller, and the longest head.
pub(super) const MAX_READ_AHEAD: usize = 64 * 1024;
/// Time between two searches for connections that were idle for too long.
const SWEEP: Duration = Duration::from_secs(5);

fn is_good((connection, since): &(OpenConnection, Instant)) -> bool {
    since.elapsed() < connection.keep
        && !connection.sender.is_closed()
        && !connection.history.write_failed()
        && !connection.history.is_old()
}

impl IdlePool {
    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        self.0.acquire()
    }

    fn take(&self) -> Option<OpenConnection> {
        let connections = &mut self.lock().connections;
        loop {
            // A connection that still sends the rest of a request is not ready yet, but may be later.
            let found = connections
                .iter()
                .rposition(|(one, _)| one.sender.is_ready())?;
            let found = connections.remove(found);
            if is_good(&found) {
                return Some(found.0);
            }
        }
    }

    fn keep(self: &Arc<Self>, connection: OpenConnection) {
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
        sleep(SWEEP).await;
        let Some(idle) = idle.upgrade() else { return };
        idle.lock().connections.retain(is_good);
    }
}

impl ConnectionPool {
    /// Creates a pool.
    pub(crate) fn new(connector: UpstreamConnector, address: Arc<UpstreamAddress>) -> Self {
        Self {
            connector,
            address,
            idle: Arc::default(),
        }
    }

    /// Sends a request and waits for the head of its response. If a closing connection returns the
    /// request unsent, it is sent on another one: it was never made. `began`: the moment at which the
    /// attempt began; `again` makes the request once more, if it may be repeated.
    pub(crate) async fn request(
        &self,
        mut message: Request<MarkedBody>,
        began: Instant,
        again: impl FnOnce() -> Option<Request<MarkedBody>>,
    ) -> Result<Response<PooledBody>, HttpFailure> {
        let has_body = !message.body().is_empty();
        while let Some(mut connection) = self.idle.take() {
            let mut error = match connection.sender.try_send_request(message).await {
                Ok(response) => return Ok(self.arriving(response, connection)),
                Err(error) => error,
            };
            if let Some(unsent) = error.take_message() {
                message = unsent;
                continue;
            }
            if !connection.history.closed_on_reuse(began) {
                return Err(failed(&connection.history, has_body, error.error()));
            }
            // EDGE-1: the server closed an idle connection at this moment, which is no failure.
            message = again().ok_or(HttpFailure::ClosedOnReuse)?;
            break;
        }
        // On the heap: it is rarely needed.
        let mut connection = Box::pin(self.connect()).await?;
        match connection.sender.try_send_request(message).await {
            Ok(response) => Ok(self.arriving(response, connection)),
            Err(error) => Err(failed(&connection.history, has_body, error.error())),
        }
    }

    async fn connect(&self) -> Result<OpenConnection, HttpFailure> {
        let stream = self.connector.clone().connect();
        let failed =
            |error: &(dyn Error + 'static)| HttpFailure::Connect(ConnectFailure::of(error));
        let stream = stream.await.map_err(|error| failed(&error))?;
        let history = Arc::clone(stream.inner().observer());
        let (sender, work) = http1()
            .handshake(stream)
            .await
            .map_err(|error| failed(&error))?;
        // The requests report its end.
        tokio::spawn(async move { drop(work.await) });
        Ok(OpenConnection {
            sender,
            history,
            keep: self.address.keep(),
        })
    }

    fn arriving(
        &self,
        response: Response<Incoming>,
        mut connection: OpenConnection,
    ) -> Response<PooledBody> {
        connection.history.head_came();
        if let Some(told) = idle_time(response.headers()) {
            connection.keep = told;
        }
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

/// Returns the failure of a request that got no answer.
pub(super) fn failed(
    history: &SocketHistory,
    has_body: bool,
    error: &(dyn Error + 'static),
) -> HttpFailure {
    if let Some(refusal) = history.refusal() {
        return HttpFailure::Connect(refusal);
    }
    let first = history.answer_bytes();
    let is_foreign = !matches!(first, FirstBytes::None | FirstBytes::Http1);
    // EDGE-1: while the request itself was on its way, it may be the reason.
    if has_body && history.write_failed() && !is_foreign {
        return HttpFailure::UploadCut;
    }
    AnswerFault::of(first, error).map_or(HttpFailure::Reset, HttpFailure::Answer)
}

/// Returns the settings of connections that speak HTTP/1.1.
pub(super) fn http1() -> Builder {
    let mut builder = Builder::new();
    // EDGE-3: what a recipient has to repair in a response is repaired (RFC 9112, sections 5.1, 5.2).
    builder
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .max_headers(MAX_HEADERS)
        // EDGE-4: the system's buffers hold back what a caller does not read.
        .max_buf_size(MAX_READ_AHEAD);
    builder
}

/// Returns the time for which the server keeps an idle connection, as it says itself, with a second
/// for the way.
fn idle_time(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get("keep-alive")?.to_str().ok()?;
    let mut words = line.split(',').map(str::trim);
    let told = words.find_map(|word| word.strip_prefix("timeout="))?;
    let told = Duration::from_secs(told.trim().parse().ok()?);
    Some(told.saturating_sub(Duration::from_secs(1)))
}

/// A response body as it arrives. Read to its end, it returns its connection to the pool; dropped
/// before that, it closes the connection.
pub(crate) struct PooledBody {
    body: Incoming,
    lease: Option<(OpenConnection, Arc<IdlePool>)>,
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
