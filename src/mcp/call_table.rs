//! The requests of a connection that wait for their answers.
//!
//! MCP-5: ids and progress tokens are ours towards the server, so that those of different callers
//! cannot collide.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use breakerbox_actors::ProgressHold;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::audience::{CallListener, CallSide, CredentialDigest, ServerNotice};
use super::error::McpError;
use super::json_text::{JsonText, MemberEdit, edited, joined, part_of};
use super::message::{MessageId, RawReply};
use crate::lock::LockExt as _;

/// Time for which a server may still speak of a call that was left, unless it answers it. Callers without
/// a session or credentials cannot be told apart, so one that cancels and goes on is silent to itself.
const LEFT: Duration = Duration::from_secs(10);
/// Maximum number of calls that were left. CALL-6: the server may answer none of them.
const MAX_LEFT: usize = 1024;

/// Result of a request.
pub(super) type RequestOutcome = Result<RawReply, McpError>;

/// Requests in flight, by our id.
#[derive(Default)]
pub(super) struct CallTable {
    calls: Mutex<HashMap<u64, PendingCall>>,
    last: AtomicU64,
    /// The next id at the time of the latest message that wants no answer.
    unnamed: AtomicU64,
    /// The highest id that was answered.
    answered: AtomicU64,
    /// Requests that were left, by our id.
    left: Mutex<BTreeMap<u64, LeftCall>>,
}

/// A request that its caller has left before the answer. The server may work on it all the same.
struct LeftCall {
    caller: u64,
    credentials: Option<CredentialDigest>,
    since: Instant,
}

impl LeftCall {
    /// Returns true if it is a call of this caller: by its session, or by its credentials.
    fn is_of(&self, caller: &dyn CallListener) -> bool {
        let has_same = || self.credentials.is_some() && self.credentials == caller.credentials();
        self.caller == caller.caller() || has_same()
    }
}

/// A request in flight.
struct PendingCall {
    /// Over HTTP the answer comes by the request's own response.
    reply: Option<oneshot::Sender<RequestOutcome>>,
    side: CallSide,
    /// The caller's own token for its progress.
    token: Option<JsonText>,
}

/// The caller to which a message without an address belongs.
pub(super) enum RelatedCaller {
    /// No call is in flight.
    None,
    /// All calls in flight are of one caller; one of its listeners.
    One(Arc<dyn CallListener>),
    /// It may belong to a caller that has left. The number of the caller, if it can be of no other one.
    Left(Option<u64>),
    /// Calls of several callers are in flight, or of one that cannot be asked.
    Unknown,
}

impl CallTable {
    /// Returns the next id.
    pub(super) fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert(
        &self,
        id: u64,
        reply: Option<oneshot::Sender<RequestOutcome>>,
        (side, token): (CallSide, Option<JsonText>),
    ) {
        let call = PendingCall { reply, side, token };
        self.calls.acquire().insert(id, call);
    }

    /// Takes the answer of a request over HTTP by another stream than its own.
    pub(super) fn await_elsewhere(&self, id: u64, reply: oneshot::Sender<RequestOutcome>) {
        if let Some(call) = self.calls.acquire().get_mut(&id) {
            call.reply = Some(reply);
        }
    }

    /// Removes a request that has ended by its own response, or was not sent.
    pub(super) fn end(&self, id: u64) {
        let call = self.calls.acquire().remove(&id);
        drop(call);
    }

    /// Removes a request that was sent and is not waited for any more; false if it was answered.
    pub(super) fn leave(&self, id: u64) -> bool {
        let Some(call) = self.calls.acquire().remove(&id) else {
            return false;
        };
        if let Some(listener) = &call.side.listener {
            let own = LeftCall {
                caller: listener.caller(),
                credentials: listener.credentials(),
                since: Instant::now(),
            };
            let mut left = self.left.acquire();
            if left.len() >= MAX_LEFT {
                left.pop_first();
            }
            left.insert(id, own);
        }
        true
    }

    /// Returns the parameters of a request's cancellation, if its caller has sent one.
    pub(super) fn cancelled(&self, id: u64) -> Option<JsonText> {
        let calls = self.calls.acquire();
        calls.get(&id)?.side.cancelled.as_ref()?.get().cloned()
    }

    /// Answers a request. Returns false if none of this id waits.
    pub(super) fn answer(&self, id: u64, outcome: RequestOutcome) -> bool {
        let call = self.calls.acquire().remove(&id);
        let Some(PendingCall { reply, .. }) = call else {
            // The server is done with it too.
            self.left.acquire().remove(&id);
            return false;
        };
        self.answered.fetch_max(id, Ordering::Relaxed);
        if let Some(reply) = reply {
            // The caller may have left in this moment.
            let _ = reply.send(outcome);
        }
        true
    }

    /// Notes a message that wants no answer. Some servers answer it all the same.
    pub(super) fn note_unnamed(&self) {
        let next = self.last.load(Ordering::Relaxed) + 1;
        self.unnamed.fetch_max(next, Ordering::Relaxed);
    }

    /// Answers the only request that waits by an error that names none. If there are others, or if the
    /// error may be about a message that wanted no answer, it is dropped.
    pub(super) fn answer_only(&self, error: McpError) {
        // A later request was answered, so the server has read the message before.
        let is_of_request =
            self.answered.load(Ordering::Relaxed) >= self.unnamed.load(Ordering::Relaxed);
        let only = {
            let calls = self.calls.acquire();
            let mut waiting = calls.iter();
            let only = waiting.next().filter(|_| waiting.next().is_none());
            only.filter(|(_, call)| is_of_request && call.reply.is_some())
                .map(|(id, _)| *id)
        };
        match only {
            // MCP-3: JSON-RPC names no request in the error of one that the server could not read.
            Some(id) => drop(self.answer(id, Err(error))),
            None => tracing::debug!(%error, "an error of the server that belongs to no call"),
        }
    }

    /// Ends all requests without an answer.
    pub(super) fn clear(&self) {
        let calls = std::mem::take(&mut *self.calls.acquire());
        drop(calls);
        self.left.acquire().clear();
    }

    /// Notes the progress of a call, and passes it on if its caller has a token for it.
    pub(super) fn progress(&self, notice: &ServerNotice) {
        let Some(head) = &notice.head else {
            return;
        };
        let token = head.progress_token.as_ref();
        let id = token.and_then(|token| MessageId::new(token.as_str())?.number());
        let found = id.and_then(|id: u64| {
            let calls = self.calls.acquire();
            let call = calls.get(&id)?;
            Some((call.side.clone(), call.token.clone()))
        });
        let Some((side, own)) = found else {
            return;
        };
        if let Some(progress) = &side.progress {
            // MCP-4: progress prolongs the attempt, up to the total.
            progress.note();
        }
        if let (Some(listener), Some(own), Some(params)) = (&side.listener, own, &notice.params) {
            let edit = MemberEdit {
                name: "progressToken",
                present: token,
                value: own.into_bytes(),
            };
            listener.heard(ServerNotice {
                method: Arc::clone(&notice.method),
                params: Some(JsonText::checked(joined(&edited(params, vec![edit])))),
                head: None,
                only_for: None,
            });
        }
    }

    /// Returns the listener of a request in flight.
    pub(super) fn listener(&self, id: u64) -> Option<Arc<dyn CallListener>> {
        self.calls.acquire().get(&id)?.side.listener.clone()
    }

    /// Notes that the server refused a request, because it had forgotten the session.
    pub(super) fn note_forgotten(&self, id: u64) {
        let calls = self.calls.acquire();
        let own = calls
            .get(&id)
            .and_then(|call| call.side.was_forgotten.as_ref());
        if let Some(own) = own {
            own.store(true, Ordering::Release);
        }
    }

    /// Notes a sign of life of a request in flight.
    pub(super) fn note_progress(&self, id: u64) {
        let calls = self.calls.acquire();
        if let Some(progress) = calls.get(&id).and_then(|call| call.side.progress.as_ref()) {
            progress.note();
        }
    }

    /// Begins holds of the calls that a question concerns: those of its caller, or the one that it
    /// belongs to.
    pub(super) fn hold(&self, of: Option<u64>) -> Vec<ProgressHold> {
        let calls = self.calls.acquire();
        let concerned = calls
            .iter()
            .filter(|(id, _)| of.is_none_or(|of| of == **id));
        concerned
            .filter_map(|(_, call)| Some(call.side.progress.as_ref()?.hold()))
            .collect()
    }

    /// Notes a line that is no message, for the calls that may wait for it.
    pub(super) fn note_stray(&self, shown: &str) {
        let calls = self.calls.acquire();
        // MCP-5: a possible answer to one caller is told to no other, also after that one has left.
        if let RelatedCaller::One(_) = self.related_of(&calls) {
            let notes = calls.values().filter_map(|call| call.side.stray.as_ref());
            for note in notes {
                note.get_or_init(|| shown.to_owned());
            }
        }
    }

    /// Returns the caller to which a message without an address belongs.
    pub(super) fn related(&self) -> RelatedCaller {
        self.related_of(&self.calls.acquire())
    }

    /// The same for the calls in flight.
    fn related_of(&self, calls: &HashMap<u64, PendingCall>) -> RelatedCaller {
        let related = related(calls);
        let left = self.present_left();
        let Some(first) = left.values().next() else {
            return related;
        };
        // MCP-5: a message that may belong to one caller's call reaches no other caller, also after the
        // first one has left.
        match &related {
            RelatedCaller::One(present) if left.values().all(|call| call.is_of(&**present)) => {
                related
            }
            RelatedCaller::None if left.values().all(|call| call.caller == first.caller) => {
                RelatedCaller::Left(Some(first.caller))
            }
            RelatedCaller::One(_) | RelatedCaller::None => RelatedCaller::Left(None),
            RelatedCaller::Left(_) | RelatedCaller::Unknown => related,
        }
    }

    /// Returns the calls that were left, and of which the server may still speak.
    fn present_left(&self) -> MutexGuard<'_, BTreeMap<u64, LeftCall>> {
        let mut left = self.left.acquire();
        left.retain(|_, call| call.since.elapsed() < LEFT);
        left
    }

    /// Returns the credentials of all callers with calls in flight, or that have left some; `None` if
    /// they have different ones.
    pub(super) fn credentials(&self) -> Option<Option<CredentialDigest>> {
        let calls = self.calls.acquire();
        let of_callers = calls.values().filter(|call| {
            // Our own requests are no calls.
            call.side.listener.is_some() || call.side.progress.is_some()
        });
        let in_flight = of_callers.map(|call| call.side.listener.as_ref()?.credentials());
        let left = self.present_left();
        let mut all = in_flight.chain(left.values().map(|call| call.credentials));
        let first = all.next().flatten();
        all.all(|other| other == first).then_some(first)
    }
}

/// Returns the parameters by which a server learns that a request is not waited for any more. `told`: of
/// the caller's own notification; `id`: of the request at the server.
pub(super) fn cancellation(told: Option<&JsonText>, id: u64) -> Vec<Bytes> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CancelledCall<'a> {
        #[serde(borrow)]
        request_id: &'a RawValue,
    }
    let id = Bytes::from(id.to_string());
    let own = told.and_then(|told| {
        let text = told.bytes();
        let CancelledCall { request_id } = serde_json::from_slice(text).ok()?;
        Some((told, part_of(text, request_id)))
    });
    let (told, present) = match &own {
        // MCP-5: the reason and the metadata are the caller's.
        Some((told, present)) => ((*told).clone(), Some(present)),
        None => {
            let text = Bytes::from_static(b"{\"reason\":\"its caller does not wait\"}");
            (JsonText::checked(text), None)
        }
    };
    let edit = MemberEdit {
        name: "requestId",
        present,
        value: id,
    };
    edited(&told, vec![edit])
}

fn related(calls: &HashMap<u64, PendingCall>) -> RelatedCaller {
    let mut found: Option<&Arc<dyn CallListener>> = None;
    for call in calls.values() {
        match (&call.side.listener, found) {
            (Some(listener), Some(other)) if listener.caller() == other.caller() => {}
            (Some(listener), None) => found = Some(listener),
            // Our own requests are no calls.
            (None, _) if call.side.progress.is_none() => {}
            _ => return RelatedCaller::Unknown,
        }
    }
    found.map_or(RelatedCaller::None, |found| {
        RelatedCaller::One(Arc::clone(found))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use serde_json::json;

    use super::super::audience::{AnswerFuture, ServerQuestion};
    use super::*;

    #[test]
    fn mcp_3_an_error_without_an_id_answers_the_only_request_and_no_other_message() {
        let table = CallTable::default();
        let begin = || {
            let (reply, answer) = oneshot::channel();
            let id = table.next_id();
            table.insert(id, Some(reply), (CallSide::default(), None));
            (id, answer)
        };
        let refuse = || table.answer_only(McpError::server(-32600, "what?"));
        let (_, mut only) = begin();
        refuse();
        assert!(only.try_recv().unwrap().is_err());
        // It may be about either of two.
        let (first, mut one) = begin();
        let (_, mut other) = begin();
        refuse();
        assert!(one.try_recv().is_err() && other.try_recv().is_err());
        // Some servers answer a notification.
        assert!(table.leave(first));
        table.note_unnamed();
        refuse();
        assert!(other.try_recv().is_err());
        let (second, _answer) = begin();
        assert!(table.answer(second, Err(McpError::server(1, "x"))));
        refuse();
        assert!(other.try_recv().unwrap().is_err());
    }

    #[test]
    fn mcp_5_a_cancellation_passes_in_the_words_of_its_caller() {
        let sent = |told: Option<&str>| {
            let told = told.map(|told| JsonText::checked(told.to_owned().into()));
            JsonText::checked(joined(&cancellation(told.as_ref(), 7))).to_value()
        };
        let told = r#"{"reason":"stop","requestId":"own","_meta":{"own/key":[1]}}"#;
        let expected = json!({ "requestId": 7, "reason": "stop", "_meta": { "own/key": [1] } });
        assert_eq!(sent(Some(told)), expected);
        let ours = json!({ "requestId": 7, "reason": "its caller does not wait" });
        assert_eq!(sent(None), ours);
        let table = CallTable::default();
        let place = Arc::new(OnceLock::new());
        let side = CallSide {
            cancelled: Some(Arc::clone(&place)),
            ..CallSide::default()
        };
        table.insert(7, None, (side, None));
        assert_eq!(table.cancelled(7), None);
        let told = JsonText::checked(told.into());
        place.set(told.clone()).unwrap();
        assert_eq!(table.cancelled(7), Some(told));
    }

    /// A caller with credentials.
    struct NamedCaller(u64, Option<CredentialDigest>);

    impl CallListener for NamedCaller {
        fn caller(&self) -> u64 {
            self.0
        }

        fn credentials(&self) -> Option<CredentialDigest> {
            self.1
        }

        fn heard(&self, _: ServerNotice) {}

        fn ask(&self, _: ServerQuestion) -> AnswerFuture {
            Box::pin(std::future::pending())
        }
    }

    /// Begins a call. Returns its id, and the line that its caller would be shown.
    fn begin(table: &CallTable, caller: NamedCaller) -> (u64, Arc<OnceLock<String>>) {
        let stray = Arc::new(OnceLock::new());
        let side = CallSide {
            listener: Some(Arc::new(caller)),
            stray: Some(Arc::clone(&stray)),
            ..CallSide::default()
        };
        let id = table.next_id();
        table.insert(id, None, (side, None));
        (id, stray)
    }

    /// The caller to which a message without an address belongs; 0 if it is one that has left.
    fn related_caller(table: &CallTable) -> Option<u64> {
        match table.related() {
            RelatedCaller::One(listener) => Some(listener.caller()),
            RelatedCaller::Left(_) => Some(0),
            RelatedCaller::None | RelatedCaller::Unknown => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_5_what_may_be_of_a_call_that_was_left_belongs_to_no_other_caller() {
        let table = CallTable::default();
        let (first, _) = begin(&table, NamedCaller(1, Some([1; 32])));
        begin(&table, NamedCaller(2, Some([2; 32])));
        assert!(table.leave(first));
        assert_eq!(related_caller(&table), Some(0));
        assert_eq!(table.credentials(), None);
        // The server is done with it.
        table.answer(first, Err(McpError::server(1, "late")));
        assert_eq!(related_caller(&table), Some(2));
        assert_eq!(table.credentials(), Some(Some([2; 32])));
        // One that does not answer a call that was cancelled is done with it after a while.
        let (again, _) = begin(&table, NamedCaller(1, None));
        assert!(table.leave(again));
        tokio::time::advance(LEFT / 2).await;
        assert_eq!(related_caller(&table), Some(0));
        tokio::time::advance(LEFT / 2).await;
        assert_eq!(related_caller(&table), Some(2));
        // A call that its own response has answered, or that was not sent, was not left.
        let (ended, _) = begin(&table, NamedCaller(3, None));
        table.end(ended);
        assert_eq!(related_caller(&table), Some(2));
        assert!(!table.leave(ended));
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_5_callers_without_a_session_are_one_by_their_credentials() {
        let table = CallTable::default();
        let (left, _) = begin(&table, NamedCaller(1, Some([1; 32])));
        assert!(table.leave(left));
        let (own, _) = begin(&table, NamedCaller(2, Some([1; 32])));
        assert_eq!(related_caller(&table), Some(2));
        table.end(own);
        begin(&table, NamedCaller(3, None));
        assert_eq!(related_caller(&table), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn mcp_5_a_caller_that_left_one_of_its_calls_hears_of_the_others() {
        let table = CallTable::default();
        let (first, _) = begin(&table, NamedCaller(1, None));
        let (second, _) = begin(&table, NamedCaller(1, None));
        assert!(table.leave(first));
        assert_eq!(related_caller(&table), Some(1));
        assert!(table.leave(second));
        assert!(matches!(table.related(), RelatedCaller::Left(Some(1))));
        let (third, _) = begin(&table, NamedCaller(2, None));
        assert!(table.leave(third));
        assert!(matches!(table.related(), RelatedCaller::Left(None)));
        for _ in 0..2 * MAX_LEFT {
            let (id, _) = begin(&table, NamedCaller(2, None));
            table.leave(id);
        }
        assert_eq!(table.left.acquire().len(), MAX_LEFT);
    }

    #[test]
    fn mcp_5_a_line_that_may_be_the_answer_of_a_caller_that_left_is_shown_to_no_other() {
        let table = CallTable::default();
        let (late, _) = begin(&table, NamedCaller(1, None));
        assert!(table.leave(late));
        let (other, shown) = begin(&table, NamedCaller(2, None));
        table.note_stray("of the first");
        assert_eq!(shown.get(), None);
        // Its answer shows that the server is done with the call.
        table.answer(late, Err(McpError::server(1, "late")));
        table.note_stray("of the second");
        assert_eq!(shown.get().map(String::as_str), Some("of the second"));
        assert!(table.leave(other));
        let (_, again) = begin(&table, NamedCaller(2, None));
        table.note_stray("of the same");
        assert!(again.get().is_some());
    }

    #[test]
    fn mcp_6_callers_with_calls_in_flight_are_told_apart_by_their_credentials() {
        let table = CallTable::default();
        assert_eq!(table.credentials(), Some(None));
        begin(&table, NamedCaller(1, Some([1; 32])));
        begin(&table, NamedCaller(2, Some([1; 32])));
        assert_eq!(table.credentials(), Some(Some([1; 32])));
        begin(&table, NamedCaller(3, Some([2; 32])));
        assert_eq!(table.credentials(), None);
    }
}
