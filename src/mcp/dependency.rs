//! An MCP server as a dependency: one value for each incarnation of its process or connector.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use breakerbox_policy::Class;
use tokio::sync::RwLock;
use tokio::task::{spawn_blocking, yield_now};

use super::audience::{HangSuspect, RequestSender};
use super::call::{ToolCall, ToolResult};
use super::connector::{McpConnector, WebLink};
use super::error::McpError;
use super::launch::{LaunchedServer, end_of};
use super::liveness::Liveness;
use super::message::{LARGE, RawReply};
use super::process::ServerProcess;
use super::process_pool::ProcessPool;
use super::server_state::{ComplaintChange, PublishedSender, ServerState};
use super::settings::McpServer;
use crate::{CallContext, Dependency, Verdict};
use breakerbox_actors::redact;

/// Dependency that speaks MCP; its clients are `Client<Mcp>`.
///
/// A value owns the server's process. Dropping it kills the process and all that it has started.
pub struct Mcp {
    connector: Arc<McpConnector>,
    /// The same, as callers find it.
    published: Arc<PublishedSender>,
    process: Option<ServerProcess>,
    /// Held for reading while a result is read, which may take longer than its server lives.
    reading: RwLock<()>,
    liveness: Arc<Liveness>,
    server_state: Arc<ServerState>,
}

impl Mcp {
    /// Starts an incarnation: starts the process, performs the handshake, and lists the tools.
    ///
    /// # Errors  [`McpError`]; a started process is killed.
    pub(super) async fn start(server_state: Arc<ServerState>) -> Result<Self, McpError> {
        let own = Arc::clone(&server_state);
        let started = match server_state.settings.server {
            McpServer::Stdio { .. } if server_state.settings.per_caller => {
                Self::start_pool(server_state).await
            }
            McpServer::Stdio { .. } => Self::start_process(server_state).await,
            McpServer::Http { .. } => Self::start_elsewhere(server_state).await,
        };
        if let Err(error) = &started {
            own.start.fail(error);
        }
        started
    }

    /// Connects to a remote server. It need not be reachable yet: its breaker deals with that.
    async fn start_elsewhere(server_state: Arc<ServerState>) -> Result<Self, McpError> {
        let connector = Arc::new(McpConnector::Web(Box::new(WebLink::new(&server_state)?)));
        if let Err(error) = connector.session().await {
            tracing::warn!(%error, "an MCP server cannot be reached yet");
        }
        let published = publish(&server_state, &connector);
        server_state.start.up();
        Ok(Self {
            connector,
            published,
            process: None,
            reading: RwLock::default(),
            liveness: Arc::default(),
            server_state,
        })
    }

    async fn start_process(server_state: Arc<ServerState>) -> Result<Self, McpError> {
        let tail = &server_state.stderr_tail;
        let launched = LaunchedServer::launch(&server_state, tail, None).await?;
        let connector = Arc::new(McpConnector::Process(launched.session));
        let published = publish(&server_state, &connector);
        server_state.start.up();
        Ok(Self {
            connector,
            published,
            process: Some(launched.process),
            reading: RwLock::default(),
            liveness: launched.liveness,
            server_state,
        })
    }

    /// Starts the process for callers without a session. Those of sessions are started on demand.
    async fn start_pool(server_state: Arc<ServerState>) -> Result<Self, McpError> {
        let pool = ProcessPool::start(&server_state).await?;
        let connector = Arc::new(McpConnector::Processes(pool));
        let published = publish(&server_state, &connector);
        server_state.start.up();
        Ok(Self {
            connector,
            published,
            process: None,
            reading: RwLock::default(),
            liveness: Arc::default(),
            server_state,
        })
    }
}

/// Lets callers find the connector.
fn publish(server_state: &ServerState, connector: &Arc<McpConnector>) -> Arc<PublishedSender> {
    let own: Arc<dyn RequestSender> = Arc::clone(connector) as Arc<dyn RequestSender>;
    let published = Arc::new(PublishedSender::new(own));
    server_state.connector.store(Some(Arc::clone(&published)));
    published
}

/// Reads a result, apart from this thread if it is large.
async fn read(reply: RawReply) -> ToolResult {
    if reply.text.bytes().len() <= LARGE {
        return ToolResult::read(&reply);
    }
    // MCP-2: the thread is shared with breakers and supervisors.
    let own = reply.clone();
    let read = spawn_blocking(move || ToolResult::read(&own)).await;
    read.unwrap_or_else(|_| ToolResult::unread(reply))
}

/// Returns the first line of a text, cut for a warning.
fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.char_indices()
        .nth(200)
        .map_or(line, |(end, _)| &line[..end])
}

impl Dependency for Mcp {
    type Request = ToolCall;
    type Response = ToolResult;
    type Error = McpError;

    async fn call(&self, request: ToolCall, call: &CallContext) -> Result<ToolResult, McpError> {
        let tool = request.name.clone();
        let (params, mut side, stays_text) = request.into_request();
        side.count_attempt();
        if let (Some(fingerprint), true) = (call.fingerprint(), self.process.is_some()) {
            let own = call.clone();
            side.suspect = Some(HangSuspect::new(fingerprint, move || own.suspect()));
        }
        let asked = ("tools/call", Some(params));
        let reply = match self.connector.ask(asked, side, Some(call)).await {
            Ok(reply) => reply,
            Err(error) if error.is_end() && self.process.is_some() => {
                let why = self.liveness.over().await;
                return Err(error.because(why));
            }
            Err(error) => return Err(error),
        };
        // MCP-3: a caller gets no result that its client cannot read.
        if !reply.text.is_object() {
            return Err(McpError::unusable("the result of the tool is no object"));
        }
        if reply.head.has_odd_content {
            return Err(McpError::unusable("the content of its result is no list"));
        }
        let result = if stays_text {
            ToolResult::unread(reply)
        } else {
            let _reading = self.reading.read().await;
            read(reply).await
        };
        match self.server_state.note_result(result.is_error) {
            ComplaintChange::None => {}
            ComplaintChange::Withdrawn => call.complain(None),
            ComplaintChange::AllErrors => {
                let text = result.first_text().unwrap_or_default();
                let text = redact(first_line(&text)).into_owned();
                let what = format!("all its tools return errors: {tool}: {text}");
                tracing::warn!(dependency = call.dependency(), "{what}");
                call.complain(Some(what));
            }
        }
        Ok(result)
    }

    async fn ended(&self) -> String {
        match &self.process {
            Some(process) => {
                let why = end_of(process, &self.liveness).await;
                // MCP-3: the calls that were answered last take their answers first.
                yield_now().await;
                drop(self.reading.write().await);
                self.liveness.declare_over(&why);
                why
            }
            None => std::future::pending().await,
        }
    }

    async fn close(&self) {
        self.connector.close().await;
        if let Some(process) = &self.process {
            process.stop().await;
        }
    }

    fn classify(result: Result<&ToolResult, &McpError>) -> Verdict {
        match result {
            // The server is healthy; the call was wrong.
            Ok(result) if result.is_error => Verdict::from(Class::Rejected),
            // MCP-3: a question to the user, or the name of a task, is no result that could be kept.
            Ok(result) if result.asks_for_input() || result.is_of_task() => {
                Verdict::from(Class::Rejected)
            }
            Ok(_) => Verdict::from(Class::Success),
            Err(error) => error.verdict(),
        }
    }

    fn is_idempotent(request: &ToolCall) -> bool {
        request.nature.idempotent
    }

    fn is_write(request: &ToolCall) -> bool {
        request.nature.write
    }

    fn fingerprint(request: &ToolCall) -> Option<u64> {
        // SUP-6: calls of one tool with equal arguments, in any order; neither key nor metadata counts.
        let mut hasher = DefaultHasher::new();
        request.hash(&mut hasher);
        Some(hasher.finish())
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        // The next incarnation may have started already.
        let published = self.server_state.connector.load();
        if published
            .as_ref()
            .is_some_and(|published| Arc::ptr_eq(published, &self.published))
        {
            self.server_state
                .connector
                .compare_and_swap(&*published, None);
        }
    }
}

impl std::fmt::Debug for Mcp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Mcp").finish_non_exhaustive()
    }
}
