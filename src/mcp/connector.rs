//! Connector to a server, one for each incarnation of its worker: the connection to a process, or
//! HTTP connections made on demand.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

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
            Self::Web(web) => web.session_of(side).await,
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
        let brings_credentials = side.brings_credentials;
        let outcome = self.ask_connected((method, params), side, call).await;
        outcome.map_err(|error| match brings_credentials {
            // EDGE-1: the fault is the caller's, also if its own connection could not be made.
            true => error.of_caller(),
            false => error,
        })
    }

    async fn ask_connected(
        &self,
        (method, params): (&str, Option<JsonText>),
        side: CallSide,
        call: Option<&CallContext>,
    ) -> RequestOutcome {
        let was_forgotten = Arc::new(AtomicBool::new(false));
        let side = CallSide {
            was_forgotten: Some(Arc::clone(&was_forgotten)),
            ..side
        };
        let session = unsent(&side, self.session_of(&side)).await?;
        let asked = session.ask((method, params.clone()), side.clone(), call);
        let outcome = asked.await;
        // CALL-7: nothing was done if this request itself was refused. Another request of the same
        // session may learn of its end while the server works on this one.
        let is_unsent = matches!(outcome, Err(McpError::Ended { .. }));
        if !is_unsent && !was_forgotten.load(Ordering::Acquire) {
            return outcome;
        }
        let session = unsent(&side, self.session_of(&side)).await?;
        session.ask((method, params), side, call).await
    }

    /// Passes a notification of a caller on, if its server is connected and speaks a dialect that
    /// has it.
    async fn pass_on(&self, method: &str, params: Option<JsonText>, side: &CallSide) {
        let session = match self {
            Self::Process(session) => Some(Arc::clone(session)),
            Self::Processes(pool) => pool.present(side),
            Self::Web(web) => web.connections.acquire().present(&ConnectionKey::of(side)),
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
                let all = std::mem::take(&mut *web.connections.acquire());
                drop(all.openings);
                for of_caller in all.of_callers {
                    tokio::spawn(async move { of_caller.session.close().await });
                }
                if let Some(session) = all.shared {
                    session.close().await;
                }
            }
        }
    }
}

/// Waits for the connection of a call, which may have to be made first.
async fn unsent<T>(
    side: &CallSide,
    connecting: impl Future<Output = Result<T, McpError>>,
) -> Result<T, McpError> {
    let Some(progress) = &side.progress else {
        return connecting.await;
    };
    // CALL-2: a call that a limit ends meanwhile was not executed.
    progress.set_unsent(true);
    let connected = connecting.await?;
    progress.set_unsent(false);
    Ok(connected)
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
        let (session, liveness) = unsent(&side, pool.running(&side)).await?;
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
    opener: WebOpener,
    /// The runtime of the worker: a connection must not end with the thread of a caller.
    runtime: Handle,
    connections: Arc<Mutex<WebConnections>>,
}

/// Maximum number of connections of callers with headers of their own. Those of sessions are as many
/// as these.
const MAX_CALLERS: usize = 64;
/// Maximum number of connections that are opened though no call waits for them any more.
const MAX_UNAWAITED: usize = 64;

/// The connections to a server.
#[derive(Default)]
struct WebConnections {
    /// The one of callers without headers and without a session of their own. It stands here until
    /// there is a new one: the attempt may fail.
    shared: Option<Arc<Session>>,
    /// Connections of callers with headers or sessions of their own, the last used one at the end.
    of_callers: Vec<OwnConnection>,
    openings: Vec<WebOpening>,
}

/// The callers that a connection serves.
#[derive(Clone, PartialEq, Eq)]
struct ConnectionKey {
    /// The number of the session.
    owner: Option<u64>,
    headers: Option<Arc<HeaderMap>>,
}

impl ConnectionKey {
    fn of(side: &CallSide) -> Self {
        Self {
            owner: side.owner_number(),
            headers: side.headers.clone(),
        }
    }

    /// Returns true if it is that of all callers without headers and without a session of their own.
    fn is_shared(&self) -> bool {
        self.owner.is_none() && self.headers.is_none()
    }
}

/// The connection of a caller with headers or a session of its own.
struct OwnConnection {
    key: ConnectionKey,
    session: Arc<Session>,
}

/// A connection that is being opened, in a task of its own.
struct WebOpening {
    key: ConnectionKey,
    /// The signal of its end. Its task owns it, so that one that panics ends the wait for it too.
    outcome: Weak<OpenSignal>,
    task: AbortHandle,
}

type OpenOutcome = Result<Arc<Session>, McpError>;
type OpenSignal = watch::Sender<Option<OpenOutcome>>;

impl WebOpening {
    /// Returns true if no call waits for it.
    fn is_unawaited(&self) -> bool {
        let signal = self.outcome.upgrade();
        signal.is_none_or(|signal| signal.receiver_count() == 0)
    }
}

impl Drop for WebOpening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebConnections {
    /// Returns the present connection of a caller, if there is one.
    fn present(&mut self, key: &ConnectionKey) -> Option<Arc<Session>> {
        let lives = |one: &Arc<Session>| one.liveness.end() == ConnectionEnd::None;
        if key.is_shared() {
            return self.shared.clone().filter(lives);
        }
        self.of_callers.retain(|own| lives(&own.session));
        let place = self.of_callers.iter().position(|own| own.key == *key)?;
        let found = self.of_callers.remove(place);
        let session = Arc::clone(&found.session);
        self.of_callers.push(found);
        Some(session)
    }

    /// Returns the signal of the opening for a caller, if there is one.
    fn awaited(&mut self, key: &ConnectionKey) -> Option<watch::Receiver<Option<OpenOutcome>>> {
        // One that has panicked is none.
        self.openings.retain(|one| one.outcome.strong_count() > 0);
        let own = self.openings.iter().find(|one| one.key == *key)?;
        Some(own.outcome.upgrade()?.subscribe())
    }

    /// Ends the oldest of the openings that no call waits for, if there are too many of them.
    fn end_unawaited(&mut self) {
        let unawaited = self.openings.iter().filter(|one| one.is_unawaited());
        // CALL-6: nothing is unbounded. Those that are waited for are as many as calls in flight.
        if unawaited.count() >= MAX_UNAWAITED
            && let Some(oldest) = self.openings.iter().position(WebOpening::is_unawaited)
        {
            drop(self.openings.remove(oldest));
        }
    }

    /// Stores a connection that was opened. Returns the one that leaves for it, if any.
    fn keep(&mut self, key: ConnectionKey, session: Arc<Session>) -> Option<Arc<Session>> {
        if key.is_shared() {
            if self.shared.replace(Arc::clone(&session)).is_some() {
                // MCP-5: a server that has forgotten its sessions may have been started anew.
                tool_list::tell_of_lists(&session.connection, &["prompts", "resources"]);
            }
            return None;
        }
        let owner = key.owner;
        // A session has one connection: with other headers it is another one.
        let is_former = |own: &OwnConnection| owner.is_some() && own.key.owner == owner;
        let former = self.of_callers.iter().position(is_former);
        self.of_callers.push(OwnConnection { key, session });
        let is_plain = |own: &OwnConnection| own.key.owner.is_none();
        let plain = self.of_callers.iter().filter(|own| is_plain(own)).count();
        let leaving = match former {
            Some(former) => Some(former),
            // CALL-6: nothing is unbounded.
            None if plain > MAX_CALLERS => self.of_callers.iter().position(is_plain),
            None => None,
        };
        leaving.map(|place| self.of_callers.remove(place).session)
    }
}

impl WebLink {
    /// Creates a connector without a connection. Call it within the runtime of the worker.
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
        let opener = WebOpener {
            sender: sender.map_err(failed)?,
            server_state: Arc::clone(server_state),
        };
        Ok(Self {
            opener,
            runtime: Handle::current(),
            connections: Arc::default(),
        })
    }

    /// Returns the connection of a caller; the first one that needs it begins to open it.
    ///
    /// MCP-6: a server may bind a session to the credentials with which it was begun.
    ///
    /// # Errors  There is no connection, and none can be made.
    /// # Cancel safety   The opening goes on for the next call.
    async fn session_of(&self, side: &CallSide) -> OpenOutcome {
        let key = ConnectionKey::of(side);
        let mut outcome = {
            let mut connections = self.connections.acquire();
            if let Some(session) = connections.present(&key) {
                return Ok(session);
            }
            let awaited = connections.awaited(&key);
            awaited.unwrap_or_else(|| self.begin(&mut connections, key, side.owner.clone()))
        };
        let opened = outcome.wait_for(Option::is_some).await;
        let opened = opened.ok().and_then(|opened| opened.clone());
        opened.unwrap_or_else(|| Err(broken_off()))
    }

    /// Begins to open a connection, and returns the signal of its end.
    fn begin(
        &self,
        connections: &mut WebConnections,
        key: ConnectionKey,
        owner: Option<Arc<dyn SessionOwner>>,
    ) -> watch::Receiver<Option<OpenOutcome>> {
        let (signal, opened) = watch::channel(None);
        let signal: Arc<OpenSignal> = Arc::new(signal);
        let outcome = Arc::downgrade(&signal);
        let (opener, all) = (self.opener.clone(), Arc::downgrade(&self.connections));
        let own = key.clone();
        // MCP-1: callers that wait less long than the server takes would begin again and again, and
        // none of them would be served.
        let task = self.runtime.spawn(async move {
            let opened = opener.open(&own, owner.as_ref()).await;
            let published = published(opened, (own, &signal), (all, owner));
            signal.send_replace(Some(published));
        });
        connections.end_unawaited();
        connections.openings.push(WebOpening {
            key,
            outcome,
            task: task.abort_handle(),
        });
        opened
    }
}

/// Returns the error of a connection that was not opened to the end.
fn broken_off() -> McpError {
    McpError::Connect {
        reason: "its opening was broken off".to_owned(),
    }
}

/// Stores the connection that was opened for a caller, and ends its opening, which is that of `signal`.
fn published(
    opened: OpenOutcome,
    (key, signal): (ConnectionKey, &Arc<OpenSignal>),
    (all, owner): (Weak<Mutex<WebConnections>>, Option<Arc<dyn SessionOwner>>),
) -> OpenOutcome {
    // Without a connector the connection is dropped, which ends its session.
    let connections = all.upgrade().ok_or_else(broken_off)?;
    let leaving = {
        let mut connections = connections.acquire();
        // One that was given up takes no other's place, which may be of the same callers.
        let is_own = |one: &WebOpening| std::ptr::eq(one.outcome.as_ptr(), Arc::as_ptr(signal));
        let place = connections.openings.iter().position(is_own);
        drop(connections.openings.remove(place.ok_or_else(broken_off)?));
        let session = opened.as_ref().ok().cloned();
        session.and_then(|session| connections.keep(key, session))
    };
    // CALL-2: calls in flight on it may complete. The last of them ends it, and its session.
    drop(leaving);
    if let (Ok(session), Some(owner)) = (&opened, owner) {
        tokio::spawn(close_after(owner.ended(), Arc::downgrade(session), all));
    }
    opened
}

/// The facts of which connections are made.
#[derive(Clone)]
struct WebOpener {
    sender: HttpSender,
    server_state: Arc<ServerState>,
}

impl WebOpener {
    /// Makes a connection. `owner`: the session that it serves alone.
    async fn open(
        &self,
        key: &ConnectionKey,
        owner: Option<&Arc<dyn SessionOwner>>,
    ) -> OpenOutcome {
        let settings = &self.server_state.settings;
        let sender = match &key.headers {
            Some(headers) => self.sender.with(headers),
            None => self.sender.clone(),
        };
        let liveness = Arc::new(Liveness::new(settings.hang_limit));
        let link = Link::Http(Box::new(HttpLink::new(sender)));
        let connection = Connection::new(link, liveness, &self.server_state, owner);
        let opening = Session::open(connection, &self.server_state);
        let opened = timeout(settings.start_timeout, opening).await;
        let opened = opened.unwrap_or_else(|_| {
            // MCP-3: it may wait for ever for the other handshake.
            self.server_state.remember_handshake(owner.is_some(), None);
            let reason = settings.late_start();
            Err(McpError::Connect { reason })
        });
        *self.server_state.open_failure.acquire() = opened.as_ref().err().cloned();
        Ok(Arc::new(opened?))
    }
}

/// Ends a caller's session at the server with the caller's own.
async fn close_after(
    mut ended: watch::Receiver<bool>,
    session: Weak<Session>,
    all: Weak<Mutex<WebConnections>>,
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
        let mut all = all.acquire();
        all.of_callers
            .retain(|own| !Arc::ptr_eq(&own.session, &session));
    }
    session.close().await;
}

#[cfg(test)]
mod tests {
    use super::super::audience::tests::PanickingOwner;
    use super::*;

    #[tokio::test]
    async fn call_6_openings_that_no_call_waits_for_are_bounded() {
        let mut connections = WebConnections::default();
        let mut awaited = Vec::new();
        let mut signals = Vec::new();
        for number in 0..4 * MAX_UNAWAITED as u64 {
            let (signal, opened) = watch::channel(None);
            let signal: Arc<OpenSignal> = Arc::new(signal);
            if number % 2 == 0 {
                awaited.push(opened);
            }
            connections.end_unawaited();
            connections.openings.push(WebOpening {
                key: ConnectionKey {
                    owner: Some(number),
                    headers: None,
                },
                outcome: Arc::downgrade(&signal),
                task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
            });
            signals.push(signal);
        }
        let left = connections.openings.len();
        assert_eq!(left, awaited.len() + MAX_UNAWAITED);
        let first = connections.openings.iter().map(|one| one.key.owner);
        assert_eq!(first.take(2).collect::<Vec<_>>(), [Some(0), Some(2)]);
        drop(awaited);
        assert!(connections.openings.iter().all(WebOpening::is_unawaited));
    }

    /// A connector to a server that is not there.
    fn absent() -> WebLink {
        let settings = super::super::settings::McpSettings::http("http://127.0.0.1:9/mcp");
        WebLink::new(&Arc::new(ServerState::new(settings))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_1_a_panic_while_a_connection_is_opened_ends_the_wait_for_it() {
        let web = absent();
        for _ in 0..2 {
            let side = PanickingOwner::side();
            let opened = timeout(Duration::from_secs(3600), web.session_of(&side)).await;
            assert!(opened.expect("the caller hears of it").is_err());
        }
    }

    #[tokio::test]
    async fn mcp_1_an_opening_that_was_given_up_ends_no_other_of_the_same_callers() {
        let web = absent();
        let key = ConnectionKey {
            owner: Some(1),
            headers: None,
        };
        let waiting = web.begin(&mut web.connections.acquire(), key.clone(), None);
        let (given_up, _) = watch::channel(None);
        let of = (Arc::downgrade(&web.connections), None);
        let late = published(Err(broken_off()), (key, &Arc::new(given_up)), of);
        assert!(late.is_err());
        assert_eq!(web.connections.acquire().openings.len(), 1);
        drop(waiting);
    }
}
