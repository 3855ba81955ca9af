//! HTTP port for JSON services: one request, one response.
//!
//! It never retries (rule LIM-4) and never classifies a response by itself. Its errors contain no
//! URL and no header: both may contain keys.

mod request;
mod response;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use super::ServiceError;
use crate::policy::Symptom;
use crate::tcp_connector::TcpConnector;
use crate::{CallContext, TimeLimitExceeded, Verdict, tls};

pub use request::{ServiceRequest, percent_encoded};
pub use response::ServiceResponse;

/// Maximum size of a response body, in bytes.
const MAX_BODY: usize = 8_000_000;
/// Time for which an unused connection is kept: shorter than most servers keep it.
const IDLE: Duration = Duration::from_secs(20);

/// HTTP connections of one worker to its service. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct ServicePort {
    client: Client<HttpsConnector<TcpConnector>, Full<Bytes>>,
}

impl ServicePort {
    /// Creates a port with connections of its own, over HTTP and HTTPS. `connect`: limit for
    /// connecting.
    ///
    /// # Errors  TLS cannot be set up.
    pub fn new(connect: Option<Duration>) -> Result<Self, ServiceError> {
        let tls = tls::client().map_err(ServiceError::misconfigured)?;
        Ok(Self::with_tls(tls, connect))
    }

    pub(super) fn with_tls(tls: ClientConfig, connect: Option<Duration>) -> Self {
        let tcp = TcpConnector::new(connect);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        // A request that a closing connection returns unsent goes out on another one: no attempt
        // was made.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { client }
    }

    /// Sends one request and reads the whole response, of any status, within the limits of an
    /// attempt.
    ///
    /// # Errors  There was no complete response.
    /// # Cancel safety   Dropping the future aborts the request.
    pub async fn send(
        &self,
        asked: ServiceRequest,
        call: &CallContext,
    ) -> Result<ServiceResponse, ServiceError> {
        self.exchange(asked, Some(call)).await
    }

    /// Sends one request outside of a call, as a [`TokenSource`](super::TokenSource) does. The
    /// caller sets the limits.
    ///
    /// # Errors  As [`ServicePort::send`].
    /// # Cancel safety   As [`ServicePort::send`].
    pub async fn send_alone(&self, asked: ServiceRequest) -> Result<ServiceResponse, ServiceError> {
        self.exchange(asked, None).await
    }

    async fn exchange(
        &self,
        asked: ServiceRequest,
        call: Option<&CallContext>,
    ) -> Result<ServiceResponse, ServiceError> {
        let sending = self.client.request(asked.into_request()?);
        let answered = match call {
            Some(call) => call.first_byte(sending).await.map_err(late)?,
            None => sending.await,
        };
        let answered = answered.map_err(|error| {
            if error.is_connect() {
                lost(Symptom::Connect, "no connection")
            } else {
                lost(Symptom::Reset, "the connection broke")
            }
        })?;
        let (head, mut rest) = answered.into_parts();
        let mut body = BytesMut::new();
        loop {
            let frame = match call {
                Some(call) => call.idle(rest.frame()).await.map_err(late)?,
                None => rest.frame().await,
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| lost(Symptom::Reset, "its answer was cut off"))?;
            if let Ok(piece) = frame.into_data() {
                body.extend_from_slice(&piece);
            }
            if body.len() > MAX_BODY {
                return Err(lost(Symptom::Reset, "its answer is too long"));
            }
        }
        Ok(ServiceResponse {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.freeze(),
        })
    }
}

fn lost(symptom: Symptom, text: &str) -> ServiceError {
    ServiceError::new(Verdict::from(symptom), text)
}

fn late(late: TimeLimitExceeded) -> ServiceError {
    ServiceError::new(Verdict::from(late.symptom()), late.to_string())
}
