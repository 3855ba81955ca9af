//! A connection from its handshake to its end: what the server is, and whether it lives.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use super::audience::{CallSide, HangSuspect};
use super::call_table::RequestOutcome;
use super::connection::{Connection, Link};
use super::dialect::{Dialect, HandshakeKind, ServerDescription};
use super::error::McpError;
use super::handshake;
use super::json_text::JsonText;
use super::liveness::{ConnectionEnd, Liveness, OWED};
use super::server_state::ServerState;
use super::standing;
use super::tool_list;
use super::tools::RawTool;
use crate::CallContext;

/// A connection after its handshake. Dropping it ends its tasks.
pub(super) struct Session {
    pub(super) connection: Arc<Connection>,
    pub(super) liveness: Arc<Liveness>,
    tasks: Vec<AbortHandle>,
}

impl Session {
    /// Performs the handshake, lists the tools, and stores both in the server state.
    ///
    /// # Errors  The server speaks no supported dialect, does not list its tools, or has ended. The
    /// caller sets the time limit.
    /// # Cancel safety   A session that the server has begun is ended.
    pub(super) async fn open(
        connection: Arc<Connection>,
        server_state: &Arc<ServerState>,
    ) -> Result<Self, McpError> {
        let is_owned = connection.is_owned();
        let known = server_state.known_handshake(is_owned);
        let capabilities = match connection.owner() {
            // MCP-5: its caller is the only one that the server asks, and can do what it says.
            Some(owner) => owner.capabilities().to_value(),
            None => server_state.callers_capabilities(),
        };
        let performed = handshake::perform(&connection, known, &capabilities).await;
        let description = match performed {
            Ok(description) => description,
            Err(error) => {
                let next = match (known, &error) {
                    // A server that dies of the first question is asked the other one next.
                    (None, McpError::TransportClosed { .. }) => Some(HandshakeKind::Initialize),
                    // MCP-5: one bad start does not bring the next callers into another dialect.
                    (Some(HandshakeKind::Initialize), _) if is_owned => known,
                    _ => None,
                };
                server_state.remember_handshake(is_owned, next);
                return Err(error);
            }
        };
        connection.agree(description.dialect.clone());
        // MCP-3: the handshake that worked is remembered, and not the version that it told.
        server_state.remember_handshake(is_owned, Some(description.dialect.kind()));
        let listed = match description.can("tools") {
            // The tools of a session are listed when its caller asks for them.
            _ if is_owned => None,
            true => Some(tool_list::list_all(&connection).await?),
            false => Some(Vec::new()),
        };
        Ok(Self::begun(connection, server_state, (description, listed)).await)
    }

    async fn begun(
        connection: Arc<Connection>,
        server_state: &Arc<ServerState>,
        (description, listed): (ServerDescription, Option<Vec<RawTool>>),
    ) -> Self {
        // A question that each server with this capability answers.
        let other = [
            ("tools", "tools/list"),
            ("resources", "resources/list"),
            ("prompts", "prompts/list"),
        ];
        let mut other = other.into_iter();
        let other = other.find_map(|(name, method)| description.can(name).then_some(method));
        let is_web = matches!(connection.link, Link::Http(_));
        let is_older = !description.dialect.is_self_contained();
        let description = Arc::new(description);
        if listed.is_some() {
            tool_list::learn(server_state, Some(Arc::clone(&description)), listed).await;
        }
        let liveness = Arc::clone(&connection.liveness);
        let mut tasks = Vec::new();
        let watched = Arc::downgrade(&connection);
        let own = Arc::clone(&liveness);
        let watching = async move {
            watch(&watched, &own, (other, !is_web)).await;
        };
        tasks.push(tokio::spawn(watching).abort_handle());
        let wishes = match connection.owner() {
            Some(owner) => owner.wishes(),
            None => server_state.wishes.subscribe(),
        };
        let standing = standing::keep(Arc::downgrade(&connection), (description, wishes));
        tasks.push(tokio::spawn(standing).abort_handle());
        if is_web && is_older {
            let own = Arc::clone(&connection);
            let listening = async move {
                if let Link::Http(http) = &own.link {
                    http.listen(&own).await;
                }
            };
            tasks.push(tokio::spawn(listening).abort_handle());
        }
        Self {
            connection,
            liveness,
            tasks,
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
        let state = &self.connection.state;
        let own = match call {
            Some(call) => {
                state.note_attempt_limit(call.timeouts().attempt);
                let left = || call.remaining().map(|left| left.max(OWED));
                call.attempt_limit().or_else(left)
            }
            None => side.attempt,
        };
        // MCP-4: a caller in a hurry does not shorten the time that the settings give.
        let least = state.attempt_limit().unwrap_or(OWED);
        let attempt = own.unwrap_or(OWED).max(least);
        let mut watch = CallWatch::begin(&self.liveness, attempt, side.suspect.clone());
        let outcome = self.ask_server(method, params, side).await;
        watch.is_answered = !matches!(&outcome, Err(McpError::Silent(_)));
        outcome
    }

    async fn ask_server(
        &self,
        method: &str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> RequestOutcome {
        let connection = &self.connection;
        if connection.dialect().is_some_and(Dialect::is_self_contained) {
            return connection.ask(method, params, side).await;
        }
        if method == standing::SUBSCRIBE {
            return standing::subscribe(connection, params, side).await;
        }
        // MCP-5: the older dialect has one level for all calls.
        connection.told.until_level(side.level).await;
        connection.ask(method, params, side).await
    }

    /// Closes the connection.
    pub(super) async fn close(&self) {
        if let Some(goodbye) = self.connection.goodbye() {
            goodbye.await;
        }
        self.liveness.close(None);
        self.connection.ended();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.liveness.close(None);
        self.connection.close_link();
    }
}

/// Watch of one call. Dropped without an answer, an answer stays owed.
struct CallWatch<'a> {
    liveness: &'a Liveness,
    limit: Duration,
    suspect: Option<HangSuspect>,
    is_answered: bool,
}

impl<'a> CallWatch<'a> {
    fn begin(liveness: &'a Liveness, attempt: Duration, suspect: Option<HangSuspect>) -> Self {
        if let Some(suspect) = &suspect {
            liveness.suspect(suspect);
        }
        Self {
            liveness,
            limit: liveness.called(attempt),
            suspect,
            is_answered: false,
        }
    }
}

impl Drop for CallWatch<'_> {
    fn drop(&mut self) {
        if let Some(suspect) = &self.suspect {
            self.liveness.ended_suspect(suspect, self.is_answered);
        }
        self.liveness.ended_call(self.limit, self.is_answered);
    }
}

/// Asks a silent server for a sign of life, and ends the connection of one that gives none.
async fn watch(
    connection: &std::sync::Weak<Connection>,
    liveness: &Liveness,
    (other, is_process): (Option<&str>, bool),
) {
    // MCP-4: some servers drop a ping without a word, so nothing is killed for that alone.
    let (Some(limit), Some(other)) = (liveness.limit(), other) else {
        return;
    };
    let mut drops_ping = false;
    loop {
        let sign = liveness.until_question(is_process).await;
        if liveness.end() != ConnectionEnd::None {
            return;
        }
        let Some(connection) = connection.upgrade() else {
            return;
        };
        if connection.is_asked() {
            // EDGE-1: it waits for a user, and may read nothing else meanwhile.
            liveness.answered();
            continue;
        }
        let ping = match connection.dialect() {
            Some(Dialect::SelfContained { .. }) => "server/discover",
            _ => "ping",
        };
        let questions = limit.max(NonZeroU32::MIN.saturating_add(1)).get();
        let mut is_alive = false;
        for number in 0..questions {
            let is_ping = number == 0 && !drops_ping;
            let question = if is_ping { ping } else { other };
            if connection.has_answered(question, sign).await {
                drops_ping |= number > 0;
                is_alive = true;
                break;
            }
        }
        if !is_alive {
            liveness.hang();
            return;
        }
        // The next question is due in the same time as after an answer.
        liveness.answered();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use serde_json::Value;
    use tokio::sync::mpsc;
    use tokio::time::{sleep, timeout};

    use super::super::audience::ServerNotice;
    use super::super::incoming::IncomingMessage;
    use super::super::message::{MessageId, RawReply};
    use super::super::settings::McpSettings;
    use super::*;

    /// Says something each second. Answers what is asked, or not.
    async fn speak(
        connection: &Arc<Connection>,
        asked: &mut mpsc::Receiver<Vec<Bytes>>,
        answers: bool,
    ) {
        for _ in 0..1000 {
            sleep(Duration::from_secs(1)).await;
            let told = ServerNotice::new("notifications/message", None);
            connection.take(IncomingMessage::Notification(told), None);
            while let Ok(line) = asked.try_recv() {
                let line: Value = serde_json::from_slice(&line.concat()).unwrap();
                let id = MessageId::new(&line["id"].to_string());
                let reply = RawReply::of(JsonText::of(&serde_json::json!({})));
                if answers {
                    connection.take(IncomingMessage::Answer(id, Ok(reply)), None);
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_4_a_server_that_speaks_hangs_if_it_answers_nothing_for_long() {
        for answers in [false, true] {
            let (lines, mut asked) = mpsc::channel(32);
            let link = Link::Pipe(Mutex::new(Some(lines)));
            let state = Arc::new(ServerState::new(McpSettings::stdio("none", [""; 0])));
            let liveness = Arc::new(Liveness::new(NonZeroU32::new(2)));
            let connection = Connection::new(link, Arc::clone(&liveness), &state, None);
            liveness.called(OWED);
            let watched = Arc::downgrade(&connection);
            let lives = async {
                tokio::select! {
                    () = watch(&watched, &liveness, (Some("tools/list"), true)) => false,
                    () = speak(&connection, &mut asked, answers) => true,
                }
            };
            let lives = timeout(10 * OWED, lives).await;
            assert_eq!(lives.unwrap_or(true), answers);
            assert_eq!(liveness.end() == ConnectionEnd::Hung, !answers);
        }
    }
}
