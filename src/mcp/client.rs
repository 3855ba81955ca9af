//! Client for the tools of a server, with knowledge of each tool's traits.

use std::future::Future;
use std::sync::Arc;

use serde_json::{Map, Value};

#[cfg(feature = "gateway")]
use super::audience::{CallSide, HangSuspect, StandingWishes};
#[cfg(feature = "gateway")]
use super::call::PassedCall;
use super::call::{ToolCall, ToolResult, ToolTraits};
#[cfg(feature = "gateway")]
use super::canonical::canonical;
use super::dependency::Mcp;
#[cfg(feature = "gateway")]
use super::dialect::ServerDescription;
use super::error::McpError;
#[cfg(feature = "gateway")]
use super::json_text::{JsonText, without_member};
#[cfg(feature = "gateway")]
use super::message::{ParamsHead, RawReply};
use super::server_state::ServerState;
#[cfg(feature = "gateway")]
use super::settings::{McpServer, McpSettings};
#[cfg(feature = "gateway")]
use super::tools::RawTool;
use super::tools::Tool;
#[cfg(feature = "gateway")]
use crate::lock::LockExt as _;
use crate::{Answer, CallError, CallOptions, Client};
#[cfg(feature = "gateway")]
use breakerbox_actors::redact;
#[cfg(feature = "gateway")]
use breakerbox_policy::Class;

/// Client of a server: cheap to clone, usable on any thread, and valid across restarts.
#[derive(Debug, Clone)]
pub struct McpClient {
    client: Client<Mcp>,
    pub(super) server_state: Arc<ServerState>,
}

impl McpClient {
    pub(super) fn new(client: Client<Mcp>, server_state: Arc<ServerState>) -> Self {
        Self {
            client,
            server_state,
        }
    }

    /// Calls a tool. The call counts as a write, and is not repeated after it may have been
    /// executed, unless the settings or the tool's own hints allow it.
    ///
    /// # Errors  [`CallError`], as for every dependency. A tool's own error is an answer, with
    /// [`ToolResult::is_error`].
    /// # Cancel safety   As [`Client::ask`]; a server that has begun is notified.
    pub fn call(
        &self,
        name: impl Into<String>,
        arguments: Map<String, Value>,
    ) -> impl Future<Output = Result<Answer<ToolResult>, CallError<McpError>>> {
        self.call_with(name, arguments, CallOptions::default())
    }

    /// Calls a tool with options for this call. Their `write` and `idempotent` take precedence over
    /// the tool's traits.
    ///
    /// # Errors  As [`McpClient::call`].
    /// # Cancel safety   As [`McpClient::call`].
    pub fn call_with(
        &self,
        name: impl Into<String>,
        arguments: Map<String, Value>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Answer<ToolResult>, CallError<McpError>>> {
        let mut request = ToolCall::new(name, arguments);
        let options = self.with_time(self.complete(&mut request, options));
        let calling = self.client.ask_with(request, options);
        async move {
            let mut answer = calling.await?;
            // A cached answer may be of a caller that passes results on.
            answer.value = answer.value.filled();
            Ok(answer)
        }
    }

    /// Gives an attempt the time that its caller allows, if that is more than the settings do. The
    /// total limit of the settings bounds it all the same.
    fn with_time(&self, options: CallOptions) -> CallOptions {
        // MCP-4: a caller that waits longer gets a longer attempt.
        let usual = self.client.settings().timeout.attempt;
        let own = options
            .timeout
            .filter(|own| usual.is_some_and(|usual| *own > usual));
        CallOptions {
            attempt: options.attempt.or(own),
            ..options
        }
    }

    /// Returns the server's tools as last listed: after each start, and after each change that the
    /// server announced. They are read from the list by the first call after it.
    #[must_use]
    pub fn tools(&self) -> Arc<[Tool]> {
        self.server_state.toolbox.load().tools()
    }

    /// Returns the server's protocol version, such as `2025-11-25`; `None` until the first
    /// handshake.
    #[must_use]
    pub fn protocol_version(&self) -> Option<String> {
        let known = self.server_state.description.load();
        known
            .as_ref()
            .map(|known| known.dialect.version().to_owned())
    }

    /// Returns the last lines of standard error of the server's current incarnation.
    #[must_use]
    pub fn stderr(&self) -> Vec<String> {
        self.server_state.stderr_tail.now()
    }

    /// Returns the last lines of standard error of the previous incarnation, if there was one.
    #[must_use]
    pub fn last_words(&self) -> Vec<String> {
        self.server_state.stderr_tail.before()
    }

    /// Returns the server's description of itself.
    #[cfg(feature = "gateway")]
    pub(crate) fn description(&self) -> Option<Arc<ServerDescription>> {
        self.server_state.description.load_full()
    }

    /// Returns the server's description of itself, as soon as it is known.
    #[cfg(feature = "gateway")]
    pub(crate) async fn known_within(
        &self,
        limit: std::time::Duration,
    ) -> Option<Arc<ServerDescription>> {
        let mut learned = self.server_state.learned.subscribe();
        if let Some(known) = self.description() {
            return Some(known);
        }
        // Its end without a description is no error: callers are told less then.
        let _ = tokio::time::timeout(limit, learned.changed()).await;
        self.description()
    }

    /// Returns the server's description of itself as [`McpClient::known_within`] does. The limit counts
    /// from now, or from the failure of the start that is under way.
    #[cfg(feature = "gateway")]
    pub(crate) async fn known_from_start(
        &self,
        limit: std::time::Duration,
    ) -> Option<Arc<ServerDescription>> {
        if self.is_starting() {
            tokio::select! {
                biased;
                known = self.known_within(std::time::Duration::MAX) => return known,
                // MCP-1: one that fails to start meanwhile may stay away.
                () = self.server_state.start.failed() => {}
            }
        }
        self.known_within(limit).await
    }

    /// Notes that a caller has waited in vain for the first answer of a server that wants the credentials
    /// of its callers: it tells of the server only if that has failed for another reason.
    #[cfg(feature = "gateway")]
    pub(crate) fn note_first_wait_without_credentials(&self) {
        let has_failed = {
            let failure = self.server_state.open_failure.acquire();
            failure
                .as_ref()
                .is_some_and(|error| !error.may_want_credentials())
        };
        // EDGE-1: a server that refuses a caller without credentials is well. HLT-1: one that cannot be
        // reached is not.
        if has_failed {
            self.note_first_wait(false);
        }
    }

    /// Notes whether a caller that has waited for the server's first answer has got it.
    #[cfg(feature = "gateway")]
    pub(crate) fn note_first_wait(&self, is_answered: bool) {
        let state = &self.server_state;
        if state.has_sick_tools() {
            // HLT-1: there is one complaint at a time, and a result of a tool takes this one back.
            return;
        }
        let was_missed = state
            .is_missed
            .swap(!is_answered, std::sync::atomic::Ordering::AcqRel);
        if is_answered {
            if was_missed {
                self.client.complain(None);
            }
            return;
        }
        // HLT-1: no call has failed, and callers get nothing of the server.
        let mut what = "callers wait in vain for its first answer".to_owned();
        if let Some(error) = &*state.open_failure.acquire() {
            what.push_str(": ");
            what.push_str(&redact(&error.to_string()));
        }
        self.client.complain(Some(what));
    }

    /// Returns the arguments of a tool that go into headers too.
    #[cfg(feature = "gateway")]
    pub(crate) fn header_params(&self, tool: &str) -> Vec<super::http_headers::HeaderParam> {
        self.server_state
            .toolbox
            .load()
            .header_params(tool)
            .to_vec()
    }

    /// Returns true if the server lists a tool.
    #[cfg(feature = "gateway")]
    pub(crate) fn lists(&self, tool: &str) -> bool {
        self.server_state.toolbox.load().nature(tool).is_some()
    }

    /// Returns the tools in the server's own form; `None` until they were listed.
    #[cfg(feature = "gateway")]
    pub(crate) fn listed(&self) -> Option<Arc<[RawTool]>> {
        let is_listed = self
            .server_state
            .is_listed
            .load(std::sync::atomic::Ordering::Acquire);
        is_listed.then(|| Arc::clone(&self.server_state.toolbox.load().listed))
    }

    /// Returns the settings of the server.
    #[cfg(feature = "gateway")]
    pub(crate) fn server_settings(&self) -> &McpSettings {
        &self.server_state.settings
    }

    /// Changes what the callers together want of the server.
    #[cfg(feature = "gateway")]
    pub(crate) fn wish(&self, change: impl FnOnce(&mut StandingWishes) -> bool) {
        self.server_state.wishes.send_if_modified(change);
    }

    /// Sets the tools that may be repeated, regardless of their own hints.
    #[cfg(feature = "gateway")]
    pub(crate) fn set_idempotent(&self, tools: &[String]) {
        self.server_state.set_idempotent(tools);
    }

    /// Calls a tool with parameters that pass as text, as [`McpClient::call_with`] does. The result
    /// stays a text too.
    #[cfg(feature = "gateway")]
    pub(crate) fn call_text(
        &self,
        name: String,
        passed: PassedCall,
        options: CallOptions,
    ) -> impl Future<Output = Result<Answer<ToolResult>, CallError<McpError>>> {
        let mut request = ToolCall::of_text(name, passed);
        let own = self.clone();
        async move {
            let options = own.after_first_start(options).await;
            let options = own.with_time(own.complete(&mut request, options));
            own.client.ask_with(request, options).await
        }
    }

    /// Waits for the first list of the tools while the server starts: without it no call is known to
    /// be a reader. The time counts to the caller's own.
    #[cfg(feature = "gateway")]
    async fn after_first_start(&self, options: CallOptions) -> CallOptions {
        let state = &self.server_state;
        let is_listed = || state.is_listed.load(std::sync::atomic::Ordering::Acquire);
        let settings = self.client.settings();
        let is_known = is_listed() || options.write == Some(true);
        if is_known || state.settings.per_caller || !self.is_starting() {
            return options;
        }
        let began = tokio::time::Instant::now();
        let limit = options.timeout.or(settings.timeout.total);
        let started = state.start.wait(|| state.connector.load_full());
        // MCP-1: the call itself tells what came of the start.
        match limit {
            Some(limit) => drop(tokio::time::timeout(limit, started).await),
            None => drop(started.await),
        }
        CallOptions {
            // CALL-5: a limit of time is that of the wait and of the call together.
            waited: options.waited + began.elapsed(),
            ..options
        }
    }

    /// Returns true while the server is being started, and its last start did not fail.
    #[cfg(feature = "gateway")]
    pub(crate) fn is_starting(&self) -> bool {
        let state = &self.server_state;
        let is_started = !self.client.settings().fallback_only;
        is_started && state.connector.load().is_none() && !state.start.has_failed()
    }

    /// Sends a request other than a tool call, in the caller's own task, under the same breaker and
    /// limits.
    #[cfg(feature = "gateway")]
    pub(crate) async fn pass(
        &self,
        options: CallOptions,
        (method, params): (&str, Option<JsonText>),
        mut side: CallSide,
    ) -> Result<RawReply, CallError<McpError>> {
        let verdict = |result: &Result<RawReply, McpError>| match result {
            // MCP-3: a question to the user is the protocol's own course.
            Ok(reply) if reply.head.asks_for_input() => Class::Rejected.into(),
            Ok(_) => Class::Success.into(),
            // Neutral: nothing was asked of the server, and its supervisor deals with its start.
            Err(McpError::StartFailed { .. }) => Class::Cancelled.into(),
            Err(error) => error.verdict(),
        };
        let settings = &self.server_state.settings;
        let is_process = matches!(settings.server, McpServer::Stdio { .. });
        // SUP-6: a request of any kind may crash a process. Those of sessions crash for themselves.
        let is_shared = is_process && !settings.per_caller;
        let fingerprint = is_shared.then(|| fingerprint_of(method, params.as_ref()));
        let options = CallOptions {
            fingerprint,
            ..self.with_time(options)
        };
        side.attempt = options.attempt.or(self.client.settings().timeout.attempt);
        side.suspect = fingerprint.map(|own| {
            let client = self.client.clone();
            HangSuspect::new(own, move || client.suspect(own))
        });
        let work = || async {
            side.count_attempt();
            // MCP-1: it waits for a server that is being started, as a call of a tool does.
            let started = || self.server_state.connector.load_full();
            let connector = self.server_state.start.wait(started).await?;
            let asked = connector.sender.send(method, params.clone(), side.clone());
            let outcome = asked.await;
            if is_process && outcome.as_ref().is_err_and(McpError::is_cut_off) {
                if let Some(progress) = &side.progress {
                    // CALL-7: it may be what ended the process.
                    progress.forbid_repeats();
                }
                if let Some(own) = fingerprint.filter(|own| connector.is_first_suspect(*own)) {
                    self.client.suspect(own);
                }
            }
            outcome
        };
        let outcome = self.client.run_with(options, verdict, work).await;
        if outcome.is_ok() {
            self.note_first_wait(true);
        }
        outcome
    }

    /// Passes a notification of a caller on to the server, if it is connected.
    #[cfg(feature = "gateway")]
    pub(crate) async fn tell(&self, method: &str, params: Option<JsonText>, side: CallSide) {
        if let Some(connector) = self.server_state.connector.load_full() {
            connector.sender.tell(method, params, side).await;
        }
    }

    /// Sets the traits of a call, and completes its options by them. Options take precedence, for
    /// fallbacks and retries as well as for the slots of writes.
    fn complete(&self, request: &mut ToolCall, options: CallOptions) -> CallOptions {
        let own = self.server_state.nature(request);
        request.nature = ToolTraits {
            write: options.write.unwrap_or(own.write),
            idempotent: options.idempotent.unwrap_or(own.idempotent),
        };
        CallOptions {
            idempotent: Some(request.nature.idempotent),
            write: Some(request.nature.write),
            ..options
        }
    }

    /// Returns the client that every dependency has, for its status, its breaker, and calls that
    /// ignore the tools' traits.
    #[must_use]
    pub fn client(&self) -> &Client<Mcp> {
        &self.client
    }
}

/// Returns the fingerprint of a request that is no call of a tool. Metadata does not count.
#[cfg(feature = "gateway")]
fn fingerprint_of(method: &str, params: Option<&JsonText>) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    method.hash(&mut hasher);
    if let Some(params) = params {
        let meta = ParamsHead::read(params).and_then(|head| head.meta);
        let plain = match &meta {
            Some(meta) => without_member(params, meta),
            None => params.clone(),
        };
        canonical(plain.as_str()).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(all(test, feature = "gateway"))]
mod tests {
    use super::*;
    use crate::{Health, Runtime, RuntimeSettings};

    #[tokio::test]
    async fn hlt_1_a_server_for_which_callers_wait_in_vain_is_not_ok() {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let settings = McpSettings::http("http://127.0.0.1:1/mcp");
        let server = crate::mcp::start(&runtime, "kg", &settings).await.unwrap();
        let health = || server.client().status().health;
        assert_eq!(health(), Health::Ok, "no caller has come");
        server.note_first_wait(false);
        let told = health().to_string();
        assert!(told.starts_with("degraded: callers wait in vain"), "{told}");
        assert!(told.contains("cannot be reached"), "{told}");
        server.note_first_wait(true);
        assert_eq!(health(), Health::Ok);
        runtime.shutdown().await;
    }

    /// A server that gives each request this head, and closes.
    async fn refusing(head: &'static str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                let answer =
                    format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        format!("http://{address}/mcp")
    }

    #[tokio::test]
    async fn hlt_1_a_server_for_its_callers_credentials_is_not_ok_if_it_is_dead() {
        let runtime = Runtime::start(RuntimeSettings::default()).await.unwrap();
        let dead = "http://127.0.0.1:1/mcp".to_owned();
        let broken = refusing("503 Service Unavailable").await;
        let strict = refusing("401 Unauthorized").await;
        for (name, url, is_ok) in [
            ("dead", dead, false),
            ("broken", broken, false),
            ("strict", strict, true),
        ] {
            let settings = McpSettings::http(url);
            let server = crate::mcp::start(&runtime, name, &settings).await.unwrap();
            server.note_first_wait_without_credentials();
            let health = server.client().status().health;
            assert_eq!(health == Health::Ok, is_ok, "{name}: {health}");
        }
        runtime.shutdown().await;
    }

    #[test]
    fn sup_6_a3_requests_are_equal_by_their_method_and_params_without_metadata() {
        let of = |method, text: &'static str| {
            fingerprint_of(method, Some(&JsonText::checked(text.into())))
        };
        let one = of("prompts/get", r#"{"name":"a","_meta":{"progressToken":1}}"#);
        assert_eq!(
            one,
            of("prompts/get", r#"{ "_meta":{"x":2}, "name": "a" }"#)
        );
        assert_ne!(one, of("prompts/get", r#"{"name":"b"}"#));
        assert_ne!(one, of("resources/read", r#"{"name":"a"}"#));
    }
}
