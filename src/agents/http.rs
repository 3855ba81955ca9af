//! HTTP client for JSON services: one request, one response.
//!
//! It never retries (rule LIM-4) and never classifies a response. Its errors contain no URL and no
//! header: both may contain keys.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use serde_json::Value;

use super::ServiceError;
use crate::config::Secret;
use crate::policy::{Class, Executed, Symptom};
use crate::{CallContext, TimeLimitExceeded, Verdict};

/// Maximum size of a response body, in bytes.
const MAX_BODY: usize = 8_000_000;
/// Time for which an unused connection is kept: shorter than most servers keep it.
const IDLE: Duration = Duration::from_secs(20);

/// HTTP connections of one worker to services.
#[derive(Debug, Clone)]
pub(super) struct HttpConnections {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A request to a service. Its `Debug` shows neither the URL nor secret headers.
#[derive(Debug, Clone)]
pub struct ServiceRequest {
    method: Method,
    /// It may contain a key.
    url: Secret,
    headers: HeaderMap,
    body: Bytes,
}

/// A response of a service, with any status.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServiceResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The complete body.
    pub body: Bytes,
}

impl ServiceRequest {
    /// Creates a GET request for this URL, which may contain a key.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: Secret::new(url),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Creates a POST request with this JSON body.
    #[must_use]
    pub fn post_json(url: impl Into<String>, body: &Value) -> Self {
        Self::post(url, "application/json", body.to_string())
    }

    pub(super) fn post(url: impl Into<String>, media: &'static str, body: String) -> Self {
        let mut asked = Self::get(url);
        asked.method = Method::POST;
        asked
            .headers
            .insert(CONTENT_TYPE, HeaderValue::from_static(media));
        asked.body = Bytes::from(body);
        asked
    }

    /// Adds a header that is never shown in logs.
    ///
    /// # Errors  The value is not a valid header value.
    pub fn secret_header(mut self, name: HeaderName, value: &str) -> Result<Self, ServiceError> {
        let wrong = |_| {
            let verdict = Verdict::from(Class::Misconfigured);
            ServiceError::new(
                verdict,
                format!("the given value of the header {name} is invalid"),
            )
        };
        let mut value = HeaderValue::from_str(value).map_err(wrong)?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Adds a header.
    ///
    /// # Panics  The name or the value is not valid for a header; the name must be in lower case.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        let name = HeaderName::from_static(name);
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// Adds an access token.
    ///
    /// # Errors  As [`ServiceRequest::secret_header`].
    pub fn bearer(self, token: &Secret) -> Result<Self, ServiceError> {
        let token = format!("Bearer {}", token.expose());
        self.secret_header(AUTHORIZATION, &token)
    }

    fn into_request(self) -> Result<Request<Full<Bytes>>, ServiceError> {
        let request = Request::builder()
            .method(self.method)
            .uri(self.url.expose());
        let request = request.body(Full::new(self.body)).map_err(|_| {
            let verdict = Verdict::from(Class::Misconfigured);
            ServiceError::new(verdict, "the address of the service is invalid")
        });
        request.map(|mut request| {
            request.headers_mut().extend(self.headers);
            request
        })
    }
}

impl HttpConnections {
    /// Creates a client. `connect`: limit for connecting.
    pub(super) fn new(tls: ClientConfig, connect: Option<Duration>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(connect);
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

    /// Sends a request and reads the whole response. The limits within the attempt are those of
    /// `call`; without it, the caller sets the limits.
    ///
    /// # Cancel safety   Dropping the future aborts the request.
    pub(super) async fn send(
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

impl ServiceResponse {
    /// Parses the body as JSON.
    ///
    /// # Errors  The body has another shape: a failure of the service, never an empty answer.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ServiceError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The position of the error, never the text there.
            let place = format!("line {}, column {}", error.line(), error.column());
            malformed(&format!("its response is invalid ({place})"))
        })
    }
}

/// Returns the error for a complete response that cannot be used.
pub(super) fn malformed(text: &str) -> ServiceError {
    let verdict = Verdict::from(Class::Failure).executed(Executed::Yes);
    ServiceError::new(verdict, text)
}

fn lost(symptom: Symptom, text: &str) -> ServiceError {
    ServiceError::new(Verdict::from(symptom), text)
}

fn late(late: TimeLimitExceeded) -> ServiceError {
    ServiceError::new(Verdict::from(late.symptom()), late.to_string())
}
