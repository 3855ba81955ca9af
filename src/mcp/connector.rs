//! Connector to a server, one for each incarnation of its worker: the connection to a process, or
//! HTTP connections made on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use breakerbox_policy::RoundedDuration;

use super::audience::{CallSide, ReplyFuture, RequestSender, SessionOwner, TellFuture};
use super::call_table::RequestOutcome;
use super::connection::{Connection, Link};
use super::dialect::Dialect;
use super::error::McpError;
use super::http::{HttpLink, HttpSender};
use super::json_text::JsonText;
use super::liveness::{ConnectionEnd, Liveness};
use super::process_pool::ProcessPool;
use super::server_state::ServerState;
use super::session::Session;
use super::settings::McpServer;
use super::tool_list;
use crate::CallContext;
use crate::lock::LockExt as _;

/// Limit for waiting for the reason of a process's end.
const REASON: Duration = Duration::from_secs(1);

/// Connector to a server.
pub(super) enum McpConnector {
    /// A connection that lives as long as the process behind it.
    Process(Arc<Session>),
    /// A process for each session of a caller.
    Processes(ProcessPool),
    /// Consecutive connections.
    Web(Box<WebLink>),
}

impl McpConnector {
    /// Returns the current connection of callers without one of their own, or makes one.
    ///
    /// # Errors  There is no connection, and none can be made.
    pub(super) async fn session(&self) -> Result<Arc<Session>, McpError> {
        self.session_of(&CallSide::default()).await
    }

    /// Returns the connection for a call of this caller.
    async fn session_of(&self, side: &CallSide) -> Result<Arc<Session>, McpError> {
        match self {
            Self::Process(session) => Ok(Arc::clone(session)),
            Self::Processes(pool) => Ok(pool.running(side).await?.0),
            Self::Web(web) if side.owner.is_some() || side.headers.is_some() => {
                web.session_of(side).await
            }
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
        if let Self::Processes(pool) = self {
            return ask_pool(pool, (method, params), side, call).await;
        }
        let was_forgotten = Arc::new(AtomicBool::new(false));
        let side = CallSide {
            was_forgotten: Some(Arc::clone(&was_forgotten)),
            ..side
        };
        let session = self.session_of(&side).await?;
        let asked = session.ask((method, params.clone()), side.clone(), call);
        let outcome = asked.await;
        // CALL-7: nothing was done if this request itself was refused. Another request of the same
        // session may learn of its end while the server works on this one.
        let is_unsent = matches!(outcome, Err(McpError::Ended { .. }));
        if !is_unsent && !was_forgotten.load(Ordering::Acquire) {
            return outcome;
        }
        let session = self.session_of(&side).await?;
        session.ask((method, params), side, call).await
    }

    /// Passes a notification of a caller on, if its server is connected and speaks a dialect that
    /// has it.
    async fn pass_on(&self, method: &str, params: Option<JsonText>, side: &CallSide) {
        let session = match self {
            Self::Process(session) => Some(Arc::clone(session)),
            Self::Processes(pool) => pool.present(side),
            Self::Web(web) => web.present(side).await,
        };
        let Some(session) = session else {
            // A server that is connected later asks anew.
            return;
        };
        let dialect = session.connection.dialect();
        if dialect.is_some_and(Dialect::is_self_contained) {
            return;
        }
        if let Err(error) = session.connection.notify(method, params).await {
            tracing::debug!(%error, method, "a notification of a caller was not taken");
        }
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        match self {
            Self::Process(session) => session.close().await,
            Self::Processes(pool) => pool.close().await,
            Self::Web(web) => {
                if let Some(session) = web.now.lock().await.take() {
                    session.close().await;
                }
                for of_caller in web.of_callers.acquire().drain(..) {
                    tokio::spawn(async move { of_caller.session.close().await });
                }
            }
        }
    }
}

/// Returns the process of a caller, which may have to be started first.
async fn started(
    pool: &ProcessPool,
    side: &CallSide,
) -> Result<(Arc<Session>, Arc<Liveness>), McpError> {
    let Some(progress) = &side.progress else {
        return pool.running(side).await;
    };
    // CALL-2: a call that a limit ends meanwhile was not executed.
    progress.set_unsent(true);
    let running = pool.running(side).await;
    progress.set_unsent(false);
    running
}

/// Sends a request to the process of its caller.
async fn ask_pool(
    pool: &ProcessPool,
    (method, params): (&str, Option<JsonText>),
    side: CallSide,
    call: Option<&CallContext>,
) -> RequestOutcome {
    let mut is_again = false;
    loop {
        let (session, liveness) = started(pool, &side).await?;
        let asked = session.ask((method, params.clone()), side.clone(), call);
        let error = match asked.await {
            Err(error) if error.is_end() => error,
            outcome => return outcome,
        };
        let is_unsent = matches!(error, McpError::Ended { .. });
        let is_over = |owner: &Arc<dyn SessionOwner>| *owner.ended().borrow();
        if side.owner.as_ref().is_some_and(is_over) {
            let was_sent = !is_unsent;
            return Err(McpError::SessionOver { was_sent });
        }
        // Its supervisor tells the reason, unless it has ended too.
        let why = timeout(REASON, liveness.over()).await;
        if is_again || !is_unsent {
            return Err(error.because(why.ok().flatten()));
        }
        // It ended in this moment: nothing was sent, and the next one is started at once.
        is_again = true;
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

    fn tell<'a>(
        &'a self,
        method: &'a str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> TellFuture<'a> {
        Box::pin(async move { self.pass_on(method, params, &side).await })
    }
}

/// Connector to a remote server. A connection is cheap: one that hangs or has ended is dropped, and
/// the next call makes another one. Calls in flight on the old one may complete.
pub(super) struct WebLink {
    sender: HttpSender,
    server_state: Arc<ServerState>,
    now: Mutex<Option<Arc<Session>>>,
    /// Connections of callers with headers or sessions of their own, the last used one at the end.
    of_callers: Arc<SyncMutex<Vec<OwnConnection>>>,
}

/// Maximum number of connections of callers with headers of their own. Those of sessions are as many
/// as these.
const MAX_CALLERS: usize = 64;

/// The connection of a caller with headers or a session of its own.
struct OwnConnection {
    /// The number of the session.
    owner: Option<u64>,
    headers: Option<Arc<HeaderMap>>,
    session: Arc<Session>,
}

impl OwnConnection {
    fn is_of(&self, side: &CallSide) -> bool {
        self.owner == side.owner_number() && self.headers == side.headers
    }
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
            of_callers: Arc::default(),
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
        // It stands there until there is a new one: the attempt may fail.
        let is_new_life = now.is_some();
        let session = self.open(self.sender.clone(), None).await?;
        if is_new_life {
            // MCP-5: a server that has forgotten its sessions may have been started anew.
            tool_list::tell_of_lists(&session.connection, &["prompts", "resources"]);
        }
        *now = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Returns the present connection of a caller.
    async fn present(&self, side: &CallSide) -> Option<Arc<Session>> {
        if side.owner.is_some() || side.headers.is_some() {
            return self.known(side);
        }
        let now = self.now.lock().await.clone();
        now.filter(|one| one.liveness.end() == ConnectionEnd::None)
    }

    /// Returns the connection of a caller with headers or a session of its own, if there is one.
    fn known(&self, side: &CallSide) -> Option<Arc<Session>> {
        let mut all = self.of_callers.acquire();
        all.retain(|own| own.session.liveness.end() == ConnectionEnd::None);
        let place = all.iter().position(|own| own.is_of(side))?;
        let found = all.remove(place);
        let session = Arc::clone(&found.session);
        all.push(found);
        Some(session)
    }

    /// Returns the connection of a caller with headers or a session of its own, or makes one.
    ///
    /// MCP-6: a server may bind a session to the credentials with which it was begun.
    async fn session_of(&self, side: &CallSide) -> Result<Arc<Session>, McpError> {
        if let Some(session) = self.known(side) {
            return Ok(session);
        }
        let sender = match &side.headers {
            Some(headers) => self.sender.with(headers),
            None => self.sender.clone(),
        };
        let session = self.open(sender, side.owner.as_ref()).await?;
        if let Some(other) = self.known(side) {
            // Another call of this caller was quicker.
            tokio::spawn(async move { session.close().await });
            return Ok(other);
        }
        let own = OwnConnection {
            owner: side.owner_number(),
            headers: side.headers.clone(),
            session: Arc::clone(&session),
        };
        if let Some(ended) = side.owner.as_ref().map(|owner| owner.ended()) {
            let all = Arc::downgrade(&self.of_callers);
            tokio::spawn(close_after(ended, Arc::downgrade(&session), all));
        }
        let leaving = {
            let mut all = self.of_callers.acquire();
            // A session has one connection: with other headers it is another one.
            let place = all
                .iter()
                .position(|other| own.owner.is_some() && other.owner == own.owner);
            all.push(own);
            let without = all.iter().filter(|own| own.owner.is_none()).count();
            match place {
                Some(place) => Some(all.remove(place)),
                // CALL-6: nothing is unbounded.
                None if without > MAX_CALLERS => all
                    .iter()
                    .position(|own| own.owner.is_none())
                    .map(|oldest| all.remove(oldest)),
                None => None,
            }
        };
        if let Some(leaving) = leaving {
            tokio::spawn(async move { leaving.session.close().await });
        }
        Ok(session)
    }

    /// Makes a connection. `owner`: the session that it serves alone.
    async fn open(
        &self,
        sender: HttpSender,
        owner: Option<&Arc<dyn SessionOwner>>,
    ) -> Result<Arc<Session>, McpError> {
        let settings = &self.server_state.settings;
        let liveness = Arc::new(Liveness::new(settings.hang_limit));
        let link = Link::Http(Box::new(HttpLink::new(sender)));
        let connection = Connection::new(link, liveness, &self.server_state, owner);
        let limit = settings.start_timeout;
        let opening = Session::open(connection, &self.server_state);
        let opened = timeout(limit, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            // MCP-3: it may wait for ever for the other handshake.
            self.server_state.remember_handshake(owner.is_some(), None);
            let reason = format!("no handshake within {}", RoundedDuration(limit));
            Err(McpError::Connect { reason })
        });
        Ok(Arc::new(opened?))
    }
}

/// Ends a caller's session at the server with the caller's own.
async fn close_after(
    mut ended: watch::Receiver<bool>,
    session: Weak<Session>,
    all: Weak<SyncMutex<Vec<OwnConnection>>>,
) {
    let Some(liveness) = session.upgrade().map(|own| Arc::clone(&own.liveness)) else {
        return;
    };
    tokio::select! {
        // A sender that is gone means that the session is.
        _ = ended.wait_for(|ended| *ended) => {}
        _ = liveness.ended() => return,
    }
    let Some(session) = session.upgrade() else {
        return;
    };
    if let Some(all) = all.upgrade() {
        all.acquire()
            .retain(|own| !Arc::ptr_eq(&own.session, &session));
    }
    session.close().await;
}
