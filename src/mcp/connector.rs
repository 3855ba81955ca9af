//! Connector to a server, one for each incarnation of its worker: the connection to a process, or
//! HTTP connections made on demand.

use std::sync::{Arc, Mutex as SyncMutex};

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
use crate::lock::LockExt as _;

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

    /// Returns the connection for a call of this caller.
    async fn session_of(&self, side: &CallSide) -> Result<Arc<Session>, McpError> {
        match (self, &side.headers) {
            (Self::Web(web), Some(headers)) => web.session_of(headers).await,
            _ => self.session().await,
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
        let session = self.session_of(&side).await?;
        let asked = session.ask((method, params.clone()), side.clone(), call);
        let outcome = asked.await;
        if outcome.is_ok() || !session.connection.is_expired() {
            return outcome;
        }
        // The server has forgotten the session, and did nothing.
        let session = self.session_of(&side).await?;
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
                for (_, session) in web.of_callers.acquire().drain(..) {
                    tokio::spawn(async move { session.close().await });
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
    /// Connections of callers with headers of their own, the last used one at the end.
    of_callers: SyncMutex<Vec<(Arc<HeaderMap>, Arc<Session>)>>,
}

/// Maximum number of connections of callers with headers of their own.
const MAX_CALLERS: usize = 64;

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
            of_callers: SyncMutex::default(),
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
        let session = self.open(self.sender.clone()).await?;
        *now = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Returns the connection of a caller with these headers.
    ///
    /// MCP-6: a server may bind a session to the credentials with which it was begun.
    async fn session_of(&self, headers: &Arc<HeaderMap>) -> Result<Arc<Session>, McpError> {
        let known = || {
            let mut all = self.of_callers.acquire();
            all.retain(|(_, session)| session.liveness.end() == ConnectionEnd::None);
            let place = all.iter().position(|(own, _)| own == headers)?;
            let found = all.remove(place);
            let session = Arc::clone(&found.1);
            all.push(found);
            Some(session)
        };
        if let Some(session) = known() {
            return Ok(session);
        }
        let session = self.open(self.sender.with(headers)).await?;
        if let Some(other) = known() {
            // Another call of this caller was quicker.
            tokio::spawn(async move { session.close().await });
            return Ok(other);
        }
        let mut all = self.of_callers.acquire();
        all.push((Arc::clone(headers), Arc::clone(&session)));
        // CALL-6: nothing is unbounded.
        if all.len() > MAX_CALLERS {
            let (_, oldest) = all.remove(0);
            tokio::spawn(async move { oldest.close().await });
        }
        Ok(session)
    }

    /// Makes a connection.
    async fn open(&self, sender: HttpSender) -> Result<Arc<Session>, McpError> {
        let settings = &self.server_state.settings;
        let liveness = Arc::new(Liveness::new(settings.hang_limit));
        let link = Link::Http(HttpLink::new(sender));
        let connection = Connection::new(link, liveness, &self.server_state);
        let limit = settings.start_timeout;
        let opening = Session::open(connection, &self.server_state);
        let opened = timeout(limit, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            let reason = format!("no handshake within {}", RoundedDuration(limit));
            Err(McpError::Connect { reason })
        });
        Ok(Arc::new(opened?))
    }
}
