//! Connector to a server, one for each incarnation of its worker: the connection to a process, or
//! HTTP connections made on demand.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Mutex;
use tokio::time::timeout;

use breakerbox_policy::RoundedDuration;

use super::audience::{CallSide, ReplyFuture, RequestSender};
use super::call_table::RequestOutcome;
use super::connection::{Connection, Link};
use super::error::McpError;
use super::http::{HttpLink, HttpSender};
use super::json_text::JsonText;
use super::liveness::{ConnectionEnd, Liveness};
use super::server_state::ServerState;
use super::session::Session;
use super::settings::McpServer;
use crate::CallContext;

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

    /// Sends a request as one call. `call`: its context, if a worker makes it.
    ///
    /// # Cancel safety   Dropping the future notifies the server of the cancellation.
    pub(super) async fn ask(
        &self,
        (method, params): (&str, Option<JsonText>),
        side: CallSide,
        call: Option<&CallContext>,
    ) -> RequestOutcome {
        let session = self.session().await?;
        let asked = session.ask((method, params.clone()), side.clone(), call);
        let outcome = asked.await;
        if outcome.is_ok() || !session.connection.is_expired() {
            return outcome;
        }
        // The server has forgotten the session, and did nothing.
        let session = self.session().await?;
        session.ask((method, params), side, call).await
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

impl RequestSender for McpConnector {
    fn send<'a>(
        &'a self,
        method: &'a str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> ReplyFuture<'a> {
        Box::pin(self.ask((method, params), side, None))
    }
}

/// Connector to a remote server. A connection is cheap: one that hangs or has ended is dropped, and
/// the next call makes another one. Calls in flight on the old one may complete.
pub(super) struct WebLink {
    sender: HttpSender,
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
        let mut custom = HeaderMap::new();
        for (name, value) in headers {
            let parsed = HeaderName::try_from(name.as_str()).ok();
            let parsed = parsed.zip(HeaderValue::try_from(value.expose()).ok());
            let Some((key, mut value)) = parsed else {
                return Err(failed(format!("the header {name} cannot be sent")));
            };
            value.set_sensitive(true);
            custom.insert(key, value);
        }
        let to = (url.as_str(), custom);
        let sender = HttpSender::new(to, settings.start_timeout, settings.max_line);
        Ok(Self {
            sender: sender.map_err(failed)?,
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
        let link = Link::Http(HttpLink::new(self.sender.clone()));
        let connection = Connection::new(link, liveness, &self.server_state);
        let limit = settings.start_timeout;
        let opening = Session::open(connection, &self.server_state);
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
