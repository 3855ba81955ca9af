//! Connections to a server that speaks HTTP/1.1 without TLS, kept by one thread.
//!
//! A connection is kept when an answer has been read to its end, and closed when it has not. It
//! does what hyper-util's pool does for everything else, without a task for each request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use tokio::time::{Instant, sleep};
use tower_service::Service as _;

use super::failure::Failure;
use super::upload::Upload;
use super::upstream::{Connector, IDLE};

/// Connections to one server.
pub(super) struct Pool {
    connector: Connector,
    uri: Uri,
    idle: Arc<Idle>,
}

/// Those that nobody uses; the last one used is the first one used again.
#[derive(Default)]
struct Idle(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    connections: Vec<(SendRequest<Upload>, Instant)>,
    /// Whether a task closes those that are kept for too long.
    is_swept: bool,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<SendRequest<Upload>> {
        let connections = &mut self.lock().connections;
        // One that still takes the rest of a request is not ready, and may be so later.
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

/// Closes what nobody has used for long, as long as there is a pool.
async fn sweep(idle: Weak<Idle>) {
    loop {
        sleep(IDLE).await;
        let Some(idle) = idle.upgrade() else { return };
        let is_good = |(connection, since): &(SendRequest<Upload>, Instant)| {
            !connection.is_closed() && since.elapsed() < IDLE
        };
        idle.lock().connections.retain(is_good);
    }
}

impl Pool {
    /// `uri`: of the server.
    pub(super) fn new(connector: Connector, uri: Uri) -> Self {
        Self {
            connector,
            uri,
            idle: Arc::default(),
        }
    }

    /// Sends a request and waits for the head of its answer. One that a closing connection hands
    /// back untouched goes out on another one: it was never made.
    pub(super) async fn request(
        &self,
        mut message: Request<Upload>,
    ) -> Result<Response<Arriving>, Failure> {
        while let Some(mut connection) = self.idle.take() {
            match connection.try_send_request(message).await {
                Ok(response) => return Ok(self.arriving(response, connection)),
                Err(mut error) => message = error.take_message().ok_or(Failure::Reset)?,
            }
        }
        // On the heap: it is seldom needed.
        let mut connection = Box::pin(self.connect()).await?;
        let sent = connection.try_send_request(message).await;
        let response = sent.map_err(|_| Failure::Reset)?;
        Ok(self.arriving(response, connection))
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, Failure> {
        let stream = self.connector.clone().call(self.uri.clone());
        let stream = stream.await.map_err(|_| Failure::Connect)?;
        let (connection, work) = handshake(stream).await.map_err(|_| Failure::Connect)?;
        // Its end shows at the requests.
        tokio::spawn(async move { drop(work.await) });
        Ok(connection)
    }

    fn arriving(
        &self,
        response: Response<Incoming>,
        connection: SendRequest<Upload>,
    ) -> Response<Arriving> {
        response.map(|body| {
            let mut arriving = Arriving {
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

/// The body of an answer as it arrives. At its end its connection is free for others; dropped
/// before that, it is closed.
pub(super) struct Arriving {
    body: Incoming,
    lease: Option<(SendRequest<Upload>, Arc<Idle>)>,
}

impl Arriving {
    /// One whose connection is another's business.
    pub(super) fn alone(body: Incoming) -> Self {
        Self { body, lease: None }
    }

    fn give_back(&mut self) {
        if let Some((connection, idle)) = self.lease.take() {
            idle.keep(connection);
        }
    }
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.body.fmt(out)
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            // It is of no use any more.
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
