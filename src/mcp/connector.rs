//! Connector to a server, one for each incarnation of its worker: the connection to a process, or
//! HTTP connections made on demand.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use rmcp::service::{RoleClient, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::common::client_side_sse::NeverRetry;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, Transport};
use tokio::sync::Mutex;
use tokio::time::timeout;

use breakerbox_policy::RoundedDuration;

use super::error::McpError;
use super::http::McpHttp;
use super::liveness::{ConnectionEnd, Liveness};
use super::server_state::ServerState;
use super::session::Session;
use super::settings::McpServer;

/// Connector to a server.
pub(super) enum McpConnector {
    /// A connection that lives as long as the process behind it.
    Process(Arc<Session>),
    /// Consecutive connections.
    Web(Box<WebLink>),
}

impl McpConnector {
    /// Returns the current connection, or makes one.
    ///
    /// # Errors  There is no connection, and none can be made.
    pub(super) async fn session(&self) -> Result<Arc<Session>, McpError> {
        match self {
            Self::Process(session) => Ok(Arc::clone(session)),
            Self::Web(web) => web.session().await,
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        match self {
            Self::Process(session) => session.close().await,
            Self::Web(web) => {
                if let Some(session) = web.now.lock().await.take() {
                    session.close().await;
                }
            }
        }
    }
}

/// Connector to a remote server. A connection is cheap: one that hangs or has ended is dropped, and
/// the next call makes another one. Calls in flight on the old one may complete.
pub(super) struct WebLink {
    web: McpHttp,
    config: StreamableHttpClientTransportConfig,
    server_state: Arc<ServerState>,
    now: Mutex<Option<Arc<Session>>>,
}

impl WebLink {
    /// Creates a connector without a connection.
    ///
    /// # Errors  The settings are not for HTTP, or a header cannot be sent.
    pub(super) fn new(server_state: &Arc<ServerState>) -> Result<Self, McpError> {
        let settings = &server_state.settings;
        let failed = |reason: String| McpError::StartFailed { reason };
        let McpServer::Http { url, headers } = &settings.server else {
            return Err(failed("a process is not an HTTP server".to_owned()));
        };
        let mut custom = HashMap::new();
        for (name, value) in headers {
            let parsed = HeaderName::try_from(name.as_str()).ok();
            let parsed = parsed.zip(HeaderValue::try_from(value.expose()).ok());
            let Some((key, mut value)) = parsed else {
                return Err(failed(format!("the header {name} cannot be sent")));
            };
            value.set_sensitive(true);
            custom.insert(key, value);
        }
        let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
        config.custom_headers = custom;
        config.retry_config = Arc::new(NeverRetry::default());
        // The bulkhead limits them.
        config.max_concurrent_requests = 1 << 20;
        let web = McpHttp::new(settings.start_timeout, settings.max_line).map_err(failed)?;
        Ok(Self {
            web,
            config,
            server_state: Arc::clone(server_state),
            now: Mutex::new(None),
        })
    }

    /// Returns the shared connection; the first caller that needs it makes it.
    async fn session(&self) -> Result<Arc<Session>, McpError> {
        let mut now = self.now.lock().await;
        if let Some(session) = now
            .as_ref()
            .filter(|one| one.liveness.end() == ConnectionEnd::None)
        {
            return Ok(Arc::clone(session));
        }
        *now = None;
        let settings = &self.server_state.settings;
        let liveness = Arc::new(Liveness::new(settings.hang_limit));
        let transport =
            StreamableHttpClientTransport::with_client(self.web.clone(), self.config.clone());
        let heard = ObservedTransport {
            transport,
            liveness: Arc::clone(&liveness),
        };
        let limit = settings.start_timeout;
        let opening = Session::open(heard, liveness, &self.server_state);
        let opened = timeout(limit, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            let reason = format!("no handshake within {}", RoundedDuration(limit));
            Err(McpError::Connect { reason })
        });
        let session = Arc::new(opened?);
        *now = Some(Arc::clone(&session));
        Ok(session)
    }
}

/// A transport that reports its messages to the liveness of the connection.
struct ObservedTransport<T> {
    transport: T,
    liveness: Arc<Liveness>,
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for ObservedTransport<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        self.transport.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.transport.receive().await;
        match &message {
            Some(message) => self.liveness.heard(message),
            None => self.liveness.close(None),
        }
        message
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.transport.close().await
    }
}

impl<T> Drop for ObservedTransport<T> {
    fn drop(&mut self) {
        self.liveness.close(None);
    }
}
