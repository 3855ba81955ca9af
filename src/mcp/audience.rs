//! The sides that hear what a server says beside its answers.
//!
//! A listener belongs to one call, the audience to the server. Neither may block.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use breakerbox_actors::AttemptProgress;
use breakerbox_policy::RoundedDuration;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::error::McpError;
use super::json_text::{JsonText, MemberEdit, edited, joined};
use super::message::{ParamsHead, RawOutcome, RawReply, RpcError, code};
use super::request_meta::{self, SUBSCRIPTION};

/// Returns the error of a question that no user has answered. `limit`: of the time for all questions
/// of a call.
pub(crate) fn unanswered(limit: Duration) -> RpcError {
    let limit = RoundedDuration(limit);
    let text = format!("its user has not answered within question_timeout = {limit}");
    RpcError::new(code::INTERNAL_ERROR, text)
}

/// The refusal of a question that could be for the users of several callers. They can be asked, so the
/// method exists.
pub(super) fn several_callers() -> RpcError {
    let text = "calls of several callers are in flight, and the server does not say which one it asks \
                for; one that waits for its user counts for up to question_timeout, and one that its caller \
                has left for up to a minute; \
                sessions = \"per_caller\" gives each caller a server of its own";
    RpcError::new(code::INTERNAL_ERROR, text)
}

/// Digest of the credentials of a caller, by which callers are told apart.
pub(crate) type CredentialDigest = [u8; 32];

/// A notification of a server.
#[derive(Debug, Clone)]
pub(crate) struct ServerNotice {
    pub(crate) method: Arc<str>,
    pub(crate) params: Option<JsonText>,
    /// The members of the parameters, read once for all callers.
    pub(crate) head: Option<Arc<ParamsHead>>,
    /// The credentials of the only callers that may hear it; `None`: all may.
    pub(crate) only_for: Option<CredentialDigest>,
}

impl ServerNotice {
    /// Reads the head of a notification, which takes as long as reading the message.
    pub(crate) fn new(method: impl Into<Arc<str>>, params: Option<JsonText>) -> Self {
        let head = params.as_ref().and_then(ParamsHead::read);
        Self {
            method: method.into(),
            params,
            head: head.map(Arc::new),
            only_for: None,
        }
    }

    /// Returns the address of the resource that has changed.
    #[cfg(feature = "gateway")]
    pub(crate) fn uri(&self) -> Option<&str> {
        self.head.as_ref()?.uri.as_deref()
    }

    /// Removes the id of our own subscription at the server.
    pub(super) fn without_subscription(self) -> Self {
        let (Some(params), Some(head)) = (&self.params, &self.head) else {
            return self;
        };
        let members = head.meta.as_ref().and_then(request_meta::members);
        let Some(mut members) = members.filter(|own| own.contains_key(SUBSCRIPTION)) else {
            return self;
        };
        members.remove(SUBSCRIPTION);
        let edit = MemberEdit {
            name: "_meta",
            present: head.meta.as_ref(),
            value: request_meta::written(&members),
        };
        let params = JsonText::checked(joined(&edited(params, vec![edit])));
        Self {
            only_for: self.only_for,
            ..Self::new(self.method, Some(params))
        }
    }
}

/// A request of a server to the user of a caller.
pub(crate) struct ServerQuestion {
    pub(crate) method: Box<str>,
    pub(crate) params: Option<JsonText>,
    /// The metadata of its parameters, read once.
    pub(crate) meta: Option<JsonText>,
    /// The capability that a caller needs for it; `None` for a request that is no question to a user.
    pub(crate) needs: Option<NeededCapability>,
    /// The server that asks, if it can hear of the progress.
    pub(crate) asker: Option<Weak<dyn QuestionAsker>>,
}

impl ServerQuestion {
    /// Reads the head of a question, which takes as long as reading the message.
    pub(crate) fn new(method: impl Into<Box<str>>, params: Option<JsonText>) -> Self {
        let head = params.as_ref().and_then(ParamsHead::read);
        let method = method.into();
        Self {
            needs: NeededCapability::of(&method, params.as_ref()),
            method,
            params,
            meta: head.and_then(|head| head.meta),
            asker: None,
        }
    }

    /// Returns the error of the question for a caller that lacks the capability; `None` if the caller
    /// can be asked.
    pub(crate) fn refused_by(&self, capabilities: &JsonText) -> Option<RpcError> {
        let needed = self.needs.as_ref()?;
        let mut told = request_meta::members(capabilities).unwrap_or_default();
        let Some(own) = told.remove(needed.name) else {
            return Some(RpcError::method_not_found(&self.method));
        };
        let part = needed.part.as_deref()?;
        let parts = request_meta::members(&own).unwrap_or_default();
        // MCP-5: a caller that names no mode has forms. A server may go on with those.
        let has_part = parts.contains_key(part) || part == FORM && !parts.contains_key("url");
        let text = || format!("its caller does not have the capability {needed}");
        (!has_part).then(|| RpcError::new(code::INVALID_PARAMS, text()))
    }
}

/// The mode of a question that names none.
const FORM: &str = "form";
/// Maximum length of a mode, in characters.
const MAX_MODE: usize = 100;

/// A capability of a caller, such as `elicitation` or its part `elicitation.url`.
pub(crate) struct NeededCapability {
    name: &'static str,
    part: Option<Box<str>>,
}

/// The members of a question that say which part of a capability it needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuestionFields<'a> {
    #[serde(borrow, default)]
    mode: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_choice: Option<&'a RawValue>,
}

impl NeededCapability {
    fn of(method: &str, params: Option<&JsonText>) -> Option<Self> {
        let name = match method {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => return None,
        };
        let text = params.filter(|params| params.is_object());
        let fields: Option<Result<QuestionFields<'_>, _>> =
            text.map(|params| serde_json::from_slice(params.bytes()));
        let part: Option<Box<str>> = match fields {
            // A member is there twice, and callers differ in which one they take.
            Some(Err(_)) if name != "roots" => Some("unknown".into()),
            Some(Ok(fields)) if name == "sampling" => {
                let has_tools = fields.tools.is_some() || fields.tool_choice.is_some();
                has_tools.then(|| "tools".into())
            }
            Some(Ok(QuestionFields {
                mode: Some(mode), ..
            })) if name == "elicitation" => {
                let mode: String = serde_json::from_str(mode.get()).unwrap_or_default();
                Some(mode.chars().take(MAX_MODE).collect())
            }
            _ => (name == "elicitation").then(|| FORM.into()),
        };
        Some(Self { name, part })
    }
}

impl std::fmt::Display for NeededCapability {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)?;
        match &self.part {
            Some(part) => write!(out, ".{part}"),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for ServerQuestion {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ServerQuestion")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// The server's side of a question.
pub(crate) trait QuestionAsker: Send + Sync {
    /// Tells the server of the progress of its question. `params`: of the notification, with the
    /// server's own token.
    fn progressed(self: Arc<Self>, params: JsonText) -> TellFuture<'static>;
}

/// The answer to a server's request. Dropping it withdraws the request.
pub(crate) type AnswerFuture = Pin<Box<dyn Future<Output = RawOutcome> + Send>>;

/// The caller's side of a call in flight.
pub(crate) trait CallListener: Send + Sync {
    /// Returns the number of the caller. Calls of one session have the same.
    fn caller(&self) -> u64;

    /// Returns the digest of its credentials; `None` if callers present nothing.
    fn credentials(&self) -> Option<CredentialDigest>;

    /// Takes a notification that belongs to the call.
    fn heard(&self, notice: ServerNotice);

    /// Passes a request of the server on to the caller.
    fn ask(&self, question: ServerQuestion) -> AnswerFuture;
}

/// The callers of a server, as long as they are connected.
pub(crate) trait ServerAudience: Send + Sync {
    /// Takes a notification that belongs to no single call.
    fn heard(&self, notice: ServerNotice);

    /// Returns the only session of the server, if there is one and no other.
    fn only_session(&self) -> Option<Arc<dyn CallListener>>;
}

/// The session that a process, or a session at the server, serves alone.
///
/// Messages and questions that it gets as a [`CallListener`] belong to none of its calls.
pub(crate) trait SessionOwner: CallListener {
    /// Returns the capabilities of the caller, as it told them.
    fn capabilities(&self) -> JsonText;

    /// Returns the standing wishes of the caller.
    fn wishes(&self) -> watch::Receiver<StandingWishes>;

    /// Returns the signal of its end: true, or that its sender is gone.
    fn ended(&self) -> watch::Receiver<bool>;
}

/// The standing wishes of all callers of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StandingWishes {
    /// The lowest level of log messages that a caller wants.
    pub(crate) level: Option<String>,
    /// The resources of which a caller wants to hear changes.
    pub(crate) resources: BTreeSet<String>,
}

/// The way of a caller's request to a server.
pub(crate) trait RequestSender: Send + Sync {
    /// Sends a request, and waits for its result. Dropping the future cancels it.
    fn send<'a>(
        &'a self,
        method: &'a str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> ReplyFuture<'a>;

    /// Passes a notification of a caller on to the connection that serves it, if there is one.
    fn tell<'a>(
        &'a self,
        method: &'a str,
        params: Option<JsonText>,
        side: CallSide,
    ) -> TellFuture<'a>;
}

/// The end of a notification's way to a server.
pub(crate) type TellFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The result of a request to a server.
pub(crate) type ReplyFuture<'a> =
    Pin<Box<dyn Future<Output = Result<RawReply, McpError>> + Send + 'a>>;

/// A call by which a server may hang.
#[derive(Clone)]
pub(crate) struct HangSuspect {
    pub(super) fingerprint: u64,
    note: Arc<dyn Fn() + Send + Sync>,
}

impl HangSuspect {
    /// Creates it. `note`: called if the server hangs after the call has ended without an answer.
    pub(super) fn new(fingerprint: u64, note: impl Fn() + Send + Sync + 'static) -> Self {
        let note = Arc::new(note);
        Self { fingerprint, note }
    }

    /// Notes that the server hangs.
    pub(super) fn note(&self) {
        (self.note)();
    }
}

/// The sides of one call that hear of it while it runs.
#[derive(Clone, Default)]
pub(crate) struct CallSide {
    pub(crate) listener: Option<Arc<dyn CallListener>>,
    /// Noted with each sign of progress.
    pub(crate) progress: Option<AttemptProgress>,
    /// The limit of the attempt, of a request that no worker makes.
    pub(crate) attempt: Option<Duration>,
    /// Number of the call's attempts so far, if it is counted.
    pub(crate) attempts: Option<Arc<AtomicU64>>,
    /// The first line that is no message and that came during the call, for an error of its caller.
    pub(crate) stray: Option<Arc<OnceLock<String>>>,
    /// The parameters of its cancellation, once its caller has sent one.
    pub(crate) cancelled: Option<Arc<OnceLock<JsonText>>>,
    /// The call as one by which the process that all callers share may hang.
    pub(crate) suspect: Option<HangSuspect>,
    /// Set if the server refused this very request, because it had forgotten the session.
    pub(crate) was_forgotten: Option<Arc<AtomicBool>>,
    /// The capabilities of the caller, if its requests do not name them.
    pub(crate) capabilities: Option<JsonText>,
    /// The lowest level of log messages that the caller has set for its session.
    pub(crate) level: Option<&'static str>,
    /// Headers of the caller that are passed on to a server over HTTP.
    pub(crate) headers: Option<Arc<http::HeaderMap>>,
    /// True if the credentials that the server checks are the caller's, which pass or are missing.
    pub(crate) brings_credentials: bool,
    /// The session of the caller, if it has a process or a session at the server of its own.
    pub(crate) owner: Option<Arc<dyn SessionOwner>>,
}

impl CallSide {
    /// Returns the number of the session that has a connection of its own.
    pub(crate) fn owner_number(&self) -> Option<u64> {
        self.owner.as_ref().map(|owner| owner.caller())
    }

    /// Counts an attempt that begins.
    pub(super) fn count_attempt(&self) {
        if let Some(attempts) = &self.attempts {
            attempts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for CallSide {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CallSide")
            .field("listens", &self.listener.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A session for which no connection can be opened: that panics.
    pub(in crate::mcp) struct PanickingOwner {
        wishes: watch::Sender<StandingWishes>,
        has_ended: watch::Sender<bool>,
    }

    impl PanickingOwner {
        /// Returns the side of a call of such a session.
        pub(in crate::mcp) fn side() -> CallSide {
            let owner: Arc<dyn SessionOwner> = Arc::new(Self {
                wishes: watch::Sender::default(),
                has_ended: watch::Sender::default(),
            });
            CallSide {
                owner: Some(owner),
                ..CallSide::default()
            }
        }
    }

    impl CallListener for PanickingOwner {
        fn caller(&self) -> u64 {
            7
        }

        fn credentials(&self) -> Option<CredentialDigest> {
            None
        }

        fn heard(&self, _: ServerNotice) {}

        fn ask(&self, _: ServerQuestion) -> AnswerFuture {
            Box::pin(std::future::pending())
        }
    }

    impl SessionOwner for PanickingOwner {
        fn capabilities(&self) -> JsonText {
            panic!("a test of panics")
        }

        fn wishes(&self) -> watch::Receiver<StandingWishes> {
            self.wishes.subscribe()
        }

        fn ended(&self) -> watch::Receiver<bool> {
            self.has_ended.subscribe()
        }
    }

    #[test]
    fn mcp_5_m11_a_question_needs_the_part_of_the_capability_that_it_uses() {
        let text = |text: &str| JsonText::checked(text.to_owned().into());
        let refused = |capabilities: &str, method: &str, params: &str| {
            let question = ServerQuestion::new(method, Some(text(params)));
            let refusal = question.refused_by(&text(capabilities));
            refusal.map(|error| error.code)
        };
        let (ask, sample) = ("elicitation/create", "sampling/createMessage");
        let (url, form, other) = (r#"{"mode":"url"}"#, r#"{"mode":"form"}"#, r#"{"mode":"x"}"#);
        let no_part = Some(code::INVALID_PARAMS);
        for (capabilities, method, params, expected) in [
            (r#"{"elicitation":{}}"#, ask, "{}", None),
            (r#"{"elicitation":{}}"#, ask, form, None),
            (r#"{"elicitation":{}}"#, ask, url, no_part),
            (r#"{"elicitation":{}}"#, ask, other, no_part),
            (
                r#"{"elicitation":{}}"#,
                ask,
                r#"{"mode":"url","mode":"form"}"#,
                no_part,
            ),
            (r#"{"elicitation":{"form":{}}}"#, ask, url, no_part),
            (r#"{"elicitation":{"url":{}}}"#, ask, form, no_part),
            (r#"{"elicitation":{"url":{}}}"#, ask, "{}", no_part),
            (r#"{"elicitation":{"url":{}}}"#, ask, url, None),
            (r#"{"elicitation":{"url":{},"form":{}}}"#, ask, form, None),
            (r#"{"sampling":{}}"#, sample, "{}", None),
            (r#"{"sampling":{}}"#, sample, r#"{"tools":[]}"#, no_part),
            (
                r#"{"sampling":{}}"#,
                sample,
                r#"{"toolChoice":{}}"#,
                no_part,
            ),
            (
                r#"{"sampling":{"tools":{}}}"#,
                sample,
                r#"{"tools":[]}"#,
                None,
            ),
            (
                r#"{"sampling":{}}"#,
                ask,
                "{}",
                Some(code::METHOD_NOT_FOUND),
            ),
            (r#"{"roots":{}}"#, "roots/list", "{}", None),
            ("{}", "roots/list", "{}", Some(code::METHOD_NOT_FOUND)),
            ("{}", "extension/ask", "{}", None),
        ] {
            let case = format!("{capabilities} {method} {params}");
            assert_eq!(refused(capabilities, method, params), expected, "{case}");
        }
    }
}
