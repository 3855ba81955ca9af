//! Requests to one HTTP dependency, over connections that one thread keeps.
//!
//! It does no retries (rule LIM-4) and no classification.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{EXPECT, HOST};
use http::{HeaderValue, Request, Response};
use hyper_util::client::legacy::Client as Negotiated;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::{IDLE, UpstreamAddress, UpstreamConnector};
use super::error::HttpError;
use super::pool::{ConnectionPool, PooledBody};
use super::request_body::Upload;
use crate::sidecar::gateway::headers::{DEADLINE, append_via};
use crate::sidecar::gateway::message::{HttpFailure, HttpRequest};

/// Connections to one dependency, kept by one thread.
pub(crate) struct UpstreamClient {
    address: Arc<UpstreamAddress>,
    transport: UpstreamTransport,
}

/// Transport of the requests.
enum UpstreamTransport {
    Plain(ConnectionPool),
    /// HTTP/1.1 or HTTP/2, as negotiated.
    Tls(Negotiated<UpstreamConnector, Upload>),
}

impl UpstreamClient {
    pub(crate) fn new(address: Arc<UpstreamAddress>) -> Self {
        let connector = UpstreamConnector::new(Arc::clone(&address));
        let transport = match &address.tls {
            None => UpstreamTransport::Plain(ConnectionPool::new(connector, address.uri.clone())),
            // If a closing connection returns a request unsent, it is sent on another one: it was
            // never made.
            Some(_) => UpstreamTransport::Tls(
                Negotiated::builder(TokioExecutor::new())
                    .pool_timer(TokioTimer::new())
                    .timer(TokioTimer::new())
                    .pool_idle_timeout(IDLE)
                    .build(connector),
            ),
        };
        Self { address, transport }
    }

    /// Sends a request and waits for the head of its response. `left`: remaining time of the call.
    pub(crate) async fn send(
        &self,
        request: &HttpRequest,
        body: Upload,
        left: Option<Duration>,
    ) -> Result<Response<PooledBody>, HttpError> {
        let trace = match &body {
            Upload::Passing(passing) => Some(passing.trace()),
            Upload::Whole(_) => None,
        };
        let mut message = Request::new(body);
        *message.method_mut() = request.method().clone();
        let uri = match &self.transport {
            UpstreamTransport::Plain(_) => self.address.path(request.target()),
            UpstreamTransport::Tls(_) => self.address.whole(request.target()),
        };
        *message.uri_mut() = uri.map_err(|_| HttpFailure::Reset)?;
        let headers = message.headers_mut();
        headers.clone_from(request.headers());
        headers.remove(EXPECT);
        let outbound = self.address.outbound.load();
        outbound.apply(headers);
        if let Some(left) = left.filter(|_| outbound.is_forwarded) {
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            headers.insert(DEADLINE, HeaderValue::from(millis));
        }
        drop(outbound);
        let sent = match &self.transport {
            UpstreamTransport::Plain(pool) => {
                headers.insert(HOST, self.address.host.clone());
                pool.request(message).await
            }
            UpstreamTransport::Tls(pool) => {
                headers.remove(HOST);
                let sent = pool.request(message).await;
                sent.map(|response| response.map(PooledBody::alone))
                    .map_err(|error| lost(&error))
            }
        };
        let sent = sent.map(|mut response| {
            let version = response.version();
            append_via(response.headers_mut(), version);
            response
        });
        sent.map_err(|failure| {
            let fault = trace.and_then(|trace| trace.fault());
            fault.unwrap_or(failure).into()
        })
    }
}

fn lost(error: &hyper_util::client::legacy::Error) -> HttpFailure {
    if error.is_connect() {
        HttpFailure::Connect
    } else {
        HttpFailure::Reset
    }
}

impl fmt::Debug for UpstreamClient {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Upstream").finish_non_exhaustive()
    }
}
