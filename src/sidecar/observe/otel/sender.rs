//! Transport to the collector: one thread sends every export, each within its time limit.
//!
//! The SDK's exporters run on their own threads without a runtime. They pass their requests to this
//! thread and wait.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{HttpClient, HttpError};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::ExporterError;
use crate::config::OtelConfig;
use crate::tcp_connector::TcpConnector;

/// Maximum size of a collector's response, in bytes.
const MAX_ANSWER: usize = 64_000;

/// Headers taken from the exporters' requests; all others come from the configuration.
const KEPT: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, USER_AGENT];

/// Sends requests to the collector. Cheap to clone.
#[derive(Clone)]
pub(super) struct OtlpSender {
    client: Client<HttpsConnector<TcpConnector>, Full<Bytes>>,
    runtime: Handle,
    endpoint: Arc<str>,
    headers: Arc<HeaderMap>,
    timeout: Duration,
}

/// Starts a thread that runs until the sender is dropped, and returns a handle of its runtime.
pub(super) fn thread() -> io::Result<(oneshot::Sender<()>, JoinHandle<()>, Handle)> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    let run = move || {
        // A stop signal and a dropped sender both end the thread.
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    };
    let named = std::thread::Builder::new().name("telemetry".to_owned());
    let thread = named.spawn(run)?;
    Ok((stop, thread, handle))
}

impl OtlpSender {
    pub(super) fn new(
        endpoint: &str,
        config: &OtelConfig,
        runtime: Handle,
    ) -> Result<Self, ExporterError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let name = HeaderName::try_from(name.as_str());
            let value = HeaderValue::from_str(value.expose());
            let (Ok(name), Ok(mut value)) = (name, value) else {
                let what = "a header of otel.headers cannot be sent".to_owned();
                return Err(ExporterError::Unusable(what));
            };
            value.set_sensitive(true);
            headers.append(name, value);
        }
        let tcp = TcpConnector::new(None);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(endpoint).map_err(ExporterError::Unusable)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            client,
            runtime,
            endpoint: endpoint.into(),
            headers: Arc::new(headers),
            timeout: config.timeout,
        })
    }

    /// Returns the URL for a signal.
    pub(super) fn address(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.endpoint)
    }

    /// Runs a future on the thread.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(future)
    }

    /// Sends one request. Call it on the thread itself.
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        let mut headers = (*self.headers).clone();
        for name in KEPT {
            if let Some(value) = head.headers.remove(&name) {
                headers.insert(name, value);
            }
        }
        head.headers = headers;
        let sending = async {
            let request = Request::from_parts(head, Full::from(body));
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(self.timeout, sending).await?
    }
}

/// Future type that the `HttpClient` trait requires.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for OtlpSender {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Sending<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let own = self.clone();
        let sent = self.spawn(async move { own.send(request).await });
        Box::pin(async move { sent.await? })
    }
}

/// Omits the headers.
impl fmt::Debug for OtlpSender {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sender")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Loads the certificate authorities only for HTTPS.
fn tls(endpoint: &str) -> Result<ClientConfig, String> {
    if endpoint.starts_with("https:") {
        return crate::tls::client();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let none = RootCertStore::empty();
    Ok(config.with_root_certificates(none).with_no_client_auth())
}
