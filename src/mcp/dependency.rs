//! A server as the runtime sees it: one life of its process, or of the way to it.

use std::sync::Arc;
use std::time::Duration;

use breakerbox_policy::Class;
use tokio::time::timeout;

use super::board::Board;
use super::call::{ToolCall, ToolResult};
use super::error::McpError;
use super::link::Link;
use super::pipe::Pipe;
use super::process::{Pipes, Process};
use super::session::Session;
use super::signs::{End, Signs};
use crate::{CallContext, Dependency, Verdict};

/// How long the status of a process is waited for once it has closed its output.
const STATUS: Duration = Duration::from_millis(50);

/// The type of a dependency that speaks MCP; its clients are `Client<Mcp>`.
///
/// A value owns the server's process: dropped, the process is gone, with all that it has started.
pub struct Mcp {
    link: Arc<Link>,
    process: Option<Process>,
    signs: Arc<Signs>,
    board: Arc<Board>,
}

impl Mcp {
    /// Begins a life: starts the process, has the handshake, and lists the tools.
    ///
    /// # Errors  [`McpError`]; what was started is gone again.
    pub(super) async fn start(board: Arc<Board>) -> Result<Self, McpError> {
        let settings = &board.settings;
        let words = &board.words;
        let failed = |reason: String| McpError::StartFailed { reason };
        let started = Process::start(&settings.server, words);
        let (process, Pipes { stdin, stdout }) = started.map_err(|error| {
            // The words of the system say nothing of the arguments.
            failed(format!("its program cannot be run: {error}"))
        })?;
        let signs = Arc::new(Signs::new(settings.hang_limit));
        let pipe = Pipe::new((stdout, stdin), settings.max_line, &signs, words);
        let opening = Session::open(pipe, Arc::clone(&signs), &board);
        let opened = match timeout(settings.start_timeout, opening).await {
            Ok(opened) => opened.map_err(McpError::at_start),
            Err(_) => {
                let limit = settings.start_timeout;
                Err(failed(format!("no handshake within {limit:?}")))
            }
        };
        let session = match opened {
            Ok(session) => session,
            Err(error) => return Err(with_end(error, process).await),
        };
        let link = Arc::new(Link::Process(Arc::new(session)));
        board.link.store(Some(Arc::clone(&link)));
        Ok(Self {
            link,
            process: Some(process),
            signs,
            board,
        })
    }

    /// Why a process can serve no more, once its connection is over or it is gone.
    async fn ended_process(&self, process: &Process) -> String {
        let end = tokio::select! {
            end = self.signs.ended() => end,
            _ = process.ended() => End::Closed,
        };
        let what = match (end, self.signs.violation()) {
            (End::Hung, _) => {
                process.kill();
                let limit = self.signs.limit();
                return format!("it hung: nothing came of it while {limit} calls timed out");
            }
            (_, Some(violation)) => {
                process.kill();
                format!("it broke the protocol: {violation}")
            }
            _ => match timeout(STATUS, process.ended()).await {
                Ok(status) => status,
                Err(_) => {
                    process.kill();
                    "it closed its output".to_owned()
                }
            },
        };
        with_words(what, process.last_words().await)
    }
}

fn with_words(what: String, last: Option<String>) -> String {
    match last {
        Some(last) => format!("{what}; it said last: {last}"),
        None => what,
    }
}

/// Adds what a process that did not start had to say.
async fn with_end(error: McpError, process: Process) -> McpError {
    let status = timeout(STATUS, process.ended()).await;
    process.kill();
    let McpError::StartFailed { reason } = error else {
        return error;
    };
    let reason = match status {
        Ok(status) => format!("{reason}: {status}"),
        Err(_) => reason,
    };
    McpError::StartFailed {
        reason: with_words(reason, process.last_words().await),
    }
}

impl Dependency for Mcp {
    type Request = ToolCall;
    type Response = ToolResult;
    type Error = McpError;

    async fn call(&self, request: ToolCall, call: &CallContext) -> Result<ToolResult, McpError> {
        let result = self.link.session().await?.call(request, call).await?;
        self.board.count(result.is_error);
        Ok(result)
    }

    async fn ended(&self) -> String {
        match &self.process {
            Some(process) => self.ended_process(process).await,
            None => std::future::pending().await,
        }
    }

    async fn close(&self) {
        self.link.close().await;
        if let Some(process) = &self.process {
            process.stop().await;
        }
    }

    fn classify(result: Result<&ToolResult, &McpError>) -> Verdict {
        match result {
            // The server is well; the call was wrong.
            Ok(result) if result.is_error => Verdict::from(Class::Rejected),
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
}

impl Drop for Mcp {
    fn drop(&mut self) {
        // Another life may have begun already.
        let published = self.board.link.load();
        if published
            .as_ref()
            .is_some_and(|link| Arc::ptr_eq(link, &self.link))
        {
            self.board.link.compare_and_swap(&*published, None);
        }
    }
}

impl std::fmt::Debug for Mcp {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Mcp").finish_non_exhaustive()
    }
}
