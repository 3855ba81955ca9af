//! Calls that wait for a caller of the newer dialect to answer a question of an older server.
//!
//! The question ends the caller's request as `input_required`, while the call at the server goes on.
//! The caller's next request, with the answer, takes the call up again.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use super::caller_stream::{CallerStream, HeldQuestion};
use super::rpc_reply::RequestAnswer;
use crate::lock::LockExt as _;
use crate::mcp::json_text::{JsonText, part_of, quoted};
use crate::mcp::message::{ParamsHead, RawOutcome, RpcError, code};
use crate::sidecar::gateway::caller_auth::CallerIdentity;
use crate::sidecar::gateway::caller_limits::CallerNumber;

/// Maximum number of calls of a server that wait for answers.
const MAX_HELD: usize = 128;
/// Key of the question in a result, and of its answer.
const QUESTION: &str = "question";
const PREFIX: &str = "breakerbox-";
/// The refusal of an answer to a call that is gone.
const NOT_HELD: &str = "the call that asked is not held any more; it may be made again";

/// The work of a call.
type CallFuture = Pin<Box<dyn Future<Output = RequestAnswer> + Send>>;

/// A call with its questions, which may be held between two requests.
pub(super) struct AskingCall {
    /// The caller that made it; `None` if callers present nothing.
    pub(super) caller: Option<CallerIdentity>,
    /// The number of its caller's address.
    pub(super) number: Option<CallerNumber>,
    pub(super) target: CallTarget,
    pub(super) call: CallFuture,
    pub(super) questions: mpsc::Receiver<HeldQuestion>,
    pub(super) stream: Arc<CallerStream>,
    /// Time for which it was held before.
    pub(super) held: Duration,
}

impl AskingCall {
    /// Returns true if another call is of the same caller: of one that has proved itself, or of one
    /// address.
    fn shares_caller(&self, other: &Self) -> bool {
        let is_known = self.caller.is_some();
        self.caller == other.caller && (is_known || self.number == other.number)
    }

    /// Lets the call go on while no request waits for it.
    fn in_its_own_task(mut self) -> Self {
        // One that was held before has a task already.
        if self.held.is_zero() {
            self.call = Box::pin(SpawnedCall(tokio::spawn(self.call)));
        }
        self
    }
}

/// A call in a task of its own. Dropping it ends the call.
struct SpawnedCall(JoinHandle<RequestAnswer>);

impl Future for SpawnedCall {
    type Output = RequestAnswer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RequestAnswer> {
        let crashed = |_| Err(RpcError::new(code::INTERNAL_ERROR, "the call has crashed"));
        let ended = Pin::new(&mut self.0).poll(cx);
        ended.map(|answered| answered.unwrap_or_else(crashed))
    }
}

impl Drop for SpawnedCall {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Target of a request: its method, and the name or the address in its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallTarget {
    method: Box<str>,
    name: Option<String>,
    uri: Option<String>,
}

impl CallTarget {
    pub(super) fn new(method: &str, head: &ParamsHead) -> Self {
        Self {
            method: method.into(),
            name: head.name.clone(),
            uri: head.uri.clone(),
        }
    }
}

struct HeldCall {
    asking: AskingCall,
    /// The method of the question.
    question: Box<str>,
    reply: oneshot::Sender<RawOutcome>,
    since: Instant,
    /// The task that ends it without an answer.
    expiry: AbortHandle,
}

/// The calls of a server that wait for answers.
pub(super) struct HeldCalls {
    calls: Arc<Mutex<HashMap<String, HeldCall>>>,
    secret: RandomState,
    last: AtomicU64,
}

impl HeldCalls {
    pub(super) fn new() -> Self {
        Self {
            calls: Arc::default(),
            secret: RandomState::new(),
            last: AtomicU64::new(0),
        }
    }

    /// Waits for the answer of a call, or for its next question: then the call is held. `limit`: of the
    /// time for which it is held, for all questions together.
    pub(super) async fn next_of(&self, mut asking: AskingCall, limit: Duration) -> RequestAnswer {
        loop {
            let question = tokio::select! {
                biased;
                answered = &mut asking.call => return answered,
                Some(question) = asking.questions.recv() => question,
            };
            let HeldQuestion {
                method,
                params,
                reply,
            } = question;
            let mut calls = self.calls.acquire();
            let of_caller = calls
                .values()
                .filter(|held| held.asking.shares_caller(&asking));
            let own = of_caller.count();
            // CALL-6, EDGE-4: nothing is unbounded, and each caller leaves as many places free as it
            // has taken.
            if own >= MAX_HELD - calls.len() {
                let all = calls.len();
                let text = format!(
                    "{own} calls of this caller and {all} of all wait for their users; of {MAX_HELD} \
                     places, a caller leaves its share, as many as it has taken, free"
                );
                // The call goes on without an answer.
                let _ = reply.send(Err(RpcError::new(code::INTERNAL_ERROR, text)));
                continue;
            }
            let number = self.last.fetch_add(1, Ordering::Relaxed);
            let token = format!("{PREFIX}{:016x}{number:x}", self.secret.hash_one(number));
            let result = asked(&token, &method, params);
            let patience = limit.saturating_sub(asking.held);
            let held = HeldCall {
                // CALL-6: a call that a limit or its server ends meanwhile frees its place, also if
                // its caller never comes back.
                asking: asking.in_its_own_task(),
                question: method,
                reply,
                since: Instant::now(),
                expiry: self.expire(token.clone(), patience),
            };
            calls.insert(token, held);
            return Ok(result);
        }
    }

    /// Ends a call without the answer of its user, after a while.
    fn expire(&self, token: String, patience: Duration) -> AbortHandle {
        let calls = Arc::downgrade(&self.calls);
        let task = tokio::spawn(async move {
            sleep(patience).await;
            let Some(calls) = calls.upgrade() else {
                return;
            };
            // EDGE-1: its end is cancelled, which says nothing of the server.
            let ended = calls.acquire().remove(&token);
            drop(ended);
        });
        task.abort_handle()
    }

    /// Takes up the call that a request of this caller goes on with. Returns `None` if the request is
    /// another one.
    ///
    /// # Errors  The call is not held any more, is another caller's or another call, or the answer is
    /// missing or has the wrong form.
    pub(super) fn take_up(
        &self,
        (method, head): (&str, &ParamsHead),
        caller: Option<CallerIdentity>,
    ) -> Option<Result<AskingCall, RpcError>> {
        let token: String = head.request_state.as_ref()?.read()?;
        if !token.starts_with(PREFIX) {
            return None;
        }
        let invalid = |text: &str| Some(Err(RpcError::new(code::INVALID_PARAMS, text)));
        let Some(answer) = answer_of(head) else {
            return invalid("inputResponses has no answer to the question");
        };
        let question = {
            let calls = self.calls.acquire();
            // MCP-6: a state that another caller was given is none of this one's.
            let own = calls
                .get(&token)
                .filter(|held| held.asking.caller == caller);
            let Some(own) = own else {
                return invalid(NOT_HELD);
            };
            // MCP-6: the table of tools is asked for the tool that the request names.
            if own.asking.target != CallTarget::new(method, head) {
                return invalid("requestState is that of a call with another method or name");
            }
            own.question.clone()
        };
        // MCP-2: an answer may be as long as a message, and other callers need the table meanwhile.
        if !answers(&question, &answer) {
            let text =
                format!("inputResponses has no result of {question} as the answer to the question");
            return invalid(&text);
        }
        let Some(held) = self.calls.acquire().remove(&token) else {
            return invalid(NOT_HELD);
        };
        let HeldCall {
            mut asking,
            reply,
            since,
            expiry,
            ..
        } = held;
        asking.held += since.elapsed();
        expiry.abort();
        // The call may have ended meanwhile: then its answer is there.
        let _ = reply.send(Ok(answer));
        Some(Ok(asking))
    }
}

/// Writes the result that asks the caller.
fn asked(token: &str, method: &str, params: Option<JsonText>) -> Vec<Bytes> {
    let head = format!(
        "{{\"resultType\":\"input_required\",\"requestState\":\"{token}\",\
         \"inputRequests\":{{\"{QUESTION}\":{{\"method\":"
    );
    let mut pieces = vec![Bytes::from(head), quoted(method)];
    if let Some(params) = params {
        pieces.push(Bytes::from_static(b",\"params\":"));
        pieces.push(params.into_bytes());
    }
    pieces.push(Bytes::from_static(b"}}}"));
    pieces
}

fn answer_of(head: &ParamsHead) -> Option<JsonText> {
    #[derive(serde::Deserialize)]
    struct Answers<'a> {
        #[serde(borrow)]
        question: &'a RawValue,
    }
    let responses = head.input_responses.as_ref()?;
    let answers: Answers<'_> = serde_json::from_slice(responses.bytes()).ok()?;
    Some(part_of(responses.bytes(), answers.question))
}

/// Returns true if an answer has the form of a result of the method that was asked.
fn answers(method: &str, answer: &JsonText) -> bool {
    #[derive(serde::Deserialize)]
    struct Members<'a> {
        #[serde(borrow, default)]
        action: Option<std::borrow::Cow<'a, str>>,
        #[serde(borrow, default)]
        content: Option<&'a RawValue>,
        #[serde(borrow, default)]
        roots: Option<&'a RawValue>,
    }
    if !answer.is_object() {
        return false;
    }
    // A member of another type is none.
    let Ok(members) = serde_json::from_slice::<Members<'_>>(answer.bytes()) else {
        return false;
    };
    match method {
        "elicitation/create" => {
            let action = members.action.unwrap_or_default();
            ["accept", "decline", "cancel"].contains(&&*action)
        }
        "sampling/createMessage" => members.content.is_some(),
        "roots/list" => members.roots.is_some_and(|own| own.get().starts_with('[')),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A call that asks its user at once, and ends by the error that its server gets.
    fn asking(address: u8, digest: Option<u8>) -> AskingCall {
        let (sender, questions) = mpsc::channel(1);
        let (reply, answer) = oneshot::channel();
        let question = HeldQuestion {
            method: "roots/list".into(),
            params: None,
            reply,
        };
        assert!(sender.try_send(question).is_ok());
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, address));
        let capabilities = JsonText::checked(Bytes::from_static(b"{}"));
        let (stream, _, _) = CallerStream::of_newer((None, capabilities), None, true);
        AskingCall {
            caller: digest.map(|digest| CallerIdentity::of_digest([digest; 32])),
            number: Some(CallerNumber::of(address)),
            target: CallTarget::new("tools/call", &ParamsHead::default()),
            call: Box::pin(async move {
                let _sender = sender;
                match answer.await {
                    Ok(Err(error)) => Err(error),
                    _ => std::future::pending().await,
                }
            }),
            questions,
            stream,
            held: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn call_6_a_held_call_that_is_never_taken_up_again_frees_its_place() {
        let held = HeldCalls::new();
        let place = Arc::new(());
        let call = |end: Option<oneshot::Receiver<()>>| {
            let (mut asking, own) = (asking(1, None), Arc::clone(&place));
            asking.call = Box::pin(async move {
                let _own = own;
                match end {
                    Some(end) => assert!(end.await.is_ok()),
                    None => std::future::pending().await,
                }
                Ok(Vec::new())
            });
            asking
        };
        let places = || Arc::strong_count(&place) - 1;
        // Its server ends it, or a limit of its own.
        let (end, ended) = oneshot::channel();
        assert!(held.next_of(call(Some(ended)), LIMIT).await.is_ok());
        assert_eq!(places(), 1);
        end.send(()).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(places(), 0);
        // Nothing ends it.
        assert!(held.next_of(call(None), LIMIT).await.is_ok());
        assert_eq!((places(), held.calls.acquire().len()), (1, 2));
        sleep(LIMIT + Duration::from_secs(1)).await;
        assert_eq!((places(), held.calls.acquire().len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn edge_4_one_caller_cannot_take_all_places_of_held_calls() {
        let held = HeldCalls::new();
        for _ in 0..MAX_HELD / 2 {
            assert!(held.next_of(asking(1, None), LIMIT).await.is_ok());
        }
        let refused = held.next_of(asking(1, None), LIMIT).await.unwrap_err();
        assert!(refused.message.contains("its share"), "{}", refused.message);
        for other in [asking(2, None), asking(1, Some(1)), asking(1, Some(2))] {
            assert!(held.next_of(other, LIMIT).await.is_ok());
        }
        // The address of a caller that has proved itself does not matter.
        for address in 0..100 {
            let _ = held.next_of(asking(address, Some(1)), LIMIT).await;
        }
        assert!(held.next_of(asking(3, Some(3)), LIMIT).await.is_ok());
    }
}
